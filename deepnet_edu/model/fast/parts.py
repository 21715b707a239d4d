"""Linear maps, norms and heads, with their backward passes; compiled where a library is given, else by PyTorch."""

from typing import Any

import torch
from torch import Tensor, nn

Triple = tuple[Tensor, Tensor, Tensor]
_norm_backward = torch.ops.aten.native_layer_norm_backward.default


class Matrix:
    """A linear map, and where the gradients of its parameters are added."""

    __slots__ = ("bias", "d_bias", "d_weight", "library", "weight")
    d_weight: Any
    d_bias: Any

    def __init__(self, module: nn.Module) -> None:
        parameters: dict[str, Any] = module._parameters
        self.weight, self.bias = parameters["weight"], parameters["bias"]
        self.library: Any = None

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """xWᵀ + b."""
        return torch.addmm(self.bias, x, self.weight.t(), out=out)

    def backward(self, dy: Tensor, x: Tensor) -> None:
        """Add the gradients for an input x and the gradient dy of the output."""
        if self.library is None:
            self.d_bias.add_(dy.sum(0))
        else:
            self.library.add_rows(dy.data_ptr(), self.d_bias.data_ptr(), *dy.shape)
        self.d_weight.addmm_(dy.t(), x)

    def through(self, dy: Tensor, x: Tensor, dx: Tensor, train: bool) -> None:
        """The same, and add the input's to ``dx``."""
        if train:
            self.backward(dy, x)
        dx.addmm_(dy, self.weight)


class FastNorm:
    """A LayerNorm, likewise. ``owner`` is the sub-layer whose ``residual.norm`` it is, None for a final norm."""

    __slots__ = ("bias", "d_bias", "d_weight", "eps", "library", "owner", "shape", "weight")
    d_weight: Any
    d_bias: Any

    def __init__(self, module: nn.LayerNorm, owner: nn.Module | None) -> None:
        parameters: dict[str, Any] = module._parameters
        self.weight, self.bias = parameters["weight"], parameters["bias"]
        self.eps, self.shape = module.eps, module.normalized_shape
        self.owner = owner
        self.library: Any = None

    def forward(self, u: Tensor, out: Triple | None = None) -> Triple:
        """LN(u), and the mean and 1/σ of each token; in ``out``, maybe, where that is given."""
        if self.library is None:
            return torch.native_layer_norm(u, self.shape, self.weight, self.bias, self.eps)
        s, mean, inverse = out or (torch.empty_like(u), u.new_empty(len(u)), u.new_empty(len(u)))
        inputs, outputs = _at(u, self.weight, self.bias), _at(s, mean, inverse)
        self.library.norm_forward(*inputs, self.eps, *outputs, *u.shape)
        return s, mean, inverse

    def backward(self, ds: Tensor, u: Tensor, mean: Tensor, inverse: Tensor, train: bool, out: Tensor) -> Tensor:
        """The gradient of u; maybe in ``out``."""
        if self.library is not None:
            du = out
            gradients = _at(self.d_weight, self.d_bias) if train else (None, None)
            self.library.norm_backward(*_at(ds, u, self.weight, mean, inverse, du), *gradients, *u.shape)
            return du
        du, d_weight, d_bias = _norm_backward(
            ds, u, self.shape, mean, inverse, self.weight, self.bias, (True, train, train)
        )
        if train:
            self.d_weight.add_(d_weight)
            self.d_bias.add_(d_bias)
        return du


def _at(*tensors: Tensor) -> list[int]:
    """Where they are, for C."""
    return [tensor.data_ptr() for tensor in tensors]


class Heads:
    """(B·T, n·d_model) as n tensors (B·n_heads, T, head_dim), and back."""

    def __init__(self, n: int, B: int, T: int, n_heads: int, d_model: int, like: Tensor) -> None:
        self.head_dim = d_model // n_heads
        self.by_token = (B, T, n, n_heads, self.head_dim)
        self.by_head = (n, B, n_heads, T, self.head_dim)
        self.shape = (n, B * n_heads, T, self.head_dim)
        self.flat, self.gradients = like.new_empty(B * T, n * d_model), like.new_empty(self.shape)
        # Copying short rows by their numbers takes a third of the time of copying a permuted view.
        rows = torch.arange(n * B * n_heads * T, device=like.device).view(n, B, n_heads, T)
        self.rows = rows.permute(1, 3, 0, 2).reshape(-1).contiguous()

    def split(self, flat: Tensor, out: Tensor) -> None:
        """Write the n tensors to ``out``."""
        out.view(self.by_head).copy_(flat.view(self.by_token).permute(2, 0, 3, 1, 4))

    def merge(self, heads: Tensor, out: Tensor) -> Tensor:
        """Write (B·T, n·d_model) to ``out``."""
        torch.index_select(heads.view(-1, self.head_dim), 0, self.rows, out=out.view(-1, self.head_dim))
        return out
