"""What rules compute with that PyTorch has no function or module for: loaded when a stack is built."""

from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

State = tuple[Tensor, ...]
#: Of RMSNorm in attention over depth.
EPSILON = 1e-5


def _stacked(*tensors: Tensor) -> tuple[Tensor, Tensor]:
    """The first tensor, and the others as one, all in the widest of their types: under autocast branches are narrow.

    They are kept as they are: wide copies of all would be kept once for each sub-layer.
    """
    wide = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    first, *others = (tensor.to(wide) for tensor in tensors)
    return first, torch.stack(others)


def _exact(x: Tensor) -> AbstractContextManager[Any]:
    """Without autocast, as the backward pass computes; tensors without numbers (``meta``) have none."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class _WeightedSum(torch.autograd.Function):
    """Σ_k w_k v_k. Keeps the tensors themselves: stacked again for each sub-layer, they would be kept once for each."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, weights: Tensor, *values: Tensor) -> Tensor:
        ctx.save_for_backward(weights, *values)
        weights, V = _stacked(weights, *values)
        with _exact(V):
            return torch.tensordot(weights, V, 1) if weights.ndim == 1 else (weights.unsqueeze(-1) * V).sum(0)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, ...]:
        weights, *values = ctx.saved_tensors  # type: ignore[attr-defined]
        if weights.ndim == 1:
            flat = gradient.flatten()
            along = torch.stack([value.flatten().to(flat.dtype).dot(flat) for value in values])
            return (along, *(weights.view(-1, 1, 1, 1) * gradient).unbind())
        along = torch.stack([torch.linalg.vecdot(value.to(gradient.dtype), gradient) for value in values])
        return (along, *(weights.unsqueeze(-1) * gradient).unbind())


def weighted_sum(weights: Tensor, values: State) -> Tensor:
    """Σ_k w_k v_k: (B, T, d).

    Args:
        weights: (k,), or (k, B, T) for weights of each token's own.
        values: k tensors (B, T, d).
    """
    summed: Tensor = _WeightedSum.apply(weights, *values)
    return summed


class _Scores(torch.autograd.Function):
    """qᵀRMSNorm(v_k) of each tensor v_k, (B, T, d): (k, B, T). Keeps the tensors themselves, no copy of them all."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, query: Tensor, *values: Tensor) -> Tensor:
        wide, V = _stacked(query, *values)
        with _exact(V):
            inverse = (torch.linalg.vecdot(V, V) / V.shape[-1] + EPSILON).rsqrt()
            scores = (V @ wide) * inverse
        ctx.save_for_backward(query, scores, inverse, *values)
        return scores

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, ...]:
        query, scores, inverse, *values = ctx.saved_tensors  # type: ignore[attr-defined]
        query, V = _stacked(query, *values)
        g = (gradient * inverse).unsqueeze(-1)
        shrunk = (gradient * scores * inverse.square() / V.shape[-1]).unsqueeze(-1)
        return ((g * V).sum((0, 1, 2)), *(g * query - shrunk * V).unbind())


def scores(query: Tensor, values: State) -> Tensor:
    """qᵀRMSNorm(v_k): (k, B, T).

    Args:
        query: (d,).
        values: k tensors (B, T, d).
    """
    found: Tensor = _Scores.apply(query, *values)
    return found


class _Sinkhorn(torch.autograd.Function):
    """Sinkhorn's steps on (n, n, N), N small matrices side by side: one operation serves all.

    Autograd would keep a matrix for each division; here it is the last one and the sums, by which backward undoes them.
    There, with A = gradient ⊙ matrix, a division of columns or rows by their sums is A ← A - matrix·ΣA, and at the end
    A is the gradient of the logits.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, logits: Tensor, steps: int) -> Tensor:
        matrix, sums = (logits - logits.amax((0, 1))).exp(), []
        for dim in (0, 1) * steps:
            sums.append(matrix.sum(dim, keepdim=True))
            matrix /= sums[-1]
        ctx.save_for_backward(matrix, *sums)
        return matrix

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        last, *sums = ctx.saved_tensors  # type: ignore[attr-defined]
        matrix, A = last.clone(), gradient.contiguous() * last
        for i in reversed(range(len(sums))):
            A = torch.addcmul(A, matrix, A.sum(i % 2, keepdim=True), value=-1)
            matrix *= sums[i]
        return A, None


def sinkhorn(logits: Tensor, steps: int = 20) -> Tensor:
    """exp(logits) with its columns, then its rows divided by their sums, again and again: (…, n, n) → the same.

    Rows sum to 1, columns almost (arXiv 2512.24880, Equation 9). A released kernel of a later model ends on columns.
    """
    if has_torch_function_unary(logits):  # a mode sees it as one function, as it sees softmax
        found: Tensor = handle_torch_function(sinkhorn, (logits,), logits, steps)
        return found
    n = logits.shape[-1]
    side_by_side = logits.reshape(-1, n, n).permute(1, 2, 0).contiguous()
    matrices: Tensor = _Sinkhorn.apply(side_by_side, steps)
    return matrices.permute(2, 0, 1).reshape(logits.shape)


class HeadScale(nn.Module):
    """A learned factor for each attention head, 1 at first. (B, T, d_model) → the same."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(heads))

    def forward(self, x: Tensor) -> Tensor:
        """Each head times its factor."""
        B, T, d_model = x.shape
        return (x.view(B, T, len(self.factor), -1) * self.factor[:, None]).view(B, T, d_model)


class StableNorm(nn.Module):
    """γ ⊙ d^a·x/‖x‖₂ with a = 0.375, over the last dimension."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → the same."""
        return self.weight * float(x.shape[-1] ** 0.375) * nn.functional.normalize(x, dim=-1)


def unit(x: Tensor, dim: int = -1) -> Tensor:
    """x brought to length 1 along ``dim``; a 0 stays 0."""
    return x * (torch.linalg.vecdot(x, x, dim=dim) + 1e-24).rsqrt().unsqueeze(dim)


class Scaled(nn.Module):
    """``factor`` · s ⊙ x, or of x with its last dimension brought to length 1; s is learned and starts at ``start``.

    The parameter itself starts at ``unit``, which sets how fast Adam moves s.
    """

    def __init__(self, shape: tuple[int, ...], start: float, unit: float, unit_length: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full(shape, unit))
        self.factor = start / unit
        self.unit_length = unit_length

    def forward(self, x: Tensor) -> Tensor:
        """(…, *shape) → the same."""
        return self.factor * self.weight * (unit(x) if self.unit_length else x)
