"""Which plan to take: copies while they fit, then shards, then stages."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

from deepnet_edu.fields import check_whole
from deepnet_edu.messages import UserError
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.planning.pipeline import bubble
from deepnet_edu.planning.plan import Plan
from deepnet_edu.planning.ranks import rank_memory, rank_traffic

#: The share of a GPU's memory that a plan may take by formula: CUDA itself and what ranks send wants room too.
SHARE = 0.9
#: Sequences for each GPU, where the batch is not given.
SEQUENCES = 8
#: A pipeline takes at most this many micro-batches for each of its ranks: its bubble is then a quarter or less.
_PIECES = 4
_MOST_GPUS = 128


class Proposal(NamedTuple):
    """A plan, and why it is this one: a sentence or two."""

    plan: Plan
    why: str


def propose(
    config: ModelConfig,
    gpus: int,
    memory: float,
    *,
    sequences: int = 0,
    tokens: int = 0,
    advise: bool = True,
    **how: Any,
) -> Proposal:
    """The first of these plans that fits: copies, shards, stages of copies, stages of shards; fewer stages first.

    Copies need no schedule. Shards divide what copies repeat, and send half as much again. Stages send the stream
    alone, and hold ranks back by their bubble: they are what is left where shards need too much, or where the
    sequences cannot be shared out to all GPUs.

    Args:
        config: of the model.
        gpus: how many, all of them are used.
        memory: bytes of each.
        sequences: in a batch, over all GPUs; 0 for 8 for each.
        tokens: in a sequence; 0 for ``config.max_length``.
        advise: whether a refusal is to say what would fit, for which more plans are tried.
        how: ``precision``, ``checkpoint_every``, ``source_tokens`` and ``device`` of
            :func:`~deepnet_edu.planning.rank_memory`; the device is ``"cuda"`` unless given.

    Raises:
        ValueError: gpus or memory is not positive.
        UserError: nothing fits; the sentence says what would.
    """
    check_whole("gpus", gpus)
    if isinstance(memory, bool) or not isinstance(memory, int | float) or not 0 < memory < float("inf"):
        raise ValueError(f"memory={memory!r}: expected a positive number of bytes.")
    sequences, tokens = sequences or SEQUENCES * gpus, tokens or config.max_length
    how = {"device": "cuda", **how}
    needs = {plan: _need(config, plan, sequences, tokens, how) for plan in _candidates(config, gpus, sequences)}
    if not needs:
        raise UserError(
            f"A batch of {sequences} sequences cannot be cut for {gpus} GPUs, neither into shares nor into "
            f"micro-batches: take a multiple of {gpus}, for example {SEQUENCES * gpus}."
        )
    for plan, need in needs.items():
        if need <= SHARE * memory:
            return Proposal(plan, _why(config, plan, needs, memory, sequences, tokens, how))
    raise UserError(_refusal(config, needs, gpus, memory, sequences, tokens, how) if advise else "No plan fits.")


def least_need(
    config: ModelConfig, sequences: int, gpus: int, tokens: int, how: dict[str, Any], plan: Plan | None = None
) -> int:
    """Bytes of the fullest GPU by a plan, or by the one that needs the least.

    Args:
        config, sequences, gpus, tokens, how: as of :func:`propose`.
        plan: None for any.
    """
    plans = _candidates(config, gpus, sequences) if plan is None else [plan]
    return min(_need(config, one, sequences, tokens, how) for one in plans)


def _candidates(config: ModelConfig, gpus: int, sequences: int) -> Iterator[Plan]:
    """What can be cut so, the first choice in front."""
    layers = config.encoder_layers + config.decoder_layers
    for stages in range(1, min(gpus, max(layers, 1)) + 1):
        shares = gpus // stages
        if gpus % stages or sequences % shares:
            continue
        n_microbatches = _pieces(sequences // shares, stages)
        if not n_microbatches:
            continue
        split: dict[str, Any] = {"pipeline": stages, "microbatches": n_microbatches} if stages > 1 else {}
        yield Plan(data=shares, **split)
        if shares > 1:
            yield Plan(shard=shares, **split)


def _pieces(share: int, stages: int) -> int:
    """The most micro-batches, up to four for each stage; 0 if the share cannot be cut so."""
    return max((m for m in range(stages, _PIECES * stages + 1) if share % m == 0), default=0) if stages > 1 else 1


def _need(config: ModelConfig, plan: Plan, sequences: int, tokens: int, how: dict[str, Any]) -> int:
    """Bytes of the fullest rank."""
    return max(rank.total for rank in rank_memory(config, sequences, tokens, **asdict(plan), **how))


def _why(
    config: ModelConfig,
    plan: Plan,
    needs: dict[Plan, int],
    memory: float,
    sequences: int,
    tokens: int,
    how: dict[str, Any],
) -> str:
    need, has = f"{needs[plan] / 1e9:.1f} GB", f"{memory / 1e9:.1f} GB"
    if plan.ranks == 1:
        return f"One GPU holds it: {need} of {has}."
    settings = {name: value for name, value in how.items() if name not in ("device", "checkpoint_every")}
    sent = max(rank.total for rank in rank_traffic(config, sequences, tokens, **asdict(plan), **settings))
    sends = f"Each sends {sent / 1e9:.2g} GB a step"
    if plan == Plan(data=plan.ranks):
        return f"Copies fit: a GPU needs {need} of {has}. {sends}, its gradients alone."
    whole = Plan(data=plan.ranks)
    before = (
        f"A copy needs {needs[whole] / 1e9:.1f} GB, more than {SHARE:.0%} of {has}"
        if whole in needs
        else f"{sequences} sequences cannot be shared out to {plan.ranks} GPUs"
    )
    if plan.pipeline == 1:
        return f"{before}; one of {plan.shard} shards needs {need}. {sends}: weights twice, gradients once."
    shards = Plan(shard=plan.ranks)
    if shards in needs:
        before += f", and one of {plan.ranks} shards {needs[shards] / 1e9:.1f} GB"
    of = f"{plan.data} copies of each" if plan.data > 1 else f"{plan.shard} shards of each" if plan.shard > 1 else ""
    waits = bubble(plan.schedule, plan.pipeline, plan.n_microbatches)
    return (
        f"{before}; with {plan.pipeline} stages{f' and {of}' if of else ''} the fullest GPU needs {need}. "
        f"{sends}; the bubble of {plan.n_microbatches} micro-batches is {waits:.0%} of the time that a rank works."
    )


def _refusal(
    config: ModelConfig,
    needs: dict[Plan, int],
    gpus: int,
    memory: float,
    sequences: int,
    tokens: int,
    how: dict[str, Any],
) -> str:
    least = min(needs, key=lambda plan: needs[plan])
    ways = []
    if not how.get("checkpoint_every"):
        less = {**how, "checkpoint_every": "auto"}
        fits = _fitting(config, needs, memory, sequences, tokens, less)
        ways += [f"checkpoint_every='auto' with {plan.title} needs {need / 1e9:.1f} GB" for plan, need in fits]
    more = 2 * gpus
    while more <= _MOST_GPUS:
        batch = sequences * more // gpus
        fits = _fitting(config, _candidates(config, more, batch), memory, batch, tokens, how)
        if fits:
            plan, need = fits[0]
            ways.append(f"{more} GPUs by {plan.title} need {need / 1e9:.1f} GB each for {batch} sequences")
            break
        more *= 2
    advice = "; ".join(ways) if ways else "take fewer layers, a smaller d_model or less text"
    return (
        f"No plan for {gpus} GPUs of {memory / 1e9:.1f} GB, of which {SHARE:.0%} are counted on: the least is "
        f"{needs[least] / 1e9:.1f} GB, by {least.title}. What would do: {advice}."
    )


def _fitting(
    config: ModelConfig, plans: Iterable[Plan], memory: float, sequences: int, tokens: int, how: dict[str, Any]
) -> list[tuple[Plan, int]]:
    """The first plan that fits, and its bytes; empty if none does."""
    for plan in plans:
        need = _need(config, plan, sequences, tokens, how)
        if need <= SHARE * memory:
            return [(plan, need)]
    return []
