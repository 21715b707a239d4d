"""How a sub-layer is joined to the stream by one operation. What may be joined so is decided in :mod:`.plan`."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu.model.stream import narrowed, widened
from deepnet_edu.residual import State


@dataclass(frozen=True)
class Join:
    """How one sub-layer is joined.

    Attributes:
        norm: the norm of its sum, of its own rule; or of the sub-layer above, which reads it (``total``). In a tuple,
            or the sub-layer would count it among its own modules.
        alpha: the name of the rule's buffer that is on the skip; empty for 1.
        total: whether the sum itself is the stream, as in Pre-LN, and the norm is for the branch above.
        hand_on: whether the branch above reads the stream as it is, and gets a narrow copy of it where that is wide.
    """

    norm: tuple[nn.Module, ...]
    alpha: str = ""
    total: bool = False
    hand_on: bool = False


def joined(sublayer: Any, state: State, context: Any) -> State:
    """The state after a sub-layer: the stream, and what the branch above it reads, where that is known already.

    Args:
        sublayer: a :class:`~deepnet_edu.model.layer.SubLayer`.
        state: as the sub-layer below gave it.
        context: with another one for branches whose last bias is added here, ``context.fused``.
    """
    join, rule, x = sublayer.join, sublayer.residual, state[0]
    drops = sublayer.training and sublayer.dropout > 0
    folded = join is not None and not drops
    inside = context.fused if folded else context
    if len(state) > 1:
        f = sublayer.branch(state[1], inside)
        f = F.dropout(f, sublayer.dropout) if drops else f
    else:
        f = sublayer.branched(widened((x,), context.half), inside)
    if join is None:  # the highest of a layer of Pre-LN: the norm that reads its sum is another layer's
        return narrowed(rule.write(widened((x,), context.half), f), context.half)
    (norm,) = join.norm
    y, total, narrow = torch.ops.deepnet_edu.add_norm(
        x,
        f,
        sublayer.branch.last.bias if folded else None,
        rule.get_buffer(join.alpha) if join.alpha else None,
        norm.weight,
        norm.bias if type(norm) is nn.LayerNorm else None,
        norm.eps,
        type(norm) is nn.LayerNorm,
        join.total,
        join.hand_on and f.dtype != x.dtype,
    )[:3]
    if join.total:
        return total, y
    return (y, narrow) if join.hand_on and f.dtype != x.dtype else (y,)


def last(linear: Any, x: Tensor, bare: bool) -> Tensor:
    """What a branch ends with: its last matrix, ``bare`` without the bias."""
    found: Tensor = F.linear(x, linear.weight) if bare else linear(x)
    return found
