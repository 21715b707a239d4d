"""What a layer's sub-layers share is one parameter, whatever is done to the model; and rules say what decays."""

import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from deepnet_edu import TrainConfig, build_model, train
from deepnet_edu.data import TokenMap
from deepnet_edu.files import digest
from deepnet_edu.model import Model, random_batch
from deepnet_edu.planning import count_parameters
from deepnet_edu.residual import RESIDUALS, Architecture, Place, Residual
from deepnet_edu.residual.streams import sinkhorn
from deepnet_edu.training.checkpoint import CheckpointError, checkpoints
from deepnet_edu.training.optimizer import parameter_groups
from tests.rules import small_config

SHARED: list[tuple[str, Architecture, str]] = [
    ("rezero", "encoder_decoder", "residual.alpha"),
    ("rezero", "decoder", "residual.alpha"),
    ("gpas", "decoder", "residual.a"),
]


def model_of(residual: str, architecture: Architecture) -> Model:
    """Three layers a stack, what they share at random."""
    model = build_model(small_config(residual, architecture, 3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("residual.alpha", "residual.a")):
                parameter.fill_(0.3 + 0.1 * torch.rand(()))
    return model


def output(model: nn.Module) -> Tensor:
    inner = model.module if isinstance(model, AveragedModel) else model
    assert isinstance(inner, Model)
    with torch.no_grad():
        return inner.logits(random_batch(inner.config, 2, 5))


@pytest.mark.parametrize(("residual", "architecture", "name"), SHARED)
def test_it_has_one_name_in_each_layer_and_is_counted_once(
    residual: str, architecture: Architecture, name: str
) -> None:
    model = model_of(residual, architecture)
    layers = [layer for stack in model.stacks().values() for layer in stack.layers]
    for layer in layers:
        assert [key for key in layer.state_dict() if key.endswith(name)] == [f"self_attention.{name}"]
        assert len({rule.lowest for rule in layer.modules() if isinstance(rule, Residual)}) == 1
    assert len(layers) == (6 if architecture == "encoder_decoder" else 3)
    assert count_parameters(model.config)["all"] == sum(p.numel() for p in model.parameters())
    deeper = small_config(residual, architecture, 9)
    assert count_parameters(deeper)["all"] == sum(p.numel() for p in build_model(deeper).parameters())


COPIES: dict[str, Callable[[Model], nn.Module]] = {
    "deepcopy": deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),  # type: ignore[no-any-return]
    "average": AveragedModel,
}


@pytest.mark.parametrize("how", list(COPIES))
@pytest.mark.parametrize(("residual", "architecture", "name"), SHARED)
def test_a_copy_shares_within_itself_and_not_with_the_original(
    residual: str, architecture: Architecture, name: str, how: str
) -> None:
    model = model_of(residual, architecture)
    before, copy = output(model), COPIES[how](model)
    assert torch.equal(output(copy), before)
    with torch.no_grad():
        for key, parameter in copy.named_parameters():
            if key.endswith(name):
                parameter.add_(0.5)
    assert torch.equal(output(model), before)
    model.load_state_dict(
        {key.removeprefix("module."): t for key, t in copy.state_dict().items() if key != "n_averaged"}
    )
    torch.testing.assert_close(output(copy), output(model), rtol=0, atol=0)
    assert not torch.allclose(output(model), before)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("residual", "architecture", "name"), SHARED[:2])  # GPAS stops gradients on purpose
def test_its_gradient_is_the_sum_over_sub_layers(residual: str, architecture: Architecture, name: str) -> None:
    """Against finite differences of the loss, which move all sub-layers of a layer together."""
    model = model_of(residual, architecture)
    batch = random_batch(model.config, 2, 5)
    model.loss(batch).backward()
    key, parameter = next((key, p) for key, p in reversed(list(model.named_parameters())) if key.endswith(name))
    losses = []
    for step in (1e-5, -1e-5):
        moved = {key: parameter.detach() + step}
        losses.append(torch.func.functional_call(_Loss(model), {f"model.{key}": moved[key]}, (batch,)).item())
    assert parameter.grad is not None
    assert parameter.grad.item() == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-6)


class _Loss(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: object) -> Tensor:
        return self.model.loss(batch)  # type: ignore[arg-type]


def test_a_rule_alone_has_what_a_layer_would_share() -> None:
    rule = RESIDUALS["rezero"](Place("decoder", 1, "ffn", 3, 6, 0, 3), 4)
    assert rule.lowest is rule
    assert [name for name, _ in rule.named_parameters()] == ["alpha"]


EARLIER: dict[str, dict[str, Callable[[str], list[str]]]] = {
    # the names that parameters of version 0.x had
    "rezero": {"self_attention.residual.alpha": lambda name: [name, name.replace("self_attention", "ffn")]},
    "gpas": {"self_attention.residual.a": lambda name: [name, name.replace("self_attention", "ffn")]},
    "ngpt": {".inside.rotated.": lambda name: [name.replace("rotated", f"rotated_{x}") for x in ("query", "key")]},
}


@pytest.mark.parametrize("residual", list(EARLIER))
def test_a_checkpoint_of_an_earlier_version_ends_in_a_sentence(residual: str, tmp_path: Path) -> None:
    config, recipe = small_config(residual, "decoder", vocab_size=16), TrainConfig(steps=2, warmup=0)
    train(build_model(config), TokenMap(batch_size=2), recipe, out=tmp_path / "run", progress=False)
    (path,) = checkpoints(tmp_path / "run")
    for file in ("model.safetensors", "optimizer.safetensors"):
        tensors = load_file(path / file)
        for part, names in EARLIER[residual].items():
            for name in [name for name in tensors if part in name]:
                tensor = tensors.pop(name)
                tensors |= {earlier: tensor.clone() for earlier in names(name)}
        save_file(tensors, path / file)
    manifest = {f.name: (f.stat().st_size, digest(f)) for f in path.iterdir() if f.name != "manifest.json"}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"(has a|lacks the) tensor '.*(alpha|residual\.a|inside)") as error:
        train(build_model(config), TokenMap(batch_size=2), recipe, out=tmp_path / "run", resume=True, progress=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("residual", list(RESIDUALS))
def test_rules_say_what_decays(residual: str) -> None:
    """Matrices and embeddings, but for what three rules say; and norms and biases of none."""
    architecture = RESIDUALS[residual].architectures[0]
    model = build_model(small_config(residual, architecture))
    names = {parameter: name for name, parameter in model.named_parameters()}
    decaying = {
        names[parameter]
        for group in parameter_groups(model, model.parameters(), weight_decay=0.1)
        for parameter in group.parameters
        if group.weight_decay
    }
    matrices = {name for parameter, name in names.items() if parameter.ndim > 1}
    if residual == "ngpt":
        assert not decaying
    elif residual in ("hyper_connections", "mhc"):
        assert matrices - decaying == {name for name in names.values() if name.endswith("residual.res")}
        assert decaying - matrices == {name for name in names.values() if name.endswith("residual.scale")}
    else:
        assert decaying == matrices
    assert not any("norm" in name or name.endswith(".bias") for name in decaying)


def test_the_skip_of_hyper_connections_does_not_shrink() -> None:
    """The identity that all streams are carried by: an optimizer with nothing to learn leaves it alone."""
    model = build_model(small_config("hyper_connections", "decoder"))
    groups = parameter_groups(model, model.parameters(), weight_decay=0.5)
    optimizer = torch.optim.AdamW(
        [{"params": group.parameters, "weight_decay": group.weight_decay} for group in groups], lr=0.1
    )
    model.loss(random_batch(model.config)).backward()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for rule in model.rules():
        assert torch.equal(rule.res, torch.eye(4))  # type: ignore[arg-type]


@pytest.mark.usefixtures("double")
def test_sinkhorns_rows_sum_to_one_and_columns_almost() -> None:
    matrix = sinkhorn(3 * torch.randn(5, 4, 4))
    torch.testing.assert_close(matrix.sum(-1), torch.ones(5, 4), rtol=0, atol=1e-14)
    columns = (matrix.sum(-2) - 1).abs().max().item()
    assert 1e-12 < columns < 0.2
    assert (sinkhorn(3 * torch.randn(5, 4, 4), steps=500).sum(-2) - 1).abs().max().item() < 1e-3


@pytest.mark.usefixtures("double")
def test_sinkhorns_gradient_is_that_of_its_steps() -> None:
    """Its backward pass undoes the divisions: against autograd through every step, and finite differences."""
    logits = (3 * torch.randn(5, 4, 4)).requires_grad_()
    x = logits
    for _ in range(20):
        x = x.log_softmax(-2).log_softmax(-1)
    along = torch.randn(5, 4, 4)
    torch.testing.assert_close(sinkhorn(logits), x.exp(), rtol=1e-12, atol=1e-14)
    (expected,) = torch.autograd.grad(x.exp(), logits, along)
    (found,) = torch.autograd.grad(sinkhorn(logits), logits, along)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-14)
    assert torch.autograd.gradcheck(sinkhorn, logits)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("residual", ["hyper_connections", "mhc"])
def test_verbs_of_streams_take_the_state_as_it_is_too(residual: str) -> None:
    """What a sub-layer computes once for both, each computes for itself where it was not computed before."""
    rule = build_model(small_config(residual, "decoder")).rules()[0]
    state, branch = (torch.randn(1, 2, 4, 12),), torch.randn(1, 2, 12)
    entered = rule.enter(state)
    assert torch.equal(rule.read(state), rule.read(entered))
    assert torch.equal(rule.write(state, branch)[0], rule.write(entered, branch)[0])


@pytest.mark.usefixtures("double")
def test_the_first_maps_of_mhc_are_those_of_its_table_1() -> None:
    """H_pre = 1/n and H_post = 1 exactly; H_res near I, which is our choice."""
    rule = build_model(small_config("mhc", "decoder")).rules()[0]
    X = torch.randn(1, 2, 4, 12)
    H, post = rule.maps(X)  # type: ignore[operator]
    res, pre = H.split((4, 1), -2)
    torch.testing.assert_close(pre, torch.full((1, 2, 1, 4), 0.25))
    torch.testing.assert_close(post, torch.ones(1, 2, 4))
    assert (res - torch.eye(4)).abs().max() < 0.06


def test_the_last_matrices_of_hyper_connections_start_twice_as_large() -> None:
    """√n, n = 4 (2409.19606, Section 4): as drawn, against Pre-LN's with the same seed."""
    ours, plain = (build_model(small_config(name, "decoder")) for name in ("hyper_connections", "pre_ln"))
    for a, b in zip(ours.sublayers(), plain.sublayers(), strict=True):
        for role, weight in a.branch.weights().items():
            factor = 2 if role in ("output", "ffn_out") else 1
            torch.testing.assert_close(weight, factor * b.branch.weights()[role])


def test_one_scale_serves_query_and_key_of_ngpt() -> None:
    model = build_model(small_config("ngpt", "decoder"))
    names = [name for name, _ in model.named_parameters() if "rotated" in name]
    assert names == [f"stack.layers.{i}.self_attention.branch.inside.rotated.weight" for i in range(2)]
