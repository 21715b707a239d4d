"""Explorer 2: where training is possible."""

from collections.abc import Sequence
from math import log
from typing import Any, ClassVar

import numpy as np

from deepnet_edu.explorers import grid as recorded
from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Dial
from deepnet_edu.explorers.grid import Grid
from deepnet_edu.explorers.settings import LEARNED, MAP_RECIPE, VOCABULARY, tied_beta
from deepnet_edu.figures.trainability import TrainabilityFigure, TrainabilityMap, TrainabilityView
from deepnet_edu.messages import UserError
from deepnet_edu.profiles import Array
from deepnet_edu.scaling import deepnorm_constants

#: Variance of a branch of gain 1, mean of attention and feed-forward, in the stacks of the map, by theory with flat
#: scores and tokens that differ. A real stack at this α has about 0.3, as its tokens become more similar (lesson 08).
BRANCH = 0.2
#: Where no grid can be read.
_DEPTHS, _ALPHAS = (8, 16, 32, 64, 128, 256, 512, 1000), (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_WORDS = {
    "learned": "has learned",
    "slow": "has not learned yet",
    "lost": "began with nearly equal tokens",
    "diverged": "diverged",
}


def half_left(depths: Sequence[int], s: float = BRANCH) -> Array:
    """α at which half of the input's variance is left at the top of this many layers, where β = 1/(√2·α).

    A sub-layer keeps 1/(1 + s/(4α⁶)): α = (s/(4(2^(1/2N) - 1)))^(1/6).

    Args:
        depths: N.
        s: variance of a branch with gain 1, for an input of variance 1.
    """
    return np.array([(s / (4 * (2 ** (1 / (2 * n)) - 1))) ** (1 / 6) for n in depths])


def trainability_map(grid: Grid | None) -> TrainabilityMap:
    """What the figure shows of a grid; of none, the two curves alone."""
    if grid is None:
        return _map(_DEPTHS, _ALPHAS, np.zeros((len(_ALPHAS), len(_DEPTHS))), [[""] * len(_DEPTHS)] * len(_ALPHAS), 3)
    cells = [[grid.cell(depth, alpha) for depth in grid.depths] for alpha in grid.alphas]
    learned = np.array([[sum(run.outcome == "learned" for run in runs) for runs in row] for row in cells])

    def word(runs: Sequence[Any]) -> str:
        failed = [run.outcome for run in runs if run.outcome != "learned"]
        return max(set(failed), key=failed.count) if failed else ""

    return _map(grid.depths, grid.alphas, learned, [[word(runs) for runs in row] for row in cells], len(grid.seeds))


def _map(
    depths: Sequence[int], alphas: Sequence[float], learned: Array, outcomes: Sequence[Sequence[str]], seeds: int
) -> TrainabilityMap:
    constants = [deepnorm_constants(decoder_layers=depth).decoder for depth in depths]
    return TrainabilityMap(
        depths,
        alphas,
        learned,
        outcomes,
        seeds,
        np.array([one.alpha for one in constants if one is not None]),
        half_left(depths),
        log(VOCABULARY),
        LEARNED,
        MAP_RECIPE.steps,
    )


class TrainabilityExplorer(Explorer):
    """Depth and α → a marker on the map of measured verdicts, and the runs behind its cell."""

    name = "map"
    title = "α × depth: where training is possible"
    about = "move depth and α over the map of measured runs; a third slider walks through the runs behind a cell."
    what = (
        "Each cell is one depth and one α, with β = 1/(√2·α): three seeds, 40 steps each. The darker a cell, the more "
        "of its seeds learned.",
        "Below the dark band, ×: the tokens arrive nearly equal, and the loss stays at ln 16, that of a uniform guess. "
        "The edge is sharp, and runs along the α at which theory has half of the input left.",
        "Above the band, ·: nothing is broken, but the branches are so faint that 40 steps at this learning rate are "
        "too few. “Not yet” is not “never”: this edge belongs to the recipe.",
        "The circle is your cell, the curve at the right one of its runs. The black line is the paper's α = (2N)^¼.",
    )
    presets: ClassVar[Any] = {
        "In the band": {},
        "Tokens nearly equal": {"alpha": 1.0},
        "Not yet": {"depth": 16, "alpha": 8.0},
        "Half of the input at 1,000": {"depth": 1000, "alpha": 2.3784},
    }

    def __init__(self, depth: int = 256, alpha: float = 4.0, **more: Any) -> None:
        try:
            over = trainability_map(recorded.load())
        except UserError:  # said in the explorer's own line
            over = trainability_map(None)
        self.depth = Dial("depth (layers)", over.depths, 256, whole=True)
        self.alpha = Dial("α", over.alphas, 4.0, note="the factor on the skip is positive")
        self.run = Dial("one run of the cell", range(1, over.seeds + 1), 1, whole=True)
        given = {"depth": depth, "alpha": alpha, **more}
        super().__init__(["depth", "alpha", "run"], TrainabilityFigure(over), given)

    def view(self, measured: Any) -> TrainabilityView:
        """The marker, and a run if there is one with exactly these settings."""
        depth, alpha, number = int(self.depth.value), float(self.alpha.value), int(self.run.value)
        runs = self.grid.cell(depth, alpha) if self.grid else []
        title = f"{depth:,} layers, α = {alpha:.3g}, β = {tied_beta(alpha):.3g}"
        source = f"The map was {self.grid.date}." if self.grid else "Nothing measured."
        if not runs:
            return TrainabilityView(
                title, "Nothing was measured here: the sliders stop where it was.", source, depth, alpha, None, "no run"
            )
        run, learned = runs[number - 1], sum(one.outcome == "learned" for one in runs)
        return TrainabilityView(
            title,
            f"{learned} of {len(runs)} seeds learn; run {number} {_WORDS[run.outcome]}, its loss ends at "
            f"{run.final_loss:.2f}, and its tokens had a cosine of {run.similarity:.2f} before training.",
            source,
            depth,
            alpha,
            run.loss,
            f"run {number} of {len(runs)}: {_WORDS[run.outcome]}",
        )
