"""Explorer 3: α and β of each stack as the point where a condition and a split meet, with the formula in numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from deepnet_edu.figures.moving import Moving
from deepnet_edu.figures.style import designed

_ALPHA = (0.5, 40.0)
_BETA = (0.01, 3.0)


@dataclass(frozen=True)
class StackChoice:
    """One stack's constants.

    Attributes:
        name: ``"encoder"`` or ``"decoder"``.
        alpha, beta: what the paper takes.
        budget: K in its condition K·2β²/α² = 1.
        condition: K in words, for a legend.
        formula: both constants with the numbers in them, in matplotlib's TeX, two lines.
    """

    name: str
    alpha: float
    beta: float
    budget: float
    condition: str
    formula: str


@dataclass(frozen=True)
class ConstantsView:
    """A model's stacks, one or two, and its title."""

    title: str
    stacks: Sequence[StackChoice]


class ConstantsFigure(Moving[ConstantsView]):
    """A panel for each of two stacks; the one that a model does not have says so."""

    @designed()
    def __init__(self) -> None:
        self.figure = Figure(figsize=(8.8, 4.7))
        axes = self.figure.subplots(1, 2)
        super().__init__()
        self.figure.get_layout_engine().set(rect=(0, 0.16, 1, 0.77))  # type: ignore[union-attr, call-arg]
        self._title = self.moves(self.figure.text(0.01, 0.985, "", fontsize=12, weight="bold", va="top"))
        self._panels = []
        for i, (ax, name) in enumerate(zip(axes, ("encoder", "decoder"), strict=True)):
            alpha = np.geomspace(*_ALPHA, 100)
            ax.set(
                xscale="log", yscale="log", xlim=_ALPHA, ylim=_BETA, xlabel="α, on the skip", ylabel="β, first weights"
            )
            ax.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
            ax.set_yticks([0.01, 0.03, 0.1, 0.3, 1, 3], ["0.01", "0.03", "0.1", "0.3", "1", "3"])
            ax.minorticks_off()
            ax.set_title(name, fontsize=11, loc="left")
            ax.plot(alpha, 1 / (np.sqrt(2) * alpha), color="#E69F00", ls="--", lw=2)
            ax.text(0.03, 0.05, "α²β² = ½: the split", color="#8a5f00", fontsize=9, transform=ax.transAxes)
            ax.plot([1], [1], "s", color="#D55E00", ms=7)
            ax.text(1.12, 1.05, "Post-LN", fontsize=8.5, color="#D55E00")
            (line,) = ax.plot([], [], color="#0072B2", ls="-", lw=2.5)
            (point,) = ax.plot([], [], "o", color="#009E73", ms=12, mec="black")
            condition = ax.text(1, 1.02, "", transform=ax.transAxes, ha="right", fontsize=9, color="#0072B2")
            none = ax.text(0.5, 0.5, f"no {name}", transform=ax.transAxes, ha="center", fontsize=14, color="#555555")
            formula = self.figure.text(0.02 + 0.5 * i, 0.03, "", fontsize=11, linespacing=1.6)
            self.moves(line, point, condition, none, formula)
            self._panels.append((name, line, point, condition, none, formula))
        self._alpha = np.array(_ALPHA)

    def move(self, view: ConstantsView) -> None:
        """Each condition is a line, the paper's choice the point where it meets the split."""
        self._title.set(text=view.title)
        stacks = {stack.name: stack for stack in view.stacks}
        words = []
        for name, line, point, condition, none, formula in self._panels:
            stack = stacks.get(name)
            for artist in (line, point, condition, formula):
                artist.set_visible(stack is not None)
            none.set_visible(stack is None)
            if stack is None:
                continue
            line.set_data(self._alpha, self._alpha / np.sqrt(2 * stack.budget))
            point.set_data([stack.alpha], [stack.beta])
            condition.set(text=f"{stack.condition}; bounded below the line")
            formula.set(text=stack.formula)
            words.append(f"{name} α = {stack.alpha:.4f}, β = {stack.beta:.4f}")
        self.alt = (
            f"{view.title}: {'; '.join(words)}. For each stack, β against α: the paper's condition is a rising line, "
            "its split a falling one, and its choice the point where they meet; Post-LN lies far above the condition."
        )


def constants(view: ConstantsView) -> Figure:
    """One picture of a model's constants."""
    return ConstantsFigure().show(view)
