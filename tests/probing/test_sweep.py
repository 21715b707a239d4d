"""Probing of all architectures, the first update by group, sweeps, and the command."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from deepnet_edu import Batch, ModelConfig, build_model, probe
from deepnet_edu.cli import app
from deepnet_edu.messages import UserError
from deepnet_edu.model import Model, random_batch
from deepnet_edu.probing import depth_sweep, judge_sweep, model_update, slope, update_group
from deepnet_edu.probing import sweep as sweep_module
from deepnet_edu.profiles import DepthProfile
from deepnet_edu.residual import RESIDUALS, Architecture
from tests.rules import CLAIMS, small_config

DECODER = small_config("deepnorm", "decoder", 3)
BOTH = small_config("deepnorm", "encoder_decoder", 2)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(("residual", "architecture"), CLAIMS)
def test_every_rule_can_be_probed(residual: str, architecture: Architecture) -> None:
    config = small_config(residual, architecture)
    profile = probe(build_model(config), random_batch(config, 2, 6))
    n = {"encoder": 4, "decoder": 4, "encoder_decoder": 10}[architecture]
    assert profile.variance is not None
    assert profile.variance.shape == profile.norm.shape == profile.gradient_norm.shape == (n,)  # type: ignore[union-attr]
    verdict = profile.judge()
    assert verdict.passed or (residual == "rezero" and verdict.word == "UNSURE" and "Take a step" in verdict.reason)
    assert profile.label == RESIDUALS[residual].title


@pytest.mark.usefixtures("both_paths")
def test_two_stacks_are_told_apart() -> None:
    profile = probe(build_model(BOTH), random_batch(BOTH, 2, 6))
    assert profile.stack == ("encoder",) * 4 + ("decoder",) * 6
    assert profile.sublayer[4:7] == ("self_attention", "cross_attention", "ffn")
    assert profile.of("encoder").depth == pytest.approx([0.5, 1, 1.5, 2])
    assert profile.of("decoder").depth == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    assert profile.depth == pytest.approx([0.5, 1, 1.5, 2, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    assert profile.judge().reason.startswith("encoder: token similarity")
    assert "decoder: token" in profile.judge().reason
    with pytest.raises(ValueError, match="Unknown stack 'decoders': did you mean 'decoder'"):
        profile.of("decoders")


def test_one_bad_stack_fails_the_model() -> None:
    good = {"token_similarity": np.full(8, 0.1), "gradient_norm": np.ones(8)}
    places = {"stack": ("encoder",) * 4 + ("decoder",) * 4, "layer": (0, 0, 1, 1) * 2, "sublayer": ("a", "ffn") * 4}
    assert DepthProfile("x", **good, **places).judge().passed
    bad = {**good, "token_similarity": np.array([0.1, 0.2, 0.3, 0.999, 0.1, 0.1, 0.1, 0.1])}
    verdict = DepthProfile("x", **bad, **places).judge()
    assert not verdict.passed
    assert "encoder: tokens collapse" in verdict.reason


@pytest.mark.usefixtures("both_paths", "double")
def test_norms_and_gradients_by_role_equal_a_run_by_hand() -> None:
    model, batch = build_model(DECODER), random_batch(DECODER, 2, 6)
    profile = probe(model, batch)
    model.loss(batch).backward()
    first, second = model.sublayers()[:2]
    parts = dict(zip(("query", "key", "value"), first.branch.qkv.weight.grad.chunk(3), strict=True))
    for role, gradient in {**parts, "output": first.branch.output.weight.grad}.items():
        assert profile.gradient_by_role[role][0] == pytest.approx(gradient.norm().item())
        assert np.isnan(profile.gradient_by_role[role][1])
    assert profile.gradient_by_role["ffn_in"][1] == pytest.approx(second.branch.ffn_in.weight.grad.norm().item())
    state = second.residual.start(model.embed(batch.inputs))
    u = first.residual.alpha * state[0] + first.branched(state)
    assert profile.norm_gain is not None
    assert profile.norm_gain[0] == pytest.approx((1 / u.std(-1, correction=0)).mean().item())
    (x,) = first(state)
    assert profile.norm is not None
    assert profile.norm[0] == pytest.approx(x.norm(dim=-1).mean().item())


@pytest.mark.usefixtures("both_paths")
def test_the_norms_gain_is_one_over_alpha_for_a_small_branch() -> None:
    """LN's input is αx + F with F far smaller, so that the Jacobian shrinks by α, which the skip makes up for."""
    config = replace(DECODER, decoder_layers=50, d_model=24)
    profile = probe(build_model(config), random_batch(config, 2, 8))
    assert profile.norm_gain is not None
    assert profile.norm_gain[1:] == pytest.approx(np.full(99, 100**-0.25), rel=0.03)


def test_a_rule_without_a_norm_has_no_gain() -> None:
    config = small_config("rezero", "decoder")
    profile = probe(build_model(config), random_batch(config, 2, 6))
    assert profile.norm_gain is not None
    assert np.isnan(profile.norm_gain).all()
    assert json.dumps(profile.to_dict(), allow_nan=False)


@pytest.mark.usefixtures("both_paths")
def test_probing_sees_no_dropout_and_leaves_the_mode_alone() -> None:
    config = replace(DECODER, dropout=0.5)
    model, batch = build_model(config), random_batch(config, 2, 6)
    model.sublayers()[0].eval()
    modes = [module.training for module in model.modules()]
    assert probe(model, batch).to_dict() == probe(model, batch).to_dict()
    assert [module.training for module in model.modules()] == modes


@pytest.mark.usefixtures("both_paths")
def test_probing_a_checkpointed_model_gives_the_same() -> None:
    model, batch = build_model(DECODER), random_batch(DECODER, 2, 6)
    expected = probe(model, batch).to_dict()
    model.checkpoint_every(2)
    assert probe(model, batch).to_dict() == expected


@pytest.mark.usefixtures("both_paths")
def test_weights_that_are_no_numbers_are_named() -> None:
    model = build_model(DECODER)
    with torch.no_grad():
        model.sublayers()[3].branch.ffn_out.weight[0, 0] = torch.nan
    for measure in (probe, model_update):
        with pytest.raises(ValueError, match=r"weights of .*layers.1.ffn.branch.ffn_out.weight are not finite"):
            measure(model, random_batch(DECODER, 2, 6))


def test_a_part_of_a_batch_elsewhere_is_noticed() -> None:
    batch = random_batch(BOTH, 2, 6)
    wrong = Batch(batch.inputs, batch.targets, target_inputs=batch.target_inputs.to("meta"))  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"The batch is on meta, the model on cpu: use batch.to\('cpu'\)"):
        probe(build_model(BOTH), wrong)


# --- the update


@pytest.mark.usefixtures("both_paths", "double")
@pytest.mark.parametrize("step", ["sgd", "sign"])
@pytest.mark.parametrize("group", ["all", "matrices", "biases", "norms"])
def test_the_update_equals_a_step_by_hand(step: str, group: str) -> None:
    model, batch = build_model(DECODER), random_batch(DECODER, 2, 6)
    chosen = update_group(model, group)  # type: ignore[arg-type]
    before = model.logits(batch)
    gradients = torch.autograd.grad(model.loss(batch), chosen)
    stepped = copy.deepcopy(model)
    twins = dict(zip(model.parameters(), stepped.parameters(), strict=True))
    with torch.no_grad():
        for parameter, gradient in zip(chosen, gradients, strict=True):
            twins[parameter] -= 1e-4 * (gradient.sign() if step == "sign" else gradient)
    expected = (stepped.logits(batch) - before).square().mean().sqrt() / 1e-4
    assert model_update(model, batch, step, group, learning_rate=1e-4) == pytest.approx(expected.item(), rel=1e-6)  # type: ignore[arg-type]


def test_the_groups_of_an_update_cover_the_stack_once() -> None:
    model = build_model(BOTH)
    groups = [update_group(model, name) for name in ("matrices", "biases", "norms")]
    assert sorted(id(parameter) for group in groups for parameter in group) == sorted(map(id, model.group("stack")))
    assert all(parameter.ndim == 2 for parameter in groups[0])
    assert len(groups[2]) == 2 * 10


@pytest.mark.usefixtures("both_paths")
def test_the_update_restores_everything() -> None:
    model = build_model(replace(DECODER, dropout=0.3)).requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    model_update(model, random_batch(DECODER, 2, 6), learning_rate=10.0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all((p.grad == 1).all() and not p.requires_grad for p in model.parameters())
    assert torch.equal(state, torch.random.get_rng_state())
    assert model.training


@pytest.mark.usefixtures("both_paths")
def test_an_update_that_fails_restores_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(DECODER)
    before = copy.deepcopy(model.state_dict())
    real, calls = model.logits, []

    def second_fails(batch: Batch) -> torch.Tensor:
        calls.append(batch)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(batch)

    monkeypatch.setattr(model, "logits", second_fails)
    with pytest.raises(KeyboardInterrupt):
        model_update(model, random_batch(DECODER, 2, 6))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"step": "adam"}, "Unknown step 'adam': expected one of 'sgd', 'sign'"),
        ({"parameters": "matrix"}, "Unknown group of parameters 'matrix': did you mean 'matrices'"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: expected a positive number"),
    ],
)
def test_a_wrong_update_is_refused(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        model_update(build_model(DECODER), random_batch(DECODER, 2, 6), **settings)


@pytest.mark.usefixtures("both_paths")
def test_the_theorem_by_group() -> None:
    """Theorem 4.2 holds for matrices under SGD: the same update at 4 times the depth; norms, which it leaves out,
    grow as the depth, biases as its root, and GLM's constants make the matrices' update fall as the depth."""

    def power(residual: str, group: str, step: str = "sgd") -> float:
        values = []
        for layers in (8, 32):
            shape = {"d_model": 32, "n_heads": 4, "d_ff": 128, "vocab_size": 32}
            config = small_config(residual, "decoder", layers, **shape)
            updates = [
                model_update(build_model(config, seed).double(), random_batch(config, 4, 32, seed), step, group, 1e-5)  # type: ignore[arg-type]
                for seed in range(2)
            ]
            values.append(float(np.mean(updates)))
        return slope((8, 32), values)

    assert power("deepnorm", "matrices") == pytest.approx(0, abs=0.1)
    assert power("deepnorm", "biases") == pytest.approx(0.5, abs=0.1)
    assert power("deepnorm", "norms") == pytest.approx(1, abs=0.1)
    assert power("deepnorm", "matrices", "sign") == pytest.approx(0.5, abs=0.1)
    assert power("deepnorm_glm", "matrices") == pytest.approx(-1, abs=0.1)
    assert power("deepnorm_glm", "matrices", "sign") == pytest.approx(0, abs=0.1)
    assert power("post_ln", "matrices") > 0.7


def judged(share: float, update: float | None = None, similarity: float = 0.3) -> tuple[bool | None, str]:
    profile = DepthProfile(
        "x",
        token_similarity=np.array([0.1, similarity]),
        input_share=np.array([0.9, share]),
        gradient_norm=np.ones(2),
    )
    verdict = profile.judge(update)
    return verdict.passed, verdict.reason


def test_share_and_update_decide_together_with_the_rest() -> None:
    assert judged(0.5)[0]
    passed, reason = judged(-1e-5, similarity=0.95)
    assert passed is None
    assert "tokens are nearly equal: similarity 0.950 at the top, input share -1e-05" in reason
    assert judged(1e-5)[0]  # tokens that still differ need no trace of the input
    passed, reason = judged(0.5, update=50.0)  # Pre-LN of 48 layers has 20, and trains
    assert passed
    assert "changes the answers by 50 per unit of learning rate (at most 1000)" in reason
    for update in (2e3, float("nan")):
        passed, reason = judged(0.5, update)
        assert passed is False
        assert "above 1000; token similarity" in reason
    assert judged(0.5, update=0.0)[0]  # branches of 1e-8 train, by Adam's steps


# --- sweeps


def test_a_slope() -> None:
    assert slope((10, 20, 40), (3.0, 12.0, 48.0)) == pytest.approx(2)
    with pytest.raises(ValueError, match="two or more depths"):
        slope((10, 10), (1.0, 2.0))
    with pytest.raises(ValueError, match="needs positive numbers"):
        slope((10, 20), (1.0, 0.0))


def configs(residual: str = "deepnorm", depths: tuple[int, ...] = (2, 4)) -> list[ModelConfig]:
    return [small_config(residual, "decoder", layers) for layers in depths]


@pytest.mark.usefixtures("both_paths")
def test_a_sweep_has_rows_with_intervals_and_a_verdict() -> None:
    rows = depth_sweep(configs(depths=(2, 8)), seeds=(0, 1, 2), length=8)
    assert [row.depth for row in rows] == [2, 8]
    updates = [
        model_update(build_model(configs()[0], seed), random_batch(configs()[0], 4, 8, seed)) for seed in range(3)
    ]
    logs = np.log(updates)
    assert rows[0].mean["update"] == pytest.approx(np.exp(logs.mean()))
    assert rows[0].factor is not None
    assert rows[0].factor["update"] == pytest.approx(np.exp(4.30 * logs.std(ddof=1) / np.sqrt(3)))
    assert rows[0].half_width is not None
    assert rows[0].half_width.keys() == {"token_similarity", "input_share"}
    verdict = judge_sweep(rows)
    assert verdict.passed
    assert "update grows as depth^" in verdict.reason
    single = depth_sweep(configs(depths=(2,)), seeds=(0,), length=8)[0]
    assert single.half_width is single.factor is None


@pytest.mark.usefixtures("both_paths")
def test_a_sweep_of_post_ln_fails() -> None:
    shape = {"d_model": 24, "d_ff": 48}
    rows = depth_sweep(
        [small_config("post_ln", "decoder", layers, **shape) for layers in (4, 32)], seeds=(0, 1), length=16
    )
    verdict = judge_sweep(rows)
    assert not verdict.passed
    assert "runs fail at depth" in verdict.reason


@pytest.mark.usefixtures("both_paths")
def test_a_sweep_of_rezero_is_unsure_and_one_of_pre_ln_passes() -> None:
    """Pre-LN of 24 layers once failed for its update of 12, and trains; ReZero's branches are 0 before a step."""
    rows = depth_sweep(configs("rezero"), seeds=(0, 1), length=8)
    assert [(row.passed, row.unsure, row.mean["update"]) for row in rows] == [(0, 2, 0.0)] * 2
    verdict = judge_sweep(rows)
    assert verdict.passed is None
    assert "cannot be judged at depth 2, 4" in verdict.reason
    assert "update is 0 at some depth" in verdict.reason
    shape = {"d_model": 32, "n_heads": 4, "d_ff": 128, "vocab_size": 32}
    rows = depth_sweep([small_config("pre_ln", "decoder", layers, **shape) for layers in (6, 24)], seeds=(0,))
    assert judge_sweep(rows).passed
    with pytest.raises(ValueError, match="two or more depths"):
        judge_sweep(rows[:1])


@pytest.mark.usefixtures("both_paths")
def test_an_interrupted_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, real, measured = tmp_path / "sweep.json", sweep_module.probe, []

    def third_is_killed(model: Model, batch: Batch) -> DepthProfile:
        measured.append(model)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return real(model, batch)

    monkeypatch.setattr(sweep_module, "probe", third_is_killed)
    with pytest.raises(KeyboardInterrupt):
        depth_sweep(configs(), seeds=(0, 1), file=file, length=8)
    assert len(json.loads(file.read_text())["runs"]) == 2
    rows = depth_sweep(configs(), seeds=(0, 1), file=file, length=8)
    assert len(measured) == 5  # two, the one that was killed, and the two that were missing
    assert [row.mean for row in rows] == [row.mean for row in depth_sweep(configs(), seeds=(0, 1), length=8)]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "other", "runs": {}}', "a thesis"])
def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(UserError, match=r"mine.json holds no depth sweep: it is left alone"):
        depth_sweep(configs(), file=file)
    assert file.read_text() == content


def test_a_sweep_needs_something_to_do() -> None:
    with pytest.raises(ValueError, match="at least one configuration and one seed"):
        depth_sweep([])


# --- the command


def command(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["probe", "--d-model", "16", "--heads", "2", "--tokens", "8", *words])
    if isinstance(result.exception, UserError):
        return 1, str(result.exception)
    return result.exit_code, result.output


@pytest.mark.usefixtures("both_paths")
def test_the_probe_command() -> None:
    code, out = command("--layers", "6", "--update")
    assert code == 0
    assert "DeepNorm: PASS: token similarity" in out
    assert "one SGD step" in out
    code, out = command("--layers", "60", "--residual", "post_ln", "--json")
    record = json.loads(out)
    assert code == 1
    assert record["passed"] is False
    assert record["verdict"] == "FAIL"
    assert command("--layers", "2", "--residual", "rezero")[0] == 3
    assert len(record["variance"]) == 120
    code, out = command("--layers", "2", "--architecture", "encoder_decoder")
    assert code == 0
    assert "cross_attention" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--residual", "deep_norm"), "did you mean 'deepnorm'"),
        (("--layers", "0"), "--layers '0': expected a whole number from 1"),
        (("--architecture", "decoders"), "Unknown architecture 'decoders'"),
        (("--residual", "t_fixup", "--layers", "2"), "T-Fixup is not defined for architecture 'decoder'"),
        (("--heads", "3"), "d_model=16 cannot be split into n_heads=3"),
    ],
)
def test_the_probe_command_refuses(words: tuple[str, ...], sentence: str) -> None:
    code, out = command(*words)
    assert code == 1
    assert sentence in out


def test_the_table_of_rules() -> None:
    result = CliRunner().invoke(app, ["models", "--residuals", "--json"])
    table = json.loads(result.output)
    assert [row["name"] for row in table] == list(RESIDUALS)
    said = {"title", "formula", "source", "init", "sure", "departs", "architectures", "elsewhere"}
    assert table[0].keys() == {"name", *said}
    plain = CliRunner().invoke(app, ["models", "--residuals"]).output
    assert all(f"{row['name']} departs from its authors: {row['departs']}" in plain for row in table if row["departs"])
    assert all(f"{name} " in plain and rule.formula in plain for name, rule in RESIDUALS.items())
    assert "ModelConfig('encoder_decoder', 'translation', …)" in CliRunner().invoke(app, ["models"]).output
