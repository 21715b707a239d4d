"""Every rule trains, shallow and at 24 layers, in every architecture that it claims; and what some do on the way."""

from dataclasses import replace
from math import log
from typing import cast

import pytest
import torch

from deepnet_edu import Batch, TrainConfig, build_model, train
from deepnet_edu.model import Model, ModelConfig, random_batch
from deepnet_edu.model.attention import NOTHING, Context
from deepnet_edu.model.layer import SubLayer
from deepnet_edu.residual import Architecture, State
from deepnet_edu.residual.learned_scale import Admin, BranchNorm
from deepnet_edu.residual.ngpt import NGPT
from deepnet_edu.training.optimizer import parameter_groups
from tests.rules import CLAIMS, small_config


class Same:
    """One batch, again and again: any model that learns at all learns it by heart."""

    def __init__(self, config: ModelConfig) -> None:
        self.one = random_batch(config, 2, 6)

    def batch(self, generator: torch.Generator) -> Batch:
        return self.one


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("layers", [2, 24])
@pytest.mark.parametrize(("residual", "architecture"), CLAIMS)
def test_every_rule_trains(residual: str, architecture: Architecture, layers: int) -> None:
    """Layers are those of a model, of both its stacks."""
    config = small_config(residual, architecture, layers // (2 if architecture == "encoder_decoder" else 1))
    task = Same(config)
    # Post-LN without warm-up is known to fail at depth; a careful rate lets every rule move.
    settings = TrainConfig(steps=8, learning_rate=2e-3 if layers == 2 else 1e-3, warmup=4)
    history = train(build_model(config), task, settings, progress=False)
    assert history.loss[-1] < history.loss[0] - 0.02


@pytest.mark.usefixtures("both_paths")
def test_classification_trains() -> None:
    config = ModelConfig("encoder", "classification", encoder_layers=2, d_model=16, n_heads=2, d_ff=32, n_classes=5)
    history = train(
        build_model(config), Same(config), TrainConfig(steps=20, learning_rate=3e-3, warmup=4), progress=False
    )
    assert history.loss[-1] < history.loss[0] - 0.1


def trained(residual: str, steps: int = 3, **changes: float) -> Model:
    config = replace(small_config(residual, "decoder"), **changes)
    model = build_model(config)
    train(model, Same(config), TrainConfig(steps=steps, learning_rate=1e-2, warmup=0), progress=False)
    return model


def test_ngpt_keeps_every_weight_at_length_one() -> None:
    for model in (build_model(small_config("ngpt", "decoder")), trained("ngpt")):
        assert all(isinstance(rule, NGPT) for rule in model.rules())
        for sublayer in model.sublayers():
            for role, weight in sublayer.branch.weights().items():
                lengths = torch.linalg.vector_norm(weight, dim=0 if role in ("output", "ffn_out") else 1)
                torch.testing.assert_close(lengths, torch.ones_like(lengths))
        for weight in (model.head.weight, model.embeddings()[0].token.weight):  # type: ignore[union-attr]
            torch.testing.assert_close(torch.linalg.vector_norm(weight, dim=1), torch.ones(11))


def test_branch_norm_follows_its_schedule_and_a_state_dict_keeps_it() -> None:
    model = trained("branch_norm", steps=3)
    rules = [rule for rule in model.rules() if isinstance(rule, BranchNorm)]
    assert [rule.a.item() for rule in rules] == pytest.approx([3 / 4000] * 4)
    model.at_step(10_000)
    assert rules[0].a.item() == 1
    other = build_model(small_config("branch_norm", "decoder"))
    other.load_state_dict(model.state_dict())
    assert {rule.a.item() for rule in other.rules() if isinstance(rule, BranchNorm)} == {1.0}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("architecture", ["decoder", "encoder", "encoder_decoder"])
def test_admin_measures_what_its_recursion_says(architecture: Architecture) -> None:
    """ω_{i+1}² = 1 + Σ_{j ≤ i} Var F_j, since the norm below keeps Var x at 1: to 2%, but for the first input."""
    config = small_config("admin", architecture, layers=3, d_model=48)
    model, batch = build_model(config), random_batch(config, 8, 16, seed=5)
    model.calibrate(batch)
    branches: dict[torch.nn.Module, float] = {}
    for sublayer in model.sublayers():
        sublayer.branch.register_forward_hook(lambda m, _, out: branches.__setitem__(m, out.var().item()))
    model.logits(batch)
    for stack in model.stacks().values():
        total = 1.0
        for sublayer in stack.sublayers():
            rule = sublayer.residual
            assert isinstance(rule, Admin)
            assert rule.omega.unique().numel() == 1
            assert rule.omega[0].item() ** 2 == pytest.approx(total, rel=0.05)
            total += branches[sublayer.branch]
        assert total > 1.5


@pytest.mark.usefixtures("double")
def test_admin_measures_the_layers_as_they_are_edited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Branches that a sub-layer's own forward makes louder add more to ω²; an edited verb is kept."""
    config = small_config("admin", "decoder", layers=3, d_model=48)
    batch = random_batch(config, 8, 16, seed=5)

    def second_omega(times: float) -> float:
        """ω² of the second place where every branch counts ``times`` times: Var x + times²·Var F."""

        def forward(self: SubLayer, state: State, context: Context = NOTHING) -> State:
            return self.residual.write(state, times * self.branched(state, context))

        with monkeypatch.context() as edit:
            edit.setattr(SubLayer, "forward", forward)
            model = build_model(config)
            model.calibrate(batch)
        assert not any("write" in vars(rule) for rule in model.rules())
        return cast(Admin, model.rules()[1]).omega[0].item() ** 2

    one, two, three = map(second_omega, (1, 2, 3))
    assert (three - one) / (two - one) == pytest.approx(8 / 3)
    own = build_model(config)
    rule = own.rules()[0]
    rule.write = lambda state, branch: (0 * state[0],)  # type: ignore[method-assign]
    edited = rule.write
    own.calibrate(batch)
    assert rule.write is edited


@pytest.mark.parametrize(("residual", "rate", "epsilon"), [("complete_p", 1.0, 0.125), ("depth_mup", 8**-0.5, 8**-0.5)])
def test_depth_scales_the_optimizer(residual: str, rate: float, epsilon: float) -> None:
    """16 layers are m = 8 times the base depth; embeddings, head and the last norm are left alone."""
    model = build_model(small_config(residual, "decoder", 16))
    final_norm = set(model.rules()[-1].final_norm.parameters())  # type: ignore[operator, union-attr]
    stack, ends = set(model.group("stack")) - final_norm, set(model.group("ends")) | final_norm
    for group in parameter_groups(model, model.parameters(), weight_decay=0.1):
        inside = set(group.parameters) <= stack
        assert inside or set(group.parameters) <= ends
        expected = (rate, epsilon) if inside else (1.0, 1.0)
        assert (group.learning_rate_factor, group.epsilon_factor) == pytest.approx(expected)
        assert group.weight_decay == (0.1 if group.parameters[0].ndim > 1 else 0.0)


@pytest.mark.usefixtures("both_paths")
def test_the_learning_rate_factor_is_used() -> None:
    """One Adam step moves each weight by the learning rate, times the factor."""
    config = small_config("depth_mup", "decoder", 8)
    model = build_model(config)
    weight = model.sublayers()[0].branch.weights()["output"]
    before = weight.detach().clone()
    train(model, Same(config), TrainConfig(steps=1, learning_rate=1e-3, warmup=0, clip=0), progress=False)
    step = (model.sublayers()[0].branch.weights()["output"] - before).abs().median().item()
    assert step == pytest.approx(1e-3 * 4**-0.5, rel=0.02)


def test_the_first_loss_of_ngpt_is_near_ln_v() -> None:
    """Its logits are cosines."""
    config = small_config("ngpt", "decoder")
    loss = build_model(config).loss(random_batch(config)).item()
    assert loss == pytest.approx(log(11), abs=0.2)
