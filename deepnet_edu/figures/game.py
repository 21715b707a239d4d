"""Explorer 6, the game: the loss of the run that is on, and how deep the stacks came that learned."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from deepnet_edu.figures.scene import Scene, Words


@dataclass(frozen=True)
class Round:
    """One registered try: depth, what was chosen, and whether the stack learned."""

    depth: int
    choice: str
    learned: bool


@dataclass(frozen=True)
class GameView(Words):
    """What the picture shows.

    Attributes:
        depth: of the stack that is next, or on.
        loss: of the run that is on, or was last; empty before the first.
        rounds: all tries of this game.
        best: deepest stack that has ever learned, 0 for none.
    """

    depth: int
    loss: Sequence[float]
    rounds: Sequence[Round]
    best: int


class GameFigure(Scene[GameView]):
    """The run on the left, the ladder of depths on the right.

    Args:
        depths: steps of the ladder.
        steps: of a run.
        chance: loss of a uniform guess, nats per token.
        target: loss below which a stack counts as having learned.
    """

    def __init__(self, depths: Sequence[int], steps: int, chance: float, target: float) -> None:
        self._depths, self._steps, self._chance, self._target = list(depths), steps, chance, target
        super().__init__()

    def build(self, figure: Figure) -> None:
        """Both axes; names of lines are in a margin that no curve reaches."""
        left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
        steps, depths = self._steps, self._depths
        left.plot([0, self._steps], [self._chance] * 2, color="black", lw=1)
        left.plot([0, self._steps], [self._target] * 2, color="#009E73", lw=1.5, ls="--")
        margin = steps * 1.02
        left.text(margin, self._chance, "uniform\nguess", va="bottom", fontsize=9)
        left.text(
            margin,
            self._target - 0.05,
            "goal: mean of\nthe last five\nbelow this",
            va="top",
            fontsize=9,
            color="#00694d",
        )
        left.set(xlim=(0, steps * 1.4), ylim=(0, 2 * self._chance), xlabel="step", ylabel="loss (nats per token)")
        left.set_xticks(range(0, steps + 1, 10))
        (self._loss,) = left.plot([], [], color="#0072B2", ls="-", lw=2.5)
        right.set(xlim=(-0.5, 1.5), ylim=(-0.6, len(depths) - 0.4), ylabel="layers")
        right.set_yticks(range(len(depths)), [f"{depth:,}" for depth in depths])
        right.set_xticks([0, 1], ["not yet", "learned"])
        (self._done,) = right.plot([], [], "o", color="#009E73", ms=12, mec="black")
        (self._failed,) = right.plot([], [], "X", color="#D55E00", ms=12, mec="black")
        (self._next,) = right.plot([], [], color="#0072B2", lw=2, ls=":")
        self.moves(self._loss, self._next, self._done, self._failed)

    def move(self, view: GameView) -> str:
        """Where the game is."""
        self._loss.set_data(np.arange(1, len(view.loss) + 1), view.loss)
        for line, learned in ((self._done, True), (self._failed, False)):
            heights = [self._depths.index(one.depth) for one in view.rounds if one.learned == learned]
            line.set_data([float(learned)] * len(heights), heights)
        self._next.set_data([-0.5, 1.5], [self._depths.index(view.depth)] * 2)
        tries = "; ".join(f"{one.depth:,} layers {'learned' if one.learned else 'not yet'}" for one in view.rounds)
        return f"The loss by step, and a ladder of depths. Tries so far: {tries or 'none'}."
