"""The stream's statistics during a forward pass, sub-layer by sub-layer, and the gradient's after it."""

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


def token_similarity(x: Tensor) -> Tensor:
    """Mean cosine between different tokens of the same sequence. x: (B, T, d) with T ≥ 2 → scalar tensor."""
    return _similarity(F.normalize(x, dim=-1))


def _similarity(u: Tensor) -> Tensor:
    """The same for tokens of length 1."""
    T = u.shape[1]
    # |Σᵢ uᵢ|² counts every pair, and each token with itself: T ones to take away.
    return ((u.sum(1).square().sum(-1) - T) / (T * (T - 1))).mean()


def input_share(x0: Tensor, x: Tensor) -> Tensor:
    """Share of x's variance over features that lies along x0, token by token, then averaged. Both (B, T, d)."""
    return F.cosine_similarity(x0 - x0.mean(-1, keepdim=True), x - x.mean(-1, keepdim=True), dim=-1).square().mean()


class Watch:
    """While entered, every forward pass of ``model`` leaves the stream's statistics by sub-layer here.

    Keeps five numbers a sub-layer and no activations but each stack's input. The last forward pass counts.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._sublayers = model.sublayers()
        self._statistics: dict[int, Tensor] = {}
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
            u = args[0].detach()
            deviation = u.std(-1, correction=0) if isinstance(norm, nn.LayerNorm) else u.square().mean(-1).sqrt()
            weight = getattr(norm, "weight", None)
            gain = deviation.reciprocal().mean()
            self._gains[i] = gain if weight is None else gain * weight.square().mean().sqrt()

        return hook

    def _after(self, i: int) -> Any:
        @torch.no_grad()
        def hook(sublayer: nn.Module, args: tuple[Any, ...], state: tuple[Tensor, ...]) -> None:
            assert isinstance(sublayer, SubLayer)
            x = sublayer.residual.stream(state).detach()
            length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (B, T, 1)
            centred = F.normalize(x - x.mean(-1, keepdim=True), dim=-1)
            share = (centred * self._inputs[sublayer.residual.place.stack]).sum(-1).square().mean()
            variance = length.square().mean() / x.shape[-1]
            # A sub-layer without a norm has no gain.
            gain = self._gains.get(i, torch.full_like(variance, torch.nan))
            similarity = _similarity(x / length.clamp_min(1e-12))
            self._statistics[i] = torch.stack([variance, length.mean(), similarity, share, gain])

        return hook

    def profile(self, gradients: dict[nn.Parameter, Tensor] | None = None) -> DepthProfile:
        """The last forward pass as a profile; ``gradients`` by weight, if all of the sub-layers' are known."""
        label = self.model.config.title
        if not self._statistics:
            return DepthProfile(label)
        rows = torch.stack([self._statistics[i] for i in range(len(self._sublayers))]).double().cpu().numpy()
        places = [sublayer.residual.place for sublayer in self._sublayers]
        found: dict[str, Any] = dict(zip(STATISTICS, rows.T, strict=True))
        if gradients is not None:
            found |= _gradient_norms(self._sublayers, gradients)
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
    finite = torch.stack([torch.isfinite(parameter).all() for parameter in model.parameters()])
    if not finite.all():
        name = [name for name, _ in model.named_parameters()][int(finite.long().argmin())]
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
