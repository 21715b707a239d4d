"""Multi-head attention on PyTorch's scaled_dot_product_attention, of a sequence to itself or to an encoder's output."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from deepnet_edu.messages import shown
from deepnet_edu.model.fused.join import last
from deepnet_edu.model.shape import check_heads, check_kv_heads
from deepnet_edu.residual import BranchSlot, Residual, Role, itself, modules_inside, through

# PyTorch's counter of operations leaves out, without a word, what its attention computes on a CPU.
for _name in ("_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_backward"):
    _on_cpu = _name.replace("attention", "attention_for_cpu")
    flop_registry.setdefault(getattr(torch.ops.aten, _on_cpu), flop_registry[getattr(torch.ops.aten, _name)])

SLOTS: tuple[BranchSlot, ...] = ("query", "key", "value", "rotated", "mixed")


def check_mask(name: str, mask: Tensor | None, shape: tuple[int, ...] | None = None) -> None:
    """Raise a ValueError unless ``mask`` is bool, or None, and of this shape where one is given."""
    if mask is None:
        return
    if not isinstance(mask, Tensor):
        raise ValueError(f"{name}={shown(mask)}: expected a Tensor of bool, True where a token is padding, or None.")
    if mask.dtype != torch.bool:
        raise ValueError(
            f"{name} of {mask.dtype}: expected bool, True where a token is padding. From Hugging Face's "
            "attention_mask, which is 1 where there is text: attention_mask == 0."
        )
    if shape is not None and mask.shape != shape:
        raise ValueError(f"{name} of shape {tuple(mask.shape)}: expected {shape}, one entry for each token.")


@dataclass
class Cache:
    """What attention remembers of the tokens that a model has read, so that the next ones need not read them again.

    Attributes:
        length: tokens read so far.
        entries: keys and values by attention, each (B, n_kv_heads, tokens, head_dim).
    """

    length: int = 0
    entries: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def extend(self, attention: nn.Module, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new tokens; returns those of all tokens."""
        if attention in self.entries:
            past_k, past_v = self.entries[attention]
            k, v = torch.cat([past_k, k], dim=2), torch.cat([past_v, v], dim=2)
        self.entries[attention] = k, v
        return k, v

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order, some perhaps more than once: beams need that."""
        self.entries = {attention: (k[rows], v[rows]) for attention, (k, v) in self.entries.items()}


@dataclass(frozen=True)
class Context:
    """What branches need beside the stream.

    Attributes:
        padding: (B, S) bool, True where a token is padding and must not be seen; S counts cached tokens too.
        memory: the encoder's output, (B, S_encoder, d_model).
        memory_padding: (B, S_encoder) bool.
        cache: keys and values of earlier tokens.
        rotary: cosine and sine of rotary positions, each (T, 1, head_dim) or (B, T, 1, head_dim).
        half: the dtype in which the stream is kept between sub-layers, None for as rules make it.
        bare: whether a branch leaves out its last bias.
        fused: where sub-layers may be joined by one kernel, the context of branches whose last bias it adds.
    """

    padding: Tensor | None = None
    memory: Tensor | None = None
    memory_padding: Tensor | None = None
    cache: Cache | None = None
    rotary: tuple[Tensor, Tensor] | None = None
    half: torch.dtype | None = None
    bare: bool = False
    fused: "Context | None" = None

    def __post_init__(self) -> None:
        check_mask("padding", self.padding)
        check_mask("memory_padding", self.memory_padding)


NOTHING = Context()


def wavelengths(base: float, d: int, device: torch.device) -> Tensor:
    """base^(-2i/d), i = 0 … d/2 - 1: angle per position, in float32 or better whatever PyTorch's default is.

    In half precision the angles of a long sequence would be off by more than a radian.
    """
    dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
    return base ** (-torch.arange(0, d, 2, device=device, dtype=dtype) / d)


def rotary(positions: Tensor, head_dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles p·base^(-2i/head_dim), i = 0 … head_dim/2 - 1, twice side by side.

    Args:
        positions: (T,) or (B, T).
        head_dim: even.
        base: of the slowest wavelength, 2π·base.

    Returns:
        Two tensors, (T, 1, head_dim) or (B, T, 1, head_dim): one for all heads.

    Source: arXiv 2104.09864, Section 3.4.2.
    """
    frequency = wavelengths(base, head_dim, positions.device)
    angle = (positions[..., None] * frequency).repeat_interleave(2, dim=-1).unsqueeze(-2)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair of neighbouring features (x₀, x₁) to (x₀ cos - x₁ sin, x₁ cos + x₀ sin). x: (B, T, heads, d)."""
    cos, sin = rotary
    across = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    # In place: what would come and go between tensors that stay leaves gaps in memory.
    return (x * cos.to(x.dtype)).add_(across * sin.to(x.dtype))


class MultiHeadAttention(nn.Module):
    """softmax(QKᵀ/√(d_model/n_heads)) V, heads side by side, then the output projection.

    Self-attention packs query, key and value in one weight of shape (3·d_model, d_model), in this order: one matrix
    product for three. Cross-attention has a query weight, and a packed one of (2·d_model, d_model) for the memory. Each
    part is a matrix of its own for initialisation (:mod:`deepnet_edu.model.initialization`).

    With fewer heads of keys and values than of queries (grouped-query attention), n_heads/n_kv_heads neighbouring
    queries share a key and a value, and key and value have n_kv_heads·head_dim rows each instead of d_model.

    Args:
        d_model: width of the stream.
        n_heads: number of heads; divides d_model.
        causal: whether a token sees only itself and earlier ones.
        cross: whether keys and values come from the memory instead.
        rule: the residual rule around this branch, which may put modules of its own inside.
        n_kv_heads: heads of keys and values; divides n_heads; 0 for as many.
        bias: whether the projections add one.

    Raises:
        ValueError: n_heads does not divide d_model, n_kv_heads does not divide n_heads, or the rule needs as many of
            both.

    Source: arXiv 1706.03762, Section 3.2; of grouped queries arXiv 2305.13245, Section 2.2.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        causal: bool,
        *,
        cross: bool = False,
        rule: Residual | None = None,
        n_kv_heads: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_heads(d_model, n_heads)
        check_kv_heads(n_heads, n_kv_heads)
        self.n_heads = n_heads
        self.queries_per_key = n_heads // (n_kv_heads or n_heads)
        width = d_model // self.queries_per_key  # of all keys of a token, and of all values
        self.causal = causal
        self.cross = cross
        if cross:
            self.query = nn.Linear(d_model, d_model, bias=bias)
            self.key_value = nn.Linear(d_model, 2 * width, bias=bias)
        else:
            self.qkv = nn.Linear(d_model, d_model + 2 * width, bias=bias)
        self.output = nn.Linear(d_model, d_model, bias=bias)
        self.scale = (d_model // n_heads) ** -0.5
        if rule is not None:
            self.scale = rule.score_scale(d_model // n_heads)
        self.inside = modules_inside(rule, SLOTS, d_model, n_heads)
        if self.queries_per_key > 1 and rule is not None and self.inside is not None and "rotated" in self.inside:
            raise ValueError(
                f"n_kv_heads={n_kv_heads}: {rule.title} scales the features of queries and keys by one vector, so it "
                "needs as many heads of both; leave n_kv_heads out."
            )

    @property
    def last(self) -> nn.Linear:
        """The matrix that ends the branch."""
        return self.output

    def weights(self, of: Callable[[Tensor], Tensor] = itself) -> dict[Role, Tensor]:
        """The weights by role, (d_model, d_model), of key and value (n_kv_heads·head_dim, d_model); parts of a packed
        one are views.

        Args:
            of: what is wanted of each parameter, of the same shape: the parameter itself, or its gradient.
        """
        if self.cross:
            key, value = of(self.key_value.weight).chunk(2)
            return {"query": of(self.query.weight), "key": key, "value": value, "output": of(self.output.weight)}
        packed = of(self.qkv.weight)
        width = (len(packed) - packed.shape[1]) // 2
        query, key, value = packed.split((packed.shape[1], width, width))
        return {"query": query, "key": key, "value": value, "output": of(self.output.weight)}

    def forward(self, x: Tensor, context: Context = NOTHING) -> Tensor:
        """Attend.

        Args:
            x: (B, T, d_model).
            context: padding, memory, cache and positions. With a cache, x holds the new tokens only.

        Returns:
            (B, T, d_model). A token that sees no token at all gets the output projection's bias.
        """
        B, T, d_model = x.shape
        q, k, v = self._attend_to_memory(x, context) if self.cross else self._attend_to_self(x, context)
        padding = context.memory_padding if self.cross else context.padding
        S = k.shape[2]
        visible = None if padding is None else ~padding[:, None, None, :]  # (B, 1, 1, S), True where a key may be seen
        if self.causal and not self.cross and (visible is not None or 1 < T < S):
            past = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)
            visible = past if visible is None else visible & past
        causal = self.causal and not self.cross and visible is None and (context.cache is None or T == S)
        grouped = self.queries_per_key > 1
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=visible, is_causal=causal, scale=self.scale, enable_gqa=grouped
        )
        y = through(self.inside, "mixed", y.transpose(1, 2).reshape(B, T, d_model))
        return last(self.output, y, context.bare)

    def _attend_to_self(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Query (B, n_heads, T, head_dim), key and value (B, n_kv_heads, tokens, head_dim), of cached tokens too."""
        B, T, d_model = x.shape
        groups = self.n_heads // self.queries_per_key
        heads = self.n_heads, groups, groups
        q, k, v = self.qkv(x).view(B, T, -1, d_model // self.n_heads).split(heads, dim=2)
        q, k, v = through(self.inside, "query", q), through(self.inside, "key", k), through(self.inside, "value", v)
        if context.rotary is not None:
            q, k = rotate(q, context.rotary), rotate(k, context.rotary)
        q, k = through(self.inside, "rotated", q), through(self.inside, "rotated", k)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if context.cache is not None:
            k, v = context.cache.extend(self, k, v)
        return q, k, v

    def _attend_to_memory(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Query from x, key and value from the memory; the latter are computed once where there is a cache."""
        B, T, d_model = x.shape
        if context.memory is None:
            raise ValueError("Cross-attention has no memory to look at: give the encoder's output as memory.")
        head_dim = d_model // self.n_heads
        q = through(self.inside, "query", self.query(x).view(B, T, self.n_heads, head_dim)).transpose(1, 2)
        if context.cache is not None and self in context.cache.entries:
            return q, *context.cache.entries[self]
        k, v = self.key_value(context.memory).view(B, -1, 2, self.n_heads // self.queries_per_key, head_dim).unbind(2)
        k, v = through(self.inside, "key", k).transpose(1, 2), through(self.inside, "value", v).transpose(1, 2)
        if context.cache is not None:
            context.cache.entries[self] = k, v
        return q, k, v
