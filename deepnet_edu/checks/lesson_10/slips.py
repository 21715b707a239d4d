"""A model small enough for a training step by hand, and what each known slip would make of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepnet_edu.checks.lesson_10.optimizer import UNSET


@dataclass
class Batch:
    """What the small model learns from.

    Attributes:
        x: (n, d).
        y: (n,).
        steep: what each adds to every entry of w's gradient, and nothing to the loss.
    """

    x: Tensor
    y: Tensor
    steep: Sequence[float] = ()


class Model(nn.Module):
    """loss = mean((x·w + b - y)²): small enough for a gradient by hand.

    Args:
        d: numbers in w.
        seed: that of all numbers.
        dtype: that of all numbers.

    Attributes:
        starts: the gradient from which each backward pass began.
        blind: whether a forward pass ran where no gradients are kept.
    """

    def __init__(self, d: int, seed: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(torch.randn(d, generator=draw, dtype=dtype))
        self.b = nn.Parameter(torch.randn(1, generator=draw, dtype=dtype))
        self.starts: list[float] = []
        self.blind = False

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, a number."""
        loss = (batch.x @ self.w + self.b - batch.y).square().mean()
        for slope in batch.steep:
            loss = loss + slope * (self.w.sum() - self.w.sum().detach())
        if loss.requires_grad:
            loss.register_hook(lambda gradient: self.starts.append(gradient.item()))
        self.blind |= not loss.requires_grad
        return loss


def batch_of(d: int, seed: int, size: float = 1.0, dtype: torch.dtype = torch.float64) -> Batch:
    """A batch that follows from the seed."""
    draw = torch.Generator().manual_seed(seed)
    x = size * torch.randn(6, d, generator=draw, dtype=dtype)
    return Batch(x, torch.randn(6, generator=draw, dtype=dtype))


def short(model: Model, batch: Batch) -> Batch:
    """A batch whose gradient is shorter than any clip here."""
    x = 0.02 * batch.x
    return Batch(x, (x @ model.w + model.b).detach() - 0.15 * batch.y)


def values_of(model: Model) -> Tensor:
    """All numbers that are trained."""
    return torch.cat([model.w.detach(), model.b.detach()])


#: What may go wrong in a step, and what to say. Each is tried, and compared with what the learner's step has done.
SLIPS = {
    "no zero": "The gradients of the last step are still there: backward adds to them, so begin with zero_grad.",
    "nothing": "Nothing moved: the optimizer found no gradient. It steps after backward, without zero_grad in between.",
    "no clip": "The optimizer took a gradient that was not clipped: clip between backward and its step.",
    "clip values": "Clipping entry by entry changes the gradient's direction: clip the norm of the whole.",
    "largest": "That clips by the largest entry: the 2-norm of the whole gradient is what counts.",
    "always": "A gradient that is shorter than clip stays as it is: clip only shortens.",
    "skip": "A gradient that is longer than clip is shortened, and the step is taken all the same.",
    "each": "Take one norm over all parameters, not one for each: only then the gradient keeps its direction.",
    "old rate": "The optimizer stepped with another rate: set ['lr'] in each of its param_groups before it steps.",
    "no rate": "The optimizer stepped with another rate: set ['lr'] in each of its param_groups before it steps.",
    "one group": "Only the first group got the rate: optimizer.param_groups may have several.",
    "rate on loss": "The rate belongs in the optimizer: as a factor of the loss it changes what clip sees.",
    "by hand": "The weights moved without the optimizer, and its memory was not used: optimizer.step() moves them.",
    "twice": "The optimizer stepped twice: one call, one step.",
}
#: The same of a step with a scaled loss.
SCALED_SLIPS = {name: said for name, said in SLIPS.items() if name not in ("always", "rate on loss", "largest")} | {
    "clip scaled": "Unscale first, then clip: the scaled gradient is always too long, and what is left of it is "
    "divided once more.",
    "not divided": "The gradient was not divided by the scale.",
    "not divided, not clipped": "The gradient was neither divided by the scale nor clipped.",
    "divided twice": "The gradient was divided by the scale once too often: was the loss multiplied by it?",
    "rate divided": "The rate was divided by the scale, not the gradient: the optimizer remembers scaled ones.",
}


@dataclass(frozen=True)
class Step:
    """What one step is told."""

    batch: Batch
    rate: float
    scale: float = 1.0


def after(model: Model, steps: Sequence[Step], clip: float, slip: str = "") -> Tensor:
    """The weights after some steps, by hand.

    Args:
        model: before the first.
        steps: one after the other.
        clip: largest norm.
        slip: what goes wrong, a key of SCALED_SLIPS, or empty.
    """
    w = values_of(model)
    speed, left = torch.zeros_like(w), torch.zeros_like(w)
    rates = torch.full_like(w, UNSET)
    parts = [slice(len(w) - 1), slice(len(w) - 1, None)]
    for step in steps:
        x, y = step.batch.x, step.batch.y
        error = (x @ w[:-1] + w[-1] - y) * 2 / len(y)
        gradient = torch.cat([x.mT @ error + sum(step.batch.steep), error.sum().reshape(1)])
        if slip == "no zero":
            gradient = gradient + left / step.scale
        factor = {"rate on loss": step.rate, "divided twice": 1 / step.scale}.get(slip, 1.0)
        if slip in ("clip scaled", "not divided", "not divided, not clipped", "rate divided"):
            factor = step.scale
        most = clip * step.scale if slip == "rate divided" else clip
        taken = left = _clipped(factor * gradient, most, slip, parts)
        if slip == "clip scaled":
            taken = taken / step.scale
        if slip == "nothing" or (slip == "skip" and gradient.norm() > clip):
            continue
        before, rates = rates, torch.full_like(w, step.rate)
        if slip == "one group":
            rates[-1] = UNSET
        used = {"old rate": before, "no rate": torch.full_like(w, UNSET), "rate on loss": torch.ones_like(w)}.get(
            slip, rates / step.scale if slip == "rate divided" else rates
        )
        for _ in range(2 if slip == "twice" else 1):
            speed = taken if slip == "by hand" else 0.5 * speed + taken
            w = w - used * speed
    return w


def _clipped(gradient: Tensor, clip: float, slip: str, parts: Sequence[slice]) -> Tensor:
    norm = gradient.norm().item()
    if slip in ("no clip", "not divided, not clipped"):
        return gradient
    if slip == "clip values":
        return gradient.clamp(-clip, clip)
    if slip == "each":
        return torch.cat([_clipped(gradient[part], clip, "", ()) for part in parts])
    if slip == "largest":
        norm = gradient.abs().max().item()
    return gradient * (clip / (norm + 1e-6)) if norm > clip or slip == "always" else gradient
