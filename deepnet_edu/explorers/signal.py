"""Explorer 1: a signal through depth."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Choice, Dial, rules, spread
from deepnet_edu.explorers.settings import (
    MAX_DEPTH,
    TOKENS,
    SignalSettings,
    Tick,
    by_layer,
    movable_constants,
    tied_beta,
)
from deepnet_edu.figures.signal import SignalFigure, SignalView
from deepnet_edu.figures.style import FIRST
from deepnet_edu.profiles import Array
from deepnet_edu.residual import DEFAULT, RESIDUALS, Residual, place_at
from deepnet_edu.theory.prediction import predicted as predict_quietly

DEPTHS = [int(depth) for depth in spread(1, MAX_DEPTH, 60, 6, 12, 24, 48, 50, 100, 200, 400, 500, 1000, MAX_DEPTH)]
WIDTHS = [16, 32, 64]
#: α: DeepNorm's own is 6.7 at 1,000 layers; β: 1 is Post-LN's.
ALPHAS, BETAS, GAINS = spread(0.25, 64, 97, 1), spread(0.01, 4, 90, 1), spread(0.1, 4, 60, 1)


#: What is drawn beside every rule.
REFERENCE = FIRST[0]


def has_lines(rule: type[Residual]) -> bool:
    """Whether theory has lines for a rule."""
    return rule.says("signal") and rule.at(place_at(0, "decoder", 0, 1)).signal() is not None


@lru_cache(maxsize=256)
def _reference(depth: int, d_model: int) -> dict[str, Array]:
    """The lines of the rule to compare with, by layer."""
    return by_layer(predict_quietly(SignalSettings(REFERENCE, depth, d_model).config, TOKENS))


def _percent(share: float) -> str:
    """A share in per cent, and none where it cannot be told from 0."""
    return f"{share:.0%}" if share >= 0.005 else "less than 1%" if share > 0 else "none"


class SignalExplorer(Explorer):
    """Rule, depth, α, β, width and gain → variance, gradient, token similarity and input share by layer."""

    name = "signal"
    title = "A signal through depth"
    about = "choose rule, depth, α, β, width and gain; see what becomes of a signal, in theory and measured."
    what = (
        "Each panel follows one quantity from the bottom of the stack to its top. Lines are theory, circles are a real "
        "model of this depth; grey dots are Post-LN of the same depth and width, to compare with.",
        "The share of the input is how much of the stream's variance at a layer still comes from the embedding. Half "
        "of it is left where this line is at one half.",
        "A cosine between tokens near 1 means that all positions carry the same vector: the stack can no longer tell "
        "its tokens apart, and no training gets them back from above.",
        "Variance alone says nothing about this: a norm sets it to 1, in a stack that works and in one that does not.",
    )
    presets: ClassVar[Any] = {
        "Post-LN at 400 layers": {"residual": REFERENCE, "depth": 400},
        "DeepNorm at 400": {"residual": DEFAULT, "depth": 400},
        "On the cliff, α = 2": {"residual": DEFAULT, "depth": 400, "constants": "tied", "alpha": 2.0},
        "… with gain 3": {"residual": DEFAULT, "depth": 400, "constants": "tied", "alpha": 2.0, "gain": 3.0},
    }

    def __init__(self, residual: str = REFERENCE, depth: int = 400, **more: Any) -> None:
        self.residual = Choice("rule", rules(has_lines), REFERENCE)
        self.depth = Dial("depth (layers)", DEPTHS, 400, whole=True)
        ways = [("the rule's own", "own"), ("β = 1/(√2·α), the paper's split", "tied"), ("free", "free")]
        self.constants = Choice("α and β", ways, "own")
        self.alpha = Dial("α", ALPHAS, 1.0, note="the factor on the skip is positive")
        self.beta = Dial("β", BETAS, 1.0, note="the gain of the initial weights is positive")
        self.width = Dial("width d", WIDTHS, 32, whole=True)
        self.gain = Dial("gain of init", GAINS, 1.0, note="a further factor on the initial weights")
        self._meter: Any = None
        order = ["residual", "depth", "constants", "alpha", "beta", "width", "gain"]
        super().__init__(
            order, SignalFigure(RESIDUALS[REFERENCE].title), {"residual": residual, "depth": depth, **more}
        )

    def settings(self) -> SignalSettings:
        """What the dials say."""
        free = self.constants.value != "own"
        movable = movable_constants(self.residual.value)
        return SignalSettings(
            self.residual.value,
            int(self.depth.value),
            int(self.width.value),
            self.alpha.value if free and "alpha" in movable else None,
            self.beta.value if free and "beta" in movable else None,
            self.gain.value,
        )

    def follow(self) -> None:
        """What is not free shows what it is."""
        movable = movable_constants(self.residual.value)
        how = self.constants.value if movable else "own"
        self.constants.disabled = not movable
        self.alpha.disabled = how == "own" or "alpha" not in movable
        self.beta.disabled = how != "free" or "beta" not in movable
        if how == "own":
            own = SignalSettings(self.residual.value, int(self.depth.value)).config.rule_constants()
            self.alpha.value = own["alpha"] if "alpha" in movable else 1.0
            self.beta.value = own["beta"] if "beta" in movable else 1.0
        elif how == "tied" and "beta" in movable:
            self.beta.value = tied_beta(self.alpha.value)

    def view(self, measured: Any) -> SignalView:
        """Theory, and the points that belong to exactly these settings."""
        settings = self.settings()
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is drawn at the end of its axis
            predicted = predict_quietly(settings.config, TOKENS, settings.gain)
        judged = predicted.judge()
        theory = by_layer(predicted)
        off = "".join(f" Known to be off: {error}." for error in predicted.known_errors.values())
        points, source = None, self.unmeasured
        if measured is not None and measured[0] == settings:
            points, source = measured[1], "a real model of this depth, measured just now, seed 0"
        elif self.grid and (points := self.grid.signal(settings)):
            source = f"a real model of this depth, {self.grid.date_of(settings)}"
        constants = ""
        if movable_constants(settings.residual):
            constants = f", α = {self.alpha.value:.3g}, β = {self.beta.value:.3g}"
        gain = f", weights × {settings.gain:g}" if settings.gain != 1 else ""
        share, cosine, down = theory["input_share"][-1], theory["token_similarity"][-1], theory["gradient"][0]
        last = f"the first layer's gradient is {down:.2g} of the last one's"
        return SignalView(
            f"{RESIDUALS[settings.residual].title}, {settings.depth:,} layers, d = {settings.d_model}{constants}{gain}",
            f"In theory {_percent(share)} of the input is left at the top, tokens have a cosine of {cosine:.2f}, and "
            f"{last if np.isfinite(down) else 'gradients have no ratio that could be drawn'}.",
            f"Verdict of theory: {judged} Circles: {source}.{off}",
            settings.residual,
            theory,
            None if settings.residual == REFERENCE else _reference(settings.depth, settings.d_model),
            points,
        )

    def measurement(self) -> Callable[[Tick], Any] | None:
        """A real model, where the grid has none with these settings."""
        settings = self.settings()
        if self._found is not None and self._found[0] == settings:
            return None
        if self.grid and self.grid.signal(settings):
            return None
        return lambda tick: (settings, self._measure(settings, tick))

    def _measure(self, settings: SignalSettings, tick: Tick) -> Any:
        """A real model's signal; PyTorch is loaded now."""
        from deepnet_edu.explorers.measured import SignalMeter

        self._meter = self._meter or SignalMeter()
        return self._meter(settings, tick)
