"""The fast path against the plain one, on some layers of a stack and random tokens."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from deepnet_edu.model.attention import Context
from deepnet_edu.model.fast.node import Node, StackRun
from deepnet_edu.model.fast.reading import Reading

#: How far the two may be apart, relative to the largest number of a tensor. Sums of thousands of numbers, in whatever
#: order a processor adds them, differ by a tenth of that; an α that is off by 1/1000, by five times as much.
APART = {torch.float32: 1e-4, torch.float64: 1e-10}
#: Gradients that are smaller than this share of the largest one are compared with that: some are 0 but for rounding.
SMALL = 0.01
BATCH = 2


def proof(stack: Any, reading: Reading, T: int, S: int) -> str:
    """Compare outputs and gradients of both paths, on copies of the layers that the reading names.

    The copies keep their constants, and get random weights, with which branch and skip weigh the same: at the start of
    a deep DeepNorm the branch is so small that an α twice as large would not be seen. Nothing of the stack is changed,
    nor the state of random numbers, and no hook is called.

    Args:
        stack: a :class:`~deepnet_edu.model.stack.Stack`.
        reading: of this stack.
        T: tokens, as many as there will be: attention may depend on it.
        S: tokens of the memory, if there is one.

    Returns:
        An empty string if both are equal but for rounding, else what differs, a clause.
    """
    state = torch.get_rng_state()
    try:
        # Hooks that watch what autograd keeps are not called either.
        with torch.inference_mode(False), torch.enable_grad(), saved_tensors_hooks(_same, _same):
            return _compare(stack, reading, T, S)
    except Exception as error:  # whatever the layer raises, the plain path will raise it, and be heard
        return f"it was compared with the plain layer, which ended with {type(error).__name__}"
    finally:
        torch.set_rng_state(state)


def _compare(stack: Any, reading: Reading, T: int, S: int) -> str:
    few = _few(stack, [stack.layers[index] for index in reading.compared])
    generator = torch.Generator().manual_seed(T)
    d = reading.subs[0].last.weight.shape[0]

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=reading.dtype, device="cpu")

    memory = noise(BATCH, S, d).requires_grad_() if reading.looks_up else None
    x, dy = noise(BATCH, T, d).requires_grad_(), noise(BATCH, T, d)
    own = Reading(few, memory)
    _fill(few, own, generator)
    inputs = {"the input": x, **({"the memory": memory} if memory is not None else {}), **dict(few.named_parameters())}
    plain = few.plain(x, Context(memory=memory))
    (start,) = few.start(x)
    fast = Node.apply(StackRun(few, own, start, memory, train=True), start, memory, *own.weights)
    found = [torch.autograd.grad(y, list(inputs.values()), dy, allow_unused=True) for y in (plain, fast)]
    largest = max(g.abs().max().item() for g in found[0] if g is not None)
    pairs = {"output": (plain, fast, 0.0)}
    pairs |= {f"gradient of {name}": (a, b, SMALL * largest) for name, a, b in zip(inputs, *found, strict=True)}
    for name, (a, b, least) in pairs.items():
        if a is None and b is None:
            continue
        a, b = (torch.zeros(()) if one is None else one.detach() for one in (a, b))
        apart = ((a - b).abs().max() / a.abs().max().clamp_min(least)).item()
        if not apart <= APART[reading.dtype]:
            return f"it was compared with the plain layer, and the {name} differs: {apart:.1g} apart, relative"
    return ""


def _few(stack: Any, layers: Sequence[Any]) -> Any:
    """A stack of copies of some layers, all of whose parameters are trained."""
    few = object.__new__(type(stack))
    nn.Module.__init__(few)
    few.layers = copy.deepcopy(nn.ModuleList(layers))
    few.requires_grad_().training = stack.training
    return few


@torch.no_grad()
def _fill(few: Any, reading: Reading, generator: torch.Generator) -> None:
    """Random weights, so that zeros and ones hide nothing, and branches that are about as large as the skip."""
    for parameter in few.parameters():
        spread = (3 / parameter.shape[-1]) ** 0.5 if parameter.dim() > 1 else 0.5
        parameter.uniform_(-spread, spread, generator=generator)
        if parameter.dim() < 2:
            parameter.add_(1)
    for sub in reading.subs:
        if sub.skip and sub.scale:
            for weight in (sub.last.weight, sub.last.bias):
                weight.mul_(abs(sub.skip / sub.scale))


def _same(x: Any) -> Any:
    return x
