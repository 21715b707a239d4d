"""The interface that all rules share, and what is true of every one of them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from deepnet_edu.model import ModelConfig, build_model, random_batch
from deepnet_edu.model.attention import Cache
from deepnet_edu.model.stack import Stack
from deepnet_edu.probing import probe
from deepnet_edu.residual import RESIDUALS, Architecture, Norm, Place, Residual
from deepnet_edu.residual.registry import Registry
from tests.rules import CLAIMS, SHAPE, small_config

SIZES = {"d_model": 12, "n_heads": 3, "d_ff": 20}


@pytest.mark.parametrize("residual", list(RESIDUALS))
def test_says_what_it_is(residual: str) -> None:
    rule = RESIDUALS[residual]
    first = rule.formula.split(",")[0].split(" in the ")[0]
    assert first in (rule.__doc__ or ""), "docstring, table and pictures state the same formula"
    cited = rule.source.split(",")[0].split(";")[0].split(" ")[-1]
    assert cited, "it says where it is from"
    assert cited in (rule.__doc__ or ""), "the docstring names the source, too"
    assert rule.sure in ("verified", "secondary")
    where = (".py", "Section", "Figure", "Equation", "abstract", "quote", "review")
    said = "a section of the paper, or a file of its authors; where less was read, its abstract or others' quotations"
    assert any(mark in rule.source for mark in where), said
    assert bool(rule.elsewhere) == (len(rule.architectures) < 3), "elsewhere says why not for all architectures"


@pytest.mark.parametrize("residual", [name for name, rule in RESIDUALS.items() if rule.elsewhere])
def test_other_architectures_are_refused_with_the_reason(residual: str) -> None:
    rule = RESIDUALS[residual]
    for architecture in {"encoder", "decoder", "encoder_decoder"} - set(rule.architectures):
        with pytest.raises(ValueError, match=f"not defined for architecture '{architecture}'.*another residual here"):
            small_config(residual, architecture)  # type: ignore[arg-type]


@pytest.mark.usefixtures("double")
def test_gpas_leaves_the_gradient_alone() -> None:
    """Forward the stream shrinks by 1 - SiLU(a), backward it passes as if it did not."""
    rule = RESIDUALS["gpas"](Place("decoder", 0, "ffn", 1, 2, 0, 1), 4)
    with torch.no_grad():
        rule.a.fill_(1.0)  # type: ignore[union-attr]
    x = torch.randn(1, 2, 4, requires_grad=True)
    (y,) = rule.write((x,), torch.zeros(1, 2, 4))
    torch.testing.assert_close(y, x * (1 - nn.functional.silu(torch.tensor(1.0))))
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))


@pytest.mark.usefixtures("both_paths", "double")
@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize(("residual", "architecture"), [claim for claim in CLAIMS if claim[1] != "encoder"])
def test_cached_decoding_equals_uncached(residual: str, architecture: Architecture, position: str) -> None:
    config = replace(small_config(residual, architecture), position=position, d_model=24)
    model, batch, cache = build_model(config), random_batch(config, 2, 7), Cache()
    with torch.no_grad():
        expected = model.logits(batch)
        if architecture == "decoder":
            parts = [model(part, cache=cache) for part in batch.inputs.split([3, 1, 2, 1], dim=1)]
        else:
            memory = model.encode(batch.inputs)  # type: ignore[operator]
            assert batch.target_inputs is not None
            parts = [model.decode(part, memory, cache=cache) for part in batch.target_inputs.split([3, 1, 2, 1], 1)]  # type: ignore[operator]
    assert cache.length == 7
    torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("residual", "architecture"), CLAIMS)
def test_checkpointing_equals_none(residual: str, architecture: Architecture) -> None:
    """With dropout: the second forward pass must draw the same features."""
    config = replace(small_config(residual, architecture, layers=3), dropout=0.2)
    results = []
    for layers in (0, 1, 2):
        model = build_model(config)
        model.checkpoint_every(layers)
        torch.manual_seed(3)
        loss = model.loss(random_batch(config, 2, 6))
        loss.backward()
        results.append((loss.detach(), [p.grad for p in model.parameters()]))
    for found in results[1:]:
        torch.testing.assert_close(found, results[0], rtol=1e-12, atol=1e-12)


def test_a_second_stream_costs_the_others_nothing() -> None:
    x = torch.randn(2, 4, 12)
    sizes = {}
    for residual, architecture in CLAIMS:
        if architecture == "decoder":
            stack = Stack("decoder", residual, encoder_layers=0, decoder_layers=2, shape=SHAPE)
            state = stack.layers[0].self_attention.residual.start(x)  # type: ignore[union-attr, operator]
            sizes[residual] = (len(state), sum(p.numel() for p in stack.parameters()))
    several = {"resi_dual", "siamese_norm", "b2t", "span_norm", "dlcl", "x0_skips", "parcae"}
    assert {name for name in sizes if sizes[name][0] > 1} == several
    assert sizes["post_ln"] == sizes["deepnorm"]
    assert sizes["pre_ln"][1] == sizes["post_ln"][1] + 2 * 12  # its final norm
    assert sizes["rezero"][1] == sizes["post_ln"][1] - 4 * 2 * 12 + 2  # a scalar a layer, no norms


@pytest.mark.parametrize("residual", ["pre_ln", "resi_dual", "hybrid_norm", "dlcl", "mhc"])
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


def test_a_rule_that_is_written_again_takes_its_own_place() -> None:
    """As in a notebook, where a cell is run again."""
    registry = Registry()
    registry.register("mine")(Residual)
    again = registry.register("mine", replace=True)(type("Again", (Residual,), {}))
    assert registry["mine"] is again
    assert list(registry) == ["mine"]


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
        with pytest.raises(ValueError, match="'half'"):
            replace(config, residual="hal")
    finally:
        del RESIDUALS._rules["half"]


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_what_a_probe_sees_of_resi_dual_at_the_end_is_what_the_stack_returns(norm: Norm) -> None:
    rule = RESIDUALS["resi_dual"](Place("decoder", 0, "ffn", 1, 2, 0, 1, norm), 8)
    state = (torch.randn(2, 3, 8), torch.randn(2, 3, 8) + 1)
    torch.testing.assert_close(rule.stream(state), rule.finish(state))


def test_dlcl_starts_with_means_and_a_first_layer_that_reads_the_input() -> None:
    stack = Stack("decoder", "dlcl", encoder_layers=0, decoder_layers=3, shape=SHAPE)
    weights = [p.tolist() for name, p in stack.named_parameters() if name.endswith(("history_weight", "first_weight"))]
    assert weights[0] == [1.0]
    for layer, row in enumerate(weights[1:], 1):
        assert row == pytest.approx([1 / (layer + 1)] * (layer + 1))
    x = torch.randn(1, 2, 12)
    assert torch.equal(stack.start(x)[0], x)


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_where_a_token_of_t_fixup_starts(position: str) -> None:
    """(9N)^(-1/4), the authors', by itself; √½ of it, as the rule says, where a position is added."""
    sizes = {"d_model": 64, "n_heads": 4, "d_ff": 8, "vocab_size": 300, "residual": "t_fixup", "position": position}
    model = build_model(ModelConfig("encoder_decoder", "translation", 2, 6, **sizes))
    share = 0.5 if position == "learned" else 1.0
    for end, layers in zip(model.embeddings(), (6, 2), strict=True):
        assert end.token.weight.std().item() == pytest.approx(share**0.5 * (9 * layers) ** -0.25, rel=0.03)  # type: ignore[union-attr]
    assert "√½" in RESIDUALS["t_fixup"].departs


@pytest.mark.parametrize(("equal", "least", "most"), [(True, 0.95, 1.05), (False, 0.5, 0.85)])
def test_deepscale_lm_keeps_a_variance_of_one_for_equal_tokens_only(equal: bool, least: float, most: float) -> None:
    sizes = {"d_model": 64, "n_heads": 4, "d_ff": 256, "vocab_size": 64, "activation": "relu", "position": "rotary"}
    config = ModelConfig("decoder", "lm", 24, residual="deepscale_lm", **sizes)
    batch = random_batch(config, 8, 32)
    tokens = batch.inputs[:, :1].expand(-1, 32) if equal else batch.inputs
    variance = probe(build_model(config), replace(batch, inputs=tokens.contiguous())).variance
    assert variance is not None
    assert least < variance[-1] < most


def test_first_numbers_of_the_rules_of_2026() -> None:
    """As their papers and codes have them: λ and μ over the layers, 1/√l, α = l^(-1/2), Ā = √(1/5), β = 1."""
    five = {name: build_model(small_config(name, "decoder", 5)).rules() for name in ("x0_skips", "siamese_norm", "nag")}
    skips = [(rule.skip.item(), rule.first.item()) for rule in five["x0_skips"][::2]]  # type: ignore[union-attr, operator]
    assert [one for one, _ in skips] == pytest.approx([1.15, 1.125, 1.1, 1.075, 1.05])
    assert [first for _, first in skips] == pytest.approx([0.2, 0.1625, 0.125, 0.0875, 0.05])
    scales = [rule.depth_scale.item() for rule in five["siamese_norm"]]  # type: ignore[union-attr, operator]
    assert scales == pytest.approx([layer**-0.5 for layer in (1, 1, 2, 2, 3, 3, 4, 4, 5, 5)])
    assert [rule.alpha.item() for rule in five["nag"]] == pytest.approx([n**-0.5 for n in range(1, 11)])  # type: ignore[union-attr, operator]
    loop = build_model(small_config("parcae", "decoder")).rules()[0]
    x, nothing = torch.randn(1, 2, 12), torch.zeros(1, 2, 12)
    torch.testing.assert_close(loop.entered(x, nothing), 5**-0.5 * x)  # type: ignore[operator]
    delta = RESIDUALS["deep_delta"](Place("decoder", 0, "ffn", 1, 4, 0, 2), 12)
    k = nn.functional.normalize(torch.randn(1, 2, 12), dim=-1)
    (y,) = delta.write((x,), 3 * k)
    torch.testing.assert_close((y * k).sum(-1), torch.full((1, 2), 2.0))  # β = 1 projects, and v = 2 is written


def test_directions_of_nag_follow_the_seed() -> None:
    config = small_config("nag", "decoder")
    one, same, other = (build_model(config, seed).rules()[0].directions for seed in (0, 0, 1))
    assert torch.equal(one, same)  # type: ignore[arg-type]
    assert not torch.equal(one, other)  # type: ignore[arg-type]
    assert one.std().item() == pytest.approx(0.02, rel=0.1)  # type: ignore[union-attr, operator]


def test_blocks_of_attention_residuals_are_eight_at_most() -> None:
    for layers, expected in ((3, 3), (8, 8), (20, 7), (100, 8)):
        rules = RESIDUALS["block_attention_residuals"]
        starts = [
            rules(Place("decoder", i, "self_attention", 2 * i, 2 * layers, 0, layers), 4).starts_block
            for i in range(layers)
        ]
        assert sum(map(bool, starts)) == expected
