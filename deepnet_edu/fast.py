"""A whole stack as one autograd node, its backward pass written by hand: the same numbers in less time and memory.

At a thousand layers the plain path spends as much time around the matrix products as in them: autograd keeps a node for
every operation, gradients are made and then added to another tensor, and memory is asked for anew 20,000 times a step.
Here every tensor has its place, taken once and used again, gradients are added where they belong by the product that
makes them, and nothing is kept but what the backward pass reads.

A stack is cut at its sums u. With N_i the norm in front of branch F_i, both families of rules are

    s_i = N_i(u_{i-1})      u_i = skip·(s_i or u_{i-1}) + scale·F_i(s_i)      F_i(s) = W_last·inner_i(W_first·s)

In Post-LN and DeepNorm the skip starts *after* the norm, which belongs to the sub-layer below (N_1 is nothing); in
Pre-LN it starts *before*. The stack returns the norm of the last u.

The layer that lessons show is :class:`deepnet_edu.transformer.TransformerLayer`, and tests hold this file to it.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu import native
from deepnet_edu.attention import Context, MultiHeadAttention
from deepnet_edu.residual import RESIDUALS, Residual

#: The rules that this file knows, each exactly as it is: where the skip starts, and its constants skip and scale, by
#: name, None for 1.
RULES: dict[str, tuple[str, str | None, str | None]] = {
    "post_ln": ("after", None, None),
    "ds_init": ("after", None, None),
    "deepnorm": ("after", "alpha", None),
    "deepnorm_glm": ("after", "alpha", None),
    "pre_ln": ("before", None, None),
    "complete_p": ("before", None, "branch_scale"),
    "depth_mup": ("before", None, "branch_scale"),
    "deepscale_lm": ("before", "skip", "beta"),
}
_KNOWN: dict[type[Residual], tuple[str, str | None, str | None]] = {RESIDUALS[name]: how for name, how in RULES.items()}
#: Longer sequences are better served by PyTorch's attention, which keeps no weights.
LONGEST = native.LONGEST

_gelu: Any = torch._C._nn.gelu
_gelu_backward = torch.ops.aten.gelu_backward.grad_input
_relu_backward = torch.ops.aten.threshold_backward.grad_input
_norm_backward = torch.ops.aten.native_layer_norm_backward.default
Pair = tuple[Tensor, Tensor]


class Observer(Protocol):
    """Somebody who looks at the stream on its way up."""

    def enters(self, stack: nn.Module, x: Tensor) -> None:
        """A stack's input, (B, T, d_model)."""

    def saw(self, sublayer: nn.Module, stream: Tensor) -> None:
        """The stream behind a sub-layer, (B, T, d_model)."""

    def saw_norm(self, sublayer: nn.Module, norm_input: Tensor) -> None:
        """What a sub-layer's norm reads, (B, T, d_model)."""


class Store:
    """What a training run keeps from step to step, so that a step asks for no memory: the tensors of a forward pass.

    It also says that gradients are added to each parameter's ``grad`` at once, instead of being handed to autograd. The
    optimizer that owns those gradients gives it to a stack and takes it away again; a copy of the stack has none.
    """

    def __init__(self) -> None:
        self.signature: tuple[Any, ...] = ()
        self.work: Work = {}
        self.kept: list[list[Tensor]] = []
        self.turn = 0  # of the last forward pass that wrote to ``kept``

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing, ()


def _nothing() -> None:
    return None


class Matrix:
    """A linear map, and where the gradients of its parameters are added."""

    __slots__ = ("bias", "d_bias", "d_weight", "weight")
    d_weight: Tensor
    d_bias: Tensor

    def __init__(self, module: nn.Module) -> None:
        self.weight, self.bias = module._parameters["weight"], module._parameters["bias"]

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """xWᵀ + b."""
        return torch.addmm(self.bias, x, self.weight.t(), out=out)  # type: ignore[call-overload, union-attr, no-any-return]

    def backward(self, dy: Tensor, x: Tensor) -> None:
        """Add the gradients for an input x and the gradient dy of the output."""
        self.d_bias.add_(dy.sum(0))
        self.d_weight.addmm_(dy.t(), x)

    def through(self, dy: Tensor, x: Tensor, dx: Tensor, train: bool) -> None:
        """The same, and add the input's to ``dx``."""
        if train:
            self.backward(dy, x)
        dx.addmm_(dy, self.weight)


class Norm:
    """A LayerNorm, likewise. ``owner`` is the sub-layer whose ``residual.norm`` it is, None for a stack's final norm."""

    __slots__ = ("bias", "d_bias", "d_weight", "eps", "owner", "shape", "weight")
    d_weight: Tensor
    d_bias: Tensor

    def __init__(self, module: nn.LayerNorm, owner: nn.Module | None) -> None:
        self.owner = owner
        self.weight, self.bias = module._parameters["weight"], module._parameters["bias"]
        self.eps, self.shape = module.eps, module.normalized_shape

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """LN(u), and the mean and 1/σ of each token."""
        return torch.native_layer_norm(u, self.shape, self.weight, self.bias, self.eps)  # type: ignore[arg-type]

    def backward(self, ds: Tensor, u: Tensor, mean: Tensor, inverse: Tensor, train: bool) -> Tensor:
        """The gradient of u."""
        du, d_weight, d_bias = _norm_backward(
            ds, u, self.shape, mean, inverse, self.weight, self.bias, (True, train, train)
        )
        if train:
            self.d_weight.add_(d_weight)
            self.d_bias.add_(d_bias)
        return du  # type: ignore[no-any-return]


class Heads:
    """(B·T, n·d_model) as n tensors (B·n_heads, T, head_dim), and back."""

    def __init__(self, n: int, B: int, T: int, n_heads: int, d_model: int, like: Tensor) -> None:
        self.head_dim = d_model // n_heads
        self.by_token = (B, T, n, n_heads, self.head_dim)
        self.by_head = (n, B, n_heads, T, self.head_dim)
        self.shape = (n, B * n_heads, T, self.head_dim)
        self.flat, self.gradients = like.new_empty(B * T, n * d_model), like.new_empty(self.shape)
        # Copying short rows by their numbers takes a third of the time of copying a permuted view.
        rows = torch.arange(n * B * n_heads * T).view(n, B, n_heads, T)
        self.rows = rows.permute(1, 3, 0, 2).reshape(-1).contiguous()

    def split(self, flat: Tensor, out: Tensor) -> None:
        """Write the n tensors to ``out``."""
        out.view(self.by_head).copy_(flat.view(self.by_token).permute(2, 0, 3, 1, 4))

    def merge(self, heads: Tensor, out: Tensor) -> Tensor:
        """Write (B·T, n·d_model) to ``out``."""
        torch.index_select(heads.view(-1, self.head_dim), 0, self.rows, out=out.view(-1, self.head_dim))
        return out


class Attention:
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
        self.kept = [self.own.shape, (B * H, T, S), (B * T, d)] + ([self.memory.shape] if self.cross else [])

    def forward(self, sub: "Sub", s: Tensor, memory: Tensor, kept: Sequence[Tensor]) -> Tensor:
        """inner, (B·T, d_model)."""
        heads, weights, inner = kept[:3]
        self.own.split(sub.first.forward(s, self.own.flat), heads)
        if self.cross:
            self.memory.split(sub.memory.forward(memory, self.memory.flat), kept[3])
        q, k, v = (heads[0], *kept[3]) if self.cross else heads
        torch.baddbmm(self.mask, q, k.transpose(1, 2), alpha=self.scale, out=weights)
        torch.softmax(weights, -1, out=weights)
        torch.bmm(weights, v, out=self.mixed)
        self.out.merge(self.mixed, inner)
        return inner

    def backward(self, sub: "Sub", kept: Sequence[Tensor], memory: Tensor, d_memory: Tensor, train: bool) -> Pair:
        """inner, and from ``d_inner`` the gradient of W_first's product; the memory's is added to ``d_memory``."""
        heads, weights, own, other = kept[0], kept[1], self.own, self.memory
        q, k, v = (heads[0], *kept[3]) if self.cross else heads
        dq, dk, dv = (own.gradients[0], *other.gradients) if self.cross else own.gradients
        self.out.split(self.d_inner, self.mixed)
        torch.bmm(weights.transpose(1, 2), self.mixed, out=dv)
        d_weights = torch.bmm(self.mixed, v.transpose(1, 2), out=self.d_weights)
        torch._softmax_backward_data(d_weights, weights, -1, weights.dtype, grad_input=d_weights)
        torch.baddbmm(dq, d_weights, k, beta=0, alpha=self.scale, out=dq)
        torch.baddbmm(dk, d_weights.transpose(1, 2), q, beta=0, alpha=self.scale, out=dk)
        if self.cross:
            sub.memory.through(other.merge(other.gradients, other.flat), memory, d_memory, train)
        return kept[2], own.merge(own.gradients, own.flat)


class CompiledAttention:
    """The same by :mod:`deepnet_edu.native`. Keeps (packed heads, ln of the weights' sum, inner) and the memory's."""

    def __init__(self, library: Any, branch: Any, B: int, T: int, S: int, like: Tensor) -> None:
        d, H, self.cross, self.library = branch.output.in_features, branch.n_heads, branch.cross, library
        widths = (d, 2 * d) if self.cross else (3 * d, 3 * d)
        self.bytes = 4 * d
        self.sizes = (*widths, B, T, S, H, d // H, int(branch.causal and not self.cross), branch.scale)
        self.kept = [(B * T, widths[0]), (B, H, T), (B * T, d)] + ([(B * S, 2 * d)] if self.cross else [])
        self.d_first, self.d_inner = like.new_empty(B * T, widths[0]), like.new_empty(B * T, d)
        self.d_other = like.new_empty(B * S, 2 * d) if self.cross else self.d_first

    def _qkv(self, own: Tensor, other: Tensor) -> tuple[int, int, int]:
        """Where query, key and value start."""
        q, kv = own.data_ptr(), other.data_ptr()
        return (q, kv, kv + self.bytes) if self.cross else (q, q + self.bytes, q + 2 * self.bytes)

    def forward(self, sub: "Sub", s: Tensor, memory: Tensor, kept: Sequence[Tensor]) -> Tensor:
        """inner, (B·T, d_model)."""
        sub.first.forward(s, kept[0])
        if self.cross:
            sub.memory.forward(memory, kept[3])
        parts = self._qkv(kept[0], kept[-1])
        self.library.attention_forward(*parts, kept[2].data_ptr(), kept[1].data_ptr(), *self.sizes)
        return kept[2]

    def backward(self, sub: "Sub", kept: Sequence[Tensor], memory: Tensor, d_memory: Tensor, train: bool) -> Pair:
        """As :meth:`Attention.backward`."""
        pointers = (kept[2].data_ptr(), kept[1].data_ptr(), self.d_inner.data_ptr())
        parts, d_parts = self._qkv(kept[0], kept[-1]), self._qkv(self.d_first, self.d_other)
        self.library.attention_backward(*parts, *pointers, *d_parts, *self.sizes)
        if self.cross:
            sub.memory.through(self.d_other, memory, d_memory, train)
        return kept[2], self.d_first


class FeedForward:
    """inner = φ(W_first·s + b), with GELU or ReLU.

    Keeps what GELU reads, and computes GELU again: what it returns would be another B·T·d_ff numbers. Of a ReLU, what it
    returns.
    """

    def __init__(self, library: Any, branch: Any, B: int, T: int, like: Tensor) -> None:
        self.gelu = branch.activation is F.gelu
        self.kept = [(B * T, branch.ffn_in.out_features)]
        self.activated, self.d_inner = like.new_empty(self.kept[0]), like.new_empty(self.kept[0])
        self.library = library if self.d_inner.numel() % 8 == 0 else None

    def forward(self, sub: "Sub", s: Tensor, memory: Tensor, kept: Sequence[Tensor]) -> Tensor:
        """inner, (B·T, d_ff)."""
        h, a = sub.first.forward(s, kept[0]), self.activated
        if not self.gelu:
            return h.relu_()
        if self.library is None:
            return _gelu(h, out=a)  # type: ignore[no-any-return]
        self.library.gelu_forward(h.data_ptr(), a.data_ptr(), h.numel())
        return a

    def backward(self, sub: "Sub", kept: Sequence[Tensor], memory: Tensor, d_memory: Tensor, train: bool) -> Pair:
        """inner, and from ``d_inner``, which it overwrites, the gradient of W_first's product."""
        h, a, d = kept[0], self.activated, self.d_inner
        if not self.gelu:
            return h, _relu_backward(d, h, 0, grad_input=d)
        if self.library is None:
            return _gelu(h, out=a), _gelu_backward(d, h, grad_input=d)
        self.library.gelu_backward(h.data_ptr(), a.data_ptr(), d.data_ptr(), h.numel())
        return a, d


Work = dict[str, Attention | CompiledAttention | FeedForward]


class Sub:
    """A sub-layer as this file sees it; ``norm`` stands in front of its branch, wherever it comes from."""

    __slots__ = ("after", "branch", "first", "kind", "last", "memory", "module", "norm", "parts", "scale", "skip")
    memory: Matrix

    def __init__(self, module: Any, norm: Norm | None) -> None:
        branch, rule = module.branch, module.residual
        start, skip, scale = _KNOWN[type(rule)]
        self.module, self.branch, self.norm, self.kind = module, branch, norm, rule.place.sublayer
        self.after = start == "after"
        self.skip = 1.0 if skip is None else rule.constants[skip]
        self.scale = 1.0 if scale is None else rule.constants[scale]
        self.parts: list[Matrix | Norm] = [] if norm is None else [norm]
        if self.kind == "ffn":
            self.first, self.last = Matrix(branch.ffn_in), Matrix(branch.ffn_out)
        elif self.kind == "self_attention":
            self.first, self.last = Matrix(branch.qkv), Matrix(branch.output)
        else:
            self.first, self.last, self.memory = Matrix(branch.query), Matrix(branch.output), Matrix(branch.key_value)
            self.parts.append(self.memory)
        self.parts += [self.first, self.last]

    def add(self, start: Tensor, inner: Tensor, out: Tensor | None) -> Tensor:
        """u = skip·start + scale·(inner·Wᵀ + b)."""
        bias = self.last.bias if self.scale == 1 else self.last.bias * self.scale
        return torch.add(bias, start, alpha=self.skip, out=out).addmm_(inner, self.last.weight.t(), alpha=self.scale)


def compiled(x: Tensor, head_dim: int) -> tuple[Any, str]:
    """The library of compiled functions where they can compute this, and how it is computed."""
    if x.dtype != torch.float32:
        reason = f"x is {x.dtype}"
    elif torch.get_num_threads() > 1:
        reason = "there is more than one thread"
    elif head_dim not in native.HEAD_DIMS:
        reason = f"a head has {head_dim} features"
    else:
        library, reason = native.load()
        if library is not None:
            return library, "fast, compiled"
    return None, f"fast, by PyTorch's operations since {reason}"


def workplace(library: Any, branch: Any, B: int, T: int, S: int, like: Tensor) -> Attention | CompiledAttention | FeedForward:
    """What computes a branch and its gradient."""
    if not isinstance(branch, MultiHeadAttention):
        return FeedForward(library, branch, B, T, like)
    return Attention(branch, B, T, S, like) if library is None else CompiledAttention(library, branch, B, T, S, like)


class Run:
    """One forward pass of a stack, and the backward pass that follows it. Streams are (B·T, d_model) here."""

    def __init__(self, stack: Any, subs: list[Sub], top: Norm, x: Tensor, memory: Tensor | None) -> None:
        self.stack, self.subs, self.top, self.shape = stack, subs, top, x.shape
        self.parts = [part for sub in subs for part in sub.parts] + [top]
        self.weights = [w for part in self.parts for w in (part.weight, part.bias)]
        per_layer = len(subs) // len(stack.layers)
        self.every = stack.checkpoint_every * per_layer or len(subs)
        S = x.shape[1] if memory is None else memory.shape[1]
        store: Store | None = stack.store
        if store is not None and not all(w.grad is not None and w._backward_hooks is None for w in self.weights):
            store = None
        self.store = store
        library, self.how = compiled(x, subs[0].branch.output.in_features // subs[0].branch.n_heads)
        signature = (x.shape, S, x.dtype, self.every, len(subs), library is None)
        if store is None or store.signature != signature:
            work: Work = {sub.kind: workplace(library, sub.branch, *x.shape[:2], S, x) for sub in subs[:per_layer]}
            kept: list[list[Tensor]] = []
        else:
            work, kept = store.work, store.kept
        if store is not None:
            store.signature, store.work, store.kept = signature, work, kept
            store.turn += 1
            self.turn = store.turn
        self.work, self.kept = work, kept
        self.states: list[Tensor] = []  # with checkpointing, what enters each group of layers

    def room(self, subs: list[Sub], x: Tensor) -> None:
        """Make the tensors that a backward pass through ``subs`` reads, where they are not there yet."""
        for sub in subs[len(self.kept) :]:
            self.kept.append([x.new_empty(shape) for shape in [x.shape, *self.work[sub.kind].kept]])

    def forward(self, x: Tensor, memory: Tensor | None, train: bool) -> Tensor:
        """The stack's output; with ``train``, so that ``backward`` can follow."""
        u, m = self.flat(x), self.flat(memory)
        observer: Observer | None = self.stack.observer
        if observer is not None:
            observer.enters(self.stack, x)
        keep = train and self.every == len(self.subs)
        if keep:
            self.room(self.subs, u)
        for first in range(0, len(self.subs), self.every):
            if train:
                self.states.append(u)
            u = self.climb(u, m, self.subs[first : first + self.every], keep, observer)
        if train:
            self.states.append(u)
        y = self.top.forward(u)[0]
        if observer is not None:
            self.show(observer, self.top, u, y, self.subs[-1].after)
        return y.view(self.shape)

    def flat(self, x: Any) -> Any:
        """(B, T, d_model) → (B·T, d_model); None stays None."""
        return None if x is None else x.reshape(-1, x.shape[-1])

    def show(self, observer: Observer, norm: Norm, u: Tensor, s: Tensor, after: bool) -> None:
        """A norm at work; behind the sum, it returns the stream."""
        if norm.owner is not None:
            observer.saw_norm(norm.owner, u.view(self.shape))
            if after:
                observer.saw(norm.owner, s.view(self.shape))

    def climb(self, u: Tensor, memory: Any, subs: list[Sub], keep: bool, observer: Observer | None = None) -> Tensor:
        """From the u below ``subs`` to the one above, keeping what their backward pass reads, or nothing."""
        loose: dict[str, list[Tensor]] = {}
        if not keep:
            loose = {kind: [u.new_empty(shape) for shape in work.kept] for kind, work in self.work.items()}
        for i, sub in enumerate(subs):
            out, kept = (self.kept[i][0], self.kept[i][1:]) if keep else (None, loose[sub.kind])
            s = u if sub.norm is None else sub.norm.forward(u)[0]
            if observer is not None and sub.norm is not None:
                self.show(observer, sub.norm, u, s, sub.after)
            inner = self.work[sub.kind].forward(sub, s, memory, kept)
            u = sub.add(s if sub.after else u, inner, out)
            if observer is not None and not sub.after:
                observer.saw(sub.module, u.view(self.shape))
        return u

    def backward(self, dy: Tensor, memory: Tensor | None, train: bool) -> tuple[Tensor, Tensor | None]:
        """The gradients of the input and of the memory; with ``train``, those of the weights are added to ``parts``."""
        m = self.flat(memory)
        d_memory = None if m is None else torch.zeros_like(m)
        u = self.states.pop()
        _, mean, inverse = self.top.forward(u)
        g = self.top.backward(self.flat(dy).contiguous(), u, mean, inverse, train)
        for first in range((len(self.states) - 1) * self.every, -1, -self.every):
            subs, u = self.subs[first : first + self.every], self.states.pop()
            if self.every < len(self.subs):
                self.room(subs, u)
                self.climb(u, m, subs, keep=True)
            g = self.descend(g, u, subs, m, d_memory, train)
        return g.view(self.shape), None if memory is None or d_memory is None else d_memory.view(memory.shape)

    def descend(self, g: Tensor, u: Tensor, subs: list[Sub], memory: Any, d_memory: Any, train: bool) -> Tensor:
        """From the gradient of the u above ``subs`` to that of the one below, which is ``u``."""
        for i in reversed(range(len(subs))):
            sub, work, kept = subs[i], self.work[subs[i].kind], self.kept[i][1:]
            below = self.kept[i - 1][0] if i else u
            s, mean, inverse = (below, below, below) if sub.norm is None else sub.norm.forward(below)
            f = g if sub.scale == 1 else g * sub.scale
            torch.mm(f, sub.last.weight, out=work.d_inner)
            inner, d = work.backward(sub, kept, memory, d_memory, train)
            if train:
                sub.last.backward(f, inner)
                sub.first.backward(d, s)
            # Post-LN: the skip starts at s, so both paths pass the norm; Pre-LN: only the branch does.
            ds = torch.addmm(g, d, sub.first.weight, beta=sub.skip) if sub.after else torch.mm(d, sub.first.weight)
            du = ds if sub.norm is None else sub.norm.backward(ds, below, mean, inverse, train)
            g = du if sub.after else du.add_(g, alpha=sub.skip)
        return g


class Node(torch.autograd.Function):
    """The stack in autograd's graph. Inputs: a Run, x, the memory or None, and the weights whose gradients are wanted,
    or one of them alone where gradients go to ``grad`` at once."""

    @staticmethod
    def forward(ctx: Any, run: Run, x: Tensor, memory: Tensor | None, *weights: Tensor) -> Tensor:
        """The stack's output."""
        y = run.forward(x, memory, train=True)
        ctx.run, ctx.counts = run, []
        if run.store is None:  # autograd frees what a backward pass has used, and says so if it is wanted again
            ctx.counts = [len(one) for one in run.kept]
            ctx.save_for_backward(x, memory, *run.states, *(tensor for one in run.kept for tensor in one))
            run.kept, ctx.states, run.states = [], len(run.states), []
        else:
            ctx.save_for_backward(x, memory)
            ctx.states = run.states
        return y

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        """Gradients of x, the memory and the weights."""
        run: Run = ctx.run
        x, memory, *saved = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted: the plain path has one
            return None, *_differentiable(run, x, memory, dy[0], ctx.needs_input_grad)
        if run.store is not None:
            if run.turn != run.store.turn:
                raise RuntimeError(
                    "Another forward pass has used this one's memory: in a training step call backward() before the "
                    "next forward pass, or model.use_path('plain')."
                )
            run.states = list(ctx.states)
        else:
            run.states, saved = saved[: ctx.states], saved[ctx.states :]
            for count in ctx.counts:
                run.kept.append(saved[:count])
                saved = saved[count:]
        wanted = ctx.needs_input_grad[3:]
        if run.store is not None:
            gradients: list[Tensor] = [w.grad for w in run.weights]  # type: ignore[misc, union-attr]
        elif any(wanted):
            flat = x.new_zeros(sum(w.numel() for w in run.weights))  # type: ignore[union-attr]
            pieces = flat.split([w.numel() for w in run.weights])  # type: ignore[union-attr]
            gradients = [piece.view_as(w) for piece, w in zip(pieces, run.weights, strict=True)]  # type: ignore[arg-type]
        else:
            gradients = []
        for i, part in enumerate(run.parts if gradients else []):
            part.d_weight, part.d_bias = gradients[2 * i], gradients[2 * i + 1]
        dx, d_memory = run.backward(dy[0], memory, bool(gradients))
        run.kept = []
        if run.store is not None:
            return None, dx, d_memory, None
        return None, dx, d_memory, *(gradients[i] if need else None for i, need in enumerate(wanted))


def _differentiable(run: Run, x: Tensor, memory: Tensor | None, dy: Tensor, needed: Sequence[bool]) -> list[Any]:
    """The gradients as functions of their inputs, by the plain path."""
    inputs = [x, memory, *run.weights][: len(needed) - 1]
    with torch.enable_grad():
        y = run.stack.plain(x, Context(memory=memory))
    wanted = [tensor for tensor, need in zip(inputs, needed[1:], strict=True) if need]
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True, allow_unused=True))  # type: ignore[arg-type]
    return [next(found) if need else None for need in needed[1:]]


def run(stack: Any, x: Tensor, context: Context) -> tuple[Tensor | None, str]:
    """The stack's output by this file and how it was made, or None and the reason why only the plain path can make it.

    Args:
        stack: a :class:`~deepnet_edu.stack.Stack` with layers.
        x: (B, T, d_model).
        context: as the stack got it.
    """
    subs = _read(stack, x, context)
    if isinstance(subs, str):
        return None, subs
    memory = context.memory if any(sub.kind == "cross_attention" for sub in subs[:3]) else None
    rule = subs[-1].module.residual
    top = Norm(rule.norm, subs[-1].module) if subs[-1].after else Norm(rule.final_norm, None)
    one = Run(stack, subs, top, x, memory)
    wanted = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (x, memory, *one.weights)
    )
    if not wanted:
        return one.forward(x, memory, train=False), one.how
    weights = one.weights if one.store is None else one.weights[:1]
    return Node.apply(one, x, memory, *weights), one.how  # type: ignore[no-untyped-call]


def _read(stack: Any, x: Tensor, context: Context) -> list[Sub] | str:
    """The stack's sub-layers from the bottom up, or what this file does not know about it."""
    memory = context.memory
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return "the model is being compiled or transformed"
    if x.device.type != "cpu":
        return f"it was measured on the CPU only, and x is on {x.device}"
    if type(x) is not Tensor or x.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled("cpu"):
        return f"it computes in float32 or float64, without autocast, and x is {x.dtype}"
    if context.cache is not None or context.turn is not None:
        return "there is a key/value cache, or positions are rotary"
    if context.padding is not None or context.memory_padding is not None:
        return "there is padding"
    longest = max(x.shape[1], 0 if memory is None else memory.shape[1])
    if not x.numel() or longest > LONGEST:
        return f"sequences have {longest} tokens, and it knows 1 to {LONGEST}"
    subs: list[Sub] = []
    for layer in stack.layers:
        if _touched(layer):
            return "a layer has a hook, or a method of its own"
        for sublayer in layer.children():
            reason = _stranger(sublayer, memory)
            if reason:
                return reason
            rule = sublayer.residual
            if _KNOWN[type(rule)][0] == "before":
                norm = Norm(rule.norm, sublayer)
            else:
                norm = Norm(subs[-1].module.residual.norm, subs[-1].module) if subs else None
            subs.append(Sub(sublayer, norm))
    if subs[0].first.weight.dtype != x.dtype:
        return f"x is {x.dtype} and the weights are {subs[0].first.weight.dtype}"
    return subs


def _stranger(sublayer: Any, memory: Tensor | None) -> str:
    """What is unknown about a sub-layer, empty if nothing."""
    branch, rule = sublayer.branch, sublayer.residual
    if type(rule) not in _KNOWN:
        return f"it does not know the rule {rule.title}"
    if sublayer.training and (sublayer.dropout or sublayer.drop_branch):
        return "dropout is on"
    if isinstance(branch, MultiHeadAttention):
        inside, activation = branch.inside, F.gelu
        if branch.cross and memory is None:
            return "there is no memory"
    else:
        inside, activation = branch.before or branch.after, branch.activation
        if branch.gated:
            return "it does not know SwiGLU"
    if inside is not None or activation not in (F.gelu, F.relu):
        return "a branch has a module of its own inside, or another activation"
    modules = [sublayer, branch, rule, *branch.children(), *rule.children()]
    if any(_touched(module) for module in modules):
        return "a sub-layer has a hook, or a method of its own"
    for module in modules[3:]:
        if type(module) is nn.LayerNorm or type(module) is nn.Linear:
            if type(module.weight) is not nn.Parameter or type(module.bias) is not nn.Parameter:
                return f"the parameters of a {type(module).__name__} are no ordinary ones"
        else:
            return f"it does not know {type(module).__name__} in this place"
    return ""


def _touched(module: nn.Module) -> bool:
    """Whether somebody has hung a hook on a module, or gave it a method of its own."""
    own = vars(module)
    hooks = own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]
    return bool(hooks) or "forward" in own or "write" in own or "read" in own
