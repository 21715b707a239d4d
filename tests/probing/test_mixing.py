"""The depth-mixing matrix: outputs put together again by it, its closed form, its shapes; and what streams gain."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

from deepnet_edu import build_model
from deepnet_edu.model import Model, ModelConfig, random_batch
from deepnet_edu.model.attention import Context
from deepnet_edu.probing import composite_gain, depth_mixing
from deepnet_edu.probing.mixing import _outputs
from deepnet_edu.residual import Architecture
from deepnet_edu.theory import mixing_matrix
from tests.rules import CLAIMS, small_config

ONE_STACK = [claim for claim in CLAIMS if claim[1] != "encoder_decoder"]
SHAPE = {"d_model": 64, "n_heads": 4, "d_ff": 256, "vocab_size": 100, "max_length": 16, "position": "rotary"}


def disturbed(model: Model) -> Model:
    """What a rule learns is no longer what it started as; norms stay, so that a weight is one number."""
    with torch.no_grad():
        for sublayer in model.sublayers():
            norms = [m for m in sublayer.residual.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm)]
            kept = {id(p) for norm in norms for p in norm.parameters()}
            for parameter in sublayer.residual.parameters():
                if id(parameter) not in kept:
                    parameter.add_(0.1 * torch.rand(()))
    return model


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("residual", "architecture"), ONE_STACK)
def test_outputs_and_their_weights_are_what_is_read(residual: str, architecture: Architecture) -> None:
    """Σ of (d y/d source) source is y for every row: nothing else is in it, and no verb is left out."""
    model = disturbed(build_model(replace(small_config(residual, architecture, 3), norm="rms")))
    stack = next(iter(model.stacks().values()))
    x = torch.randn(2, 5, 12)
    sources, read = _outputs(stack, x, Context())
    for row, y in enumerate(read):
        along = torch.randn_like(y)
        gradients = torch.autograd.grad(
            y, sources[: row + 1], along, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        found = sum((g * s).sum() for g, s in zip(gradients, sources, strict=False))
        torch.testing.assert_close(found, (y * along).sum(), rtol=1e-9, atol=1e-9)


FORMULAS = ["pre_ln", "post_ln", "deepnorm", "deepnorm_glm", "keel", "layernorm_scaling", "sub_ln", "deepscale_lm"]


@pytest.mark.parametrize("residual", FORMULAS)
def test_the_closed_form_meets_the_measurement(residual: str) -> None:
    config = ModelConfig("decoder", "lm", 6, residual=residual, **SHAPE)
    measured, theory = depth_mixing(build_model(config), random_batch(config, 4, 16)), mixing_matrix(config, 16)
    assert measured.rows == theory.rows == tuple(range(13))
    np.testing.assert_allclose(measured.relative, theory.relative, atol=0.07)
    np.testing.assert_allclose(measured.shares, theory.shares, atol=0.06)
    assert not np.triu(measured.weights, 1).any()


def test_the_shapes_that_the_paper_names() -> None:
    """2603.15031: Pre-LN an all-ones triangle, Post-LN and DeepNorm a geometric decay, attention a dense mean."""

    def measured(residual: str) -> np.ndarray:
        config = ModelConfig("decoder", "lm", 6, residual=residual, **SHAPE)
        return depth_mixing(build_model(config), random_batch(config, 4, 16)).weights

    ones = np.tril(np.ones((13, 13)))
    for residual in ("pre_ln", "hyper_connections", "attention_residuals"):
        weights = measured(residual)
        np.testing.assert_allclose(weights / weights[:, :1], ones, atol=1e-5)
    weights = measured("deepnorm")
    factors = weights[1:, 0] / weights[:-1, 0]
    assert factors == pytest.approx(12**0.25 / sqrt(12**0.5 + 0.02), rel=0.05)
    np.testing.assert_allclose(weights[3:, 2] / weights[3:, 1], 12**-0.25 * 12**0.25, rtol=0.05)


def test_rows_are_chosen_and_the_model_is_left_alone() -> None:
    config = ModelConfig("decoder", "lm", 20, residual="deepnorm", **SHAPE)
    model = build_model(config)
    before, state = {n: p.clone() for n, p in model.named_parameters()}, torch.get_rng_state()
    found = depth_mixing(model.train(), random_batch(config, 2, 8), rows=5)
    assert found.rows == (0, 10, 20, 30, 40)
    assert found.weights.shape == (5, 41)
    np.testing.assert_allclose(found.shares.sum(1), 1)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in model.named_parameters())


def test_an_encoder_decoder_shows_its_decoder() -> None:
    config = small_config("deepnorm", "encoder_decoder", 2)
    found = depth_mixing(build_model(config), random_batch(config, 2, 5))
    assert found.weights.shape == (7, 7)
    assert mixing_matrix(config, 5).weights.shape == (7, 7)


@pytest.mark.parametrize("residual", ["mhc", "dlcl", "attention_residuals"])
def test_rules_without_a_formula_are_refused_by_name(residual: str) -> None:
    with pytest.raises(ValueError, match=f"no prediction for residual '{residual}'"):
        mixing_matrix(small_config(residual, "decoder"), 4)


def test_a_matrix_that_fits_in_no_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="A matrix of 3,000,000 sub-layers .* take fewer layers"):
        mixing_matrix(small_config("deepnorm", "decoder", 10**6), 4)


@pytest.mark.usefixtures("double")
def test_the_gain_is_that_of_the_product() -> None:
    """Against numpy's norms 1 and ∞ of the product, for mixers that are the same for all tokens."""
    config = small_config("hyper_connections", "decoder", 3)
    model = build_model(config)
    mixers = []
    for rule in model.rules():
        with torch.no_grad():
            rule.res.add_(0.3 * torch.randn(4, 4))  # type: ignore[operator]
        mixers.append(rule.res.detach().numpy())  # type: ignore[operator, union-attr]
    up, down = composite_gain(model, random_batch(config, 2, 5))
    total = np.eye(4)
    for place, mixer in enumerate(mixers):
        total = mixer @ total
        assert up[place] == pytest.approx(np.linalg.norm(total, np.inf))
        assert down[place] == pytest.approx(np.linalg.norm(total, 1))


def test_doubly_stochastic_mixers_gain_nothing() -> None:
    config = small_config("mhc", "decoder", 8)
    up, down = composite_gain(build_model(config), random_batch(config, 2, 5))
    assert up == pytest.approx(1, abs=1e-5)
    assert down == pytest.approx(1, abs=1e-2)


def test_a_rule_without_streams_has_no_composite_gain() -> None:
    config = small_config("deepnorm", "decoder")
    with pytest.raises(ValueError, match="'deepnorm' has no streams.*'hyper_connections' or 'mhc'"):
        composite_gain(build_model(config), random_batch(config, 2, 5))
