"""Every rule against its formula, in float64, written here from a state_dict alone: nothing of ours is called.

Outputs, and gradients by autograd: of the input, the memory and every parameter.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import log, sqrt

import pytest
import torch
from torch import Tensor, nn

from deepnet_edu.model.attention import Context
from deepnet_edu.residual import RESIDUALS, Architecture, Place, StackName
from tests.rules import CLAIMS, random_stack

HEADS = 3
Slots = dict[str, Callable[[Tensor], Tensor]]


def ln(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    """LayerNorm, or RMSNorm, which has a gain alone."""
    if name + ".bias" not in p:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * p[name + ".weight"]
    c = x - x.mean(-1, keepdim=True)
    return c / (c.square().mean(-1, keepdim=True) + 1e-5).sqrt() * p[name + ".weight"] + p[name + ".bias"]


def unit(x: Tensor, dim: int = -1) -> Tensor:
    return x / x.square().sum(dim, keepdim=True).sqrt()


@dataclass
class Sub:
    """One sub-layer: its kind, its layer from 1, its rule's parameters, and F with what a rule puts inside."""

    kind: str
    layer: int
    last: bool
    p: dict[str, Tensor]
    w: dict[str, Tensor]
    causal: bool
    memory: Tensor | None
    slots: Slots = field(default_factory=dict)
    scale: float | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return self.ffn(x) if self.kind == "ffn" else self.attention(x)

    def at(self, slot: str, x: Tensor) -> Tensor:
        return self.slots[slot](x) if slot in self.slots else x

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def ffn(self, x: Tensor) -> Tensor:
        h = self.at("ffn_in", self.linear("ffn_in", x))
        if h.shape[-1] == 2 * self.w["ffn_out.weight"].shape[1]:  # SwiGLU
            up, gate = h.tensor_split(2, dim=-1)
            active = gate / (1 + (-gate).exp()) * up
        else:
            active = h * 0.5 * (1 + torch.erf(h / sqrt(2)))
        return self.linear("ffn_out", self.at("hidden", active))

    def attention(self, x: Tensor) -> Tensor:
        B, T, d = x.shape
        if self.kind == "cross_attention":
            assert self.memory is not None
            q, (k, v) = self.linear("query", x), self.linear("key_value", self.memory).split(d, dim=-1)
        else:
            q, k, v = self.linear("qkv", x).split(d, dim=-1)
        q, k, v = self.at("query", q), self.at("key", k), self.at("value", v)
        out = torch.zeros(B, T, d)
        for h in range(HEADS):
            part = slice(h * d // HEADS, (h + 1) * d // HEADS)
            for t in range(T):
                seen = slice(0, t + 1) if self.causal and self.kind == "self_attention" else slice(None)
                scores = torch.einsum("bd,bsd->bs", q[:, t, part], k[:, seen, part])
                scores = scores * (1 / sqrt(d / HEADS) if self.scale is None else self.scale)
                weights = (scores - scores.amax(-1, keepdim=True)).exp()
                weights = weights / weights.sum(-1, keepdim=True)
                out[:, t, part] = torch.einsum("bs,bsd->bd", weights, v[:, seen, part])
        return self.linear("output", self.at("mixed", out))


@dataclass
class Case:
    """A stack as its state_dict has it. N, M: depths of encoder and decoder; L: sub-layers, n: layers of this stack."""

    subs: list[Sub]
    N: int
    M: int
    n: int
    stack: str = "decoder"

    @property
    def L(self) -> int:
        return len(self.subs)

    @property
    def last(self) -> dict[str, Tensor]:
        return self.subs[-1].p

    def layer(self, f: Sub) -> dict[str, Tensor]:
        """Where f's layer has what its sub-layers share: with its self-attention."""
        return next(g.p for g in self.subs if (g.layer, g.kind) == (f.layer, "self_attention"))


def case_of(
    state: dict[str, Tensor], architecture: Architecture, n: int, memory: Tensor | None, stack: str = "", other: int = 0
) -> Case:
    """Other: layers of the model's other stack, n if nothing is said."""
    stack = stack or ("encoder" if architecture == "encoder" else "decoder")
    cross = ["cross_attention"] if architecture == "encoder_decoder" and stack == "decoder" else []
    kinds = ["self_attention", *cross, "ffn"]
    subs = []
    for layer in range(n):
        for kind in kinds:
            prefix = f"layers.{layer}.{kind}."
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            p = {key.removeprefix("residual."): value for key, value in own.items() if key.startswith("residual.")}
            w = {key.removeprefix("branch."): value for key, value in own.items() if key.startswith("branch.")}
            last = layer == n - 1 and kind == "ffn"
            subs.append(Sub(kind, layer + 1, last, p, w, stack == "decoder", memory))
    depth = {
        name: (n if name == stack else other or n) if name in architecture else 0 for name in ("encoder", "decoder")
    }
    return Case(subs, depth["encoder"], depth["decoder"], n, stack)


def post_ln(x: Tensor, c: Case) -> Tensor:
    for f in c.subs:
        x = ln(x + f(x), f.p, "norm")
    return x


def pre_ln(x: Tensor, c: Case) -> Tensor:
    for f in c.subs:
        x = x + f(ln(x, f.p, "norm"))
    return ln(x, c.last, "final_norm")


def skip_scaled(alpha: Callable[[Case], float]) -> Callable[[Tensor, Case], Tensor]:
    def run(x: Tensor, c: Case) -> Tensor:
        for f in c.subs:
            x = ln(alpha(c) * x + f(x), f.p, "norm")
        return x

    return run


def branch_scaled(factor: Callable[[Case, Sub], Tensor | float]) -> Callable[[Tensor, Case], Tensor]:
    """x + factor·F(LN(x)), LN at the end."""

    def run(x: Tensor, c: Case) -> Tensor:
        for f in c.subs:
            x = x + factor(c, f) * f(ln(x, f.p, "norm"))
        return ln(x, c.last, "final_norm")

    return run


def no_norm(factor: Callable[[Case, Sub], Tensor | float]) -> Callable[[Tensor, Case], Tensor]:
    def run(x: Tensor, c: Case) -> Tensor:
        for f in c.subs:
            x = x + factor(c, f) * f(x)
        return x

    return run


def deepnorm_alpha(c: Case) -> float:
    """The paper's Figure 2."""
    if not c.N or not c.M:
        return (2 * c.n) ** 0.25
    return 0.81 * (c.N**4 * c.M) ** (1 / 16) if c.stack == "encoder" else (3 * c.M) ** 0.25


def keel(x: Tensor, c: Case) -> Tensor:
    """Section 3.1: no outer norm and no α at the first attention, no α at the first feed-forward."""
    attention, ffn, *others = c.subs
    x = x + attention(ln(x, attention.p, "branch_norm"))
    x = ln(x + ffn(ln(x, ffn.p, "branch_norm")), ffn.p, "norm")
    for f in others:
        x = ln(c.L * x + f(ln(x, f.p, "branch_norm")), f.p, "norm")
    return x


def admin(x: Tensor, c: Case) -> Tensor:
    for f in c.subs:
        x = ln(f.p["omega"] * x + f(x), f.p, "norm")
    return x


def branch_norm(x: Tensor, c: Case) -> Tensor:
    for f in c.subs:
        x = ln(x + f(x) / 4000, f.p, "norm")  # step 1 of 4,000
    return x


def mix_ln(x: Tensor, c: Case) -> Tensor:
    for f in c.subs:
        x = ln(x + f(x), f.p, "norm") if f.layer <= c.n // 4 else x + f(ln(x, f.p, "norm"))
    return ln(x, c.last, "final_norm")


def layernorm_scaling(x: Tensor, c: Case) -> Tensor:
    for f in c.subs:
        x = x + f(ln(x, f.p, "norm") / sqrt(f.layer))
    return ln(x, c.last, "final_norm")


def deepscale_lm(x: Tensor, c: Case) -> Tensor:
    beta = sqrt(2 / c.L)
    for f in c.subs:
        x = sqrt(1 - beta**2) * x + beta * f(ln(x, f.p, "norm"))
    return ln(x, c.last, "final_norm")


def gpas(x: Tensor, c: Case) -> Tensor:
    for f in c.subs:
        x = x + f(ln(x, f.p, "norm"))
        a = c.layer(f)["a"]
        x = x - a / (1 + (-a).exp()) * x.detach()
    return ln(x, c.last, "final_norm")


def normformer(x: Tensor, c: Case) -> Tensor:
    for f in c.subs:
        if f.kind == "ffn":
            f.slots["hidden"] = lambda h, f=f: ln(h, f.w, "after.hidden")
            x = x + f(ln(x, f.p, "norm"))
        else:
            f.slots["mixed"] = lambda y, f=f: y * f.w["inside.mixed.factor"].repeat_interleave(4)
            x = x + ln(f(ln(x, f.p, "norm")), f.p, "output_norm")
    return ln(x, c.last, "final_norm")


def sub_ln(x: Tensor, c: Case) -> Tensor:
    """Section 2: two norms in each sub-layer, but one in cross-attention."""
    for f in c.subs:
        if f.kind != "cross_attention":
            f.slots["hidden"] = lambda h, f=f: ln(h, f.w, "after.hidden")
            f.slots["mixed"] = lambda y, f=f: ln(y, f.w, "inside.mixed")
        x = x + f(ln(x, f.p, "norm"))
    return ln(x, c.last, "final_norm")


def peri_ln(x: Tensor, c: Case) -> Tensor:
    x = ln(x, c.subs[0].p, "first_norm")
    for f in c.subs:
        x = x + ln(f(ln(x, f.p, "norm")), f.p, "output_norm")
    return ln(x, c.last, "final_norm")


def hybrid_norm(x: Tensor, c: Case) -> Tensor:
    for attention, ffn in zip(c.subs[::2], c.subs[1::2], strict=True):
        for name in ("query", "key", "value"):
            attention.slots[name] = lambda t, name=name, f=attention: torch.cat(
                [ln(head, f.w, f"inside.{name}") for head in t.tensor_split(HEADS, dim=-1)], dim=-1
            )
        z = ln(x + attention(x), attention.p, "norm")
        x = z + ffn(z)
    return ln(x, c.last, "final_norm")


def stable(x: Tensor, c: Case) -> Tensor:
    def sn(x: Tensor, gain: Tensor) -> Tensor:
        return gain * x.shape[-1] ** 0.375 * unit(x)

    for f in c.subs:
        x = x + f(sn(x, f.p["norm.weight"]))
    return sn(x, c.last["final_norm.weight"])


def b2t(x: Tensor, c: Case) -> Tensor:
    per_layer = c.L // c.n
    for layer in range(c.n):
        *attention, ffn = c.subs[layer * per_layer : (layer + 1) * per_layer]
        y = x
        for f in attention:
            y = ln(y + f(y), f.p, "norm")
        x = ln(x + y + ffn(y), ffn.p, "norm")
    return x


def dlcl(x: Tensor, c: Case) -> Tensor:
    """The authors' layer_history.py: a lower triangle of weights, no norm on the embedding, a last norm on the mix."""
    W = torch.zeros(c.n + 1, c.n + 1)
    W[0, 0] = c.subs[0].p["first_weight"]
    for f in c.subs:
        if f.kind == "ffn":
            W[f.layer, : f.layer + 1] = f.p["history_weight"]
    history = [x]
    for layer in range(c.n):
        x = sum(W[layer, k] * y for k, y in enumerate(history))
        for f in c.subs[layer * c.L // c.n : (layer + 1) * c.L // c.n]:
            x = x + f(ln(x, f.p, "norm"))
        history.append(ln(x, f.p, "history_norm"))
    return ln(sum(W[c.n, k] * y for k, y in enumerate(history)), c.last, "final_norm")


def resi_dual(x: Tensor, c: Case) -> Tensor:
    total = x
    for f in c.subs:
        y = f(x)
        x, total = ln(x + y, f.p, "norm"), total + y
    return x + ln(total, c.last, "final_norm")


def hyper_connections(x: Tensor, c: Case) -> Tensor:
    streams = [x] * 4
    for f in c.subs:
        h = [torch.tanh(ln(s, f.p, "stream_norm") @ f.p["dynamic"]) for s in streams]  # each (B, T, res 4, pre, post)
        s_res, s_post = f.p["scale"]
        mixed = sum((f.p["pre"][i] + s_res * h[i][..., 4:5]) * streams[i] for i in range(4))
        y = f(ln(mixed, f.p, "norm"))
        streams = [
            sum((f.p["res"][j, i] + s_res * h[i][..., j : j + 1]) * streams[i] for i in range(4))
            + (f.p["post"][j] + s_post * h[j][..., 5:6]) * y
            for j in range(4)
        ]
    return ln(sum(streams), c.last, "final_norm")


def mhc(x: Tensor, c: Case) -> Tensor:
    streams = [x] * 4
    for f in c.subs:
        flat = torch.cat(streams, -1)
        h = flat / flat.square().mean(-1, keepdim=True).sqrt() @ f.p["dynamic"]
        s_res, s_pre, s_post = f.p["scale"]
        pre = torch.sigmoid(f.p["pre"] + s_pre * h[..., 16:20])
        post = 2 * torch.sigmoid(f.p["post"] + s_post * h[..., 20:])
        res = (f.p["res"] + s_res * h[..., :16].reshape(*h.shape[:-1], 4, 4)).exp()
        for _ in range(20):
            res = res / res.sum(-2, keepdim=True)  # columns: T_r(T_c(M)), Equation 9
            res = res / res.sum(-1, keepdim=True)  # rows
        y = f(ln(sum(pre[..., i, None] * streams[i] for i in range(4)), f.p, "norm"))
        streams = [sum(res[..., j, i, None] * streams[i] for i in range(4)) + post[..., j, None] * y for j in range(4)]
    return ln(sum(streams), c.last, "final_norm")


def ngpt(x: Tensor, c: Case) -> Tensor:
    d, head = 12, 4

    def length(w: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda q: (unit(q.reshape(*q.shape[:2], HEADS, head)) * w * sqrt(d)).flatten(-2)

    x = unit(x)
    for f in c.subs:
        f.scale = sqrt(head)
        if f.kind == "ffn":
            f.slots["ffn_in"] = lambda h, f=f: h * f.w["before.ffn_in.weight"] * sqrt(d)
        else:
            f.slots["query"] = f.slots["key"] = length(f.w["inside.rotated.weight"])
        rate = (f.p["alpha"] * 0.05 * sqrt(d)).abs()
        x = unit(x + rate * (unit(f(x)) - x))
    return x


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def attend(values: list[Tensor], w: Tensor, gain: Tensor) -> Tensor:
    """2603.15031, Equations 2 to 4: exp(wᵀRMSNorm(v)) over their sum."""
    weights = [((rms(v) * gain) @ w).exp() for v in values]
    return sum(a[..., None] * v for a, v in zip(weights, values, strict=True)) / sum(weights)[..., None]


def attention_residuals(x: Tensor, c: Case) -> Tensor:
    values = [x]
    for f in c.subs:
        values.append(f(ln(attend(values, f.p["query"], f.p["key_gain"]), f.p, "norm")))
    return ln(attend(values, c.last["final_query"], c.last["final_key_gain"]), c.last, "final_norm")


def block_attention_residuals(x: Tensor, c: Case) -> Tensor:
    """Equations 5 and 6: blocks of ⌈n/8⌉ layers, and from a block's second sub-layer on its partial sum."""
    layers = (c.n + 7) // 8
    blocks, partial = [x], None
    for f in c.subs:
        if f.kind == "self_attention" and (f.layer - 1) % layers == 0:
            blocks, partial = blocks if partial is None else [*blocks, partial], None
        seen = blocks if partial is None else [*blocks, partial]
        y = f(ln(attend(seen, f.p["query"], f.p["key_gain"]), f.p, "norm"))
        partial = y if partial is None else partial + y
    return ln(attend([*blocks, partial], c.last["final_query"], c.last["final_key_gain"]), c.last, "final_norm")


def span_norm(x: Tensor, c: Case) -> Tensor:
    for attention, ffn in zip(c.subs[::2], c.subs[1::2], strict=True):
        seen = ln(x, attention.p, "first_norm") if attention is c.subs[0] else x
        y = ln(x + attention(seen), attention.p, "norm")
        x = ln(x + ffn(y), ffn.p, "norm")
    return x


def siamese_norm(x: Tensor, c: Case) -> Tensor:
    y = x
    for f in c.subs:
        out = f(x + ln(y, f.p, "plain_norm"))
        x, y = ln(x + out / sqrt(f.layer), f.p, "norm"), y + out
    return x + ln(y, c.last, "final_norm")


def nag(x: Tensor, c: Case) -> Tensor:
    """Equations 3 to 15, one after the other."""
    d = x.shape[-1]
    for f in c.subs:
        norm = x.square().sum(-1, keepdim=True).sqrt()
        rho, r = norm / sqrt(d), sqrt(d) * x / norm
        out = f(r)
        out = out - out.mean(-1, keepdim=True)
        out = out - (out * r).sum(-1, keepdim=True) / d * r
        u = sqrt(d) * unit(out)
        p = f.p["mixture"].exp() / f.p["mixture"].exp().sum()
        m = sum(
            p[i] / (1 + (-(r * f.p["directions"][i]).sum(-1, keepdim=True) - f.p["bias"][i]).exp()) for i in range(32)
        )
        before, x = x, x + rho * f.p["alpha"] * m ** f.p["beta"] * u
        grown = x.square().sum(-1) / before.square().sum(-1)  # Equation 15
        torch.testing.assert_close(grown, (1 + (f.p["alpha"] * m ** f.p["beta"]).square()).squeeze(-1))
    return ln(x, c.last, "final_norm")


def deep_delta(x: Tensor, c: Case) -> Tensor:
    """x ← (I - βkkᵀ)x + βvk."""
    for f in c.subs:
        seen = ln(x, f.p, "norm")
        k = unit(f(seen))
        beta = 2 / (1 + (-(seen @ f.p["beta_weight"]) - f.p["beta_bias"]).exp())
        v = x @ f.p["value_weight"] + f.p["value_bias"]
        householder = torch.eye(x.shape[-1]) - beta[..., None, None] * k[..., :, None] * k[..., None, :]
        x = (householder @ x[..., None]).squeeze(-1) + (beta * v)[..., None] * k
    return ln(x, c.last, "final_norm")


def x0_skips(x: Tensor, c: Case) -> Tensor:
    x0 = x
    for f in c.subs:
        if f.kind == "self_attention":
            x = f.p["skip"] * x + f.p["first"] * x0
        x = x + f(ln(x, f.p, "norm"))
    return ln(x, c.last, "final_norm")


def parcae(x: Tensor, c: Case) -> Tensor:
    h = e = ln(x, c.subs[0].p, "input_norm")
    for f in c.subs:
        if f.kind == "self_attention":
            delta = (1 + f.p["step"].exp()).log()
            h = (-delta * f.p["a"].exp()).exp() * h + delta * f.p["b"] * e
        h = h + f(ln(h, f.p, "norm"))
    return ln(h, c.last, "final_norm")


def rl_1000(x: Tensor, c: Case) -> Tensor:
    """train.py's residual_block: Dense, LayerNorm, Swish; the activation within a feed-forward is the model's."""
    for f in c.subs:
        f.slots["ffn_in"] = lambda h, f=f: ln(h, f.w, "before.ffn_in")
        h = ln(f(x), f.p, "output_norm")
        x = x + h / (1 + (-h).exp())
    return x


REFERENCE: dict[str, Callable[[Tensor, Case], Tensor]] = {
    "post_ln": post_ln,
    "pre_ln": pre_ln,
    "deepnorm": skip_scaled(deepnorm_alpha),
    "deepnorm_glm": skip_scaled(lambda c: sqrt(2 * c.n)),
    "admin": admin,
    "rezero": no_norm(lambda c, f: c.layer(f)["alpha"]),
    "t_fixup": no_norm(lambda c, f: 1),
    "skip_init": no_norm(lambda c, f: f.p["alpha"]),
    "ds_init": post_ln,
    "layer_scale": branch_scaled(lambda c, f: f.p["scale"]),
    "dlcl": dlcl,
    "normformer": normformer,
    "sub_ln": sub_ln,
    "b2t": b2t,
    "resi_dual": resi_dual,
    "branch_norm": branch_norm,
    "deepscale_lm": deepscale_lm,
    "peri_ln": peri_ln,
    "layernorm_scaling": layernorm_scaling,
    "mix_ln": mix_ln,
    "hybrid_norm": hybrid_norm,
    "gpas": gpas,
    "hyper_connections": hyper_connections,
    "mhc": mhc,
    "ngpt": ngpt,
    "complete_p": branch_scaled(lambda c, f: 2 / c.n),
    "depth_mup": branch_scaled(lambda c, f: sqrt(2 / c.n)),
    "keel": keel,
    "stable": stable,
    "attention_residuals": attention_residuals,
    "block_attention_residuals": block_attention_residuals,
    "span_norm": span_norm,
    "siamese_norm": siamese_norm,
    "nag": nag,
    "deep_delta": deep_delta,
    "x0_skips": x0_skips,
    "parcae": parcae,
    "rl_1000": rl_1000,
}


def test_no_rule_without_a_formula() -> None:
    assert set(REFERENCE) == set(RESIDUALS)


@pytest.mark.usefixtures("both_paths", "double")
@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize(("residual", "architecture"), CLAIMS)
def test_equals_its_formula(residual: str, architecture: Architecture, layers: int) -> None:
    compare(residual, architecture, layers, "encoder" if architecture == "encoder" else "decoder", 0)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("residual", "architecture"), CLAIMS)
def test_equals_its_formula_with_rms_norm_and_swiglu(residual: str, architecture: Architecture) -> None:
    name: StackName = "encoder" if architecture == "encoder" else "decoder"
    compare(residual, architecture, 3, name, 0, norm="rms", activation="swiglu")


@pytest.mark.usefixtures("both_paths", "double")
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
@pytest.mark.parametrize("residual", [name for name, architecture in CLAIMS if architecture == "encoder_decoder"])
def test_equals_its_formula_in_stacks_of_two_depths(residual: str, stack: StackName) -> None:
    compare(residual, "encoder_decoder", 3, stack, 7)


def compare(residual: str, architecture: Architecture, layers: int, name: StackName, other: int, **shape: str) -> None:
    stack = random_stack(residual, architecture, layers, name, other, **shape)
    if not any(isinstance(module, nn.LayerNorm | nn.RMSNorm) for module in stack.modules()):
        with torch.no_grad():  # nothing else keeps the stream from growing until exp overflows
            for parameter in stack.parameters():
                parameter.mul_(0.4)
    memory = torch.randn(2, 3, 12) if architecture == "encoder_decoder" and name == "decoder" else None
    x = 0.5 * torch.randn(2, 5, 12) + 0.7
    inputs = {"x": x, **({} if memory is None else {"memory": memory}), **dict(stack.named_parameters())}
    for tensor in inputs.values():
        tensor.requires_grad_()
    case = case_of(stack.state_dict(keep_vars=True), architecture, layers, memory, name, other)
    expected, found = REFERENCE[residual](x, case), stack(x, context=Context(memory=memory))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    along = torch.randn_like(expected)
    gradients, right = (
        torch.autograd.grad(y, list(inputs.values()), along, materialize_grads=True) for y in (found, expected)
    )
    for of, gradient, true in zip(inputs, gradients, right, strict=True):
        size = max(1.0, true.abs().max().item())  # which its smaller entries are sums and differences of
        torch.testing.assert_close(gradient / size, true / size, rtol=1e-9, atol=1e-9, msg=of)


#: Gains, or standard deviations where a rule has no gain, by architecture and role, for N = 6 and M = 4.
GAINS: dict[tuple[str, str], dict[str, float]] = {
    ("deepnorm", "encoder"): {"value": 48**-0.25, "ffn_out": 48**-0.25, "query": 1},
    ("deepnorm", "decoder"): {"output": 32**-0.25, "ffn_in": 32**-0.25, "key": 1},
    ("deepnorm", "encoder_decoder"): {"output": 48**-0.25, "query": 1},
    ("deepnorm_glm", "decoder"): {"value": 8**-0.5, "ffn_in": 8**-0.5, "query": 1},
    ("b2t", "decoder"): {"value": 0.5, "query": 0.5, "ffn_in": 0.5},
    ("t_fixup", "encoder_decoder"): {"value": 36**-0.25, "ffn_out": 36**-0.25, "query": 1},
    ("sub_ln", "decoder"): {"value": sqrt(log(8)), "ffn_out": sqrt(log(8)), "key": 1},
    ("sub_ln", "encoder_decoder"): {"value": sqrt(log(12)), "ffn_out": sqrt(log(12)), "key": 1},
    ("post_ln", "decoder"): {"value": 1, "query": 1},
    ("pre_ln", "decoder"): {"value": 1, "ffn_out": 1},
    ("hyper_connections", "decoder"): {"output": 2, "ffn_out": 2, "value": 1, "ffn_in": 1, "query": 1},
    ("mhc", "decoder"): {"output": 1, "ffn_out": 1, "value": 1},
    ("span_norm", "decoder"): {"output": 0.5, "ffn_out": 0.5, "value": 1, "query": 1, "ffn_in": 1},
    ("x0_skips", "decoder"): {"output": 0, "ffn_out": 0, "value": 1, "ffn_in": 1},
}


@pytest.mark.parametrize(("residual", "architecture"), list(GAINS))
def test_gains(residual: str, architecture: Architecture) -> None:
    N, M = (6 if "encoder" in architecture else 0), (4 if "decoder" in architecture else 0)
    stack = "decoder" if M else "encoder"
    count = (3 if N else 2) * M or 2 * N
    rule = RESIDUALS[residual](Place(stack, 1, "self_attention", 3, count, N, M), 8)
    for role, gain in GAINS[residual, architecture].items():
        assert rule.gain(role) == pytest.approx(gain, rel=1e-12)  # type: ignore[arg-type]


def test_the_encoder_of_two_stacks_has_gains_of_its_own() -> None:
    place = Place("encoder", 0, "self_attention", 0, 12, 6, 4)
    assert RESIDUALS["t_fixup"](place, 8).gain("value") == pytest.approx(0.67 * 6**-0.25)
    assert RESIDUALS["sub_ln"](place, 8).gain("value") == pytest.approx(sqrt(log(12) * log(12) / 3))
    assert RESIDUALS["deepnorm"](place, 8).gain("value") == pytest.approx(0.87 * (6**4 * 4) ** (-1 / 16))
    assert RESIDUALS["t_fixup"](place, 8).ends_gain("embedding") == pytest.approx(54**-0.25)
    cross = Place("decoder", 0, "cross_attention", 1, 12, 6, 4)
    assert RESIDUALS["sub_ln"](cross, 8).gain("value") == 1


def test_standard_deviations_that_are_not_xaviers() -> None:
    place = Place("decoder", 2, "ffn", 5, 8, 0, 4)
    assert RESIDUALS["stable"](place, 16).std("ffn_in", 16, 64) == pytest.approx(1 / (4 + 8))
    assert RESIDUALS["deepscale_lm"](place, 16).std("ffn_in", 16, 64) == pytest.approx((2 / (16 * 64)) ** 0.25)
    assert RESIDUALS["deepscale_lm"](place, 16).std("value", 16, 16) == pytest.approx(0.25)
    assert RESIDUALS["ds_init"](place, 16).std("query", 16, 16) == pytest.approx(0.25 / sqrt(3))
