"""What a run will need, from its three tables alone: nothing is built, and nothing is loaded."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch

from deepnet_edu.parallel import Plan
from deepnet_edu.planning import (
    RankMemory,
    RankTraffic,
    count_operations,
    count_parameters,
    peak_of,
    rank_memory,
    rank_traffic,
    training_memory,
)
from deepnet_edu.stack import layers_together
from deepnet_edu.training.runs import Run

_DAY = 86_400


@dataclass(frozen=True)
class Forecast:
    """What a run will need.

    Attributes:
        parameters: by part, and ``"all"``.
        memory: bytes by part, and ``"total"``, of one batch; see :func:`~deepnet_edu.planning.training_memory`.
        steps: of the run.
        tokens_per_step: that the model answers; of a translation at most.
        operations_per_step: floating point operations in the step's matrix products; None for rules whose products
            nobody counted.
        again_per_step: of these, what checkpoints compute a second time.
        device: its name.
        peak: floating point operations a second of the device in that precision; None where nobody wrote it down.
    """

    parameters: dict[str, int]
    memory: dict[str, Any]
    steps: int
    tokens_per_step: int
    operations_per_step: int | None
    again_per_step: int | None
    device: str
    peak: float | None

    @property
    def tokens(self) -> int:
        """Of the whole run."""
        return self.steps * self.tokens_per_step

    @property
    def operations(self) -> int | None:
        """Of the whole run."""
        return None if self.operations_per_step is None else self.steps * self.operations_per_step

    @property
    def days(self) -> float | None:
        """Of the run at the device's peak, which no run reaches."""
        return None if self.operations is None or self.peak is None else self.operations / self.peak / _DAY

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "tokens": self.tokens, "operations": self.operations, "days": self.days}


def forecast_ranks(run: Run, plan: Plan, device: str = "cpu") -> list[tuple[RankMemory, RankTraffic]]:
    """What each rank of the pipeline of ``plan`` holds at its peak, and sends in a step; copies and shards are alike.

    Args:
        run: from ``find_run``.
        plan: that fits the run.
        device: ``"cpu"`` or ``"cuda"``.
    """
    (sequences, tokens), train = run.data.batch_shape, run.train
    pieces = plan.shares * plan.pieces
    sequences = -(-sequences // pieces) * pieces  # what is too few for all is there twice
    how: dict[str, Any] = {**asdict(plan), "precision": "float32" if train.precision == "fp32" else "autocast"}
    held = rank_memory(run.model, sequences, tokens, checkpoint_every=train.checkpoint_every, device=device, **how)
    return list(zip(held, rank_traffic(run.model, sequences, tokens, **how), strict=True))


def forecast(run: Run, device: str = "cpu") -> Forecast:
    """What ``run`` will need on ``device``.

    Memory and operations are those of batches of full length, as a batch of text is and one of translations at most.

    Args:
        run: from ``find_run``.
        device: ``"cpu"`` or ``"cuda"``.
    """
    (sequences, tokens), train, model = run.data.batch_shape, run.train, run.model
    # The fast path is the CPU's, in the precision of the weights.
    fast = (device, train.precision, train.compile, train.offload) == ("cpu", "fp32", "no", False)
    path = "auto" if fast else "plain"
    memory = training_memory(
        model,
        sequences,
        tokens,
        checkpoint_every=train.checkpoint_every,
        offload=train.offload,
        path=path,
        precision="float32" if train.precision == "fp32" else "autocast",
        device=device,
    )
    every = layers_together(train.checkpoint_every, max(model.encoder_layers, model.decoder_layers))
    batches, total, again = train.accumulate, None, None
    with suppress(ValueError):
        counted = count_operations(model, sequences, tokens, checkpoint_every=every, path=path)
        again = batches * (counted.again + counted.attention_again)
        total = batches * (counted.products + counted.attention) + again
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return Forecast(
        parameters=count_parameters(model),
        memory=memory.to_dict(),
        steps=train.steps,
        tokens_per_step=sequences * tokens * batches,
        operations_per_step=total,
        again_per_step=again,
        device=name,
        peak=peak_of(name, train.precision),
    )
