"""A rule of another author is known everywhere by what it says of itself."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from deepnet_edu import ModelConfig, build_model, deepnorm_constants, predict, probe
from deepnet_edu.cli import app
from deepnet_edu.explorers import MixingExplorer, RaceExplorer, SignalExplorer
from deepnet_edu.figures.style import line_style
from deepnet_edu.model import random_batch
from deepnet_edu.planning import (
    count_operations,
    count_parameters,
    parameters_by_part,
    rank_memory,
    rank_traffic,
    training_memory,
)
from deepnet_edu.residual import RESIDUALS, Place, Residual, Saved, Signal

SIZES = {"d_model": 24, "n_heads": 3, "d_ff": 48, "vocab_size": 11}


class Mine(Residual):
    """x ← LN(αx + F(x)), α as DeepNorm's."""

    title, formula, source, architectures = "Mine", "x ← LN(αx + F(x))", "this test", ("decoder",)
    elsewhere = "it is a test's."
    norms, saved = (1, 0), Saved()
    alpha: Tensor

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """α."""
        constants = deepnorm_constants(decoder_layers=place.decoder_layers).decoder
        assert constants is not None
        return {"alpha": constants.alpha}

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.constant("alpha")
        self.norm = self.norm_layer()

    def write(self, state: tuple[Tensor, ...], branch: Tensor) -> tuple[Tensor, ...]:
        """LN(αx + F(x))."""
        return (self.norm(self.alpha * state[0] + branch),)

    def signal(self) -> Signal:
        """α on the skip, the norm around the sum."""
        return Signal(skip=self.current("alpha"), norm_sum=True)


@pytest.fixture(autouse=True)
def config() -> Iterator[ModelConfig]:
    """Of a model of this rule, which is registered while the test runs."""
    RESIDUALS.register("mine")(Mine)
    yield ModelConfig("decoder", "lm", 12, residual="mine", **SIZES)
    del RESIDUALS._rules["mine"]


def test_it_is_in_the_table() -> None:
    rules = json.loads(CliRunner().invoke(app, ["models", "--residuals", "--json"]).output)
    assert {"name": "mine", **Mine.facts()} in [
        {**rule, "architectures": tuple(rule["architectures"])} for rule in rules
    ]


def test_its_numbers_and_what_follows_from_them_are_those_of_the_same_rule(config: ModelConfig) -> None:
    """But for β, which it has not: here a probe and a prediction agree on both."""
    other = replace(config, residual="deepnorm")
    assert config.rule_constants() == {"alpha": 24**0.25}
    assert count_parameters(config) == count_parameters(other)
    assert parameters_by_part(config) == parameters_by_part(other)
    assert training_memory(config, 2, 8) == training_memory(other, 2, 8)
    assert count_operations(config, 2, 8) == count_operations(other, 2, 8)
    predicted, measured = predict(config, 8), probe(build_model(config), random_batch(config, 8, 8))
    assert measured.input_share[-1] == pytest.approx(predicted.input_share[-1], rel=0.5)  # narrow


def test_plans_and_explorers_know_it(config: ModelConfig) -> None:
    other, cut = replace(config, residual="deepnorm"), {"pipeline": 2, "microbatches": 2}
    assert rank_memory(config, 4, 8, **cut) == rank_memory(other, 4, 8, **cut)  # type: ignore[arg-type]
    assert rank_traffic(config, 4, 8, **cut) == rank_traffic(other, 4, 8, **cut)  # type: ignore[arg-type]
    for explorer in (SignalExplorer("mine", depth=12), MixingExplorer("mine", depth=4), RaceExplorer("mine", depth=12)):
        assert ("Mine", "mine") in explorer.residual.options
        assert "Mine" in explorer.figure.alt
    assert line_style("mine")


@pytest.mark.fast
def test_the_fast_path_takes_it(config: ModelConfig) -> None:
    model, tokens = build_model(config), torch.randint(11, (2, 8))
    found = model(tokens)
    assert next(iter(model.stacks().values())).taken.startswith("fast")  # type: ignore[union-attr]
    model.use_path("plain")
    torch.testing.assert_close(found, model(tokens), rtol=1e-4, atol=1e-5)


def test_a_subclass_that_computes_something_else_is_not_believed_to_do_what_its_parent_said(
    config: ModelConfig,
) -> None:
    class Other(Mine):
        """x ← LN(αx + F(x) + 1)."""

        def write(self, state: tuple[Tensor, ...], branch: Tensor) -> tuple[Tensor, ...]:
            """LN(αx + F(x) + 1)."""
            return (self.norm(self.alpha * state[0] + branch + 1),)

    assert Mine.says("signal")
    assert not Other.says("signal")
    RESIDUALS.register("mine", replace=True)(Other)
    with pytest.raises(ValueError, match="no prediction for residual 'mine'"):
        predict(config, 8)


def test_a_rule_that_knows_only_when_it_is_built_is_predicted_too(config: ModelConfig) -> None:
    class Built(Mine):
        """As its parent, with α as an attribute that its ``__init__`` makes."""

        def __init__(self, place: Place, d_model: int) -> None:
            super().__init__(place, d_model)
            self.own = 1.5

        def signal(self) -> Signal:
            """α on the skip, the norm around the sum."""
            return Signal(skip=self.own, norm_sum=True)

    before = predict(config, 8).input_share[-1]
    RESIDUALS.register("mine", replace=True)(Built)
    assert predict(config, 8).input_share[-1] < before
