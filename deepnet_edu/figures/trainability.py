"""Explorer 2: where training is possible, a map over depth and α, and the runs behind one of its cells."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from deepnet_edu.figures.scene import Scene, Words, key_below
from deepnet_edu.profiles import Array

#: From no seed that learned to all of them: one hue, lighter to darker, so that grey shows it too.
_SHADES = ["#f4f1ea", "#b9d3e6", "#5f9fc9", "#0a5a94"]
#: How runs failed, most often of a cell: marker, words.
_SIGNS = {"lost": ("x", "tokens nearly equal"), "slow": (".", "not yet"), "diverged": ("^", "diverged")}


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
        chance: loss of a uniform guess, nats per token.
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
class TrainabilityView(Words):
    """The chosen cell.

    Attributes:
        depth, alpha: of the marker.
        loss: (steps,) of the run that is shown, None where there is none.
        run: of the curve, which run and what became of it.
    """

    depth: int
    alpha: float
    loss: Array | None
    run: str


class TrainabilityFigure(Scene[TrainabilityView]):
    """The map stays, the marker and the curve move."""

    def __init__(self, over: TrainabilityMap) -> None:
        self._map = over
        super().__init__()

    def build(self, figure: Figure) -> None:
        """The map and an empty curve."""
        over = self._map
        left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
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
        signs = []
        for word, (marker, words) in _SIGNS.items():
            found = [(x[k], y[i]) for i, row in enumerate(over.outcomes) for k, one in enumerate(row) if one == word]
            if found:
                signs += left.plot(*zip(*found, strict=True), **_sign(marker), label=words)
        seen = [withStroke(linewidth=5.5, foreground="white")]  # on any shade, dark pages too
        (paper,) = left.plot(
            x, np.log2(over.paper), color="black", ls="-", lw=2.5, path_effects=seen, label="the paper's α"
        )
        (edge,) = left.plot(
            x, np.log2(over.edge), color="#D55E00", lw=2.5, ls="--", path_effects=seen,
            label="half of the input left (theory)",
        )  # fmt: skip
        # Depths between powers of two would overlap.
        marked = [depth for depth in over.depths if depth == 2 ** int(np.log2(depth)) or depth == over.depths[-1]]
        left.set_xticks(np.log2(marked), [f"{depth:,}" for depth in marked], fontsize=9)
        left.set_yticks(range(6), [f"{2**tick}" for tick in range(6)])
        left.set(xlabel="layers N", ylabel="α, with β = 1/(√2·α)")
        left.set_xlim(_edges(x)[[0, -1]])
        left.set_ylim(_edges(y)[[0, -1]])
        patches = [Patch(fc=shades(n), ec="#777777", label=f"{n} of {over.seeds} learn") for n in range(over.seeds + 1)]
        key_below(figure, [paper, edge, *patches, *signs], most=5)
        (self._halo,) = left.plot([], [], "o", ms=17, mfc="none", mec="white", mew=7)
        (self._marker,) = left.plot([], [], "o", ms=17, mfc="none", mec="black", mew=3)
        right.plot([0, over.steps], [over.chance] * 2, color="black", lw=1)
        right.plot([0, over.steps], [over.threshold] * 2, color="#009E73", lw=1.5, ls="--")
        margin = over.steps * 1.03
        right.text(margin, over.chance, "uniform\nguess", va="center", fontsize=9)
        right.text(margin, over.threshold, "learned\nbelow\nthis", va="center", fontsize=9, color="#00694d")
        right.set(xlim=(0, over.steps * 1.4), ylim=(0, 2 * over.chance), xlabel="step", ylabel="loss (nats per token)")
        right.set_xticks(range(0, over.steps + 1, max(1, over.steps // 4)))
        (self._loss,) = right.plot([], [], color="#0072B2", ls="-", lw=2.5)
        self._run = right.text(0.03, 0.97, "", transform=right.transAxes, fontsize=9.5, va="top")
        self.moves(self._halo, self._marker, self._loss, self._run)

    def move(self, view: TrainabilityView) -> str:
        """The marker shows the cell, the curve is the run's."""
        for ring in (self._halo, self._marker):
            ring.set_data([np.log2(view.depth)], [np.log2(view.alpha)])
        self._loss.set_visible(view.loss is not None)
        if view.loss is not None:
            self._loss.set_data(np.arange(1, len(view.loss) + 1), view.loss)
        self._run.set(text=view.run)
        return (
            "A map of layers against α, shaded by how many seeds learn: nothing below an edge that rises slowly with "
            "depth, all runs in a band above it with the paper's curve inside, too slow to learn far above. "
            f"A circle marks the cell; beside the map is a loss curve: {view.run}."
        )


def _sign(marker: str) -> dict[str, object]:
    return {"marker": marker, "color": "#333333", "ls": "", "ms": 8 if marker == "." else 5.5, "mew": 1.4}


def _edges(centres: Array) -> Array:
    """Borders between cells of different widths."""
    between = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - between[0]], between, [2 * centres[-1] - between[-1]]])
