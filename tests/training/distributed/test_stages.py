"""What of many ranks one process can see: shares, stages, seeds; the rest is in test_steps.py and test_runs.py."""

import copy

import pytest
import torch
from torch import nn

from deepnet_edu.data import TokenMap
from deepnet_edu.messages import UserError
from deepnet_edu.model import IGNORED, Batch, Model, ModelConfig, build_model, random_batch
from deepnet_edu.planning import Plan
from deepnet_edu.residual import RESIDUALS, Architecture
from deepnet_edu.training import TrainConfig, train
from deepnet_edu.training.distributed.ranks import init_ranks
from deepnet_edu.training.distributed.stages import Elsewhere, LayerRange, Stage, cut, owners, runs, tensors_of
from deepnet_edu.training.distributed.step import share_of
from deepnet_edu.training.optimizer import parameter_groups
from deepnet_edu.training.step import seed_of
from tests.rules import CLAIMS, TASK, small_config


@pytest.mark.parametrize(("sequences", "shares", "pieces"), [(8, 2, 1), (8, 2, 2), (7, 2, 2), (1, 4, 1), (5, 1, 4)])
def test_shares_are_equal_and_together_the_batch(sequences: int, shares: int, pieces: int) -> None:
    inputs = torch.arange(sequences)[:, None].expand(-1, 3)
    batch = Batch(inputs, inputs.clone(), padding=inputs > 99)
    parts = [share_of(batch, share, shares, pieces) for share in range(shares)]
    assert len({len(part.inputs) for part in parts}) == 1
    assert len(parts[0].inputs) % pieces == 0
    answered = torch.cat([part.inputs[part.targets[:, 0] != IGNORED] for part in parts])
    assert torch.equal(answered, inputs)
    assert all(
        torch.equal(part.targets[part.targets != IGNORED], part.inputs[part.targets != IGNORED]) for part in parts
    )


def test_stages_are_equal_runs_of_layers() -> None:
    config = small_config("deepnorm", "encoder_decoder", layers=5)
    assert runs(config, 1) == [[LayerRange("encoder", 0, 5, 5), LayerRange("decoder", 0, 5, 5)]]
    assert runs(config, 3) == [
        [LayerRange("encoder", 0, 3, 5)],
        [LayerRange("encoder", 3, 5, 5), LayerRange("decoder", 0, 2, 5)],
        [LayerRange("decoder", 2, 5, 5)],
    ]
    assert owners(config, 3) == [0, 1, 2]
    assert owners(small_config("deepnorm", "decoder", layers=5), 4) == [0, 3]


#: Each claim with its numbers of stages: two stages of an encoder-decoder meet between its stacks, three within them.
CUTS = [(*claim, stages) for claim in CLAIMS for stages in ((2, 3) if claim[1] == "encoder_decoder" else (3,))]


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(("residual", "architecture", "stages"), CUTS)
def test_stages_one_after_the_other_are_the_model(
    residual: str, architecture: Architecture, stages: int, double: None
) -> None:
    """Every rule's state crosses forward, and its gradient back, as it is sent; every stage has only its own."""
    config = small_config(residual, architecture, layers=3 if architecture == "encoder_decoder" else 4)
    model = build_model(config)
    batch = random_batch(config, 3, 5)
    copies = [copy.deepcopy(model) for _ in range(stages)]
    parts = [cut(one, stages, [index])[0] for index, one in enumerate(copies)]
    for one, part in zip(copies, parts, strict=True):
        assert {id(p) for p in part.parameters()} == {id(p) for p in one.parameters()}
    received: list[tuple[torch.Tensor, ...]] = [()]
    sent: list[tuple[torch.Tensor, ...]] = []
    for part in parts:
        out = part(*received[-1], **tensors_of(batch))
        sent.append(out if isinstance(out, tuple) else (out,))
        received.append(tuple(tensor.detach().requires_grad_() for tensor in sent[-1]))
    torch.testing.assert_close(sent[-1][0], model.logits(batch))
    Model.loss_to(sent[-1][0], batch.targets).backward()
    for out, arrived in zip(sent[-2::-1], received[-2:0:-1], strict=True):
        gradients = [tensor.grad for tensor in arrived]
        assert all(one is not None and one.is_contiguous() for one in (*out, *gradients))
        torch.autograd.backward(out, gradients)
    model.loss(batch).backward()
    found = [(name, parameter.grad) for one in copies for name, parameter in one.named_parameters()]
    assert sorted(name for name, _ in found) == sorted(name for name, _ in model.named_parameters())
    for name, gradient in found:
        torch.testing.assert_close(gradient, model.get_parameter(name).grad, msg=lambda said, name=name: name + said)


@pytest.mark.parametrize(("residual", "architecture"), CLAIMS)
def test_stages_are_updated_as_the_model_is(residual: str, architecture: Architecture, double: None) -> None:
    """Weight decay and learning rates, what a rule does at a step, and what it puts back after it."""

    def settings(one: Model) -> dict[str, tuple[float, ...]]:
        names = {parameter: name for name, parameter in one.named_parameters()}
        return {
            names[parameter]: (group.learning_rate_factor, group.epsilon_factor, group.weight_decay)
            for group in parameter_groups(one, one.parameters(), 0.1)
            for parameter in group.parameters
        }

    model = build_model(small_config(residual, architecture))
    nn.utils.vector_to_parameters(1.5 * nn.utils.parameters_to_vector(model.parameters()), model.parameters())
    copies = [copy.deepcopy(model) for _ in range(2)]
    for index, one in enumerate(copies):
        cut(one, 2, [index])
    assert settings(copies[0]) | settings(copies[1]) == settings(model)
    for one in (model, *copies):
        one.at_step(7)
        one.project()
    whole = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found = [(name, tensor) for one in copies for name, tensor in (*one.named_parameters(), *one.named_buffers())]
    assert {name for name, _ in found} == set(whole)
    for name, tensor in found:
        torch.testing.assert_close(tensor, whole[name], rtol=0, atol=0)


@pytest.mark.usefixtures("both_paths")
def test_a_stage_of_images() -> None:
    sizes = {"d_model": 8, "n_heads": 2, "d_ff": 8, "n_classes": 3}
    config = ModelConfig("encoder", "classification", encoder_layers=2, **sizes)  # type: ignore[arg-type]
    model, batch = build_model(config), random_batch(config, 2, 4)
    expected = model.logits(batch)
    low, high = (cut(copy.deepcopy(model), 2, [index])[0] for index in range(2))
    torch.testing.assert_close(high(*low(**tensors_of(batch)), **tensors_of(batch)), expected)


@pytest.mark.usefixtures("both_paths")
def test_a_stage_can_be_compiled_and_computed_again() -> None:
    model = build_model(small_config("deepnorm", "decoder", layers=4))
    batch = random_batch(model.config, 2, 5)
    model.loss(batch).backward()
    model.use_compiled("layer", backend="aot_eager")
    model.checkpoint_every(2)
    low, high = (cut(copy.deepcopy(model), 2, [index])[0] for index in range(2))
    Model.loss_to(high(*low(**tensors_of(batch)), **tensors_of(batch)), batch.targets).backward()
    expected = model.stack.layers[0].ffn.branch.ffn_in.weight.grad  # type: ignore[attr-defined]
    torch.testing.assert_close(low.layers[0].ffn.branch.ffn_in.weight.grad, expected)  # type: ignore[union-attr]


def test_names_stay_and_what_belongs_to_others_is_elsewhere() -> None:
    model = build_model(small_config("pre_ln", "decoder", layers=2))
    names = set(model.state_dict())
    stages = cut(model, 2, [1])
    assert isinstance(stages[0], Stage)
    assert isinstance(model.stack.layers[0], Elsewhere)  # type: ignore[attr-defined]
    assert set(model.state_dict()) < names
    assert "stack.layers.1.ffn.branch.ffn_in.weight" in set(model.state_dict())


def test_seeds_of_steps_and_ranks_have_nothing_in_common() -> None:
    seeds = {seed_of(seed, step, rank) for seed in range(3) for step in range(10) for rank in range(4)}
    assert len(seeds) == 120
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_plan_needs_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    model = build_model(small_config("deepnorm", "decoder"))
    with pytest.raises(UserError, match=r"needs 2 processes that know each other.*--gpus 2, or torchrun"):
        train(model, TokenMap(), TrainConfig(steps=1), plan=Plan(data=2), progress=False)
    with pytest.raises(UserError, match="needs 4 processes"), init_ranks(Plan(shard=2, pipeline=2)):
        pass


def test_all_rules_are_here() -> None:
    assert {name for name, _ in CLAIMS} == set(RESIDUALS)
    assert {architecture for _, architecture in CLAIMS} == set(TASK)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data=2,data=2", "data has a value already: say it once."),
        pytest.param("data=" + "9" * 5000, "expected a whole number, 1 or more", id="5,000 digits"),
        ("data=\u0663", "data='\u0663': expected a whole number, 1 or more"),
        pytest.param("x" * 5000, "Unknown key", id="5,000 letters"),
    ],
)
def test_a_plan_that_cannot_be_read_is_one_short_sentence(text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        Plan.parse(text)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 400
