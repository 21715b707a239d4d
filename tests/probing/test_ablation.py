"""A stack with layers left out."""

import numpy as np
import pytest
import torch

from deepnet_edu import build_model
from deepnet_edu.model import random_batch
from deepnet_edu.model.mode import Mode
from deepnet_edu.model.stack import Stack
from deepnet_edu.probing import layer_harm, without_layers
from deepnet_edu.residual import RESIDUALS
from tests.rules import CLAIMS, small_config


@pytest.mark.parametrize("residual", ["deepnorm", "pre_ln", "keel", "hyper_connections"])
def test_a_layer_that_is_left_out_hands_on_what_it_gets(residual: str) -> None:
    config = small_config(residual, "decoder", 3)
    model, batch = build_model(config), random_batch(config, 2, 6)
    stack = model.stacks()["decoder"]
    with torch.no_grad():
        whole = model.logits(batch)
        x = model.embed(batch.inputs)
        context = model.context(None, None, 6, x.device)
        state = stack.layers[2](stack.layers[0](stack.start(x), context), context)
        expected = model.answer(stack.finish(state))
        with without_layers(stack, [1]):
            torch.testing.assert_close(model.logits(batch), expected)
        torch.testing.assert_close(model.logits(batch), whole)
    assert stack.mode == Mode()


@pytest.mark.parametrize(("residual", "architecture"), CLAIMS)
def test_every_rule_has_a_harm_by_layer_or_says_why_not(residual: str, architecture: str) -> None:
    config = small_config(residual, architecture, 2)  # type: ignore[arg-type]
    model, batch = build_model(config), random_batch(config, 2, 6)
    if RESIDUALS[residual].growing:
        with pytest.raises(ValueError, match="none of them can be left out"):
            layer_harm(model, batch)
        return
    before = model.loss(batch).item()
    harm = layer_harm(model, batch)
    assert harm.shape == (4 if architecture == "encoder_decoder" else 2,)
    assert np.isfinite(harm).all()
    assert model.loss(batch).item() == before


def test_no_layer_no_harm_and_a_wrong_number_is_refused() -> None:
    config = small_config("deepnorm", "decoder", 2)
    model, batch = build_model(config), random_batch(config, 2, 6)
    stack = model.stacks()["decoder"]
    assert isinstance(stack, Stack)
    with torch.no_grad():
        stack.layers[1].load_state_dict({name: torch.zeros_like(w) for name, w in stack.layers[1].state_dict().items()})
        for wrong in (2, -1, True, "1"):
            with pytest.raises(ValueError, match="a whole number from 0 to 1"), without_layers(stack, [wrong]):  # type: ignore[list-item]
                pass
        with without_layers(stack, [0, 1]):
            torch.testing.assert_close(model.logits(batch), model.answer(model.embed(batch.inputs)))
