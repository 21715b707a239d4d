"""What depends on what, by gradient: which axis is time, whether there is a mask, whether a gradient gets through."""

from dataclasses import dataclass

import torch
from torch import Tensor

from deepnet_edu.review.forms import SubLayer
from deepnet_edu.review.trace import Activation


def dependence(f: Activation, x: Activation, row: int | None) -> Tensor | None:
    """Gradient of f in x, (tokens, width): of one row of f, or of all; None where no gradient gets from f to x."""
    if f.edge is None or x.edge is None:
        return None
    noise = torch.randn(f.value.shape, generator=torch.Generator().manual_seed(2)).to(f.value)
    if row is not None:
        noise = noise * (torch.arange(len(noise), device=noise.device) == row)[:, None]
    if f.tensor._version == f.version:
        goal = (f.tensor * noise.reshape(f.shape)).sum()
        (found,) = torch.autograd.grad([goal], [x.edge], retain_graph=True, allow_unused=True)
    else:  # something was added to it in place; this way takes PyTorch seconds, the first time
        weight = [noise.reshape(f.shape)]
        (found,) = torch.autograd.grad([f.edge], [x.edge], weight, retain_graph=True, allow_unused=True)
    return None if found is None else found.detach().reshape(x.value.shape)


@dataclass(frozen=True)
class Layout:
    """How tokens see each other. ``axis``: the axis of time in the stream's shape, None where no token sees another;
    ``causal``: whether a token sees earlier ones only; ``clear``: whether all that could be found out."""

    axis: int | None = None
    causal: bool | None = None
    clear: bool = True


def layout(sub: SubLayer) -> Layout | None:
    """Which axis of the stream is time, and whether attention has a mask: from two tokens in the middle, by gradient.

    None where no gradient tells.
    """
    shape = sub.x.shape[:-1]
    if len(shape) > 2 or not sub.x.fits(sub.f) or (sub.x.shape != sub.f.shape and len(sub.f.shape) != 2):
        return None
    low = [(n - 1) // 2 for n in shape]
    places = [low, [min(i + 1, n - 1) for i, n in zip(low, shape, strict=True)]]
    axes: set[int] = set()
    later = stray = False
    for place in places:
        touched = _touched(sub, place)
        if touched is None:
            return None
        for other in touched:
            moved = [axis for axis in range(len(shape)) if other[axis] != place[axis]]
            axes.update(moved)
            stray |= len(moved) > 1
            later |= any(other[axis] > place[axis] for axis in moved)
    if len(shape) == 1 and axes:  # several sequences in one row, or one?
        touched = _touched(sub, [shape[0] - 1])
        stray = touched is None or [0] not in touched
    if stray or len(axes) > 1:
        return Layout(clear=False)
    return Layout(axes.pop(), not later) if axes else Layout()


def _touched(sub: SubLayer, place: list[int]) -> list[list[int]] | None:
    """The places of the stream that the branch's output at one place depends on."""
    shape = sub.x.shape[:-1]
    row = place[0] if len(shape) == 1 else place[0] * shape[1] + place[1]
    gradient = dependence(sub.f, sub.x, row)
    return None if gradient is None else (gradient != 0).any(-1).reshape(shape).nonzero().tolist()
