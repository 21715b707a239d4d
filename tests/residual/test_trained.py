"""Rules as their papers have them, trained: a few steps of AdamW with weight decay, in float64, against models that are
written here in plain PyTorch, with optimizer groups by hand. Depths differ, norms are RMS, FFNs are SwiGLU.

Nothing of ours is called but the models that are compared; parameters go by the names that they have there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deepnet_edu import Batch, ModelConfig, TrainConfig, build_model, train
from deepnet_edu.model import random_batch

#: An ε as large as gradients, so that a factor on it shows, and rounding does not.
RATE, DECAY, EPSILON, BETAS, STEPS = 1e-2, 0.3, 1e-2, (0.8, 0.95), 3
HEADS, WIDTH = 2, 12
Parameters = dict[str, Tensor]
Change = Callable[[Tensor], Tensor]


def same(x: Tensor) -> Tensor:
    return x


def unit(x: Tensor, dim: int = -1) -> Tensor:
    return x / x.norm(dim=dim, keepdim=True)


def turned(x: Tensor) -> Tensor:
    """Rotary positions: each pair of neighbours is a complex number, rotated by position × 10,000^(-2i/d)."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())  # (B, T, heads, d/2)
    angle = torch.arange(x.shape[1])[:, None] * 10_000.0 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)[:, None]).flatten(-2)


@dataclass
class Stack:
    """Branches and norms of one stack, as functions of its parameters."""

    p: Parameters
    name: str
    causal: bool
    memory: Tensor | None = None
    scale: float | None = None
    turned_too: dict[int, Change] = field(default_factory=dict)
    before: dict[int, Change] = field(default_factory=dict)

    def of(self, layer: int, kind: str, name: str) -> Tensor:
        return self.p[f"{self.name}.layers.{layer}.{kind}.{name}"]

    def places(self) -> Iterator[tuple[int, str]]:
        """Layers from 0, and kinds of sub-layers."""
        cross = [] if self.memory is None else ["cross_attention"]
        return ((layer, kind) for layer in range(self.last() + 1) for kind in ("self_attention", *cross, "ffn"))

    def last(self) -> int:
        return max(int(name.split(".")[2]) for name in self.p if name.startswith(f"{self.name}.layers."))

    def norm(self, layer: int, kind: str, name: str, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.of(layer, kind, f"residual.{name}.weight")

    def f(self, layer: int, kind: str, x: Tensor) -> Tensor:
        def linear(name: str, x: Tensor) -> Tensor:
            return x @ self.of(layer, kind, f"branch.{name}.weight").T + self.of(layer, kind, f"branch.{name}.bias")

        if kind == "ffn":
            up, gate = self.before.get(layer, same)(linear("ffn_in", x)).chunk(2, -1)
            return linear("ffn_out", gate * torch.sigmoid(gate) * up)
        if kind == "cross_attention":
            assert self.memory is not None
            q, (k, v) = linear("query", x), linear("key_value", self.memory).chunk(2, -1)
        else:
            q, k, v = linear("qkv", x).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (HEADS, -1)) for t in (q, k, v))
        if kind == "self_attention":
            then = self.turned_too.get(layer, same)
            q, k = then(turned(q)), then(turned(k))
        scores = torch.einsum("bthd,bshd->bhts", q, k) * (self.scale or q.shape[-1] ** -0.5)
        if self.causal and kind == "self_attention":
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
        return linear("output", torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v).flatten(-2))


def rezero(x: Tensor, s: Stack) -> Tensor:
    """One resweight a layer (rztx.py)."""
    for layer, kind in s.places():
        x = x + s.of(layer, "self_attention", "residual.alpha") * s.f(layer, kind, x)
    return x


def skip_init(x: Tensor, s: Stack) -> Tensor:
    """A factor for each branch."""
    for layer, kind in s.places():
        x = x + s.of(layer, kind, "residual.alpha") * s.f(layer, kind, x)
    return x


def gpas(x: Tensor, s: Stack) -> Tensor:
    """One gate a layer, called after both sums (modeling_llama.py, pre_gpas)."""
    for layer, kind in s.places():
        x = x + s.f(layer, kind, s.norm(layer, kind, "norm", x))
        gate = s.of(layer, "self_attention", "residual.a")
        x = x - gate * torch.sigmoid(gate) * x.detach()
    return s.norm(s.last(), "ffn", "final_norm", x)


def admin(x: Tensor, s: Stack) -> Tensor:
    for layer, kind in s.places():
        x = s.norm(layer, kind, "norm", s.of(layer, kind, "residual.omega") * x + s.f(layer, kind, x))
    return x


def scaled(factor: Callable[[Stack, int, str], Tensor | float]) -> Callable[[Tensor, Stack], Tensor]:
    """x + factor·F(LN(x)), LN at the end."""

    def run(x: Tensor, s: Stack) -> Tensor:
        for layer, kind in s.places():
            x = x + factor(s, layer, kind) * s.f(layer, kind, s.norm(layer, kind, "norm", x))
        return s.norm(s.last(), "ffn", "final_norm", x)

    return run


def layernorm_scaling(x: Tensor, s: Stack) -> Tensor:
    for layer, kind in s.places():
        x = x + s.f(layer, kind, s.norm(layer, kind, "norm", x) / sqrt(layer + 1))
    return s.norm(s.last(), "ffn", "final_norm", x)


def hyper_connections(x: Tensor, s: Stack) -> Tensor:
    """Equations 2 to 5 and 10 to 13 with H as rows: H₀ = A_mᵀH, H' = A_rᵀH, Ĥ = BᵀT(H₀) + H'."""
    H = torch.stack([x] * 4, -2)
    for layer, kind in s.places():
        w = {name: s.of(layer, kind, f"residual.{name}") for name in ("pre", "post", "res", "dynamic", "scale")}
        bar = s.norm(layer, kind, "stream_norm", H)
        A_r = w["res"].T + w["scale"][0] * torch.tanh(bar @ w["dynamic"][:, :4])  # (from, to)
        A_m = w["pre"] + w["scale"][0] * torch.tanh(bar @ w["dynamic"][:, 4])
        B = w["post"] + w["scale"][1] * torch.tanh(bar @ w["dynamic"][:, 5])
        h0 = torch.einsum("btn,btnd->btd", A_m, H)
        T = s.f(layer, kind, s.norm(layer, kind, "norm", h0))
        H = torch.einsum("btn,btd->btnd", B, T) + torch.einsum("btij,btid->btjd", A_r, H)
    return s.norm(s.last(), "ffn", "final_norm", H.sum(-2))


def mhc(x: Tensor, s: Stack) -> Tensor:
    """Equations 7 to 9: columns, then rows, 20 times."""
    X = torch.stack([x] * 4, -2)
    for layer, kind in s.places():
        w = {name: s.of(layer, kind, f"residual.{name}") for name in ("pre", "post", "res", "dynamic", "scale")}
        flat = X.flatten(-2)
        flat = flat / flat.square().mean(-1, keepdim=True).sqrt()
        res = w["scale"][0] * (flat @ w["dynamic"][:, :16]).unflatten(-1, (4, 4)) + w["res"]
        pre = torch.sigmoid(w["scale"][1] * (flat @ w["dynamic"][:, 16:20]) + w["pre"])
        post = 2 * torch.sigmoid(w["scale"][2] * (flat @ w["dynamic"][:, 20:]) + w["post"])
        M = res.exp()
        for _ in range(20):
            M = M / torch.einsum("btij->btj", M)[..., None, :]  # T_c
            M = M / torch.einsum("btij->bti", M)[..., :, None]  # T_r
        torch.testing.assert_close(M.sum(-1), torch.ones_like(M.sum(-1)))
        branch = s.f(layer, kind, s.norm(layer, kind, "norm", torch.einsum("btn,btnd->btd", pre, X)))
        X = torch.einsum("btij,btjd->btid", M, X) + post[..., None] * branch[..., None, :]
    return s.norm(s.last(), "ffn", "final_norm", X.sum(-2))


def ngpt(x: Tensor, s: Stack) -> Tensor:
    """model.py: one sqk a layer, suv, alpha; their units are 1/√d, 1 and 1/√d."""
    s.scale = sqrt(WIDTH / HEADS)
    h = unit(x)
    for layer, kind in s.places():
        if kind == "self_attention":
            sqk = s.of(layer, kind, "branch.inside.rotated.weight") * sqrt(WIDTH)
            s.turned_too[layer] = lambda q, sqk=sqk: sqk * unit(q)
        else:
            suv = s.of(layer, kind, "branch.before.ffn_in.weight") * sqrt(WIDTH)
            s.before[layer] = lambda uv, suv=suv: suv * uv
        lr = (s.of(layer, kind, "residual.alpha") * (0.05 * sqrt(WIDTH))).abs()
        h = unit(h + lr * (unit(s.f(layer, kind, h)) - h))
    return h


def to_length_one(p: Parameters) -> None:
    for name, weight in p.items():
        if name.endswith(("qkv.weight", "ffn_in.weight", "token.weight", "head.weight")) and weight.ndim == 2:
            weight.copy_(unit(weight, 1))
        if name.endswith(("output.weight", "ffn_out.weight")):
            weight.copy_(unit(weight, 0))


#: Parameters that decay, by name and shape: everybody's standard, and what papers say otherwise.
def standard(name: str, weight: Tensor) -> bool:
    return weight.ndim > 1


def streams(name: str, weight: Tensor) -> bool:
    """2409.19606, Section 4: the static component does not decay, the dynamic component does."""
    if name.endswith(("residual.pre", "residual.post", "residual.res")):
        return False
    return name.endswith(("residual.dynamic", "residual.scale")) or weight.ndim > 1


def hidden(name: str) -> bool:
    """hidden_weight, hidden_bias and hidden_ln of nanoGPT-mup's configure_optimizers, not emb and final_ln."""
    return ".layers." in name and "final_norm" not in name


@dataclass
class Rule:
    run: Callable[[Tensor, Stack], Tensor]
    architecture: str = "decoder"
    decays: Callable[[str, Tensor], bool] = standard
    rate: float = 1.0  # of hidden parameters
    epsilon: float = 1.0
    project: Callable[[Parameters], None] = lambda p: None


RULES = {
    "rezero": Rule(rezero, "encoder_decoder"),
    "skip_init": Rule(skip_init, "encoder_decoder"),
    "admin": Rule(admin, "encoder_decoder"),
    "gpas": Rule(gpas),
    "layer_scale": Rule(scaled(lambda s, layer, kind: s.of(layer, kind, "residual.scale")), "encoder"),
    "layernorm_scaling": Rule(layernorm_scaling),
    "complete_p": Rule(scaled(lambda s, layer, kind: 2 / 3), epsilon=2 / 3),
    "depth_mup": Rule(scaled(lambda s, layer, kind: sqrt(2 / 3)), rate=sqrt(2 / 3), epsilon=sqrt(2 / 3)),
    "hyper_connections": Rule(hyper_connections, decays=streams),
    "mhc": Rule(mhc, decays=streams),
    "ngpt": Rule(ngpt, decays=lambda name, weight: False, project=to_length_one),
}


def loss_of(rule: Rule, p: Parameters, batch: Batch) -> Tensor:
    if rule.architecture == "encoder_decoder":
        assert batch.target_inputs is not None
        memory = rule.run(p["embed_source.token.weight"][batch.inputs], Stack(p, "encoder", causal=False))
        x = rule.run(p["embed_target.token.weight"][batch.target_inputs], Stack(p, "decoder", True, memory))
    else:
        x = rule.run(p["embed.token.weight"][batch.inputs], Stack(p, "stack", rule.architecture == "decoder"))
    logits = x @ p["head.weight"].T
    if "rescale.logits.weight" in p:
        logits = logits * p["rescale.logits.weight"] * sqrt(WIDTH)
    return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())


class Same:
    def __init__(self, batch: Batch) -> None:
        self.one = batch

    def batch(self, generator: torch.Generator) -> Batch:
        return self.one


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("residual", list(RULES))
def test_training_equals_the_papers(residual: str) -> None:
    rule = RULES[residual]
    depths = {"encoder": {"encoder_layers": 3}, "decoder": {"decoder_layers": 3}}.get(
        rule.architecture, {"encoder_layers": 2, "decoder_layers": 3}
    )
    config = ModelConfig(
        rule.architecture, {"encoder": "mlm", "decoder": "lm"}.get(rule.architecture, "translation"),
        residual=residual, d_model=WIDTH, n_heads=HEADS, d_ff=20, vocab_size=11,
        position="rotary", activation="swiglu", norm="rms", **depths,
    )  # fmt: skip
    model, batch = build_model(config), random_batch(config, 2, 5)
    with torch.no_grad():
        for parameter in model.parameters():  # zeros and ones would hide mistakes
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.project()
    mine = {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [weight],
                "weight_decay": DECAY if rule.decays(name, weight) else 0.0,
                "lr": RATE * (rule.rate if hidden(name) else 1.0),
                "eps": EPSILON * (rule.epsilon if hidden(name) else 1.0),
            }
            for name, weight in mine.items()
        ],
        betas=BETAS,
    )
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(rule, mine, batch)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            rule.project(mine)
        losses.append(loss.item())
    settings = TrainConfig(
        steps=STEPS, learning_rate=RATE, weight_decay=DECAY, epsilon=EPSILON, betas=BETAS, warmup=0, clip=0
    )
    history = train(model, Same(batch), settings, progress=False)
    assert history.loss == pytest.approx(losses, rel=1e-9)
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter, mine[name], rtol=0, atol=1e-9), name
