"""The rules against functions written here that import nothing of ours, in float64."""

from math import erf, sqrt

import pytest
import torch
from torch import Tensor, nn

from deepnet_edu.models import ModelConfig, build_model
from deepnet_edu.residual import RESIDUALS, Place, Residual
from deepnet_edu.residual.base import Registry
from deepnet_edu.transformer import Shape, Stack

SIZES = {"d_model": 12, "n_heads": 3, "d_ff": 20}


def ln(x: Tensor, gain: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    c = x - x.mean(-1, keepdim=True)
    return c / (c.square().mean(-1, keepdim=True) + eps).sqrt() * gain + bias


def attention(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    B, T, d = x.shape
    out = torch.zeros(B, T, d)
    q, k, v = (x @ w["qkv.weight"].T + w["qkv.bias"]).split(d, dim=-1)
    for h in range(heads):
        part = slice(h * d // heads, (h + 1) * d // heads)
        for t in range(T):
            scores = torch.einsum("bd,bsd->bs", q[:, t, part], k[:, : t + 1, part]) / sqrt(d / heads)
            weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
            out[:, t, part] = torch.einsum("bs,bsd->bd", weights, v[:, : t + 1, part])
    return out @ w["output.weight"].T + w["output.bias"]


def ffn(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    h = x @ w["ffn_in.weight"].T + w["ffn_in.bias"]
    gelu = h * 0.5 * (1 + h.clone().detach().apply_(lambda z: erf(z / sqrt(2))))
    return gelu @ w["ffn_out.weight"].T + w["ffn_out.bias"]


def branches(stack: Stack) -> list[tuple]:
    """(branch as a function, norm gain, norm bias) by sub-layer, from the state_dict alone."""
    state = stack.state_dict()
    result = []
    for layer in range(len(stack.layers)):
        for name in ("self_attention", "ffn"):
            prefix = f"layers.{layer}.{name}."
            w = {key.removeprefix(prefix + "branch."): value for key, value in state.items() if key.startswith(prefix)}
            function = (lambda x, w=w: attention(x, w, 3)) if name == "self_attention" else (lambda x, w=w: ffn(x, w))
            norm = prefix + "residual.norm."
            result.append((function, state[norm + "weight"], state[norm + "bias"]))
    return result


def post_ln(x: Tensor, stack: Stack, layers: int) -> Tensor:
    for f, g, b in branches(stack):
        x = ln(x + f(x), g, b)
    return x


def pre_ln(x: Tensor, stack: Stack, layers: int) -> Tensor:
    for f, g, b in branches(stack):
        x = x + f(ln(x, g, b))
    state = stack.state_dict()
    last = f"layers.{layers - 1}.ffn.residual.final_norm."
    return ln(x, state[last + "weight"], state[last + "bias"])


def deepnorm(x: Tensor, stack: Stack, layers: int) -> Tensor:
    alpha = sqrt(sqrt(2 * layers))
    for f, g, b in branches(stack):
        x = ln(alpha * x + f(x), g, b)
    return x


def resi_dual(x: Tensor, stack: Stack, layers: int) -> Tensor:
    total = x
    for f, g, b in branches(stack):
        y = f(x)
        x, total = ln(x + y, g, b), total + y
    state = stack.state_dict()
    last = f"layers.{layers - 1}.ffn.residual.final_norm."
    return x + ln(total, state[last + "weight"], state[last + "bias"])


REFERENCE = {"post_ln": post_ln, "pre_ln": pre_ln, "deepnorm": deepnorm, "resi_dual": resi_dual}


def random_stack(residual: str, layers: int) -> Stack:
    """All parameters random, norms too: a gain of 1 or a bias of 0 would hide mistakes."""
    torch.manual_seed(1)
    stack = Stack("decoder", residual, encoder_layers=0, decoder_layers=layers, shape=Shape(**SIZES))
    for parameter in stack.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.4)
    return stack


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("residual", list(REFERENCE))
def test_equals_its_formula(residual: str, layers: int) -> None:
    stack = random_stack(residual, layers)
    x = 0.5 * torch.randn(2, 5, 12) + 0.7
    with torch.no_grad():
        torch.testing.assert_close(stack(x), REFERENCE[residual](x, stack, layers), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("residual", list(RESIDUALS))
def test_gradients(residual: str) -> None:
    stack = random_stack(residual, 2)
    x = (0.5 * torch.randn(1, 3, 12) + 0.7).requires_grad_()
    chosen = [stack.layers[0].self_attention.branch.qkv.weight, stack.layers[1].ffn.residual.norm.weight]
    assert torch.autograd.gradcheck(lambda x, *_: stack(x), (x, *chosen))


@pytest.mark.parametrize("residual", list(RESIDUALS))
def test_says_what_it_is(residual: str) -> None:
    rule = RESIDUALS[residual]
    assert "arXiv" in rule.source
    assert "LN" in rule.formula
    assert rule.formula.split(",")[0] in (rule.__doc__ or "")  # docstring, table and pictures state the same formula


def test_a_second_stream_costs_the_others_nothing() -> None:
    x = torch.randn(2, 4, 12)
    sizes = {}
    for residual in RESIDUALS:
        stack = Stack("decoder", residual, encoder_layers=0, decoder_layers=2, shape=Shape(**SIZES))
        state = stack.layers[0].self_attention.residual.start(x)
        sizes[residual] = (len(state), sum(p.numel() for p in stack.parameters()))
        assert all(tensor is x for tensor in state)
    assert sizes["resi_dual"][0] == 2
    assert {sizes[name][0] for name in sizes if name != "resi_dual"} == {1}
    assert sizes["post_ln"] == sizes["deepnorm"]
    assert sizes["pre_ln"][1] == sizes["post_ln"][1] + 2 * 12  # its final norm


@pytest.mark.parametrize("residual", ["pre_ln", "resi_dual"])
def test_only_the_last_place_finishes(residual: str) -> None:
    rule = RESIDUALS[residual](Place("decoder", 0, "self_attention", 0, 4, 0, 2), 8)
    with pytest.raises(RuntimeError, match="last sub-layer"):
        rule.finish(rule.start(torch.randn(1, 2, 8)))


def test_constants_stay_exact_when_the_precision_changes() -> None:
    rule = RESIDUALS["deepnorm"](Place("decoder", 0, "ffn", 1, 2000, 0, 1000), 8)
    assert rule.alpha.dtype == torch.float32
    assert rule.double().alpha.item() == 2000**0.25
    assert "alpha" not in rule.state_dict()  # it follows from the depth


def test_registry_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'deepnorm'"):
        RESIDUALS["deep_norm"]
    assert "deepnorm" in RESIDUALS
    assert "x" not in RESIDUALS


def test_a_name_is_taken_once() -> None:
    registry = Registry()
    registry.register("mine")(Residual)
    with pytest.raises(ValueError, match="'mine' is taken by Residual"):
        registry.register("mine")(Residual)


def test_a_new_rule_is_one_class() -> None:
    """x + ½F(x), registered here, builds and runs with no other change."""

    class Half(Residual):
        """x ← x + ½F(x)."""

        title, formula, source = "Half", "x ← x + ½F(x)", "this test"

        def write(self, state: tuple[Tensor, ...], branch: Tensor) -> tuple[Tensor, ...]:
            return (state[0] + 0.5 * branch,)

    RESIDUALS.register("half")(Half)
    try:
        config = ModelConfig("decoder", "lm", decoder_layers=2, vocab_size=7, residual="half", **SIZES)
        assert build_model(config)(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, 7)
    finally:
        del RESIDUALS._rules["half"]
