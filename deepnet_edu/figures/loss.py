"""A run under way: its loss, and the learning rate below it."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from deepnet_edu.figures.picture import DPI
from deepnet_edu.figures.style import control_style, designed, series_style
from deepnet_edu.profiles import History


class LossFigure:
    """Steps against loss and learning rate, on axes that are fixed at the first step; only what moves is drawn again.

    A loss far above the first one leaves the picture at its top; the title says what it is.

    Args:
        steps: length of the run.
        learning_rate: the largest of the run.
        alt: what the finished picture shows.
        chance: horizontal yardsticks, nats per token, by label.
    """

    @designed()
    def __init__(self, steps: int, learning_rate: float, alt: str, chance: Mapping[str, float] | None = None) -> None:
        self.figure = Figure(figsize=(8, 4.8), dpi=DPI)
        self._upper, lower = self.figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        self._canvas = FigureCanvasAgg(self.figure)
        self._background: Any = None
        self.alt = alt
        self._chance = dict(chance or {})
        self.figure.get_layout_engine().set(rect=(0, 0, 1, 0.93))  # type: ignore[union-attr, call-arg]
        for i, (label, value) in enumerate(self._chance.items()):
            self._upper.axhline(value, label=label, **control_style(i))
        (self._loss,) = self._upper.plot([], [], label="this run", **{**series_style(1), "linestyle": "-"})
        (self._rate,) = lower.plot([], [], **{**series_style(0), "linestyle": "-"})
        self._fixed = False
        self._fix_top(max(self._chance.values(), default=1.0))
        self._upper.set(xlim=(0, steps), ylabel="loss (nats per token)")
        lower.set(ylim=(0, 1.15 * learning_rate), xlabel="step", ylabel="learning\nrate")
        lower.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        lower.yaxis.set_major_locator(MaxNLocator(3))
        if self._chance:
            self._upper.legend(loc="upper right", fontsize=9, frameon=False)
        self._title = self.figure.text(0.01, 0.985, "", fontsize=12, weight="bold", va="top")
        self._moving = (self._loss, self._rate, self._title)
        for artist in self._moving:
            artist.set_animated(True)

    @designed()
    def png(self, view: History) -> bytes:
        """The picture of a run, as PNG."""
        self.move(view)
        if self._background is None:
            self._canvas.draw()
            self.figure.set_layout_engine("none")  # what was laid out stays
            self._background = self._canvas.copy_from_bbox(self.figure.bbox)
        self._canvas.restore_region(self._background)
        for artist in self._moving:
            self.figure.draw_artist(artist)
        packed = BytesIO()
        Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB").save(packed, "png", compress_level=1)
        return packed.getvalue()

    def move(self, view: History) -> None:
        """Lines to where the run is."""
        if view.loss and not self._fixed:
            self._fix_top(max((value for value in (view.loss[0], *self._chance.values()) if value < np.inf), default=1))
            self._fixed, self._background = True, None
        steps = np.arange(len(view.loss))
        self._loss.set_data(steps, view.loss)
        self._rate.set_data(steps, view.learning_rate)
        self._title.set_text(f"step {len(view.loss):,}, loss {view.loss[-1]:.3f}" if view.loss else "no step yet")

    def _fix_top(self, largest: float) -> None:
        self._upper.set_ylim(0, 1.15 * largest)
