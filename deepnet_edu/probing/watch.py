"""The stream's statistics during a forward pass, sub-layer by sub-layer, and the gradient's after it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu.models import Batch, Model, evaluating
from deepnet_edu.record import DepthProfile
from deepnet_edu.transformer import SubLayer

#: What is measured at each sub-layer, in this order.
STATISTICS = ("variance", "norm", "token_similarity", "input_share", "norm_gain")
#: Stands in for a squared length of 0, whose inverse would be infinite.
TINY = 1e-24


def token_similarity(x: Tensor) -> Tensor:
    """Mean cosine between different tokens of the same sequence. x: (B, T, d) with T ≥ 2 → scalar tensor."""
    return _similarity(x, torch.linalg.vecdot(x, x))


def input_share(x0: Tensor, x: Tensor) -> Tensor:
    """Share of x's variance over features that lies along x0, token by token, then averaged. Both (B, T, d)."""
    return F.cosine_similarity(x0 - x0.mean(-1, keepdim=True), x - x.mean(-1, keepdim=True), dim=-1).square().mean()


# A probe looks at 2,000 sub-layers, so what it computes there are few and cheap operations: dot products over the
# features, not torch.std or F.normalize, which take ten times as long on a CPU.


def _similarity(x: Tensor, square: Tensor) -> Tensor:
    """Token similarity where ‖x‖², (B, T), is known."""
    B, T = square.shape
    total = square.clamp_min(TINY).rsqrt_().unsqueeze(1) @ x  # Σᵢ uᵢ over tokens of length 1: (B, 1, d)
    # |Σᵢ uᵢ|² counts every pair, and each token with itself: T ones to take away.
    return (total.square_().sum() / B - T) / (T * (T - 1))


def _spread(x: Tensor, square: Tensor) -> Tensor:
    """‖x - mean(x)‖², (B, T), where ‖x‖² is known: d times the variance over the features, at least a tiny number."""
    return torch.addcmul(square, x.mean(-1), x.sum(-1), value=-1).clamp_min_(TINY)


class Watch:
    """While entered, every forward pass of ``model`` leaves the stream's statistics by sub-layer here.

    Keeps five numbers a sub-layer and no activations but each stack's input. The last forward pass counts.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._sublayers = model.sublayers()
        self._statistics: dict[int, tuple[Tensor, ...]] = {}
        self._gains: dict[int, Tensor] = {}
        self._inputs: dict[str, Tensor] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> "Watch":
        for i, sublayer in enumerate(self._sublayers):
            if sublayer.residual.place.is_first:
                self._handles.append(sublayer.register_forward_pre_hook(self._enter_stack))
            norm = getattr(sublayer.residual, "norm", None)
            if norm is not None:
                self._handles.append(norm.register_forward_pre_hook(self._before_norm(i)))
            self._handles.append(sublayer.register_forward_hook(self._after(i)))
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._inputs.clear()

    @torch.no_grad()
    def _enter_stack(self, sublayer: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(sublayer, SubLayer)
        x = sublayer.residual.stream(args[0])
        self._inputs[sublayer.residual.place.stack] = F.normalize(x - x.mean(-1, keepdim=True), dim=-1)

    def _before_norm(self, i: int) -> Any:
        @torch.no_grad()
        def hook(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
            u = args[0]
            square = torch.linalg.vecdot(u, u)
            gain = (_spread(u, square) if isinstance(norm, nn.LayerNorm) else square).rsqrt_().mean()
            weight = getattr(norm, "weight", None)
            # rms(γ) / σ(u) is ‖γ‖ / ‖u‖: both have d entries.
            self._gains[i] = gain * (math.sqrt(u.shape[-1]) if weight is None else torch.linalg.vector_norm(weight))

        return hook

    def _after(self, i: int) -> Any:
        @torch.no_grad()
        def hook(sublayer: nn.Module, args: tuple[Any, ...], state: tuple[Tensor, ...]) -> None:
            assert isinstance(sublayer, SubLayer)
            x = sublayer.residual.stream(state)
            square = torch.linalg.vecdot(x, x)  # (B, T)
            along = torch.linalg.vecdot(x, self._inputs[sublayer.residual.place.stack])
            share = along.square_().div_(_spread(x, square)).mean()
            gain = self._gains.get(i, share.new_tensor(torch.nan))  # a sub-layer without a norm has none
            self._statistics[i] = (square.mean(), square.sqrt().mean(), _similarity(x, square), share, gain)

        return hook

    def profile(self, gradients: dict[nn.Parameter, Tensor] | None = None) -> DepthProfile:
        """The last forward pass as a profile; ``gradients`` by weight, if all of the sub-layers' are known."""
        label = self.model.config.title
        if not self._statistics:
            return DepthProfile(label)
        rows = (
            torch.stack([value for i in range(len(self._sublayers)) for value in self._statistics[i]])
            .double()
            .cpu()
            .numpy()
        )
        found: dict[str, Any] = dict(zip(STATISTICS, rows.reshape(len(self._sublayers), -1).T, strict=True))
        found["variance"] /= self.model.config.d_model  # what was kept is the mean of ‖x‖²
        if gradients is not None:
            found |= _gradient_norms(self._sublayers, gradients)
        places = [sublayer.residual.place for sublayer in self._sublayers]
        return DepthProfile(
            label,
            **found,
            stack=tuple(place.stack for place in places),
            layer=tuple(place.layer for place in places),
            sublayer=tuple(place.sublayer for place in places),
        )


def _gradient_norms(sublayers: list[SubLayer], gradients: dict[nn.Parameter, Tensor]) -> dict[str, Any]:
    """2-norms by sub-layer and by role, from one call for all of them."""
    keys, tensors = [], []
    for i, sublayer in enumerate(sublayers):
        for role, gradient in sublayer.branch.weights(of=lambda weight: gradients[weight]).items():  # type: ignore[index]
            keys.append((i, role))
            tensors.append(gradient)
    sizes = torch.stack(list(torch._foreach_norm(tensors))).double().cpu().numpy()
    roles = list(dict.fromkeys(role for _, role in keys))
    by_role = {role: np.full(len(sublayers), np.nan) for role in roles}
    for (i, role), size in zip(keys, sizes, strict=True):
        by_role[role][i] = size
    total = np.sqrt(np.nansum(np.square(np.stack(list(by_role.values()))), axis=0))
    broken = [i for (i, _), size in zip(keys, sizes, strict=True) if not np.isfinite(size)]
    total[broken] = np.nan  # a sum over roles must not hide one that is no number
    return {"gradient_norm": total, "gradient_by_role": by_role}


def check_batch(model: Model, batch: Batch) -> None:
    """Refuse what cannot be probed, before any work.

    Raises:
        ValueError: the model has no sub-layers or weights that are not finite, sequences are shorter than two tokens,
            or the batch is elsewhere.
    """
    sublayers = model.sublayers()
    if not sublayers:
        raise ValueError(
            "The model has no sub-layers to probe: build it with build_model and at least one layer; "
            "for a model of another make, deepnet_edu.review.review(model)."
        )
    device = sublayers[0].matrices()[0].device
    for tensor in (batch.inputs, batch.targets, batch.padding, batch.target_inputs, batch.target_padding):
        if tensor is not None and tensor.device != device:
            raise ValueError(f"The batch is on {tensor.device}, the model on {device}: use batch.to('{device}').")
    for tokens in (batch.inputs, batch.target_inputs):
        if tokens is not None and tokens.ndim == 2 and tokens.shape[1] < 2:
            raise ValueError("Sequences of one token cannot be compared with each other: give two tokens or more.")
    # One norm shows an entry that is no number, at a fifth of isfinite's time; an overflow may look the same.
    sizes = torch.stack(list(torch._foreach_norm([parameter.detach() for parameter in model.parameters()])))
    for name, parameter in model.named_parameters() if not sizes.isfinite().all() else ():
        if parameter.isfinite().all():
            continue
        raise ValueError(
            f"The weights of {name} are not finite: nothing that follows means anything. "
            "Load an earlier checkpoint, or build the model again."
        )


def probe(model: Model, batch: Batch) -> DepthProfile:
    """Variance, length, token similarity, input share, LN's Jacobian and gradients of a model, by sub-layer.

    One forward and one backward pass on one batch, without dropout. Parameters, their gradients, frozen or not, the
    training mode and the random state are afterwards what they were. Padding counts as tokens do.

    Args:
        model: a model from build_model, trained or not.
        batch: inputs and targets on the model's device.

    Returns:
        The measured profile; ``.judge()`` says PASS or FAIL.

    Raises:
        ValueError: see :func:`check_batch`.
    """
    check_batch(model, batch)
    weights = [weight for sublayer in model.sublayers() for weight in sublayer.matrices()]
    with undisturbed(model), differentiable(weights), torch.enable_grad(), Watch(model) as watch:
        gradients = torch.autograd.grad(model.loss(batch), weights)
    return watch.profile(dict(zip(weights, gradients, strict=True)))


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Without dropout, and with the training mode and the random state as they were afterwards."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), evaluating(model):
        yield


@contextmanager
def differentiable(weights: list[nn.Parameter]) -> Iterator[None]:
    """Frozen weights take a gradient for a while: a probe looks at the stack, trained or not."""
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for weight, required in zip(weights, before, strict=True):
            weight.requires_grad_(required)
