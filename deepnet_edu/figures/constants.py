"""Explorer 3: α and β of each stack as the point where a condition and a split meet, with the formula in numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from deepnet_edu.figures.scene import Scene, Words

_ALPHA = (0.5, 40.0)
_BETA = (0.01, 3.0)


@dataclass(frozen=True)
class StackChoice:
    """One stack's constants.

    Attributes:
        name: ``"encoder"`` or ``"decoder"``.
        alpha, beta: what the paper takes.
        budget: K in its condition K·2β²/α² = 1.
        condition: the condition in words.
        formula: both constants with the numbers in them, two lines; ``^(…)`` is a power.
    """

    name: str
    alpha: float
    beta: float
    budget: float
    condition: str
    formula: str


@dataclass(frozen=True)
class ConstantsView(Words):
    """A model's stacks, one or two."""

    stacks: Sequence[StackChoice]


class ConstantsFigure(Scene[ConstantsView]):
    """A panel for each of two stacks; the one that a model does not have says so."""

    def build(self, figure: Figure) -> None:
        """Axes alone: everything on them belongs to a stack that exists."""
        self._panels = []
        alpha = np.geomspace(*_ALPHA, 100)
        for ax, name in zip(figure.subplots(1, 2), ("encoder", "decoder"), strict=True):
            ax.set(xscale="log", yscale="log", xlim=_ALPHA, ylim=_BETA)
            ax.set(xlabel="α, on the skip", ylabel="β, gain of the initial weights")
            ax.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
            ax.set_yticks([0.01, 0.03, 0.1, 0.3, 1, 3], ["0.01", "0.03", "0.1", "0.3", "1", "3"])
            ax.minorticks_off()
            ax.set_title(name, fontsize=11, loc="left", pad=36)  # the formula is below it
            formula = ax.text(0, 1.03, "", transform=ax.transAxes, fontsize=10.5, va="bottom", linespacing=1.4)
            (split,) = ax.plot(alpha, 1 / (np.sqrt(2) * alpha), color="#E69F00", ls="--", lw=2)
            (post_ln,) = ax.plot([1], [1], "s", color="#D55E00", ms=7)
            words = [
                ax.text(
                    0.66, 0.03, "α²β² = ½, the split", color="#8a5f00", ha="right", fontsize=9.5, transform=ax.transAxes
                ),
                ax.text(1.2, 1.0, "Post-LN", fontsize=9.5, color="#D55E00", va="center"),
            ]
            (line,) = ax.plot(_ALPHA, [1, 1], color="#0072B2", ls="-", lw=2.5)
            (point,) = ax.plot([], [], "o", color="#009E73", ms=12, mec="black")
            condition = ax.text(
                0.98, 0.97, "", transform=ax.transAxes, ha="right", va="top", fontsize=9.5, color="#0072B2"
            )
            none = ax.text(0.5, 0.5, f"no {name}", transform=ax.transAxes, ha="center", fontsize=14, color="#555555")
            self.moves(split, post_ln, *words, line, point, condition, none, formula)
            self._panels.append((name, [split, post_ln, *words], line, point, condition, none, formula))

    def move(self, view: ConstantsView) -> str:
        """Each condition is a line, the paper's choice the point where it meets the split."""
        stacks = {stack.name: stack for stack in view.stacks}
        words = []
        for name, fixed, line, point, condition, none, formula in self._panels:
            stack = stacks.get(name)
            for artist in (*fixed, line, point, condition, formula):
                artist.set_visible(stack is not None)
            none.set_visible(stack is None)
            if stack is None:
                continue
            line.set_data(_ALPHA, np.array(_ALPHA) / np.sqrt(2 * stack.budget))
            point.set_data([stack.alpha], [stack.beta])
            condition.set(text=f"{stack.condition}\nbounded below it")
            formula.set(text=stack.formula)
            words.append(f"{name} α = {stack.alpha:.4f}, β = {stack.beta:.4f}")
        return (
            f"{'; '.join(words).capitalize()}. For each stack, β against α: the paper's condition is a rising line, "
            "its split a falling one, and its choice the point where they meet; Post-LN is far above the condition."
        )
