"""Explorer 1: variance, gradient, token similarity and input share by layer, theory as lines, measurement as points."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from deepnet_edu.figures.moving import Moving
from deepnet_edu.figures.style import designed, line_style
from deepnet_edu.profiles import Array

#: By quantity: title, unit, and the ends of its axis, logarithmic where the lower one is above 0.
PANELS = {
    "variance": ("Does the stream grow?", "variance", (1e-2, 1e5)),
    "gradient": ("Does the gradient reach the bottom?", "gradient / that of the last layer", (1e-5, 1e5)),
    "token_similarity": ("Are tokens still different?", "cosine between tokens", (-0.1, 1.05)),
    "input_share": ("Is the input still there?", "share of the input", (0.0, 1.05)),
}


@dataclass(frozen=True)
class SignalView:
    """What the picture shows.

    Attributes:
        residual: the rule, for its colour.
        title: rule, depth and constants.
        verdict: one sentence.
        theory: by quantity of ``PANELS`` and ``layer``, (n,) each.
        measured: the same, or None.
        source: where the points come from, or why there are none.
    """

    residual: str
    title: str
    verdict: str
    theory: Mapping[str, Array]
    measured: Mapping[str, Array] | None
    source: str


class SignalFigure(Moving[SignalView]):
    """Four panels on fixed axes, from the bottom of the stack to its top."""

    @designed()
    def __init__(self) -> None:
        self.figure = Figure(figsize=(8.2, 5.6))
        axes = self.figure.subplots(2, 2)
        super().__init__()
        self.figure.get_layout_engine().set(rect=(0, 0.05, 1, 0.85))  # type: ignore[union-attr, call-arg]
        self._lines, self._points = {}, {}
        for ax, (name, (title, unit, limits)) in zip(axes.flat, PANELS.items(), strict=True):
            ax.set(xlim=(0, 1), ylim=limits, ylabel=unit)
            ax.set_title(title, fontsize=11)
            if limits[0] > 0:
                ax.set_yscale("log")
            ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["bottom", "¼", "½", "¾", "top"])
            (self._lines[name],) = ax.plot([], [], lw=2.5)
            (self._points[name],) = ax.plot([], [], "o", ms=5, alpha=0.65, color="black", mfc="none")
            self.moves(self._lines[name], self._points[name])
        self._title = self.moves(self.figure.text(0.01, 0.985, "", fontsize=12, weight="bold", va="top"))
        self._verdict = self.moves(self.figure.text(0.01, 0.935, "", fontsize=9.5, va="top"))
        self._source = self.moves(self.figure.text(0.01, 0.012, "", fontsize=9.5))

    def move(self, view: SignalView) -> None:
        """Lines are theory in the rule's colour, open circles are measured."""
        style = line_style(view.residual)
        top = float(view.theory["layer"][-1])
        for name, (_, _, (low, high)) in PANELS.items():
            self._lines[name].set(color=style["color"], linestyle=style["linestyle"])
            self._lines[name].set_data(view.theory["layer"] / top, _inside(view.theory[name], low, high))
            shown = view.measured is not None and name in view.measured
            self._points[name].set_visible(shown)
            if shown:
                assert view.measured is not None
                every = slice(None, None, max(1, len(view.measured["layer"]) // 24))
                self._points[name].set_data(
                    view.measured["layer"][every] / top, _inside(view.measured[name][every], low, high)
                )
        self._title.set(text=view.title)
        self._verdict.set(text=view.verdict)
        self._source.set(text=f"lines: theory · circles: {view.source}")
        ends = [f"{PANELS[name][1]} {view.theory[name][-1]:.3g}" for name in ("variance", "token_similarity")]
        self.alt = (
            f"{view.title}. Four panels from the bottom of the stack to its top. Theory: at the top {', '.join(ends)}, "
            f"input share {view.theory['input_share'][-1]:.2g}; the first layer's gradient is "
            f"{view.theory['gradient'][0]:.2g} of the last one's. {view.verdict} Circles: {view.source}."
        )


def signal(view: SignalView) -> Figure:
    """One picture of a signal through a stack."""
    return SignalFigure().show(view)


def _inside(values: Array, low: float, high: float) -> Array:
    """What leaves the axes lies on their edge, in sight."""
    return np.clip(np.nan_to_num(values, nan=high, posinf=high), low, high)
