"""Grouped queries against attention that is written out, head by head, in float64."""

import pytest
import torch
from torch import Tensor

from deepnet_edu import ModelConfig, build_model
from deepnet_edu.model.attention import Cache, Context, MultiHeadAttention, rotary, rotate

D, HEADS, B, T, S = 24, 6, 2, 7, 5


def written_out(attention: MultiHeadAttention, x: Tensor, memory: Tensor, hidden: Tensor | None) -> Tensor:
    """softmax(q_h·k_gᵀ/√head_dim) v_g, head h with the keys of group g = h // (heads/groups)."""
    w, bias = attention.weights(), {name: p for name, p in attention.named_parameters() if name.endswith("bias")}
    groups, size = HEADS // attention.queries_per_key, D // HEADS
    q, k, v = x @ w["query"].T, memory @ w["key"].T, memory @ w["value"].T
    if bias and attention.cross:
        own, other = bias["query.bias"], bias["key_value.bias"]
    elif bias:
        own, other = bias["qkv.bias"][:D], bias["qkv.bias"][D:]
    if bias:
        q, k, v = q + own, k + other[: groups * size], v + other[groups * size :]
    heads = []
    for h in range(HEADS):
        g = h // (HEADS // groups)
        one, (key, value) = q[..., h * size : (h + 1) * size], (m[..., g * size : (g + 1) * size] for m in (k, v))
        scores = one @ key.transpose(1, 2) / size**0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        heads.append(scores.softmax(-1) @ value)
    y = torch.cat(heads, -1) @ w["output"].T
    return y + bias["output.bias"] if bias else y


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("kind", ["causal", "all", "padded", "cross"])
def test_grouped_queries(kind: str, groups: int, bias: bool) -> None:
    torch.manual_seed(0)
    cross = kind == "cross"
    attention = MultiHeadAttention(D, HEADS, kind == "causal", cross=cross, n_kv_heads=groups, bias=bias)
    x, memory = torch.randn(B, T, D, requires_grad=True), torch.randn(B, S, D)
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[0, 4:] = kind == "padded"
    hidden = padding[:, None, :].expand(B, T, T)
    if kind == "causal":
        hidden = torch.ones(T, T, dtype=torch.bool).triu(1)
    context = Context(memory=memory) if cross else Context(padding if kind == "padded" else None)
    found = attention(x, context)
    expected = written_out(attention, x, memory if cross else x, None if cross else hidden)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    along = torch.randn(B, T, D)
    inputs = (x, *attention.parameters())
    for one, other in zip(*(torch.autograd.grad((y * along).sum(), inputs) for y in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_keys_and_values_of_fewer_heads_are_smaller() -> None:
    attention = MultiHeadAttention(D, HEADS, causal=True, n_kv_heads=2)
    assert attention.qkv.weight.shape == (D + 2 * 2 * 4, D)
    assert {role: w.shape for role, w in attention.weights().items()} == {
        "query": (D, D), "key": (8, D), "value": (8, D), "output": (D, D),
    }  # fmt: skip
    assert MultiHeadAttention(D, HEADS, causal=True, n_kv_heads=6).qkv.weight.shape == (3 * D, D)


@pytest.mark.usefixtures("double")
def test_a_cache_keeps_grouped_keys() -> None:
    """A token at a time gives the logits of the whole text."""
    config = ModelConfig(
        "decoder",
        "lm",
        2,
        d_model=D,
        n_heads=HEADS,
        n_kv_heads=2,
        d_ff=20,
        vocab_size=11,
        position="rotary",
        bias=False,
    )
    model, tokens = build_model(config), torch.arange(6)[None]
    cache = Cache()
    steps = torch.cat([model(tokens[:, i : i + 1], cache=cache) for i in range(6)], 1)
    torch.testing.assert_close(steps, model(tokens), rtol=1e-12, atol=1e-12)
    assert {k.shape for k, _ in cache.entries.values()} == {(1, 2, 6, 4)}


@pytest.mark.usefixtures("double")
def test_the_base_of_rotary_positions() -> None:
    """Pair i of position p turns by p·base^(-2i/d), as a complex number (arXiv 2104.09864)."""
    x = torch.randn(1, 4, 1, 8)
    pairs = torch.view_as_complex(x.unflatten(-1, (4, 2)).contiguous())
    for base in (10_000.0, 500_000.0):
        angle = torch.arange(4.0)[:, None] * base ** (-torch.arange(0, 8, 2) / 8)
        expected = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)[:, None]).flatten(-2)
        torch.testing.assert_close(rotate(x, rotary(torch.arange(4), 8, base)), expected)
    sizes = {"d_model": 8, "n_heads": 1, "d_ff": 8, "vocab_size": 5, "position": "rotary"}
    models = [build_model(ModelConfig("decoder", "lm", 1, **sizes, rotary_base=base)) for base in (1e4, 5e5)]
    tokens = torch.arange(5)[None]
    assert not torch.equal(models[0](tokens), models[1](tokens))


@pytest.mark.parametrize(
    ("n_kv_heads", "message"),
    [
        (4, r"n_kv_heads=4: .* must divide n_heads=6: try n_kv_heads=3"),
        (7, "try n_kv_heads=6"),
        (-1, "n_kv_heads=-1: expected a whole number, 0 or more"),
    ],
)
def test_heads_that_cannot_share_are_refused(n_kv_heads: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig("decoder", "lm", 1, d_model=D, n_heads=HEADS, n_kv_heads=n_kv_heads, d_ff=8, vocab_size=5)


def test_a_rule_that_scales_queries_and_keys_alike_refuses_groups() -> None:
    config = ModelConfig("decoder", "lm", 1, d_model=D, n_heads=6, n_kv_heads=2, d_ff=8, vocab_size=5, residual="ngpt")
    with pytest.raises(ValueError, match=r"n_kv_heads=2: nGPT scales .* leave n_kv_heads out"):
        build_model(config)
