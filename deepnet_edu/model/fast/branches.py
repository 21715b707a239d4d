"""What is computed between the two matrices of a branch: attention and activation, forward and backward."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deepnet_edu.model.attention import MultiHeadAttention
from deepnet_edu.model.fast import native
from deepnet_edu.model.fast.parts import Heads

#: With two threads the compiled functions, which use one, are still faster than PyTorch's operations: it was measured.
MOST_THREADS = 2
Pair = tuple[Tensor, Tensor]
_gelu: Any = torch._C._nn.gelu
_gelu_backward = torch.ops.aten.gelu_backward.grad_input
_relu_backward = torch.ops.aten.threshold_backward.grad_input


class FastAttention:
    """inner = softmax(scale·qkᵀ)v, from the product of W_first (and of the memory's matrix) to what W_last reads.

    Keeps (heads, weights, inner) and, of a cross-attention, the memory's heads.
    """

    def __init__(self, branch: Any, B: int, T: int, S: int, like: Tensor) -> None:
        d, H = branch.output.in_features, branch.n_heads
        self.scale, self.cross = branch.scale, branch.cross
        self.own, self.out = Heads(1 if self.cross else 3, B, T, H, d, like), Heads(1, B, T, H, d, like)
        self.memory = Heads(2, B, S, H, d, like) if self.cross else self.own
        self.mixed = like.new_empty(B * H, T, d // H)
        self.d_weights = like.new_empty(B * H, T, S)
        self.d_inner = like.new_empty(B * T, d)
        self.mask = like.new_zeros(T, S)
        if branch.causal and not self.cross:
            self.mask.fill_(-torch.inf).triu_(1)
        self.saved = [self.own.shape, (B * H, T, S), (B * T, d)] + ([self.memory.shape] if self.cross else [])

    def fill(self, sub: Any, s: Tensor, memory: Tensor, saved: Sequence[Tensor]) -> None:
        """Compute what is saved."""
        heads, weights, inner = saved[:3]
        self.own.split(sub.first.forward(s, self.own.flat), heads)
        if self.cross:
            self.memory.split(sub.memory.forward(memory, self.memory.flat), saved[3])
        q, k, v = (heads[0], *saved[3]) if self.cross else heads
        torch.baddbmm(self.mask, q, k.transpose(1, 2), alpha=self.scale, out=weights)
        torch.softmax(weights, -1, out=weights)
        torch.bmm(weights, v, out=self.mixed)
        self.out.merge(self.mixed, inner)

    def inner(self, saved: Sequence[Tensor]) -> Tensor:
        """inner, (B·T, d_model)."""
        return saved[2]

    def backward(self, sub: Any, saved: Sequence[Tensor], memory: Tensor, d_memory: Tensor, train: bool) -> Pair:
        """inner, and from ``d_inner`` the gradient of W_first's product; the memory's is added to ``d_memory``."""
        heads, weights, own, other = saved[0], saved[1], self.own, self.memory
        q, k, v = (heads[0], *saved[3]) if self.cross else heads
        dq, dk, dv = (own.gradients[0], *other.gradients) if self.cross else own.gradients
        self.out.split(self.d_inner, self.mixed)
        torch.bmm(weights.transpose(1, 2), self.mixed, out=dv)
        d_weights = torch.bmm(self.mixed, v.transpose(1, 2), out=self.d_weights)
        torch._softmax_backward_data(d_weights, weights, -1, weights.dtype, grad_input=d_weights)
        torch.baddbmm(dq, d_weights, k, beta=0, alpha=self.scale, out=dq)
        torch.baddbmm(dk, d_weights.transpose(1, 2), q, beta=0, alpha=self.scale, out=dk)
        if self.cross:
            sub.memory.through(other.merge(other.gradients, other.flat), memory, d_memory, train)
        return saved[2], own.merge(own.gradients, own.flat)


class CompiledAttention:
    """The same by :mod:`deepnet_edu.native`. Keeps (packed heads, ln of the weights' sum, inner) and the memory's."""

    def __init__(self, library: Any, branch: Any, B: int, T: int, S: int, like: Tensor) -> None:
        d, H, self.cross, self.library = branch.output.in_features, branch.n_heads, branch.cross, library
        widths = (d, 2 * d) if self.cross else (3 * d, 3 * d)
        self.bytes = 4 * d
        self.sizes = (*widths, B, T, S, H, d // H, int(branch.causal and not self.cross), branch.scale)
        self.saved = [(B * T, widths[0]), (B, H, T), (B * T, d)] + ([(B * S, 2 * d)] if self.cross else [])
        self.d_first, self.d_inner = like.new_empty(B * T, widths[0]), like.new_empty(B * T, d)
        self.d_other = like.new_empty(B * S, 2 * d) if self.cross else self.d_first

    def _qkv(self, own: Tensor, other: Tensor) -> tuple[int, int, int]:
        """Where query, key and value start."""
        q, kv = own.data_ptr(), other.data_ptr()
        return (q, kv, kv + self.bytes) if self.cross else (q, q + self.bytes, q + 2 * self.bytes)

    def fill(self, sub: Any, s: Tensor, memory: Tensor, saved: Sequence[Tensor]) -> None:
        """As :meth:`Attention.fill`."""
        sub.first.forward(s, saved[0])
        if self.cross:
            sub.memory.forward(memory, saved[3])
        parts = self._qkv(saved[0], saved[-1])
        self.library.attention_forward(*parts, saved[2].data_ptr(), saved[1].data_ptr(), *self.sizes)

    def inner(self, saved: Sequence[Tensor]) -> Tensor:
        """inner, (B·T, d_model)."""
        return saved[2]

    def backward(self, sub: Any, saved: Sequence[Tensor], memory: Tensor, d_memory: Tensor, train: bool) -> Pair:
        """As :meth:`Attention.backward`."""
        pointers = (saved[2].data_ptr(), saved[1].data_ptr(), self.d_inner.data_ptr())
        parts, d_parts = self._qkv(saved[0], saved[-1]), self._qkv(self.d_first, self.d_other)
        self.library.attention_backward(*parts, *pointers, *d_parts, *self.sizes)
        if self.cross:
            sub.memory.through(self.d_other, memory, d_memory, train)
        return saved[2], self.d_first


class FastFeedForward:
    """inner = φ(W_first·s + b), with GELU or ReLU.

    Keeps what GELU reads, and computes GELU again: what it returns would be another B·T·d_ff numbers. Of a ReLU, what
    it returns.
    """

    def __init__(self, library: Any, branch: Any, B: int, T: int, like: Tensor) -> None:
        self.gelu = branch.activation is F.gelu
        self.saved = [(B * T, branch.ffn_in.out_features)]
        self.activated, self.d_inner = like.new_empty(self.saved[0]), like.new_empty(self.saved[0])
        self.library = library

    def fill(self, sub: Any, s: Tensor, memory: Tensor, saved: Sequence[Tensor]) -> None:
        """Compute what is saved."""
        h = sub.first.forward(s, saved[0])
        if not self.gelu:
            h.relu_()

    def inner(self, saved: Sequence[Tensor]) -> Tensor:
        """inner, (B·T, d_ff)."""
        h, a = saved[0], self.activated
        if not self.gelu:
            return h
        if self.library is None:
            return _gelu(h, out=a)
        self.library.gelu_forward(h.data_ptr(), a.data_ptr(), h.numel())
        return a

    def backward(self, sub: Any, saved: Sequence[Tensor], memory: Tensor, d_memory: Tensor, train: bool) -> Pair:
        """inner, and from ``d_inner``, which it overwrites, the gradient of W_first's product."""
        h, a, d = saved[0], self.activated, self.d_inner
        if not self.gelu:
            return h, _relu_backward(d, h, 0, grad_input=d)
        if self.library is None:
            return _gelu(h, out=a), _gelu_backward(d, h, grad_input=d)
        self.library.gelu_backward(h.data_ptr(), a.data_ptr(), d.data_ptr(), h.numel())
        return a, d


Work = dict[str, FastAttention | CompiledAttention | FastFeedForward]


def compiled(x: Tensor, branches: Sequence[Any]) -> tuple[Any, str]:
    """The library of compiled functions where they can compute these branches, and how they are computed."""
    attention = branches[0]
    head_dim = attention.output.in_features // attention.n_heads
    widths = {weight.shape[0] for branch in branches for weight in branch.weights().values()}
    if x.dtype != torch.float32:
        reason = f"x is {x.dtype}"
    elif torch.get_num_threads() > MOST_THREADS:
        reason = f"there are {torch.get_num_threads()} threads, and compiled functions use one"
    elif head_dim not in native.HEAD_DIMS:
        reason = f"a head has {head_dim} features, not {', '.join(map(str, native.HEAD_DIMS))}"
    elif any(width % native.MULTIPLE for width in widths):
        reason = f"d_ff is not a multiple of {native.MULTIPLE}"
    else:
        library, reason = native.load()
        if library is not None:
            return library, "fast, compiled"
    return None, f"fast, by PyTorch's operations since {reason}"


def workplace(
    library: Any, branch: Any, B: int, T: int, S: int, like: Tensor
) -> FastAttention | CompiledAttention | FastFeedForward:
    """What computes a branch and its gradient."""
    if not isinstance(branch, MultiHeadAttention):
        return FastFeedForward(library, branch, B, T, like)
    S = S if branch.cross else T
    return (
        FastAttention(branch, B, T, S, like) if library is None else CompiledAttention(library, branch, B, T, S, like)
    )
