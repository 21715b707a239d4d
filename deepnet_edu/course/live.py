"""Pictures that follow a run while a notebook's cell trains."""

import time
from collections.abc import Callable, Mapping

from IPython.display import display
from matplotlib.figure import Figure

from deepnet_edu.figures import Picture
from deepnet_edu.figures.loss import LossFigure
from deepnet_edu.figures.picture import with_palette
from deepnet_edu.model import Model
from deepnet_edu.profiles import History
from deepnet_edu.training import Task, TrainConfig, train

#: Drawing takes a quarter of a second: often enough to watch, seldom enough not to slow the run down.
REDRAW_S = 4.0


class LivePicture:
    """A picture that is redrawn in place while a cell runs, and stays as it was last drawn when the kernel is gone.

    Args:
        draw: makes the figure, or its PNG, from whatever it looks at.
        alt: what the finished picture shows.
    """

    def __init__(self, draw: Callable[[], Figure | bytes], alt: str) -> None:
        self.draw, self.alt = draw, alt
        self._handle = display(Picture(draw(), alt), display_id=True)
        self._next = time.monotonic() + 1.0

    def update(self) -> None:
        """Redraw, after a second for the first time and then at most every four."""
        if time.monotonic() >= self._next:
            self.finish()
            self._next = time.monotonic() + REDRAW_S

    def finish(self) -> None:
        """Redraw now."""
        self._handle.update(Picture(self.draw(), self.alt))


class LiveLoss(LivePicture):
    """Loss and learning rate of a run in one picture that follows it: ``train(…, on_step=kit.LiveLoss(config, alt))``.

    It is redrawn at most twice a second, and more seldom where that would take more than 1% of the time.

    Args:
        config: of the run.
        alt: what the finished picture shows.
        chance: horizontal yardsticks, nats per token, by label.
    """

    def __init__(self, config: TrainConfig, alt: str, chance: Mapping[str, float] | None = None) -> None:
        figure = LossFigure(config.steps, config.learning_rate, alt, chance)
        self._steps, self._history = config.steps, History("")

        def draw() -> bytes:
            png = figure.png(self._history)
            return with_palette(png) if self._ended() else png  # the picture that is kept: a palette takes 60 ms

        super().__init__(draw, alt)
        self._next = 0.0  # the first point too: it is drawn into a figure that is there

    def __call__(self, history: History) -> None:
        """Redraw after a step; the last one is always drawn."""
        self._history = history
        begin = time.monotonic()
        if self._ended() or begin >= self._next:
            self.finish()
            now = time.monotonic()
            self._next = now + max(0.5, 100 * (now - begin))

    def _ended(self) -> bool:
        return len(self._history.loss) >= self._steps


def train_live(
    picture: LivePicture, runs: dict[str, History], model: Model, task: Task, config: TrainConfig
) -> History:
    """Train, and redraw ``picture`` on the way; the history is in ``runs`` under the name of the model's rule."""

    def follow(history: History) -> None:
        runs[model.config.residual] = history
        picture.update()

    history = train(model, task, config, on_step=follow, progress=False)
    picture.finish()
    return history
