"""Explorer 4: the model update ‖ΔF‖ in the first steps, on the bound of Theorem 4.2."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deepnet_edu.figures.scene import Scene, Words, spread_apart
from deepnet_edu.figures.style import line_style, rule_styles
from deepnet_edu.profiles import Array
from deepnet_edu.residual import RESIDUALS

_LOW, _HIGH = 1e-4, 1e3
#: Names of the lines that do not belong to a rule.
_TITLES = {"bound": "the theorem's bound", "models": "two unrelated models"}


@dataclass(frozen=True)
class RaceView(Words):
    """What the picture shows; arrays are (steps + 1,), 0 at first.

    Attributes:
        residual: the rule.
        bound: right-hand side of the theorem, None where it says nothing.
        measured: ‖ΔF‖, or None.
        others: the same of other rules, by name, where they were recorded with the same settings.
    """

    residual: str
    bound: Array | None
    measured: Array | None
    others: Mapping[str, Array]


class RaceFigure(Scene[RaceView]):
    """Steps against ‖ΔF‖ on a fixed logarithmic axis; each curve has its name at its right end.

    Args:
        rules: those of which there are records.
        steps: how many are taken.
    """

    def __init__(self, rules: tuple[str, ...], steps: int) -> None:
        self._rules, self._steps = rules, steps
        super().__init__()

    def build(self, figure: Figure) -> None:
        """The axis, and a margin for names at its right."""
        ax = figure.subplots()
        steps = self._steps
        # The names take about 1.9 inches.
        ax.set(xlim=(0.5, steps + 0.5 + steps * 1.9 / (self.room[0] - 3.2)), ylim=(_LOW, _HIGH), yscale="log")
        ax.set_xticks(range(1, steps + 1))
        ax.set(xlabel="step", ylabel="change of the outputs since init, ‖ΔF‖")
        ax.plot([0.5, steps + 0.3], [np.sqrt(2)] * 2, color="#777777", lw=1)
        styles = rule_styles(self._rules)
        self._others: dict[str, Line2D] = {}
        for rule in self._rules:
            (self._others[rule],) = ax.plot([], [], **{**styles[rule], "linewidth": 1.5}, marker=".", ms=5)
        (self._bound,) = ax.plot([], [], color="black", lw=2.5, ls=(0, (4, 2)))
        (self._points,) = ax.plot([], [], "o-", lw=1.5, ms=9, mec="black")
        self._names = {
            name: ax.text(steps + 0.5, 1, "", fontsize=9.5, va="center") for name in (*self._rules, *_TITLES, "chosen")
        }
        self._names["chosen"].set_fontweight("bold")
        self._styles = styles
        self.moves(*self._others.values(), self._bound, self._points, *self._names.values())

    def move(self, view: RaceView) -> str:
        """Lines at once, points when they are known."""
        color = self._styles.get(view.residual, line_style(view.residual))["color"]
        curves = {rule: (line, view.others.get(rule)) for rule, line in self._others.items()}
        curves |= {"bound": (self._bound, view.bound), "chosen": (self._points, view.measured)}
        ends = {"models": float(np.log10(np.sqrt(2)))}
        for name, (line, values) in curves.items():
            known = values is not None and bool(np.isfinite(values[1:]).any())
            line.set_visible(known)
            self._names[name].set_visible(known)
            if known:
                assert values is not None
                line.set_data(np.arange(1, len(values)), np.clip(values[1:], _LOW, _HIGH))
                ends[name] = float(np.log10(np.clip(values[np.isfinite(values)][-1], _LOW, _HIGH)))
        self._points.set_color(color)
        titles = {**_TITLES, "chosen": RESIDUALS[view.residual].title}
        colors = {"bound": "black", "models": "#555555", "chosen": color}
        apart = np.log10(_HIGH / _LOW) * 0.17 / self.room[1]  # a line of text
        for name, height in zip(ends, spread_apart(list(ends.values()), apart), strict=True):
            text = titles.get(name) or RESIDUALS[name].title
            self._names[name].set(text=text, y=10**height, color=colors.get(name) or self._styles[name]["color"])
        first = "not measured yet" if view.measured is None else f"{view.measured[1]:.2g} after one step"
        bound = "" if view.bound is None else f", bound {view.bound[1]:.2g}"
        others = ", ".join(f"{RESIDUALS[rule].title} {values[1]:.2g}" for rule, values in view.others.items())
        return (
            f"Change of the outputs in the first steps, logarithmic: {first}{bound}"
            f"{f'; beside it {others}' if others else ''}."
        )
