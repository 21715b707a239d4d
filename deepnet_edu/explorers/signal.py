"""Explorer 1: a signal through depth."""

from collections.abc import Callable
from typing import Any

from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Dial, choice, rules, spread
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
from deepnet_edu.residual import DEFAULT, RESIDUALS, Residual, place_at
from deepnet_edu.theory.prediction import predicted as predict_quietly

DEPTHS = [int(depth) for depth in spread(1, MAX_DEPTH, 60, 6, 12, 24, 48, 50, 100, 200, 400, 500, 1000, MAX_DEPTH)]
WIDTHS = [16, 32, 64]
#: α: DeepNorm's own is 6.7 at 1,000 layers; β: 1 is Post-LN's.
ALPHAS, BETAS, GAINS = spread(0.25, 64, 97, 1), spread(0.01, 4, 90, 1), spread(0.1, 4, 60, 1)


def has_lines(rule: type[Residual]) -> bool:
    """Whether theory has lines for a rule."""
    return rule.says("signal") and rule.at(place_at(0, "decoder", 0, 1)).signal() is not None


class SignalExplorer(Explorer):
    """Rule, depth, α, β, width and gain → variance, gradient, token similarity and input share by layer."""

    name = "signal"
    title = "A signal through depth"
    about = "choose rule, depth, α, β, width and gain; see what becomes of a signal, in theory and measured."

    def __init__(self, residual: str = DEFAULT, depth: int = 1000) -> None:
        said: dict[str, Any] = {"changed": self._moved, "refuse": self.refuse}
        self.residual = choice("rule", rules(has_lines), residual, self._moved)
        self.depth = Dial("depth (layers)", DEPTHS, depth, whole=True, **said)
        self.constants = choice(
            "α and β",
            [("the rule's own", "own"), ("β = 1/(√2·α), the paper's split", "tied"), ("free", "free")],
            "own",
            self._moved,
        )
        self.alpha = Dial("α", ALPHAS, 1.0, note="the factor on the skip is positive", **said)
        self.beta = Dial("β", BETAS, 1.0, note="the gain of the first weights is positive", **said)
        self.width = Dial("width d", WIDTHS, 32, whole=True, **said)
        self.gain = Dial("gain of init", GAINS, 1.0, note="a further factor on the first weights", **said)
        self._meter: Any = None
        self._follow()
        dials = [self.residual, self.depth, self.constants, self.alpha, self.beta, self.width, self.gain]
        super().__init__(dials, SignalFigure())

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

    def _moved(self) -> None:
        self._follow()
        self.refresh()

    def _follow(self) -> None:
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
        predicted = predict_quietly(settings.config, TOKENS, settings.gain)
        judged = predicted.judge()
        verdict = "PASS: tokens differ, and the gradient reaches the bottom." if judged.passed else str(judged)
        off = "".join(f" Known to be off: {error}." for error in predicted.known_errors.values())
        source = "a real model of this depth, measured just now, seed 0"
        points = measured[1] if measured is not None and measured[0] == settings else None
        if points is None:
            points = self.grid.signal(settings) if self.grid else None
            source = "not measured yet"
            if points and self.grid:
                source = f"a real model of this depth, {self.grid.date_of(settings)}"
        constants = ""
        if movable_constants(settings.residual):
            constants = f", α = {self.alpha.value:.3g}, β = {self.beta.value:.3g}"
        gain = f", weights × {settings.gain:g}" if settings.gain != 1 else ""
        return SignalView(
            settings.residual,
            f"{RESIDUALS[settings.residual].title}, {settings.depth:,} layers, d = {settings.d_model}{constants}{gain}",
            f"theory says {verdict}{off}",
            by_layer(predicted),
            points,
            source,
        )

    def measurement(self) -> Callable[[Tick], Any] | None:
        """A real model, where the grid has none with these settings."""
        settings = self.settings()
        if self.grid and self.grid.signal(settings):
            return None
        return lambda tick: (settings, self._measure(settings, tick))

    def _measure(self, settings: SignalSettings, tick: Tick) -> Any:
        """Of a real model, for which PyTorch is loaded now."""
        from deepnet_edu.explorers.measured import SignalMeter

        self._meter = self._meter or SignalMeter()
        return self._meter(settings, tick)
