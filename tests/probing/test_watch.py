"""Measurements against plain arithmetic and autograd, and the model left as it was."""

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from deepnet_edu import RESIDUALS, Batch, ModelConfig, build_model, predict, probe
from deepnet_edu.cli import app
from deepnet_edu.data import TokenMap
from deepnet_edu.model import random_batch
from deepnet_edu.model.generation import greedy
from deepnet_edu.probing import input_share, token_similarity
from deepnet_edu.probing.watch import _spread
from deepnet_edu.profiles import DepthProfile, History
from deepnet_edu.residual import Signal
from deepnet_edu.theory import activation_correlation, attention_moments, variance_by_depth
from deepnet_edu.theory import input_share as predicted_share

TASK = TokenMap(vocab_size=8, length=6, batch_size=4)
BATCH = TASK.batch(torch.Generator().manual_seed(0))


def config(residual: str = "deepnorm", layers: int = 3, **changes: int) -> ModelConfig:
    sizes = {"d_model": 16, "n_heads": 2, "d_ff": 32, "vocab_size": 8, **changes}
    return ModelConfig("decoder", "lm", layers, residual=residual, **sizes)


def test_token_similarity_by_pairs() -> None:
    x = torch.randn(2, 5, 8, dtype=torch.float64) + 0.3
    pairs = [
        F.cosine_similarity(x[b, i], x[b, j], dim=0) for b in range(2) for i in range(5) for j in range(5) if i != j
    ]
    torch.testing.assert_close(token_similarity(x), torch.stack(pairs).mean())
    assert token_similarity(x[:, :1].expand(2, 5, 8)).item() == pytest.approx(1)


def test_input_share_is_the_squared_correlation() -> None:
    a, b = torch.randn(2, 3, 8, dtype=torch.float64), torch.randn(2, 3, 8, dtype=torch.float64)
    expected = [np.corrcoef(a[i, j], b[i, j])[0, 1] ** 2 for i in range(2) for j in range(3)]
    assert input_share(a, b).item() == pytest.approx((np.mean(expected) - 1 / 7) / (1 - 1 / 7))
    assert input_share(a, 3 * a + 2).item() == pytest.approx(1)


def test_directions_that_know_nothing_of_each_other_share_nothing() -> None:
    """1/(d - 1) is chance: 20,000 pairs of tokens of 16 features, whose mean of squared cosines is 0.067."""
    a, b = torch.randn(2, 100, 200, 16, generator=torch.Generator().manual_seed(0))
    assert input_share(a, b).item() == pytest.approx(0, abs=0.003)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("residual", ["post_ln", "pre_ln", "deepnorm", "resi_dual"])
def test_probe_equals_a_run_by_hand(residual: str) -> None:
    model = build_model(config(residual)).double()
    profile = probe(model, BATCH)
    model.loss(BATCH).backward()
    expected = []
    for sublayer in model.stack.sublayers():
        grads = [p.grad.flatten() for p in sublayer.branch.parameters() if p.ndim == 2]
        expected.append(torch.cat(grads).norm().item())
    np.testing.assert_allclose(profile.gradient_norm, expected, rtol=1e-9)
    rule = model.stack.layers[0].self_attention.residual
    state = model.stack.layers[0].self_attention(rule.start(model.embed(BATCH.inputs)))
    stream = rule.stream(state)
    assert profile.variance is not None
    assert profile.variance[0] == pytest.approx(stream.square().mean().item())
    assert profile.token_similarity is not None
    assert profile.token_similarity[0] == pytest.approx(token_similarity(stream).item())
    assert list(profile.depth) == [0.5, 1, 1.5, 2, 2.5, 3]


@pytest.mark.parametrize("residual", ["deepnorm", "pre_ln", "peri_ln", "rezero"])
def test_sublayers_measured_together_equal_those_measured_alone(residual: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"d_model": 16, "n_heads": 2, "d_ff": 32, "vocab_size": 8, "norm": "rms"}
    model = build_model(
        ModelConfig("encoder_decoder", "translation", 3, encoder_layers=2, residual=residual, **sizes)
    ).double()
    batch = random_batch(model.config, 2, 5)
    together = probe(model, batch)
    monkeypatch.setattr("deepnet_edu.probing.watch.TOGETHER", 1)
    alone = probe(model, batch)
    for name in ("variance", "norm", "token_similarity", "input_share", "norm_gain"):
        np.testing.assert_allclose(getattr(together, name), getattr(alone, name), rtol=1e-12, err_msg=name)
    assert np.isnan(together.norm_gain).all() == (residual == "rezero")


def test_similarity_and_share_far_from_zero() -> None:
    """The spread about a large mean is not the difference of two large numbers."""
    x0, x = torch.randn(2, 1, 4, 8, 64).unbind()
    share = input_share(x0[0].double(), x[0].double())
    found = torch.linalg.vecdot(x + 1000, F.normalize(x0 - x0.mean(-1, keepdim=True), dim=-1)).square() / _spread(
        x + 1000
    )
    assert (found.mean().item() - 1 / 63) / (1 - 1 / 63) == pytest.approx(share.item(), abs=3e-4)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("frozen", [False, True])
def test_probe_leaves_everything_as_it_was(frozen: bool) -> None:
    model = build_model(config()).requires_grad_(not frozen)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    probe(model, BATCH)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all((p.grad == 0.5).all() and p.requires_grad != frozen for p in model.parameters())
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(s._forward_hooks or s._forward_pre_hooks for s in model.stack.sublayers())


@pytest.mark.usefixtures("both_paths")
def test_probe_works_without_gradients_around() -> None:
    with torch.no_grad():
        assert probe(build_model(config()), BATCH).gradient_norm is not None


@pytest.mark.usefixtures("both_paths")
def test_verdicts_at_init() -> None:
    """The first/last gradient ratio is near 1 for both; the tokens tell them apart."""
    batch = TokenMap().batch(torch.Generator().manual_seed(0))
    verdicts = {}
    for residual in ("post_ln", "deepnorm"):
        model = build_model(config(residual, layers=48, d_model=32, d_ff=128, vocab_size=16))
        verdicts[residual] = probe(model, batch).judge()
    assert verdicts["deepnorm"].passed
    assert not verdicts["post_ln"].passed
    assert "tokens collapse" in verdicts["post_ln"].reason
    assert str(verdicts["deepnorm"]).startswith("PASS")


@pytest.mark.parametrize(
    ("similarity", "gradient", "passed", "reason"),
    [
        ([0.1, 0.2], [1.0, 1.0], True, "token similarity 0.200 at the top"),
        ([0.1, 0.999], [1.0, 1.0], False, "tokens collapse"),
        ([0.1, 0.2], [1e-9, 1.0], None, "1 of 2 sub-layers, from 1 to 1, have next to no gradient"),
        ([0.1, 0.2], [1.0, 1e-9], None, "1 of 2 sub-layers, from 2 to 2, have next to no gradient"),
        ([0.1, 0.2, 0.2, 0.2], [1.0, 0.0, 0.0, 1.0], None, "2 of 4 sub-layers, from 2 to 3, have next to no gradient"),
        ([0.1, 0.2], [0.0, 0.0], None, "no matrix has a gradient"),
        ([0.1, np.nan], [1.0, 1.0], False, "not finite from sub-layer 2 on: the forward pass overflows"),
        ([0.1, 0.2], [np.inf, 1.0], False, "the gradient is not finite in 1 of 2 sub-layers, from 1 down"),
    ],
)
def test_judge(similarity: list, gradient: list, passed: bool | None, reason: str) -> None:
    """What is not known to harm is UNSURE: models whose first, last or inner layers had no gradient have trained."""
    profile = DepthProfile("x", token_similarity=np.array(similarity), gradient_norm=np.array(gradient))
    verdict = profile.judge()
    assert verdict.passed is passed
    assert reason in verdict.reason
    assert str(verdict).startswith({True: "PASS: ", False: "FAIL: ", None: "UNSURE: "}[passed])


@pytest.mark.usefixtures("both_paths")
def test_an_input_without_differences_is_not_the_models_fault() -> None:
    """The same token everywhere, and an embedding of equal rows, whose positions still differ."""
    same = replace(BATCH, inputs=torch.full_like(BATCH.inputs, 3))
    for position in ("learned", "rotary"):
        model = build_model(config(layers=4, position=position))
        verdict = probe(model, same).judge()
        assert verdict.passed is None
        assert "the stack's input is collapsed: similarity 1.0000" in verdict.reason
        assert probe(model, BATCH).judge().passed
        with torch.no_grad():
            model.embed.token.weight.copy_(model.embed.token.weight[:1].expand_as(model.embed.token.weight))
        assert "input is collapsed" in probe(model, BATCH).judge().reason


@pytest.mark.usefixtures("both_paths")
def test_a_loud_embedding_drowns_the_branches_of_pre_ln_and_not_of_deepnorm() -> None:
    for residual, passed in (("pre_ln", False), ("deepnorm", True)):
        model = build_model(config(residual, layers=4))
        assert probe(model, BATCH).judge().passed
        with torch.no_grad():
            for parameter in model.embed.parameters():
                parameter.mul_(1000)
        verdict = probe(model, BATCH).judge()
        assert verdict.passed is passed
        assert passed or "the input drowns the branches: the stream has variance 8.8e+05" in verdict.reason


def test_what_is_not_known_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match=r"call it on probe\(model, batch\)"):
        DepthProfile("x", variance=np.ones(4)).judge()


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(("residual", "passes"), [("post_ln", False), ("pre_ln", True), ("deepnorm", True)])
def test_a_prediction_is_judged_as_the_model_is(residual: str, passes: bool) -> None:
    shape = config(residual, layers=60)
    predicted, measured = predict(shape, tokens=6).judge(), probe(build_model(shape), BATCH).judge()
    assert predicted.passed == measured.passed == passes


@pytest.mark.usefixtures("both_paths")
def test_probe_refuses() -> None:
    with pytest.raises(ValueError, match="no sub-layers to probe"):
        probe(build_model(config("none", layers=0)), BATCH)
    with pytest.raises(ValueError, match="Sequences of one token"):
        probe(build_model(config()), Batch(BATCH.inputs[:, :1], BATCH.targets[:, :1]))
    with pytest.raises(ValueError, match=r"The batch is on meta, the model on cpu: use batch.to\('cpu'\)"):
        probe(build_model(config()), BATCH.to("meta"))
    shape = {"d_model": 16, "n_heads": 2, "d_ff": 32, "n_classes": 4}
    images = build_model(ModelConfig("encoder", "classification", encoder_layers=2, **shape))
    with pytest.raises(ValueError, match="Images of 4 × 4 pixels are one patch"):
        probe(images, Batch(torch.randn(3, 1, 4, 4), torch.tensor([0, 1, 2])))
    assert probe(images, Batch(torch.randn(3, 1, 4, 8), torch.tensor([0, 1, 2]))).judge().passed


def test_theory_by_hand() -> None:
    np.testing.assert_allclose(variance_by_depth(np.array([0.5, 0.25]), alpha=2, var0=3), [3, 12.5, 50.25])
    np.testing.assert_allclose(predicted_share(np.array([0.4, 0.4]), alpha=1.3), [1.69 / 2.09, (1.69 / 2.09) ** 2])


def test_attention_moments_by_simulation() -> None:
    """0.074 is what causal attention leaves of 64 independent tokens; with correlation they do not cancel."""
    assert attention_moments(64, 0.0)[0] == pytest.approx(0.074, abs=5e-4)
    T, r = 6, 0.3
    generator = torch.Generator().manual_seed(0)
    shared, private = (torch.randn(200_000, n, generator=generator, dtype=torch.float64) for n in (1, T))
    tokens = r**0.5 * shared + (1 - r) ** 0.5 * private
    averages = tokens.cumsum(1) / torch.arange(1, T + 1)
    covariance = averages.T @ averages / len(averages)
    off_diagonal = (covariance.sum() - covariance.trace()) / (T * (T - 1))
    variance, between = attention_moments(T, r)
    assert variance == pytest.approx(covariance.trace().item() / T, rel=0.01)
    assert between == pytest.approx(off_diagonal.item(), rel=0.01)


@pytest.mark.parametrize("r", [0.0, 0.4, 0.95, 1.0])
def test_gelu_correlation_by_simulation(r: float) -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(2_000_000, generator=generator, dtype=torch.float64) for _ in range(2))
    y, z = 0.8 * u, 0.8 * (r * u + (1 - r**2) ** 0.5 * v)
    coefficients = activation_correlation("gelu", 0.8)
    predicted = (coefficients * r ** np.arange(len(coefficients))).sum()
    assert predicted == pytest.approx((F.gelu(y) * F.gelu(z)).mean().item(), rel=0.01, abs=1e-3)


WIDE = {"d_model": 128, "d_ff": 512, "n_heads": 4, "vocab_size": 1000, "max_length": 32}
WIDE_BATCH = TokenMap(vocab_size=1000, length=32, batch_size=8).batch(torch.Generator().manual_seed(0))


SHAPES = {
    "decoder": ("lm", {"decoder_layers": 12}),
    "encoder": ("mlm", {"encoder_layers": 12}),
    "encoder_decoder": ("translation", {"encoder_layers": 6, "decoder_layers": 6}),
}
#: More than one sum and its norms, or measured on data: nothing is predicted.
UNPREDICTED = {
    "admin", "b2t", "span_norm", "dlcl", "attention_residuals", "block_attention_residuals", "deep_delta", "rl_1000",
    "x0_skips", "parcae", "resi_dual", "siamese_norm", "hyper_connections", "mhc", "ngpt",
}  # fmt: skip
PREDICTED = [
    (name, architecture)
    for name, rule in RESIDUALS.items()
    for architecture in rule.architectures
    if name not in UNPREDICTED
]


def gradients(profile: DepthProfile) -> np.ndarray:
    """Of each layer's matrices, relative to those of the last layer; 0 where there is none (ReZero's first step)."""
    layers: dict[tuple, float] = {}
    for stack, layer, value in zip(profile.stack, profile.layer, profile.gradient_norm, strict=True):
        layers[stack, layer] = layers.get((stack, layer), 0.0) + value**2
    found = np.sqrt(list(layers.values()))
    return found / (found[-1] or 1.0)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(("residual", "architecture"), PREDICTED)
def test_prediction_meets_measurement_at_init(residual: str, architecture: str) -> None:
    task, layers = SHAPES[architecture]
    shape = ModelConfig(architecture, task, residual=residual, **layers, **WIDE)
    measured, predicted = probe(build_model(shape), random_batch(shape, 8, 32)), predict(shape, tokens=32)
    assert (measured.stack, measured.layer, measured.sublayer) == (predicted.stack, predicted.layer, predicted.sublayer)
    np.testing.assert_allclose(measured.variance, predicted.variance, rtol=0.2)
    np.testing.assert_allclose(measured.input_share, predicted.input_share, atol=0.1)
    np.testing.assert_allclose(measured.token_similarity, predicted.token_similarity, atol=0.12)
    # Relative to the last layer's: within a third, over all rules and both stacks.
    np.testing.assert_allclose(gradients(predicted), gradients(measured), rtol=0.33)
    if residual == "deepnorm":  # weak branches: first order is all there is
        np.testing.assert_allclose(measured.input_share, predicted.input_share, atol=0.01)


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize(
    "part", [*({"activation": name} for name in ("relu", "gelu", "swiglu", "geglu")), {"n_kv_heads": 2, "bias": False}]
)
def test_prediction_knows_activation_norm_and_groups(part: dict[str, Any], norm: str) -> None:
    shape = ModelConfig("decoder", "lm", 12, residual="sub_ln", norm=norm, **WIDE, **part)
    measured, predicted = probe(build_model(shape), random_batch(shape, 8, 32)), predict(shape, tokens=32)
    np.testing.assert_allclose(measured.variance, predicted.variance, rtol=0.2)
    np.testing.assert_allclose(measured.input_share, predicted.input_share, atol=0.02)


@pytest.mark.parametrize("residual", sorted(UNPREDICTED - {"ngpt"}))
def test_rules_beyond_one_sum_are_not_predicted(residual: str) -> None:
    with pytest.raises(ValueError, match=f"no prediction for residual '{residual}'"):
        predict(config(residual), tokens=4)


@pytest.mark.usefixtures("both_paths")
def test_a_rule_of_ones_own_is_seen_everywhere() -> None:
    """Registered here: in the table, in a probe, in generation; not predicted by what its parent said of itself."""

    class Half(RESIDUALS["pre_ln"]):  # type: ignore[misc]
        """x ← x + ½F(LN(x))."""

        title, formula, source = "Half", "x ← x + ½F(LN(x)), LN at the end", "this test"

        def write(self, state: tuple[torch.Tensor, ...], branch: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (state[0] + 0.5 * branch,)

    RESIDUALS.register("half")(Half)
    try:
        table = CliRunner().invoke(app, ["models", "--residuals"])
        assert "x ← x + ½F(LN(x))" in table.output
        model = build_model(config("half"))
        assert probe(model, BATCH).variance[-1] < probe(build_model(config("pre_ln")), BATCH).variance[-1]
        assert greedy(model, BATCH.inputs[:1, :2], 3).shape == (1, 3)
        probed = CliRunner().invoke(app, ["probe", "--residual", "half", "--layers", "2", "--json"])
        assert json.loads(probed.stdout)
        with pytest.raises(ValueError, match="no prediction for residual 'half'"):
            predict(config("half"), tokens=4)
        Half.signal = lambda self: Signal(branch=0.5, norm_read=True, norm_finish=True)
        assert predict(config("half"), tokens=4).variance[-1] > 1
    finally:
        del RESIDUALS._rules["half"]


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("architecture", ["decoder", "encoder"])
def test_prediction_knows_that_scores_are_not_flat(architecture: str) -> None:
    """What the first attention adds, and its gradient beside the FFN's: flat scores would say half and six tenths."""
    task, layers = SHAPES[architecture]
    one = dict.fromkeys(layers, 1)
    shape = ModelConfig(architecture, task, residual="pre_ln", position="rotary", **one, **WIDE)
    added = [probe(build_model(shape, seed), random_batch(shape, 8, 32, seed)).variance[0] - 1 for seed in range(4)]
    assert np.mean(added) == pytest.approx(predict(shape, tokens=32).variance[0] - 1, rel=0.15)
    shape = ModelConfig(architecture, task, residual="deepnorm", **layers, **WIDE)
    gradient = probe(build_model(shape), random_batch(shape, 8, 32)).gradient_norm.reshape(-1, 2).mean(0)
    expected = predict(shape, tokens=32).gradient_norm.reshape(-1, 2).mean(0)
    assert gradient[0] / gradient[1] == pytest.approx(expected[0] / expected[1], rel=0.12)


def test_no_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="no prediction for residual 'resi_dual'"):
        predict(config("resi_dual"), tokens=4)
    with pytest.raises(ValueError, match="nothing to predict"):
        predict(config("none", layers=0), tokens=4)
    with pytest.raises(ValueError, match="tokens=1: tokens of a sequence are compared"):
        predict(config(), tokens=1)


def test_records_become_plain_json() -> None:
    profile = DepthProfile("x", variance=np.array([1.0, 2.0, 3.00004]))
    assert profile.to_dict(every=2) == {
        "label": "x",
        "variance": [1.0, 3.0],
    }
    assert "profiles" not in History("x", loss=[1.0]).to_dict()
    with pytest.raises(ValueError, match="no steps yet"):
        History("x").final_loss()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_measures_the_same() -> None:
    expected, actual = probe(build_model(config()), BATCH), probe(build_model(config()).cuda(), BATCH.to("cuda"))
    np.testing.assert_allclose(actual.gradient_norm, expected.gradient_norm, rtol=1e-3)
