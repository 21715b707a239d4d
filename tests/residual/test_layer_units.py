"""What counts as a layer: every published depth, as residual connections of our own models."""

import pytest
import torch

from deepnet_edu.model import build_model
from deepnet_edu.residual import RESIDUALS
from deepnet_edu.residual.layer_units import LAYER_UNITS, connections, layer_unit
from tests.rules import small_config


def test_published_depths() -> None:
    """DeepNet's 1,000 are 2,500 sub-layers on the longest path, Keel's 1,024 are 512 blocks, 2503.14858's are 256."""
    assert connections("deepnorm", 1000, "encoder_decoder") == 2500
    assert connections("deepnorm", 1000) == 2000
    assert connections("keel", 1024) == connections("deepnorm", 512) == 1024
    assert connections("rl_1000", 1024) == 256
    for residual, unit in LAYER_UNITS.items():
        assert residual in RESIDUALS
        assert unit.source.removeprefix("arXiv ") in RESIDUALS[residual].source
        if unit.layers:
            found = unit.connections_of(unit.layers, "encoder_decoder" if residual == "deepnorm" else "decoder")
            assert found == unit.connections


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_our_layers_are_blocks(architecture: str) -> None:
    model = build_model(small_config("deepnorm", architecture, 3), device=torch.device("meta"))  # type: ignore[arg-type]
    layers = 3 * len(model.stacks())
    assert len(model.sublayers()) == connections("deepnorm", layers, architecture)  # type: ignore[arg-type]
    assert layer_unit("pre_ln").unit == "block"


@pytest.mark.parametrize(
    ("residual", "layers", "architecture"),
    [("rl_1000", 10, "decoder"), ("deepnorm", 0, "decoder"), ("deepnorm", 7, "encoder_decoder")],
)
def test_depths_that_do_not_come_out_even(residual: str, layers: int, architecture: str) -> None:
    with pytest.raises(ValueError, match=f"layers={layers}: .* expected a positive multiple of [124]"):
        connections(residual, layers, architecture)  # type: ignore[arg-type]
