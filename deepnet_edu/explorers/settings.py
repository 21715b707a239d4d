"""What explorers may be set to, and what follows from that by arithmetic: without PyTorch, lines come at once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import log, sqrt
from typing import Literal

import numpy as np

from deepnet_edu.model.config import ModelConfig
from deepnet_edu.profiles import Array, DepthProfile
from deepnet_edu.residual import DEFAULT, RESIDUALS, places
from deepnet_edu.residual.classic import PostLN
from deepnet_edu.residual.deepnorm import DeepNorm
from deepnet_edu.theory import fixed_step_update_sum
from deepnet_edu.training.config import TrainConfig, learning_rate

#: Called with what is done, 0 to 1; what it raises ends the measurement.
Tick = Callable[[float], None]

MAX_DEPTH = 2000
#: Sequences, and tokens of each, that a signal is measured on.
SEQUENCES, TOKENS = 2, 16
#: Layers of a profile that are kept and drawn.
POINTS = 48
VOCABULARY = 16


def no_tick(_: float) -> None:
    """For a caller that does not ask how far it is."""


def decoder(
    residual: str, depth: int, d_model: int = 32, alpha: float | None = None, beta: float | None = None
) -> ModelConfig:
    """The narrow decoder of all explorers; α and β by hand where they are given."""
    return ModelConfig(
        "decoder",
        "lm",
        depth,
        d_model=d_model,
        n_heads=max(1, d_model // 16),
        d_ff=4 * d_model,
        vocab_size=VOCABULARY,
        max_length=2 * TOKENS,
        residual=residual,
        alpha=alpha,
        beta=beta,
        not_the_paper=alpha is not None or beta is not None,
    )


@dataclass(frozen=True)
class SignalSettings:
    """What the sliders of the first explorer say.

    Attributes:
        residual: the rule.
        depth: layers.
        d_model: width.
        alpha: α by hand, None for the rule's own.
        beta: β by hand, None for the rule's own.
        gain: a further factor on the initial weights of value, output and feed-forward.
        seed: of weights and tokens.
    """

    residual: str = DEFAULT
    depth: int = 1000
    d_model: int = 32
    alpha: float | None = None
    beta: float | None = None
    gain: float = 1.0
    seed: int = 0

    @property
    def config(self) -> ModelConfig:
        """The model's."""
        return decoder(self.residual, self.depth, self.d_model, self.alpha, self.beta)


def by_layer(profile: DepthProfile, most: int = POINTS) -> dict[str, Array]:
    """A profile of one stack layer by layer, thinned: the stream after each layer, the gradient of all its matrices.

    Returns:
        ``layer`` (from 1), ``variance``, ``token_similarity``, ``input_share``, and ``gradient``, where it is known,
        relative to the last layer's: (n,) each, the first and the last layer always among them.
    """
    per_layer = len(set(profile.sublayer))
    layers = len(profile.sublayer) // per_layer
    chosen = np.unique(np.linspace(0, layers - 1, most).round().astype(int))
    found = {"layer": chosen + 1.0}
    for name in ("variance", "token_similarity", "input_share"):
        values = getattr(profile, name)
        found[name] = values.reshape(layers, per_layer)[chosen, -1]
    if profile.gradient_norm is not None:
        gradient = np.sqrt(np.square(profile.gradient_norm.reshape(layers, per_layer)).sum(1))
        with np.errstate(divide="ignore", invalid="ignore"):
            found["gradient"] = (gradient / gradient[-1])[chosen]
    return found


@cache
def movable_constants(residual: str) -> tuple[str, ...]:
    """Which of ``"alpha"`` and ``"beta"`` the rule has as DeepNorm has them: the same in all layers, α on the skip,
    β as the gain of the initial weights."""
    rule = RESIDUALS[residual].at(next(places("decoder", 0, 2)))
    has_alpha = rule.on_skip == "alpha"
    has_beta = "beta" in rule.constants and rule.constants["beta"] == rule.gain("value")
    return (("alpha",) if has_alpha else ()) + (("beta",) if has_beta else ())


# --- α × depth: where is training possible?

#: Of the map's runs: DeepNorm with β = 1/(√2·α), the token map, the stack alone.
MAP_RECIPE = TrainConfig(steps=40, learning_rate=1e-3, warmup=10, parameters="stack", profile_every=39)
#: A run has learned if its last five losses are below this on average; knowing nothing is ln 16 = 2.77.
LEARNED = 1.0
#: It stays at ln 16 if they are within this.
NEAR_CHANCE = 0.25

Outcome = Literal["learned", "slow", "lost", "diverged"]


def tied_beta(alpha: float) -> float:
    """β = 1/(√2·α): the paper splits its condition so that α²β² = 1/2, and so do all runs of the map."""
    return 1 / (sqrt(2) * alpha)


@dataclass(frozen=True)
class MapRun:
    """One training run of the map.

    Attributes:
        loss: (steps,) nats per token, NaN from where it diverged.
        similarity: of tokens at the top before training.
        share: of the input in the stream at the top before training.
        gradient: first layer's over last layer's before training.
    """

    loss: Array
    similarity: float
    share: float
    gradient: float

    @property
    def final_loss(self) -> float:
        """Mean of the last five."""
        return float(self.loss[-5:].mean())

    @property
    def outcome(self) -> Outcome:
        """``"learned"``; ``"lost"``: at ln 16 with nearly equal tokens; ``"diverged"``; or ``"slow"``: not yet."""
        if not np.isfinite(self.loss).all():
            return "diverged"
        if self.final_loss < LEARNED:
            return "learned"
        return "lost" if self.similarity > 0.9 and self.final_loss > log(VOCABULARY) - NEAR_CHANCE else "slow"


# --- the update race


@dataclass(frozen=True)
class RaceSettings:
    """What the sliders of the race say.

    Attributes:
        residual: the rule.
        depth: layers.
        learning_rate: Adam's, after warm-up.
        warmup: steps.
        seed: of weights and tokens.
    """

    residual: str = DEFAULT
    depth: int = 100
    learning_rate: float = 1e-3
    warmup: int = 0
    seed: int = 0


RACE_STEPS = 12
RACE_WIDTH = 32


def race_recipe(settings: RaceSettings) -> TrainConfig:
    """How it is trained."""
    return TrainConfig(RACE_STEPS, learning_rate=settings.learning_rate, warmup=settings.warmup, clip=0.0)


def race_sum(settings: RaceSettings) -> Array | None:
    """Σ over sub-layers of √(v² + w²)/α times what the learning rates have added up to, step by step: the right-hand
    side of Theorem 4.2 (arXiv 2203.00555) where every weight moves by the learning rate, as Adam's do at first.

    Returns:
        (RACE_STEPS + 1,), or None where the theorem says nothing: it is for x ← LN(αx + F(x)).
    """
    rule = RESIDUALS[settings.residual].at(next(places("decoder", 0, settings.depth)))
    if not isinstance(rule, DeepNorm) and type(rule) is not PostLN:
        return None
    alpha, beta = rule.constants.get("alpha", 1.0), rule.gain("value")
    rates = [learning_rate(step, race_recipe(settings)) for step in range(RACE_STEPS)]
    moved = np.concatenate([[0.0], np.cumsum(rates)])
    return np.asarray(fixed_step_update_sum(2 * settings.depth, beta, beta, alpha) * moved)
