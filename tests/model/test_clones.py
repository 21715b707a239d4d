"""A looped stack: one layer, run again and again, with its gradients summed, counted once, kept and loaded."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from deepnet_edu import TrainConfig, build_model, train
from deepnet_edu.data import TokenMap
from deepnet_edu.messages import UserError
from deepnet_edu.model import ModelConfig, random_batch
from deepnet_edu.planning import Plan, count_parameters, training_memory
from deepnet_edu.probing import depth_mixing, probe
from deepnet_edu.residual import RESIDUALS
from deepnet_edu.training.distributed.step import refuse
from tests.rules import small_config

LOOPS = [name for name, rule in RESIDUALS.items() if "decoder" in rule.architectures and not rule.growing]


def looped(residual: str, layers: int = 4) -> ModelConfig:
    return replace(small_config(residual, "decoder", layers), clones=True)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("residual", LOOPS)
def test_a_loop_is_a_stack_of_equal_layers_whose_gradients_are_summed(residual: str) -> None:
    loop, stack = build_model(looped(residual)), build_model(small_config(residual, "decoder", 4))
    stack.load_state_dict(loop.state_dict())
    batch = random_batch(loop.config, 2, 5)
    with torch.no_grad():
        for model in (loop, stack):
            model.use_path("plain")
    torch.testing.assert_close(loop.logits(batch), stack.logits(batch))
    for model in (loop, stack):
        model.loss(batch).backward()
    summed: dict[int, torch.Tensor] = {}
    for name, parameter in stack.named_parameters():
        summed[id(loop.get_parameter(name))] = summed.get(id(loop.get_parameter(name)), 0) + (
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        )
    for parameter in loop.parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found, summed[id(parameter)])
    assert len(list(loop.parameters())) < len(list(stack.parameters()))


@pytest.mark.fast
def test_the_fast_path_does_not_take_them() -> None:
    config = replace(looped("deepnorm", 5), vocab_size=16)
    model = build_model(config)
    model.loss(random_batch(config))
    assert "layers share their weights" in model.stacks()["decoder"].path_taken


@pytest.mark.parametrize("residual", ["deepnorm", "parcae", "pre_ln"])
def test_it_is_counted_once_and_probed_trained_and_resumed(residual: str, tmp_path: Path) -> None:
    config = replace(looped(residual, 5), vocab_size=16)
    model = build_model(config)
    assert count_parameters(config)["all"] == sum(parameter.numel() for parameter in model.parameters())
    assert training_memory(config, 2, 8).parameters < training_memory(replace(config, clones=False), 2, 8).parameters
    assert probe(model, random_batch(config)).variance is not None
    assert depth_mixing(model, random_batch(config)).weights.shape == (11, 11)
    recipe, task = TrainConfig(steps=4, warmup=0), TokenMap(batch_size=2)
    straight = train(build_model(config), task, recipe, progress=False)
    train(build_model(config), task, replace(recipe, steps=2), out=tmp_path / "run", progress=False)
    resumed = train(build_model(config), task, recipe, out=tmp_path / "run", resume=True, progress=False)
    assert resumed.loss == pytest.approx(straight.loss)


def test_a_state_that_grows_and_a_plan_that_cuts_are_refused() -> None:
    with pytest.raises(ValueError, match="clones=True makes all layers one, and with residual='dlcl'"):
        looped("dlcl")
    model, two = build_model(looped("deepnorm")), SimpleNamespace(plan=Plan(pipeline=2))
    with pytest.raises(UserError, match="with clones=True they are all one"):
        refuse(model, TrainConfig(steps=1), two)  # type: ignore[arg-type]


def test_parcae_forgets_its_state_and_keeps_its_input() -> None:
    """Ā is below 1 whatever is learned: with silent branches h goes to B̄e/(1 - Ā)."""
    model = build_model(looped("parcae", 40))
    rule = model.rules()[0]
    with torch.no_grad():
        rule.a.add_(torch.randn(12))  # type: ignore[operator]
        for branch in {sublayer.branch for sublayer in model.sublayers()}:
            for parameter in branch.parameters():
                nn.init.zeros_(parameter)
        step = nn.functional.softplus(rule.step)  # type: ignore[arg-type]
        decay = (-step * rule.a.exp()).exp()  # type: ignore[operator]
        assert (decay < 1).all()
        e = torch.randn(1, 2, 12)
        h = e
        for _ in range(400):
            h = rule.entered(h, e)  # type: ignore[operator]
        torch.testing.assert_close(h, step * e / (1 - decay), rtol=1e-3, atol=1e-3)
