"""What mixes in a real stack: outputs over depth, under every rule, and streams, under rules that have several."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.linalg import vecdot
from torch.overrides import TorchFunctionMode

from deepnet_edu.fields import Count, checked
from deepnet_edu.model import Batch, Model
from deepnet_edu.model.attention import Context
from deepnet_edu.model.compiled import unwrapped
from deepnet_edu.model.stack import Stack
from deepnet_edu.probing.refusal import check_batch, check_finite
from deepnet_edu.probing.watch import undisturbed
from deepnet_edu.profiles import Array, DepthMixing
from deepnet_edu.residual import RESIDUALS
from deepnet_edu.residual.streams import Streams

#: Functions whose value weighs something else: it counts as the number that it is.
GATES = {"softmax", "sigmoid", "tanh", "exp", "rsqrt", "vecdot", "vector_norm", "pow", "softplus", "sinkhorn"}


def _layer_norm(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    y = centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt().detach()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _rms_norm(x: Tensor, shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    least = torch.finfo(x.dtype).eps if eps is None else eps
    y = x * (x.square().mean(-1, keepdim=True) + least).rsqrt().detach()
    return y if weight is None else y * weight


def _normalize(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    return x / torch.linalg.vector_norm(x, ord=p, dim=dim, keepdim=True).clamp_min(eps).detach()


def _silu(x: Tensor, inplace: bool = False) -> Tensor:
    return x * x.sigmoid().detach()


_LINEAR: dict[Any, Callable[..., Tensor]] = {
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.normalize: _normalize,
    F.silu: _silu,
}


class _Fixed(TorchFunctionMode):
    """Norms divide by the number that they have, and gates are numbers: what is left of a rule's verbs is linear."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _LINEAR:
            return _LINEAR[func](*args, **kwargs)
        name = getattr(func, "__name__", "").strip("_").removeprefix("linalg_")
        if name == "detach":  # a rule's own, which stops gradients and not what is read (GPAS)
            return args[0]
        found = func(*args, **kwargs)
        return found.detach() if name in GATES else found


@checked(model=unwrapped)
def depth_mixing(model: Model, batch: Batch, rows: Count = 128) -> DepthMixing:
    """The depth-mixing matrix of the model's (last) stack, trained or not, averaged over tokens.

    One forward pass, in which each branch's output becomes a source, and the rule's verbs are linear in all of them:
    norms and gates keep the numbers that they have. One backward pass for each row, through the verbs alone. For a norm
    with gains that differ, a weight is the mean over features.

    Args:
        model: from build_model.
        batch: on its device.
        rows: at most this many rows, from the bottom of the stack to its top.

    Raises:
        ValueError: as :func:`~deepnet_edu.probing.probe`.
    """
    check_batch(model, batch)
    stack = list(model.own_stacks().values())[-1]
    called: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = stack.register_forward_pre_hook(lambda _, args, kwargs: called.append((args, kwargs)), with_kwargs=True)
    try:
        with undisturbed(model), torch.no_grad():
            check_finite(model.logits(batch), model)
    finally:
        hook.remove()
    args, kwargs = called[-1]
    given = signature(Stack.forward).bind(stack, *args, **kwargs).arguments
    context = given.get("context") or Context(given.get("padding"))
    with undisturbed(model), torch.enable_grad():
        sources, read = _outputs(stack, given["x"], context)
        chosen = sorted({round(i) for i in np.linspace(0, len(read) - 1, min(rows, len(read)))})
        weights = np.stack([_weights(read[row], sources, row) for row in chosen])
    variances = np.array([source.detach().square().mean().item() for source in sources])
    parts = weights**2 * variances
    label = RESIDUALS[model.config.residual].title
    return DepthMixing(label, weights, parts / parts.sum(1, keepdims=True), tuple(chosen))


def _outputs(stack: Stack, x: Tensor, context: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The input and all outputs, as sources of a graph, and what each sub-layer reads, and what leaves the stack."""
    sublayers = stack.sublayers()
    sources, read = [x.detach().requires_grad_()], []
    with _Fixed():
        state = sublayers[0].residual.start(sources[0])
    for sublayer in sublayers:
        with _Fixed():
            state = sublayer.residual.enter(state)
            read.append(sublayer.residual.read(state))
        with torch.no_grad():
            output = sublayer.branch(read[-1].detach(), context)
        sources.append(output.detach().requires_grad_())
        with _Fixed():
            state = sublayer.residual.write(state, sources[-1])
    with _Fixed():
        read.append(sublayers[-1].residual.finish(state))
    return sources, read


def _weights(y: Tensor, sources: list[Tensor], row: int) -> Array:
    """d y / d source as a multiple of 1, the mean over tokens: (n + 1,)."""
    along = torch.randn(y.shape, generator=torch.Generator().manual_seed(row)).to(y)
    along = along - along.mean(-1, keepdim=True)  # LayerNorm takes no more of it away
    below = sources[: row + 1]
    gradients = torch.autograd.grad(y, below, along, retain_graph=True, allow_unused=True, materialize_grads=True)
    square = vecdot(along, along)
    found = np.zeros(len(sources))
    found[: row + 1] = [(vecdot(gradient, along) / square).mean().item() for gradient in gradients]
    return found


@checked(model=unwrapped)
def composite_gain(model: Model, batch: Batch) -> tuple[Array, Array]:
    """The most that streams gain from the bottom of the (last) stack up to each sub-layer, and back down from there.

    Largest row sum and largest column sum of |H_res(l)…H_res(1)|, the product of the mixers so far: both are 1 where
    all mixers are doubly stochastic (arXiv 2512.24880). Means over tokens.

    Args:
        model: from build_model, with a rule that mixes streams.
        batch: on its device.

    Returns:
        Rows (forward) and columns (backward), (n,) each.

    Raises:
        ValueError: the rule has no streams to mix, or as :func:`~deepnet_edu.probing.probe`.
    """
    check_batch(model, batch)
    sublayers = model.sublayers()
    if not all(isinstance(sublayer.residual, Streams) for sublayer in sublayers):
        raise ValueError(
            f"residual={model.config.residual!r} has no streams that it mixes: use "
            + " or ".join(repr(name) for name, rule in RESIDUALS.items() if issubclass(rule, Streams))
            + "."
        )
    total: Tensor | None = None
    up: list[float] = []
    down: list[float] = []

    def mixed(sublayer: Any, args: tuple[Any, ...]) -> None:
        nonlocal total
        H, _ = sublayer.residual.maps(*args[0])
        mixer = H[..., :-1, :].double()
        total = mixer if total is None else mixer @ total
        size = total.abs()
        up.append(size.sum(-1).amax(-1).mean().item())
        down.append(size.sum(-2).amax(-1).mean().item())

    hooks = [sublayer.register_forward_pre_hook(mixed) for sublayer in sublayers]
    try:
        with undisturbed(model), torch.no_grad():
            check_finite(model.logits(batch), model)
    finally:
        for hook in hooks:
            hook.remove()
    return np.array(up), np.array(down)
