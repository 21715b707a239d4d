"""What a training run on GPUs needs and costs: memory of each, the plan that fits, days, money and energy."""

from dataclasses import dataclass
from typing import Any

from deepnet_edu.fields import Count, NotNegative, Positive, checked
from deepnet_edu.messages import UserError
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.planning.cost import (
    Span,
    price_of,
    sending_seconds,
    training_days,
    training_energy,
    training_money,
    utilisation_of,
)
from deepnet_edu.planning.counts import training_flops
from deepnet_edu.planning.devices import Gpu
from deepnet_edu.planning.parameters import count_parameters
from deepnet_edu.planning.pipeline import bubble
from deepnet_edu.planning.plan import Plan
from deepnet_edu.planning.proposal import SHARE, least_need, propose
from deepnet_edu.planning.ranks import rank_traffic

#: As many as the largest published run here had (Llama 3 405B).
MOST_GPUS = 16_384
#: Sequences for each GPU, where the batch is not given: the most of these that fit.
_EACH = (8, 4, 2, 1)
_PRECISION = "autocast"


@dataclass(frozen=True)
class Estimate:
    """A run on paper.

    Attributes:
        parameters: of the model.
        wanted, count: GPUs that were asked for, and that the plan takes: as many, or the fewest powers of two that do.
        fits: whether the model fits on those that were asked for.
        plan: how it is spread over ``count`` GPUs.
        sequences, length: in a batch over all GPUs, and tokens of each.
        checkpoint_every: layers that are computed again together; 0 keeps all.
        memory: bytes of the fullest GPU by formula.
        available: bytes that a GPU has.
        flops: of the whole run, by part.
        bubble: time that a rank of a pipeline waits, over the time that it works.
        sent: bytes that the busiest rank sends in a step.
        sending: share of the fastest run's time that sending takes, hidden or not; None where the link has no number.
        utilisation, days, price, money, energy: ranges; of the peak, days, dollars an hour of a GPU, dollars, kWh.
    """

    parameters: int
    wanted: int
    count: int
    fits: bool
    plan: Plan
    sequences: int
    length: int
    checkpoint_every: int | str
    memory: int
    available: float
    flops: dict[str, float]
    bubble: float
    sent: int
    sending: float | None
    utilisation: Span
    days: Span
    price: Span
    money: Span
    energy: Span

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = dict(vars(self))
        found["plan"] = self.plan.title
        return {name: value.to_dict() if isinstance(value, Span) else value for name, value in found.items()}


@checked()
def estimate(
    config: ModelConfig,
    gpu: Gpu,
    count: Count,
    tokens: Positive,
    *,
    price: Positive | None = None,
    utilisation: Positive | None = None,
    sequences: NotNegative = 0,
    length: NotNegative = 0,
    link: Positive | None = None,
) -> Estimate:
    """Plan a training run, in bfloat16 by autocast with AdamW, and say what it costs.

    Args:
        config: of the model.
        gpu: of one kind.
        count: how many.
        tokens: that are read in the whole run, of source and target together.
        price: dollars for an hour of one GPU; None for the range that was read for it.
        utilisation: share of the peak; None for the range that was measured at such widths.
        sequences: in a batch, over all GPUs; 0 for eight for each GPU, or as many as fit.
        length: tokens of a sequence; 0 for ``config.max_length``.
        link: bytes a second that a GPU sends to another; None for half of its data sheet's, which counts both
            directions, and with more than eight GPUs for a network of 400 Gb/s for each.

    Raises:
        ValueError: a number is out of its range.
        UserError: the model fits on no number of such GPUs, or no price is known.
    """
    sequences, length = int(sequences), int(length) or config.max_length
    share = (
        utilisation_of(config) if utilisation is None else Span(utilisation, utilisation, "the share that was given")
    )
    hourly = price_of(gpu, price)
    flops = training_flops(config, tokens, length)
    found, taken = _first_that_fits(config, gpu, count, sequences, length), count
    if found is None:
        taken = _fewest(config, gpu, count, length)
        found = _first_that_fits(config, gpu, taken, -(-sequences // taken) * taken, length)
    if found is None:
        raise UserError(
            f"{sequences:,} sequences do not fit on {count:,} {gpu.title}, nor the next multiple on {taken:,}, which "
            "hold one each: take fewer, or leave --sequences out."
        )
    plan, batch, every, need = found
    settings = {"data": plan.data, "shard": plan.shard, "pipeline": plan.pipeline, "microbatches": plan.microbatches}
    traffic = rank_traffic(config, batch, length, **settings, schedule=plan.schedule, precision=_PRECISION)
    sent = max(rank.total for rank in traffic)
    waits = bubble(plan.schedule, plan.pipeline, plan.n_microbatches)
    both = 2 if config.encoder_layers and config.decoder_layers else 1
    steps = tokens / (batch * length * both)
    seconds = sending_seconds(sent, gpu, taken, link)
    sending = 0.0 if seconds is None else seconds * steps
    days = training_days(sum(flops.values()), gpu, taken, share, waits, sending)
    return Estimate(
        parameters=count_parameters(config)["all"],
        wanted=count,
        count=taken,
        fits=taken == count,
        plan=plan,
        sequences=batch,
        length=length,
        checkpoint_every=every,
        memory=need,
        available=gpu.memory,
        flops=flops,
        bubble=waits,
        sent=sent,
        sending=None if seconds is None else sending / (days.low * 86_400),
        utilisation=share,
        days=days,
        price=hourly,
        money=training_money(days, taken, hourly),
        energy=training_energy(days, taken, gpu),
    )


def _fewest(config: ModelConfig, gpu: Gpu, count: int, length: int) -> int:
    """The fewest GPUs, of powers of two above ``count``, that hold the model with one sequence each.

    Raises:
        UserError: no number does.
    """

    def needed(gpus: int) -> int:
        return min(least_need(config, gpus, gpus, length, {**_how(every), "device": "cuda"}) for every in ("auto", 1))

    if (least := needed(MOST_GPUS)) > SHARE * gpu.memory:
        raise UserError(
            f"The model fits on no number of {gpu.title} by copies, shards and stages: with one sequence of {length:,} "
            f"tokens on each of {MOST_GPUS:,} a GPU needs {least / 1e9:,.1f} GB, and {SHARE:.0%} of "
            f"{gpu.memory / 1e9:g} GB are counted on: take a GPU with more memory, or fewer tokens by --length."
        )
    gpus = 1 << count.bit_length()
    while gpus < MOST_GPUS and needed(gpus) > SHARE * gpu.memory:
        gpus *= 2
    return gpus


def _first_that_fits(
    config: ModelConfig, gpu: Gpu, count: int, sequences: int, length: int
) -> tuple[Plan, int, int | str, int] | None:
    """A plan, its batch, how many layers are computed again together, and the bytes of the fullest GPU."""
    batches = [sequences] if sequences else [each * count for each in _EACH]
    every: int | str
    for batch in batches:
        for every in (0, "auto", 1):
            try:
                plan, _ = propose(
                    config, count, gpu.memory, sequences=batch, tokens=length, advise=False, **_how(every)
                )
            except UserError:
                continue
            return plan, batch, every, least_need(config, batch, count, length, {**_how(every), "device": "cuda"}, plan)
    return None


def _how(every: int | str) -> dict[str, Any]:
    return {"precision": _PRECISION, "checkpoint_every": every}
