"""What a run will need, from its three tables alone: nothing is built, and nothing is loaded."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch

from deepnet_edu.experiment.config import Experiment
from deepnet_edu.model.shape import layers_together
from deepnet_edu.planning import (
    Plan,
    RankMemory,
    RankTraffic,
    count_operations,
    count_parameters,
    fewest_recomputed,
    peak_of,
    rank_memory,
    rank_traffic,
    training_memory,
)
from deepnet_edu.planning.flops import has_own_products
from deepnet_edu.planning.memory import OBJECTS, PROCESS
from deepnet_edu.planning.time import RATE
from deepnet_edu.training.memory import limit

#: Seconds beyond which a run is asked about; beyond a day even where it cannot ask.
LONG, DAY = 3600.0, 86_400
#: Assumed: of a GPU, what share of its peak a run reaches, and the peak where none is known; and seconds that
#: Python takes for a sub-layer in a step.
_UTILISATION, _PEAK, _LOOK = 0.3, 100e12, 70e-6


@dataclass(frozen=True)
class Forecast:
    """What a run will need.

    Attributes:
        parameters: by part, and ``"all"``.
        recompute: how many layers of each stack checkpoints compute again, or ``"all"``.
        memory: bytes by part, and ``"total"``, of one batch; see :func:`~deepnet_edu.planning.training_memory`.
        steps: of the run.
        tokens_per_step: that the model reads, at a position each; of a translation at most.
        operations_per_step: floating point operations in the step's matrix products; None for rules whose products
            were not counted.
        again_per_step: of these, what checkpoints compute a second time.
        device: its name.
        peak: floating point operations a second of the device in that precision; None where none is known.
    """

    parameters: dict[str, int]
    recompute: int | str
    memory: dict[str, Any]
    steps: int
    tokens_per_step: int
    operations_per_step: int | None
    again_per_step: int | None
    device: str
    peak: float | None

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.steps * self.tokens_per_step

    @property
    def operations(self) -> int | None:
        """Operations of the whole run."""
        return None if self.operations_per_step is None else self.steps * self.operations_per_step

    @property
    def days(self) -> float | None:
        """Days of the run at the device's peak, which no run reaches."""
        return None if self.operations is None or self.peak is None else self.operations / self.peak / DAY

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "tokens": self.tokens, "operations": self.operations, "days": self.days}


def forecast_ranks(run: Experiment, plan: Plan, device: str = "cpu") -> list[tuple[RankMemory, RankTraffic]]:
    """What each rank of the pipeline of ``plan`` holds at its peak, and sends in a step; copies and shards are equal.

    Args:
        run: from ``find_run``.
        plan: that fits the run.
        device: ``"cpu"`` or ``"cuda"``.
    """
    (sequences, tokens), train = run.data.batch_shape, run.train
    pieces = plan.shares * plan.n_microbatches
    sequences = -(-sequences // pieces) * pieces  # what is too few for all is there twice
    how: dict[str, Any] = {**asdict(plan), "precision": train.planned}
    held = rank_memory(run.model, sequences, tokens, checkpoint_every=train.checkpoint_every, device=device, **how)
    return list(zip(held, rank_traffic(run.model, sequences, tokens, **how), strict=True))


def forecast(run: Experiment, device: str = "cpu") -> Forecast:
    """What ``run`` will need on ``device``.

    Memory and operations are those of batches of full length, as a batch of text is and one of translations at most.

    Args:
        run: from ``find_run``.
        device: ``"cpu"`` or ``"cuda"``.
    """
    (sequences, tokens), train, model = run.data.batch_shape, run.train, run.model
    # The fast path is the CPU's, in the precision of the weights.
    fast = (device, train.precision, train.compile, train.offload) == ("cpu", "fp32", "no", False)
    fast = fast and (train.recompute, train.keep_attention) == ("all", False)
    path = "auto" if fast else "plain"
    how: dict[str, Any] = {
        "checkpoint_every": train.checkpoint_every,
        "keep_attention": train.keep_attention,
        "offload": train.offload,
        "path": path,
        "precision": train.planned,
        "device": device,
    }
    recompute: int | str = train.recompute
    if recompute == "auto":
        recompute = fewest_recomputed(model, sequences, tokens, limit(torch.device(device)), **how)
    memory = training_memory(model, sequences, tokens, recompute=recompute, **how)
    every = layers_together(train.checkpoint_every, max(model.encoder_layers, model.decoder_layers))
    batches, total, again = train.accumulate, None, None
    with suppress(ValueError):
        kept: dict[str, Any] = {"recompute": recompute, "keep_attention": train.keep_attention}
        counted = count_operations(model, sequences, tokens, checkpoint_every=every, path=path, **kept)
        again = batches * (counted.again + counted.attention_again)
        total = batches * (counted.products + counted.attention) + again
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return Forecast(
        parameters=count_parameters(model),
        recompute=recompute,
        memory=memory.to_dict(),
        steps=train.steps,
        tokens_per_step=sequences * tokens * batches,
        operations_per_step=total,
        again_per_step=again,
        device=name,
        peak=peak_of(name, train.precision),
    )


def beyond(run: Experiment, device: str = "cpu", devices: int = 1) -> tuple[str, str]:
    """What of a run goes beyond this machine's memory, and what beyond an hour: with the numbers; empty where nothing.

    Arithmetic decides what is small or has no end, at once; :func:`forecast` what lies between. Of many devices it is
    the least that they need together.

    Args:
        run: from ``find_run``.
        device: ``"cpu"`` or ``"cuda"``.
        devices: that share the work.
    """
    model, train = run.model, run.train
    sequences, tokens = run.data.batch_shape
    weights, sublayers = _weights(run)
    there = limit(torch.device(device)) * (devices if device == "cuda" else 1)
    least = 16 * weights + OBJECTS * sublayers + 4 * sequences * tokens * (model.d_model + model.vocab_size)
    need, memory, time = least, "", ""
    width = 100 * model.d_model + 8 * model.d_ff + 10 * model.n_heads * tokens
    most = 2 * least + PROCESS + 4 * sequences * tokens * (sublayers * width + 6 * model.vocab_size)
    if devices == 1 and least <= there and (most > there or has_own_products(model)):
        need = forecast(run, device).memory["total"]
    if need > there:
        size = _short(min(need, 10**300) / 10**9)
        memory = f"needs about {size} GB of memory, and this machine has {there / 1e9:.3g} GB"
    if (seconds := seconds_of(run, device, devices)) > LONG:
        whole = f"{train.steps:,} steps of {sequences * tokens * train.accumulate:,} tokens"
        time = f"takes about {_span(seconds)}, {whole} through {weights:,} weights"
    return memory, time


def _weights(run: Experiment) -> tuple[int, int]:
    """Weights in the matrices of a run's model, and its sub-layers, by arithmetic alone."""
    model = run.model
    sublayers = 2 * model.encoder_layers + (3 if model.encoder_layers else 2) * model.decoder_layers
    layer = 4 * model.d_model**2 + 2 * model.d_model * model.d_ff
    crossing = 4 * model.d_model**2 if model.encoder_layers else 0
    layers = layer * (model.encoder_layers + model.decoder_layers) + crossing * model.decoder_layers
    return layers + model.d_model * model.vocab_size, sublayers


def seconds_of(run: Experiment, device: str = "cpu", devices: int = 1) -> float:
    """What a run takes at a rate that is often met: two operations for each weight and token forward, four back."""
    weights, sublayers = _weights(run)
    sequences, tokens = run.data.batch_shape
    operations = min(6 * weights * sequences * tokens * run.train.accumulate, 10**300)
    if device == "cuda":
        rate = _UTILISATION * (peak_of(torch.cuda.get_device_name(), run.train.precision) or _PEAK)
    else:
        rate = RATE * torch.get_num_threads()
    return min(run.train.steps * (operations / rate / devices + _LOOK * min(sublayers, 10**30)), 1e300)


def _span(seconds: float) -> str:
    """A time in the largest unit of which there is one."""
    for unit, size in (("years", 365.25 * DAY), ("days", float(DAY)), ("hours", 3600.0)):
        if seconds >= size:
            return f"{_short(seconds / size)} {unit}"
    return f"{_short(seconds / 60)} minutes"


def _short(number: float) -> str:
    return f"{number:,.2g}" if number < 100 or number >= 1e6 else f"{number:,.0f}"
