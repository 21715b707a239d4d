"""Measurements on a real model, sub-layer by sub-layer, that leave the model as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu.models import Batch, Model
from deepnet_edu.record import DepthProfile
from deepnet_edu.transformer import SubLayer


def token_similarity(x: Tensor) -> Tensor:
    """Mean cosine between different tokens of the same sequence. x: (B, T, d) with T ≥ 2 → scalar tensor."""
    T = x.shape[1]
    u = F.normalize(x, dim=-1)
    # |Σᵢ uᵢ|² counts every pair, and each token with itself: T ones to take away.
    return ((u.sum(1).square().sum(-1) - T) / (T * (T - 1))).mean()


def input_share(x0: Tensor, x: Tensor) -> Tensor:
    """Share of x's variance over features that lies along x0, token by token, then averaged. Both (B, T, d)."""
    return F.cosine_similarity(x0 - x0.mean(-1, keepdim=True), x - x.mean(-1, keepdim=True), dim=-1).square().mean()


class Watch:
    """While entered, every forward pass of ``model`` leaves the stream's statistics by sub-layer here.

    Keeps three numbers a sub-layer and no activations but the stack's input. The last forward pass counts.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._statistics: list[Tensor] = []
        self._handles: list[Any] = []
        self._input: Tensor | None = None

    def __enter__(self) -> "Watch":
        sublayers = self.model.sublayers()
        if sublayers:
            self._handles.append(sublayers[0].register_forward_pre_hook(self._enter_stack))
        self._handles += [sublayer.register_forward_hook(self._after) for sublayer in sublayers]
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._input = None

    @torch.no_grad()
    def _enter_stack(self, sublayer: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(sublayer, SubLayer)
        self._statistics.clear()
        self._input = sublayer.residual.stream(args[0])

    @torch.no_grad()
    def _after(self, sublayer: nn.Module, args: tuple[Any, ...], state: tuple[Tensor, ...]) -> None:
        assert isinstance(sublayer, SubLayer)
        assert self._input is not None
        x = sublayer.residual.stream(state).detach()
        self._statistics.append(torch.stack([x.square().mean(), token_similarity(x), input_share(self._input, x)]))

    def profile(self, gradients: list[Tensor] | None = None) -> DepthProfile:
        """The last forward pass as a profile; ``gradients``: the norm of each sub-layer's, as scalars."""
        config = self.model.config
        label = config.title
        if not self._statistics:
            return DepthProfile(label)
        variance, similarity, share = torch.stack(self._statistics).double().cpu().numpy().T
        norms = None if gradients is None else torch.stack(gradients).double().cpu().numpy()
        return DepthProfile(label, variance, similarity, share, norms)


def matrices(sublayer: SubLayer) -> list[nn.Parameter]:
    """The weight matrices of a sub-layer's branch, packed ones as they are stored."""
    return [parameter for parameter in sublayer.branch.parameters() if parameter.ndim == 2]


def norms_by_sublayer(model: Model, gradients: list[Tensor]) -> list[Tensor]:
    """2-norm of the gradient of each sub-layer's matrices; ``gradients`` in the order of the sub-layers' matrices."""
    sizes = torch._foreach_norm(gradients)
    sublayers, result, i = model.sublayers(), [], 0
    for sublayer in sublayers:
        n = len(matrices(sublayer))
        result.append(torch.linalg.vector_norm(torch.stack(sizes[i : i + n])))
        i += n
    return result


def probe(model: Model, batch: Batch) -> DepthProfile:
    """Variance, token similarity, input share and gradient of a model, by sub-layer, on one batch.

    One forward and one backward pass. Parameters, their gradients, frozen or not, the training mode and the random
    state are afterwards what they were.

    Args:
        model: a model from build_model, trained or not.
        batch: inputs and targets on the model's device.

    Returns:
        The measured profile; ``.judge()`` says PASS or FAIL.

    Raises:
        ValueError: the model has no sub-layers, sequences are shorter than two tokens, or the batch is elsewhere.
    """
    weights = [weight for sublayer in model.sublayers() for weight in matrices(sublayer)]
    if not weights:
        raise ValueError("The model has no sub-layers to probe: build it with decoder_layers=1 or more.")
    if batch.inputs.shape[1] < 2:
        raise ValueError("Sequences of one token cannot be compared with each other: give two tokens or more.")
    device = weights[0].device
    if batch.inputs.device != device:
        raise ValueError(f"The batch is on {batch.inputs.device}, the model on {device}: use batch.to('{device}').")
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _differentiable(weights), torch.enable_grad(), Watch(model) as watch:
        gradients = torch.autograd.grad(model.loss(batch), weights)
    return watch.profile(norms_by_sublayer(model, list(gradients)))


@contextmanager
def _differentiable(weights: list[nn.Parameter]) -> Iterator[None]:
    """Frozen weights take a gradient for a while: a probe looks at the stack, trained or not."""
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for weight, required in zip(weights, before, strict=True):
            weight.requires_grad_(required)
