"""Explorer 6, the game: the loss of the run that is on, and how deep the stacks came that stayed alive."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from deepnet_edu.figures.moving import Moving
from deepnet_edu.figures.style import designed


@dataclass(frozen=True)
class Round:
    """One registered try: depth, what was chosen, and whether the stack learned."""

    depth: int
    choice: str
    alive: bool


@dataclass(frozen=True)
class GameView:
    """What the picture shows.

    Attributes:
        depth: of the stack that is next, or on.
        loss: of the run that is on, or was last; empty before the first.
        rounds: all tries of this game.
        best: deepest stack that was ever alive, 0 for none.
        title: what to do now.
    """

    depth: int
    loss: Sequence[float]
    rounds: Sequence[Round]
    best: int
    title: str


class GameFigure(Moving[GameView]):
    """The run on the left, the ladder of depths on the right.

    Args:
        depths: steps of the ladder.
        steps: of a run.
        chance: loss that knows nothing, nats per token.
        target: loss below which a stack counts as alive.
    """

    @designed()
    def __init__(self, depths: Sequence[int], steps: int, chance: float, target: float) -> None:
        self.figure = Figure(figsize=(8.4, 3.9))
        left, right = self.figure.subplots(1, 2, width_ratios=(1.3, 1))
        super().__init__()
        self.figure.get_layout_engine().set(rect=(0, 0.07, 1, 0.83))  # type: ignore[union-attr, call-arg]
        self._depths = list(depths)
        left.axhline(chance, color="black", lw=0.8)
        left.axhline(target, color="#009E73", lw=1.5, ls="--")
        left.text(steps, chance, "knows nothing", ha="right", va="bottom", fontsize=8.5)
        left.text(steps, target, "alive below this", ha="right", va="top", fontsize=8.5, color="#00694d")
        left.set(xlim=(0, steps), ylim=(0, 2 * chance), xlabel="step", ylabel="loss (nats per token)")
        (self._loss,) = left.plot([], [], color="#0072B2", ls="-", lw=2.5)
        right.set(xlim=(-0.5, 1.5), ylim=(-0.6, len(depths) - 0.4), ylabel="layers")
        right.set_yticks(range(len(depths)), [f"{depth:,}" for depth in depths])
        right.set_xticks([0, 1], ["died", "alive"])
        (self._alive,) = right.plot([], [], "o", color="#009E73", ms=12, mec="black")
        (self._dead,) = right.plot([], [], "X", color="#D55E00", ms=12, mec="black")
        (self._next,) = right.plot([], [], color="#0072B2", lw=2, ls=":")
        self._title = self.figure.text(0.01, 0.985, "", fontsize=12, weight="bold", va="top")
        self._score = self.figure.text(0.01, 0.02, "", fontsize=10)
        self.moves(self._loss, self._alive, self._dead, self._next, self._title, self._score)

    def move(self, view: GameView) -> None:
        """Where the game stands."""
        self._loss.set_data(np.arange(1, len(view.loss) + 1), view.loss)
        for line, alive in ((self._alive, True), (self._dead, False)):
            heights = [self._depths.index(one.depth) for one in view.rounds if one.alive == alive]
            line.set_data([float(alive)] * len(heights), heights)
        self._next.set_data([-0.5, 1.5], [self._depths.index(view.depth)] * 2)
        self._title.set(text=view.title)
        last = f"last: {view.rounds[-1].choice}" if view.rounds else ""
        self._score.set(text=f"deepest stack alive: {view.best:,} layers    {last}" if view.best else last)
        self.alt = (
            f"The game. {view.title} Tries so far: "
            + ("; ".join(f"{r.depth} layers {'alive' if r.alive else 'died'}" for r in view.rounds) or "none")
            + f". Deepest stack alive: {view.best or 'none'}."
        )


def game(view: GameView) -> Figure:
    """One picture of a game."""
    depths = sorted({view.depth, *(one.depth for one in view.rounds)})
    return GameFigure(depths, max(1, len(view.loss)), 2.77, 2.0).show(view)
