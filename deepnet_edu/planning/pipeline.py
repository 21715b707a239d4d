"""A pipeline on paper: which layers a stage has, in which order a rank works, who waits when, and the bubble.

A forward pass of a rank's layers over one micro-batch is the unit of time, a backward pass takes two.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from deepnet_edu.messages import unknown

#: How many stages a rank has, one far from the other, in an interleaved pipeline.
CHUNKS = 2
FORWARD, BACKWARD = 1.0, 2.0
_KNOWN = ("1f1b", "interleaved", "gpipe")


class Action(NamedTuple):
    """One piece of work of a rank.

    Attributes:
        backward: whether the gradient comes down, or the stream goes up.
        stage: from 0; stage s lies on rank s mod p.
        microbatch: which, from 0.
    """

    backward: bool
    stage: int
    microbatch: int


class Slot(NamedTuple):
    """An action in its place: on a rank, from ``start`` to ``end``."""

    rank: int
    action: Action
    start: float
    end: float


def stage_layers(n_layers: int, stages: int) -> list[range]:
    """The layers of each stage: runs as equal in length as can be.

    Raises:
        ValueError: there are more stages than layers, or none.
    """
    if not 1 <= stages <= n_layers:
        raise ValueError(f"stages={stages}: expected 1 to {n_layers}, the number of layers.")
    bounds = [round(stage * n_layers / stages) for stage in range(stages + 1)]
    return [range(*pair) for pair in pairwise(bounds)]


def chunks_of(schedule: str) -> int:
    """How many stages a rank has.

    Raises:
        ValueError: there is no such schedule.
    """
    if schedule not in _KNOWN:
        raise ValueError(unknown("schedule", schedule, _KNOWN))
    return CHUNKS if schedule == "interleaved" else 1


def rank_order(schedule: str, rank: int, ranks: int, microbatches: int) -> list[Action]:
    """What a rank does, one after the other, as PyTorch's schedules of the same names do it.

    ``"gpipe"`` (arXiv 1811.06965): all forward, then all backward. ``"1f1b"`` (arXiv 1806.03377): as many forward as
    ranks come after, then one forward and one backward in turn, and the rest backward. ``"interleaved"`` (arXiv
    2104.04473, Section 2.2): the same with two stages on each rank, ``ranks`` micro-batches through one before the
    other.

    Args:
        schedule: one of the three.
        rank: from 0, which has the first layers.
        ranks: p.
        microbatches: m, micro-batches; interleaved, a multiple of ``ranks``.

    Raises:
        ValueError: there is no such schedule or rank, or ``microbatches`` does not suit.
    """
    chunks = chunks_of(schedule)
    if not 0 <= rank < ranks:
        raise ValueError(f"rank={rank}: expected 0 to {ranks - 1}.")
    if microbatches < 1 or (chunks > 1 and microbatches % ranks):
        wanted = f"a multiple of {ranks}" if chunks > 1 else "1 or more"
        raise ValueError(f"microbatches={microbatches}: expected {wanted}.")
    turns = ranks if chunks > 1 else microbatches  # micro-batches that pass one chunk before the next has its turn

    def action(k: int, backward: bool) -> Action:
        """The k-th of its kind on this rank."""
        group, within = divmod(k, turns * chunks)
        chunk, microbatch = divmod(within, turns)
        return Action(backward, (chunks - 1 - chunk if backward else chunk) * ranks + rank, group * turns + microbatch)

    forward = [action(k, False) for k in range(chunks * microbatches)]
    backward = [action(k, True) for k in range(chunks * microbatches)]
    ahead = len(forward)
    if schedule != "gpipe":
        after = ranks - 1 - rank
        ahead = min(after if chunks == 1 else 2 * after + (chunks - 1) * ranks, len(forward))
    paired = len(forward) - ahead
    turn = [one for pair in zip(forward[ahead:], backward[:paired], strict=True) for one in pair]
    return forward[:ahead] + turn + backward[paired:]


def timeline(schedule: str, ranks: int, microbatches: int) -> list[Slot]:
    """The work of each rank, in the order of time: :func:`in_time` of each rank's :func:`rank_order`."""
    return in_time([rank_order(schedule, rank, ranks, microbatches) for rank in range(ranks)])


def in_time(orders: Sequence[Sequence[Action]]) -> list[Slot]:
    """Each rank's actions in its order, each as soon as the rank is free and what it needs has come.

    A forward action needs the one of the stage below, a backward action that of the stage above, for the same
    micro-batch; at the top its own forward action. Sending takes no time.

    Args:
        orders: of each rank. Stages are cut so that each rank has as many.

    Returns:
        By rank, then by time.

    Raises:
        ValueError: the ranks wait for each other for ever.
    """
    last = max(action.stage for order in orders for action in order)
    chunks = (last + 1) // len(orders)
    waiting = [list(order) for order in orders]
    done: dict[Action, float] = {}
    found: list[list[Slot]] = [[] for _ in orders]
    while any(waiting):
        before = len(done)
        for rank, order in enumerate(waiting):
            while order:
                action = order[0]
                needed = _needed(action, last)
                if needed is not None and needed not in done:
                    break
                free = found[rank][-1].end if found[rank] else 0.0
                start = max(free, done[needed] if needed else 0.0)
                done[action] = start + (BACKWARD if action.backward else FORWARD) / chunks
                found[rank].append(Slot(rank, order.pop(0), start, done[action]))
        if len(done) == before:
            raise ValueError("In these orders the ranks wait for each other for ever.")
    return [slot for slots in found for slot in slots]


def _needed(action: Action, last: int) -> Action | None:
    """What must have been done on another stage, or at the top on the same one."""
    if not action.backward:
        return action._replace(stage=action.stage - 1) if action.stage else None
    return action._replace(stage=action.stage + 1) if action.stage < last else action._replace(backward=False)


def length(slots: Sequence[Slot]) -> float:
    """When the last rank is done."""
    return max(slot.end for slot in slots)


def most_at_once(order: Sequence[Action]) -> int:
    """The most micro-batches whose activations a rank keeps at a time: of each of its stages, together."""
    kept = most = 0
    for action in order:
        kept += -1 if action.backward else 1
        most = max(most, kept)
    return most


def bubble(schedule: str, ranks: int, microbatches: int) -> float:
    """Time that a rank waits, over the time that it works: (p - 1)/m, and (p - 1)/(2m) interleaved.

    Args:
        schedule, ranks, microbatches: as of :func:`rank_order`.

    Raises:
        ValueError: there is no such schedule.

    Source: arXiv 2104.04473, Sections 2.2.1 and 2.2.2.
    """
    return (ranks - 1) / (microbatches * chunks_of(schedule))
