"""What explorers measure: a signal through a real stack, a training run for the α × depth map, a race of updates.

The same functions make the bundled grid (benchmarks/explorer_grid.py), answer a slider in the background, and are run
again by the tests.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from deepnet_edu.data import TokenMap
from deepnet_edu.explorers.settings import (
    MAP_RECIPE,
    RACE_STEPS,
    RACE_WIDTH,
    SEQUENCES,
    TOKENS,
    VOCABULARY,
    MapRun,
    RaceSettings,
    SignalSettings,
    Tick,
    by_layer,
    decoder,
    movable_constants,
    no_tick,
    race_recipe,
    tied_beta,
)
from deepnet_edu.model import Batch, Model, build_model, random_batch
from deepnet_edu.probing import probe, update_group
from deepnet_edu.profiles import Array, History
from deepnet_edu.residual import DEFAULT
from deepnet_edu.training import TrainConfig, TrainingDiverged, TrainStep, train


class SignalMeter:
    """Measures signals, and keeps the last model: where only α, β or the gain move, it need not be built again."""

    def __init__(self) -> None:
        self._plain: SignalSettings | None = None
        self._stack: Model | None = None

    def __call__(self, settings: SignalSettings, tick: Tick = no_tick) -> dict[str, Array]:
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


@torch.no_grad()
def scale_branches(model: Model, gain: float) -> None:
    """Multiply the weights of value, output and feed-forward by ``gain``, in place."""
    for sublayer in model.sublayers():
        for role, weight in sublayer.branch.weights().items():
            if role not in ("query", "key"):
                weight.mul_(gain)


# --- α × depth: where is training possible?

MAP_TASK = TokenMap(vocab_size=VOCABULARY, length=16, batch_size=8)


def map_run(depth: int, alpha: float, seed: int, tick: Tick = no_tick) -> MapRun:
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


def race(settings: RaceSettings, tick: Tick = no_tick) -> Array:
    """‖ΔF‖ after each of the first steps: root mean square change of the outputs on one batch since initialisation.

    The matrices of the stack alone are trained, with Adam, on the token map: what Theorem 4.2 speaks of. Biases and
    norms, which it leaves out, add more (lesson 06).

    Returns:
        (RACE_STEPS + 1,): 0 at first; NaN where the run diverged.
    """
    model = build_model(decoder(settings.residual, settings.depth, RACE_WIDTH), settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    batch: Batch = MAP_TASK.batch(generator)
    recipe = race_recipe(settings)
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
