"""The precision of the stream under autocast: what a state is kept in between sub-layers.

Autocast computes products in half precision and leaves the stream in float32. With ``stream="half"`` each sub-layer
computes as before, its rule in float32, and what it hands on is rounded to autocast's precision: half the bytes on
every pass over the stream. The default is float32: at a depth of a thousand DeepNorm's branches are about as large as
what bfloat16 rounds away (docs/depth.md).
"""

import torch

from deepnet_edu.residual import State


def widened(state: State, half: torch.dtype | None) -> State:
    """The state as a rule computes with it: float32 where it was kept in ``half``."""
    return state if half is None else tuple(x.float() for x in state)


def narrowed(state: State, half: torch.dtype | None) -> State:
    """The state as it is kept: in ``half`` if that is given."""
    return state if half is None else tuple(x.to(half) for x in state)
