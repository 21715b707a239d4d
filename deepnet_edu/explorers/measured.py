"""What explorers measure: a signal through a real stack, a training run for the α × depth map, a race of updates.

The same functions make the bundled grid (benchmarks/explorer_grid.py), answer a slider in the background, and are run
again by the tests.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import log, sqrt
from typing import Any, Literal

import numpy as np
import torch

from deepnet_edu.data import TokenMap
from deepnet_edu.model import Batch, Model, ModelConfig, build_model, random_batch
from deepnet_edu.probing import probe, update_group
from deepnet_edu.profiles import Array, DepthProfile, History
from deepnet_edu.residual import DEFAULT, RESIDUALS, places
from deepnet_edu.residual.classic import PostLN
from deepnet_edu.residual.deepnorm import DeepNorm
from deepnet_edu.theory import fixed_step_update_sum
from deepnet_edu.training import TrainConfig, TrainingDiverged, TrainStep, learning_rate, train

#: Called with what is done, 0 to 1; what it raises ends the measurement.
Tick = Callable[[float], None]

MAX_DEPTH = 2000
#: Sequences, and tokens of each, that a signal is measured on.
SEQUENCES, TOKENS = 2, 16
#: So many layers of a profile are kept and drawn.
POINTS = 48
VOCABULARY = 16


def _nothing(_: float) -> None:
    pass


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
    """A profile of one stack layer by layer, thinned: the stream behind each layer, the gradient of all its matrices.

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


class SignalMeter:
    """Measures signals, and keeps the last model: where only α, β or the gain move, it need not be built again."""

    def __init__(self) -> None:
        self._plain: SignalSettings | None = None
        self._stack: Model | None = None

    def __call__(self, settings: SignalSettings, tick: Tick = _nothing) -> dict[str, Array]:
        """Send a batch through a real, freshly drawn stack, and the loss back.

        Args:
            settings: of the stack.
            tick: see :data:`Tick`.

        Returns:
            As :func:`by_layer`.
        """
        tick(0.0)
        model = self._model(settings)
        tick(0.5)
        batch = random_batch(model.config, SEQUENCES, TOKENS, settings.seed)
        return by_layer(probe(model, batch, on_sublayer=lambda seen, n: tick(0.5 + 0.3 * seen / n)))

    def _model(self, settings: SignalSettings) -> Model:
        """The stack with these constants and gain."""
        config = settings.config  # refuses what no model can be
        movable = movable_constants(settings.residual)
        unmoved: dict[str, Any] = dict.fromkeys(movable)
        plain = replace(settings, gain=1.0, **unmoved)
        if self._plain != plain or self._stack is None:
            self._plain = self._stack = None  # one deep model alive at a time
            self._stack, self._plain = build_model(plain.config, settings.seed), plain
            self._own, self._scale = plain.config.rule_constants(), 1.0
        wanted = config.rule_constants() | config.override
        if "alpha" in movable:
            for rule in self._stack.rules():
                rule.set_constant("alpha", wanted["alpha"])
        # β is a factor on the weights as they were drawn, and so is the gain.
        scale = settings.gain * (wanted["beta"] / self._own["beta"] if "beta" in movable else 1.0)
        scale_branches(self._stack, scale / self._scale)
        self._scale = scale
        return self._stack


@cache
def movable_constants(residual: str) -> tuple[str, ...]:
    """Which of ``"alpha"`` and ``"beta"`` the rule has as DeepNorm has them: the same in all layers, α on the skip,
    β as the gain of the initial weights."""
    rule = RESIDUALS[residual](next(places("decoder", 0, 2)), 1)
    has_alpha = "alpha" in rule.constants and "alpha" in dict(rule.named_buffers())
    has_beta = "beta" in rule.constants and rule.constants["beta"] == rule.gain("value")
    return (("alpha",) if has_alpha else ()) + (("beta",) if has_beta else ())


@torch.no_grad()
def scale_branches(model: Model, gain: float) -> None:
    """Multiply the weights of value, output and feed-forward by ``gain``, in place."""
    for sublayer in model.sublayers():
        for role, weight in sublayer.branch.weights().items():
            if role not in ("query", "key"):
                weight.mul_(gain)


# --- α × depth: where is training possible?

#: Of the map's runs: DeepNorm with β = 1/(√2·α), the token map, the stack alone.
MAP_RECIPE = TrainConfig(steps=40, learning_rate=1e-3, warmup=10, parameters="stack", profile_every=39)
MAP_TASK = TokenMap(vocab_size=VOCABULARY, length=16, batch_size=8)
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
        """``"learned"``; ``"lost"``: at ln 16 with tokens all alike; ``"diverged"``; or ``"slow"``: not yet."""
        if not np.isfinite(self.loss).all():
            return "diverged"
        if self.final_loss < LEARNED:
            return "learned"
        return "lost" if self.similarity > 0.9 and self.final_loss > log(VOCABULARY) - NEAR_CHANCE else "slow"


def map_run(depth: int, alpha: float, seed: int, tick: Tick = _nothing) -> MapRun:
    """Train one cell of the map with one seed."""
    model = build_model(decoder(DEFAULT, depth, alpha=alpha, beta=tied_beta(alpha)), seed)
    history = followed(model, MAP_TASK, replace(MAP_RECIPE, seed=seed), tick)
    loss = np.full(MAP_RECIPE.steps, np.nan)
    loss[: len(history.loss)] = history.loss
    start = by_layer(history.profiles[0])
    return MapRun(
        loss, float(start["token_similarity"][-1]), float(start["input_share"][-1]), float(start["gradient"][0])
    )


def followed(model: Model, task: TokenMap, recipe: TrainConfig, tick: Tick) -> History:
    """Train and tell ``tick`` how far it is; a run that diverges ends there, and its history is what it was."""
    try:
        return train(
            model, task, recipe, on_step=lambda history: tick(len(history.loss) / recipe.steps), progress=False
        )
    except TrainingDiverged as stopped:
        return stopped.history


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


def _race_recipe(settings: RaceSettings) -> TrainConfig:
    return TrainConfig(RACE_STEPS, learning_rate=settings.learning_rate, warmup=settings.warmup, clip=0.0)


def race_sum(settings: RaceSettings) -> Array | None:
    """Σ over sub-layers of √(v² + w²)/α times what the learning rates have added up to, step by step: the right-hand
    side of Theorem 4.2 (arXiv 2203.00555) where every weight moves by the learning rate, as Adam's do at first.

    Returns:
        (RACE_STEPS + 1,), or None where the theorem says nothing: it is for x ← LN(αx + F(x)).
    """
    rule = RESIDUALS[settings.residual](next(places("decoder", 0, settings.depth)), 1)
    if not isinstance(rule, DeepNorm) and type(rule) is not PostLN:
        return None
    alpha, beta = rule.constants.get("alpha", 1.0), rule.gain("value")
    rates = [learning_rate(step, _race_recipe(settings)) for step in range(RACE_STEPS)]
    moved = np.concatenate([[0.0], np.cumsum(rates)])
    return np.asarray(fixed_step_update_sum(2 * settings.depth, beta, beta, alpha) * moved)


def race(settings: RaceSettings, tick: Tick = _nothing) -> Array:
    """‖ΔF‖ after each of the first steps: root mean square change of the answers to one batch since initialisation.

    The matrices of the stack alone are trained, with Adam, on the token map: what Theorem 4.2 speaks of. Biases and
    norms, which it leaves out, add more (lesson 06).

    Returns:
        (RACE_STEPS + 1,): 0 at first; NaN where the run diverged.
    """
    model = build_model(decoder(settings.residual, settings.depth, RACE_WIDTH), settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    batch: Batch = MAP_TASK.batch(generator)
    recipe = _race_recipe(settings)
    found = np.full(RACE_STEPS + 1, np.nan)
    found[0] = 0.0
    with (
        torch.no_grad(),
        TrainStep(model, recipe, update_group(model, "matrices")) as step,
    ):
        before = model.logits(batch)
        for i in range(RACE_STEPS):
            tick(i / RACE_STEPS)
            with torch.enable_grad():
                result = step(MAP_TASK.batch(generator))
            if not np.isfinite(result.gradient_norm):
                break
            found[i + 1] = (model.logits(batch) - before).square().mean().sqrt().item()
    return found
