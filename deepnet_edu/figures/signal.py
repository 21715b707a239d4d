"""Explorer 1: variance, gradient, token similarity and input share by layer, theory as lines, measurement as points."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deepnet_edu.figures.scene import Scene, Words, key_below
from deepnet_edu.figures.style import control_style, line_style
from deepnet_edu.profiles import Array

#: By quantity: question, unit, and the ends of its axis, logarithmic where the lower one is above 0.
PANELS = {
    "variance": ("Does the stream grow?", "variance", (1e-2, 1e5)),
    "gradient": ("Does the gradient reach the bottom?", "gradient / that of the last layer", (1e-5, 1e5)),
    "token_similarity": ("Are tokens still different?", "cosine between tokens", (-0.1, 1.05)),
    "input_share": ("Is the input still there?", "share of the input in the stream", (-0.03, 1.05)),
}


@dataclass(frozen=True)
class SignalView(Words):
    """What the picture shows.

    Attributes:
        residual: the rule, for its colour.
        theory: by quantity of ``PANELS`` and ``layer``, (n,) each.
        reference: the same of the rule to compare with, or None.
        measured: the same as ``theory``, or None.
    """

    residual: str
    theory: Mapping[str, Array]
    reference: Mapping[str, Array] | None
    measured: Mapping[str, Array] | None


class SignalFigure(Scene[SignalView]):
    """Four panels on fixed axes, from the bottom of the stack to its top.

    Args:
        reference: title of the rule to compare with.
    """

    def __init__(self, reference: str) -> None:
        self._reference = reference
        super().__init__()

    def build(self, figure: Figure) -> None:
        """Empty panels."""
        self._lines, self._references, self._points = {}, {}, {}
        for ax, (name, (title, unit, limits)) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
            ax.set(xlim=(0, 1), ylim=limits)
            ax.set_title(f"{title}\n{unit}", fontsize=10, loc="left")
            if limits[0] > 0:
                ax.set_yscale("log")
            ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["bottom", "¼", "½", "¾", "top"])
            (self._references[name],) = ax.plot([], [], **control_style(0))
            (self._lines[name],) = ax.plot([], [], lw=2.5)
            (self._points[name],) = ax.plot([], [], "o", ms=5, color="black", mfc="none")
            self.moves(self._references[name], self._lines[name], self._points[name])
        key = {
            "theory, in the rule's colour": {"color": "black", "lw": 2.5},
            f"{self._reference}, theory": control_style(0),
            "measured": {"color": "black", "marker": "o", "mfc": "none", "ls": ""},
        }
        handles = [Line2D([], [], label=label, **style) for label, style in key.items()]
        key_below(figure, handles)

    def move(self, view: SignalView) -> str:
        """Lines are theory, open circles are measured."""
        style = line_style(view.residual)
        for name, (_, _, (low, high)) in PANELS.items():
            self._lines[name].set(color=style["color"], linestyle=style["linestyle"])
            for line, found, every in (
                (self._lines[name], view.theory, 1),
                (self._references[name], view.reference, 1),
                (self._points[name], view.measured, 2),
            ):
                line.set_visible(found is not None and name in found)
                if found is not None and name in found:
                    x = found["layer"] / found["layer"][-1]
                    line.set_data(
                        x[::every], np.clip(np.nan_to_num(found[name], nan=high, posinf=high), low, high)[::every]
                    )
        ends = [f"{PANELS[name][1]} {view.theory[name][-1]:.3g}" for name in ("variance", "token_similarity")]
        return (
            f"Four panels from the bottom of the stack to its top. Theory: at the top {', '.join(ends)}, "
            f"share of the input {view.theory['input_share'][-1]:.2g}; the first layer's gradient is "
            f"{view.theory['gradient'][0]:.2g} of the last one's."
        )
