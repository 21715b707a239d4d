"""One forward pass of anybody's model, seen from outside: which module read what, in what order, and what it gave."""

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from deepnet_edu.probing.watch import differentiable, undisturbed

#: Entries of an activation that are compared with others; as sure as all of them, and quicker.
SAMPLE = 4096


@dataclass(eq=False)
class Activation:
    """A tensor that passed between modules, as it was when it was first seen.

    Attributes:
        value: (tokens, width), a copy: some models add to their stream in place.
        sample: some entries of it in float64, at the same places for all of one size.
        tensor: itself, as it is now; ``version``: how often it had been changed in place when it was seen.
        edge: where it hung in the graph of gradients then, None where no gradient reaches it.
        time: when it was first seen.
        maker: the innermost call that gave it, None for what was computed between modules.
        same: an earlier activation that this one is a multiple of; ``copies``: the later ones that are one of this.
    """

    value: Tensor
    sample: Tensor
    tensor: Tensor
    version: int
    edge: GradientEdge | None
    time: int
    maker: "Call | None" = None
    same: "Activation | None" = None
    copies: "list[Activation]" = field(default_factory=list)

    @property
    def origin(self) -> "Activation":
        """The first activation that this is a copy or a multiple of."""
        return self if self.same is None else self.same.origin

    @cached_property
    def size(self) -> float:
        """Length of the sample; 0 also where it is not finite."""
        size = float(self.sample.norm())
        return size if math.isfinite(size) else 0.0

    @property
    def shape(self) -> torch.Size:
        """The tensor's own shape."""
        return self.tensor.shape

    def fits(self, other: "Activation") -> bool:
        """Whether both have as many tokens of the same width."""
        return self.value.shape == other.value.shape


@dataclass(eq=False)
class Call:
    """One call of a module: when it began and ended, what it read and gave. ``leaf``: it called no other module."""

    name: str
    module: nn.Module
    start: int
    inputs: list[Activation]
    leaf: bool = True
    end: int = -1
    output: Activation | None = None

    @cached_property
    def matrices(self) -> list[nn.Parameter]:
        """The module's parameters of two dimensions or more, if this call is what uses them."""
        return [p for p in self.module.parameters() if p.ndim > 1] if self.leaf and self.inputs else []


class Trace:
    """What one forward pass of ``model`` was.

    Attributes:
        calls: all calls of modules, in the order in which they ended.
        activations: all tensors of floating point that passed between modules, in the order of their first sight.
        output: what the model returned, with its graph of gradients. In training mode dropout gives its mean.
    """

    def __init__(self, model: nn.Module, run: Callable[[nn.Module], Any]) -> None:
        self.calls: list[Call] = []
        self.activations: list[Activation] = []
        self._known: dict[tuple[Any, ...], Activation] = {}
        self._places: dict[int, Tensor] = {}
        self._open: list[Call] = []
        self._clock = 0
        self._norms: dict[nn.Module, bool] = {}
        names = {module: name for name, module in model.named_modules()}
        with ExitStack() as stack:
            for module, name in names.items():
                before = module.register_forward_pre_hook(self._before(name), with_kwargs=True)
                after = module.register_forward_hook(self._after)
                stack.callback(before.remove)
                stack.callback(after.remove)
            if model.training:
                stack.enter_context(_WithoutChance())
            self.output = tensor_of(run(model))

    def _before(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            changed = None
            if not self._open:  # the gradient is to reach the model's own input
                args, kwargs = tuple(map(_watched, args)), {key: _watched(value) for key, value in kwargs.items()}
                changed = args, kwargs
            else:
                self._open[-1].leaf = False
            self._clock += 1
            given = [kwargs.get("query"), *args, *kwargs.values()]
            inputs = [self._see(one) for one in given if _floating(one)]
            self._open.append(Call(name, module, self._clock, list(dict.fromkeys(inputs))))
            return changed

        return hook

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._clock += 1
        while (call := self._open.pop()).module is not module:  # those that an exception ended, caught by the model
            pass
        call.end = self._clock
        try:
            found = tensor_of(output)
        except TypeError:
            found = None
        if found is not None and _floating(found):
            known = len(self.activations)
            call.output = self._see(found)
            if call.leaf and len(self.activations) > known:
                call.output.maker = call
        self.calls.append(call)

    def _see(self, tensor: Tensor) -> Activation:
        layout = None if tensor.is_contiguous() else (tensor.shape, tensor.stride())
        key = (tensor.data_ptr(), tensor._version, tensor.numel(), tensor.shape[-1], layout, tensor.dtype)
        if key not in self._known:
            # Kept, since a freed tensor's address is given to another.
            value = tensor.detach().reshape(-1, tensor.shape[-1]).clone()
            edge = get_gradient_edge(tensor) if tensor.requires_grad else None
            activation = Activation(value, self._sampled(value), tensor, tensor._version, edge, self._clock)
            self._known[key] = activation
            self.activations.append(activation)
        return self._known[key]

    def _sampled(self, value: Tensor) -> Tensor:
        n = value.numel()
        if n not in self._places:
            places = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:SAMPLE]
            self._places[n] = places.to(value.device)
        return value.flatten()[self._places[n]].double()

    def is_norm(self, call: Call) -> bool:
        """Whether a call was one of a norm: without matrices, as wide as its input, and blind to its input's scale."""
        if call.module not in self._norms:
            self._norms[call.module] = self._acts_as_norm(call)
        return self._norms[call.module]

    @torch.no_grad()
    def _acts_as_norm(self, call: Call) -> bool:
        if call.output is None or len(call.inputs) != 1 or not call.output.fits(call.inputs[0]):
            return False
        if any(parameter.ndim > 1 for parameter in call.module.parameters()):
            return False
        if isinstance(call.module, nn.LayerNorm | nn.RMSNorm):
            return True
        shape = call.output.shape
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(call.output.value)
        try:
            one, other = call.module(noise), call.module(4 * noise)
        except Exception:  # it is called in another way, and no norm is
            return False
        if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
            return False
        return bool(one.any()) and bool((one - other).norm() < 0.02 * one.norm())

    @cached_property
    def norms(self) -> list[Call]:
        """The calls of norms, in order."""
        return [call for call in self.calls if self.is_norm(call)]

    def between(self, start: int, end: int, norms: bool = False) -> list[Call]:
        """The calls, or the norms' alone, that began at ``start`` or later and ended by ``end``."""
        calls = self.norms if norms else self.calls
        first = bisect_left(calls, start, key=lambda call: call.end)
        last = bisect_right(calls, end, key=lambda call: call.end)
        return [call for call in calls[first:last] if call.start >= start]


@contextmanager
def observed(model: nn.Module) -> Iterator[None]:
    """The model with gradients for all weights; afterwards it is what it was, and randomness too."""
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    state = random.getstate()
    with ExitStack() as stack:
        stack.enter_context(undisturbed(model))
        stack.enter_context(differentiable([p for p in model.parameters() if p.is_floating_point()]))
        stack.enter_context(torch.enable_grad())
        if any(hasattr(module, "_orig_mod") or module._compiled_call_impl is not None for module in modules):
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled code calls no hooks
        try:
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            with torch.no_grad():
                for buffer, before in buffers:
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)
            random.setstate(state)


class _WithoutChance(TorchFunctionMode):
    """Dropout gives its mean, its input; a random mask is as large as it is on average."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func is Tensor.bernoulli_:
            return args[0].fill_(args[1] if len(args) > 1 else kwargs.get("p", 0.5))
        if func is F.scaled_dot_product_attention and len(args) > 4:
            args = (*args[:4], 0.0, *args[5:])
        if "dropout_p" in kwargs:
            kwargs["dropout_p"] = 0.0
        return func(*args, **kwargs)


_DROPOUTS = {
    F.dropout,
    F.alpha_dropout,
    F.feature_alpha_dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    torch.dropout,
    torch.dropout_,
}


def tensor_of(output: Any) -> Tensor:
    """The first tensor of floating point with two dimensions or more in what a model or module returned.

    Raises:
        TypeError: there is none.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        for one in output:
            if _floating(one):
                return one
    raise TypeError(f"The model returned a {type(output).__name__} without a tensor of floating point in it.")


def _floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1 and value.numel() > 0


def _watched(value: Any) -> Any:
    """The same input, from which a gradient can be asked."""
    return value.detach().requires_grad_().clone() if _floating(value) and not value.requires_grad else value
