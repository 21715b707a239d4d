"""Explorer 2: where training is possible, a map over depth and α, and the runs behind one of its cells."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from deepnet_edu.figures.moving import Moving
from deepnet_edu.figures.style import designed
from deepnet_edu.profiles import Array

#: From no seed that learned to all of them: one hue, lighter to darker, so that grey shows it too.
_SHADES = ["#f4f1ea", "#b9d3e6", "#5f9fc9", "#0a5a94"]
_SIGNS = {"lost": "×", "slow": "·", "diverged": "!"}


@dataclass(frozen=True)
class TrainabilityMap:
    """What was measured, and the two curves over it.

    Attributes:
        depths: (d,) layers.
        alphas: (a,).
        learned: (a, d) number of seeds that learned.
        outcomes: (a, d) the word for cells where not all did, empty where all did.
        seeds: runs of each cell.
        paper: (d,) the paper's α.
        edge: (d,) α at which half of the input is left at the top, by theory.
        chance: loss that knows nothing, nats per token.
        threshold: below it a run has learned.
        steps: length of the runs.
    """

    depths: Sequence[int]
    alphas: Sequence[float]
    learned: Array
    outcomes: Sequence[Sequence[str]]
    seeds: int
    paper: Array
    edge: Array
    chance: float
    threshold: float
    steps: int


@dataclass(frozen=True)
class TrainabilityView:
    """Where the finger is.

    Attributes:
        depth, alpha: of the marker.
        loss: (steps,) of the run that is shown, None where there is none.
        title: of the picture.
        run: of the curve, which run and what became of it.
        source: where the runs come from.
    """

    depth: int
    alpha: float
    loss: Array | None
    title: str
    run: str
    source: str


class TrainabilityFigure(Moving[TrainabilityView]):
    """The map stays, the marker and the curve move."""

    @designed()
    def __init__(self, over: TrainabilityMap) -> None:
        self.figure = Figure(figsize=(8.8, 4.9))
        left, right = self.figure.subplots(1, 2, width_ratios=(1.5, 1))
        super().__init__()
        self.figure.get_layout_engine().set(rect=(0, 0, 1, 0.87))  # type: ignore[union-attr, call-arg]
        x, y = np.log2(over.depths), np.log2(over.alphas)
        shades = ListedColormap([_SHADES[round(3 * n / over.seeds)] for n in range(over.seeds + 1)])
        left.grid(False)
        left.pcolormesh(
            _edges(x),
            _edges(y),
            over.learned,
            cmap=shades,
            vmin=-0.5,
            vmax=over.seeds + 0.5,
            edgecolors="white",
            lw=0.5,
        )
        for i, row in enumerate(over.outcomes):
            for k, word in enumerate(row):
                if word:
                    left.text(x[k], y[i], _SIGNS[word], ha="center", va="center", fontsize=9, color="#333333")
        left.plot(x, np.log2(over.paper), color="black", ls="-", lw=2.5, label="the paper's α = (2N)^¼")
        left.plot(x, np.log2(over.edge), color="#D55E00", lw=2.5, ls="--", label="half of the input left (theory)")
        left.set_xticks(x, [f"{depth:,}" for depth in over.depths], fontsize=8)
        ticks = [0, 1, 2, 3, 4, 5]
        left.set_yticks(ticks, [f"{2**tick}" for tick in ticks])
        left.set(xlabel="layers N", ylabel="α, with β = 1/(√2·α)")
        left.set_xlim(_edges(x)[[0, -1]])
        left.set_ylim(_edges(y)[[0, -1]])
        handles = [Patch(fc=shades(n), ec="grey", label=f"{n} of {over.seeds} seeds learn") for n in (0, over.seeds)]
        lines, _ = left.get_legend_handles_labels()
        self.figure.legend(handles=[*lines, *handles], loc="outside lower center", ncols=2, fontsize=8.5, frameon=False)
        left.set_title("× tokens all alike   · not yet   ! diverged", fontsize=9)
        (self._marker,) = left.plot([], [], "o", ms=15, mfc="none", mec="#CC79A7", mew=3)
        right.axhline(over.chance, color="black", lw=0.8)
        right.axhline(over.threshold, color="black", lw=0.8, ls=":")
        right.text(over.steps, over.chance, "knows nothing", ha="right", va="bottom", fontsize=8)
        right.text(over.steps, over.threshold, "has learned", ha="right", va="bottom", fontsize=8)
        right.set(xlim=(0, over.steps), ylim=(0, 2 * over.chance), xlabel="step", ylabel="loss (nats per token)")
        (self._loss,) = right.plot([], [], color="#0072B2", ls="-", lw=2.5)
        self._run = right.text(0.02, 0.98, "", transform=right.transAxes, fontsize=9, va="top")
        self._title = self.figure.text(0.01, 0.985, "", fontsize=12, weight="bold", va="top")
        self._source = self.figure.text(0.01, 0.925, "", fontsize=8.5, va="top")
        self.moves(self._marker, self._loss, self._run, self._title, self._source)

    def move(self, view: TrainabilityView) -> None:
        """The marker stands on the map, the curve is the run's."""
        self._marker.set_data([np.log2(view.depth)], [np.log2(view.alpha)])
        self._loss.set_visible(view.loss is not None)
        if view.loss is not None:
            self._loss.set_data(np.arange(1, len(view.loss) + 1), view.loss)
        self._run.set(text=view.run)
        self._title.set(text=view.title)
        self._source.set(text=view.source)
        self.alt = (
            "A map of layers against α, shaded by how many seeds learn: nothing below an edge that rises slowly with "
            "depth, all runs in a band above it with the paper's curve inside, too slow to learn far above. "
            f"Marker: {view.title}. Beside it a loss curve: {' · '.join(view.run.splitlines())}. {view.source}."
        )


def trainability(over: TrainabilityMap, view: TrainabilityView) -> Figure:
    """One picture of the map."""
    return TrainabilityFigure(over).show(view)


def _edges(centres: Array) -> Array:
    """Borders between cells of different widths."""
    between = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - between[0]], between, [2 * centres[-1] - between[-1]]])
