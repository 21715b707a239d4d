"""Decoders with DeepNorm as other libraries build them, in one form: what benchmarks/peers.py compares.

Each is built as its own documentation says: TorchScale by ``deepnorm=True``, labml-nn by its
``DeepNormTransformerLayer``, copied as its experiment copies it, x-transformers, which has no DeepNorm, by the two
settings that give its formula.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepnet_edu import ModelConfig, build_model, deepnorm_constants
from deepnet_edu.model.shape import Shape
from deepnet_edu.model.stack import Stack
from deepnet_edu.probing import token_similarity

ROLES = ("query", "key", "value", "output", "ffn_in", "ffn_out")
#: The roles whose weights β scales.
SCALED = ROLES[2:]
#: Of what is measured at initialisation.
SEQUENCES, TOKENS, ANSWERS = 4, 64, 64


@dataclass(frozen=True)
class Layer:
    """A layer: its six matrices by role, and its two norms, of attention and of FFN, as (gain, bias or None)."""

    linear: dict[str, nn.Module]
    norms: tuple[tuple[Tensor, Tensor | None], ...]


@dataclass(frozen=True)
class Built:
    """A stack, how it reads a stream (B, T, d), and its layers as they are now."""

    module: nn.Module
    run: Callable[[Tensor], Tensor]
    look: Callable[[], list[Layer]]
    activation: str

    @property
    def layers(self) -> list[Layer]:
        """From the bottom up."""
        return self.look()


@dataclass(frozen=True)
class Peer:
    """A library.

    Attributes:
        distribution: its name on PyPI.
        how: what one writes to get DeepNorm.
        build: that many layers of this shape, freshly drawn.
        misspelt: builds one with an option that does not exist, ``deep_norm=True``.
    """

    distribution: str
    how: str
    build: Callable[[int, Shape], Built]
    misspelt: Callable[[], Any]


def ours(layers: int, shape: Shape) -> Built:
    """A decoder of this library, without its ends."""
    config = ModelConfig(
        "decoder", "lm", layers, d_model=shape.d_model, n_heads=shape.n_heads, d_ff=shape.d_ff, vocab_size=8
    )
    stack = build_model(config, seed=0).stacks()["decoder"]
    return Built(stack, stack, lambda: [_ours(layer) for layer in stack.layers], shape.activation)


def _ours(layer: Any) -> Layer:
    attention, ffn = layer.self_attention.branch, layer.ffn.branch
    packed = zip(attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3), strict=True)
    query, key, value = (_Part(*parts) for parts in packed)
    linear = dict(zip(ROLES, (query, key, value, attention.output, ffn.ffn_in, ffn.ffn_out), strict=True))
    norms = tuple((part.residual.norm.weight, part.residual.norm.bias) for part in (layer.self_attention, layer.ffn))
    return Layer(linear, norms)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Part:
    """One of three matrices that are stored as one."""

    weight: Tensor
    bias: Tensor


def torchscale(layers: int, shape: Shape) -> Built:
    """``DecoderConfig(deepnorm=True)``."""
    from benchmarks.peers import their_stacks

    stack: Any = their_stacks("decoder", 0, layers, shape=shape)["decoder"].float()

    def run(x: Tensor) -> Tensor:
        tokens = torch.ones(x.shape[:2], dtype=torch.long)
        return stack(tokens, token_embeddings=x, features_only=True)[0]  # type: ignore[no-any-return]

    def layer(one: Any) -> Layer:
        attention = one.self_attn
        linear = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj, one.ffn.fc1, one.ffn.fc2)
        norms = ((norm.weight, norm.bias) for norm in (one.self_attn_layer_norm, one.final_layer_norm))
        return Layer(dict(zip(ROLES, linear, strict=True)), tuple(norms))

    return Built(stack, run, lambda: [layer(one) for one in stack.layers], "gelu")


def labml(layers: int, shape: Shape) -> Built:
    """``DeepNormTransformerLayer``, copied as labml_nn/normalization/deep_norm/experiment.py copies it."""
    from labml import tracker
    from labml_nn.normalization.deep_norm import DeepNormTransformerLayer
    from labml_nn.transformers import MultiHeadAttention
    from labml_nn.transformers.feed_forward import FeedForward

    if not hasattr(tracker, "debug"):  # labml-nn 0.5.1 calls it, and the newest labml, 0.5.3, has it no more
        tracker.debug = lambda *_: None
    constants = deepnorm_constants(decoder_layers=layers).decoder  # the same formulas as in that file
    assert constants is not None
    first = DeepNormTransformerLayer(
        d_model=shape.d_model,
        self_attn=MultiHeadAttention(shape.n_heads, shape.d_model, dropout_prob=0.0),
        feed_forward=FeedForward(shape.d_model, shape.d_ff, dropout=0.0),
        deep_norm_alpha=constants.alpha,
        deep_norm_beta=constants.beta,
    )
    stack = nn.Sequential(*[copy.deepcopy(first) for _ in range(layers)])

    def layer(one: Any) -> Layer:
        attention, ffn = one.self_attn, one.feed_forward
        linear = [part.linear for part in (attention.query, attention.key, attention.value)]
        linear += [attention.output, ffn.layer1, ffn.layer2]
        norms = ((norm.layer_norm.gain, norm.layer_norm.bias) for norm in (one.self_attn_norm, one.feed_forward_norm))
        return Layer(dict(zip(ROLES, linear, strict=True)), tuple(norms))

    def run(x: Tensor) -> Tensor:
        return stack(x.transpose(0, 1)).transpose(0, 1)  # type: ignore[no-any-return]

    return Built(stack, run, lambda: [layer(one) for one in stack], "relu")


def x_transformers(layers: int, shape: Shape) -> Built:
    """``Decoder(pre_norm=False, scale_residual_constant=α)``: it has no setting for β."""
    from x_transformers import Decoder

    constants = deepnorm_constants(decoder_layers=layers).decoder
    assert constants is not None
    stack: Any = Decoder(
        dim=shape.d_model, depth=layers, heads=shape.n_heads, attn_dim_head=shape.d_model // shape.n_heads,
        ff_mult=shape.d_ff / shape.d_model, pre_norm=False, scale_residual_constant=constants.alpha,
    )  # fmt: skip

    def layer(attention: Any, ffn: Any) -> Layer:
        own, hidden = attention[1], ffn[1].ff
        linear = (own.to_q, own.to_k, own.to_v, own.to_out, hidden[0][0], hidden[2])
        norms = (norm.gamma + float(norm.unit_offset) for norm in (attention[0][2], ffn[0][2]))
        return Layer(dict(zip(ROLES, linear, strict=True)), tuple((gain, None) for gain in norms))

    parts = list(stack.layers)
    return Built(stack, stack, lambda: [layer(*parts[i : i + 2]) for i in range(0, 2 * layers, 2)], "gelu")


def _torchscale_misspelt() -> Any:
    from benchmarks.peers import import_torchscale

    return import_torchscale().DecoderConfig(deep_norm=True)


def _labml_misspelt() -> Any:
    from labml_nn.normalization.deep_norm import DeepNormTransformerLayer

    return DeepNormTransformerLayer(d_model=8, self_attn=None, feed_forward=None, deep_norm=True)


def _x_transformers_misspelt() -> Any:
    from x_transformers import XTransformer

    sizes = {"num_tokens": 8, "depth": 1, "heads": 2, "max_seq_len": 8}
    both = {f"{stack}_{name}": value for stack in ("enc", "dec") for name, value in sizes.items()}
    return XTransformer(dim=16, deep_norm=True, **both)


OURS = Peer("deepnet-edu", '`residual="deepnorm"`', ours, lambda: ModelConfig("decoder", "lm", 2, deep_norm=True))  # type: ignore[call-arg]
PEERS = {
    "TorchScale": Peer("torchscale", "`DecoderConfig(deepnorm=True)`", torchscale, _torchscale_misspelt),
    "labml-nn": Peer("labml-nn", "`DeepNormTransformerLayer`, copied", labml, _labml_misspelt),
    "x-transformers": Peer(
        "x-transformers", "`pre_norm=False, scale_residual_constant=α`", x_transformers, _x_transformers_misspelt
    ),
}


# --- what is measured


@torch.no_grad()
def with_weights_of(built: Built, shape: Shape) -> Stack:
    """Our stack with their weights; where they have no biases, ours are 0."""
    stack = Stack("decoder", "deepnorm", encoder_layers=0, decoder_layers=len(built.layers), shape=shape)
    for mine, theirs in zip(stack.layers, built.layers, strict=True):
        there = _ours(mine)
        for role in ROLES:
            _copy(there.linear[role], theirs.linear[role].weight, theirs.linear[role].bias)  # type: ignore[arg-type]
        for (gain, bias), (their_gain, their_bias) in zip(there.norms, theirs.norms, strict=True):
            gain.copy_(their_gain)
            assert bias is not None
            bias.copy_(torch.zeros_like(bias) if their_bias is None else their_bias)
    return stack.double()


def _copy(to: Any, weight: Tensor, bias: Tensor | None) -> None:
    to.weight.copy_(weight)
    to.bias.copy_(torch.zeros_like(to.bias) if bias is None else bias)


def off_by(peer: Peer, layers: int, shape: Shape) -> dict[str, float]:
    """Largest relative differences of the output and of the input's gradient to ours with the same weights, float64."""
    torch.manual_seed(0)
    built = peer.build(layers, shape)
    with torch.no_grad():
        for parameter in built.module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # zeros and ones hide mistakes
    shape = Shape(shape.d_model, shape.n_heads, shape.d_ff, activation=built.activation)  # type: ignore[arg-type]
    mine = with_weights_of(built, shape)
    built.module.double()
    x = torch.randn(2, 7, shape.d_model, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 7, shape.d_model, dtype=torch.float64)
    (y, dx), (y_, dx_) = ((y, *torch.autograd.grad((y * weights).sum(), x)) for y in (mine(x), built.run(x)))
    return {"output": _relative(y, y_), "gradient": _relative(dx, dx_)}


def _relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


def gains(built: Built) -> dict[str, float]:
    """Xavier gain of the weights as drawn, root mean square over layers: of those that β scales, of query and key."""
    found: dict[str, list[Tensor]] = {role: [] for role in ROLES}
    for layer in built.layers:
        for role in ROLES:
            weight: Tensor = layer.linear[role].weight  # type: ignore[assignment]
            found[role].append(weight.detach().square().mean() * sum(weight.shape) / 2)
    groups = {"scaled by beta": SCALED, "query and key": ROLES[:2]}
    return {
        name: sqrt(torch.stack([g for role in roles for g in found[role]]).mean()) for name, roles in groups.items()
    }


def at_initialisation(peer: Peer, layers: int, shape: Shape) -> dict[str, float]:
    """First over last layer's gradient in the FFN's first matrix, and the similarity of tokens at the top."""
    torch.manual_seed(0)
    built = peer.build(layers, shape)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SEQUENCES, TOKENS, shape.d_model, generator=generator)
    head = torch.randn(ANSWERS, shape.d_model, generator=generator) / sqrt(shape.d_model)
    targets = torch.randint(ANSWERS, (SEQUENCES * TOKENS,), generator=generator)
    y = built.run(x)
    ends = [layer.linear["ffn_in"].weight for layer in built.layers[:: layers - 1]]  # the first and the last
    first, last = torch.autograd.grad(F.cross_entropy(F.linear(y, head).flatten(0, 1), targets), ends)  # type: ignore[arg-type]
    return {
        "first over last gradient": (first.norm() / last.norm()).item(),
        "token similarity": token_similarity(y.detach()).item(),
    }


def of_a_misspelt_option(peer: Peer) -> str:
    """``"accepted"``, or the sentence with which it is refused."""
    try:
        peer.misspelt()
    except (TypeError, ValueError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"
