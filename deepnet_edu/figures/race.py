"""Explorer 4: the model update ‖ΔF‖ in the first steps, on the bound of Theorem 4.2."""

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from deepnet_edu.figures.moving import Moving
from deepnet_edu.figures.style import designed, line_style
from deepnet_edu.profiles import Array
from deepnet_edu.residual import RESIDUALS

_LOW, _HIGH = 1e-4, 1e3


@dataclass(frozen=True)
class RaceView:
    """What the picture shows; arrays are (steps + 1,), 0 at first.

    Attributes:
        residual: the rule, for its colour.
        title: rule, depth and recipe.
        bound: right-hand side of the theorem, None where it says nothing.
        measured: ‖ΔF‖, or None.
        others: the same of other rules, by name, where they were recorded with the same settings.
        source: where the points come from.
    """

    residual: str
    title: str
    bound: Array | None
    measured: Array | None
    others: Mapping[str, Array]
    source: str


class RaceFigure(Moving[RaceView]):
    """Steps against ‖ΔF‖ on a fixed logarithmic axis.

    Args:
        rules: those that can be raced.
        steps: how many are taken.
    """

    @designed()
    def __init__(self, rules: tuple[str, ...], steps: int) -> None:
        self.figure = Figure(figsize=(8.2, 4.8))
        ax = self.figure.subplots()
        super().__init__()
        self.figure.get_layout_engine().set(rect=(0, 0.06, 1, 0.85))  # type: ignore[union-attr, call-arg]
        ax.set(xlim=(0.5, steps + 0.5), ylim=(_LOW, _HIGH), yscale="log", xlabel="step")
        ax.set_ylabel("‖ΔF‖: change of the answers since init")
        ax.axhline(np.sqrt(2), color="black", lw=0.8)
        ax.text(steps + 0.4, 1.6, "answers as far apart as those of two models", ha="right", va="bottom", fontsize=8.5)
        self._others = {rule: ax.plot([], [], lw=1.2, marker=".", alpha=0.7)[0] for rule in rules}
        for rule, line in self._others.items():
            style = line_style(rule)
            line.set(color=style["color"], linestyle=style["linestyle"], label=f"{RESIDUALS[rule].title}, recorded")
        (self._bound,) = ax.plot([], [], color="black", lw=2.5, ls=(0, (4, 2)), label="the theorem's bound")
        (self._points,) = ax.plot([], [], "o", ms=9, mec="black", label="measured")
        ax.legend(loc="lower right", fontsize=8.5, ncols=2, frameon=False)
        self._title = self.figure.text(0.01, 0.985, "", fontsize=12, weight="bold", va="top")
        self._source = self.figure.text(0.01, 0.012, "", fontsize=9)
        self.moves(*self._others.values(), self._bound, self._points, self._title, self._source)

    def move(self, view: RaceView) -> None:
        """Lines at once, points when they are known."""

        def put(line: matplotlib.lines.Line2D, values: Array | None) -> None:
            line.set_visible(values is not None)
            if values is not None:
                line.set_data(np.arange(1, len(values)), np.clip(values[1:], _LOW, _HIGH))

        for rule, line in self._others.items():
            put(line, view.others.get(rule))
        put(self._bound, view.bound)
        put(self._points, view.measured)
        self._points.set_color(line_style(view.residual)["color"])
        self._title.set(text=view.title)
        self._source.set(text=view.source)
        said = "not measured yet" if view.measured is None else f"{view.measured[1]:.2g} after one step"
        bound = "" if view.bound is None else f", bound {view.bound[1]:.2g}"
        self.alt = f"{view.title}. Change of the answers in the first steps, logarithmic: {said}{bound}. {view.source}."


def race(view: RaceView) -> Figure:
    """One picture of a race."""
    steps = next(len(a) - 1 for a in (view.bound, view.measured, np.zeros(13)) if a is not None)
    return RaceFigure((*dict.fromkeys([view.residual, *view.others]),), steps).show(view)
