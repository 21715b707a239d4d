"""Inputs that are found for models whose authors give none."""

import pytest
import torch
from torch import Tensor, nn

from deepnet_edu import ModelConfig, build_model
from deepnet_edu.review.inputs import inputs_for
from tests.review.reviewed import D, Recipe, stack


class Words(nn.Module):
    """Reads token ids, at most six of them."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(30, D), nn.Embedding(6, D)

    def forward(self, ids: Tensor) -> Tensor:
        return self.token(ids) + self.position(torch.arange(ids.shape[1]))  # type: ignore[no-any-return]


class Pictures(nn.Module):
    def __init__(self, size: int | None) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, D, 8, 8)
        if size:
            self.img_size = (size, size)

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[-1] == getattr(self, "img_size", (32,))[0]
        return self.patches(images).flatten(2).mT


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(D, D)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.linear(x) + memory


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (stack(Recipe(), 1), [(4, 16, D)]),
        (nn.Sequential(nn.LayerNorm(D), nn.Linear(D, D)), [(4, 16, D)]),
        (Words(), [(4, 4)]),
        (Pictures(16), [(4, 3, 16, 16)]),
        (Pictures(None), [(4, 3, 32, 32)]),
        (Two(), [(4, 16, D)] * 2),
        (nn.TransformerDecoder(nn.TransformerDecoderLayer(D, 4, D), 1), [(4, 16, D)] * 2),
    ],
    ids=["stream", "norm first", "words", "pictures", "pictures of an unknown size", "two", "decoder"],
)
def test_what_a_model_reads_is_found(model: nn.Module, shapes: list[tuple[int, ...]]) -> None:
    model.train()
    found = inputs_for(model)
    assert isinstance(found, tuple)
    assert [tuple(one.shape) for one in found] == shapes
    assert model.training
    model(*found)


def test_inputs_have_the_models_precision() -> None:
    found = inputs_for(stack(Recipe(), 1).double())
    assert isinstance(found, tuple)
    assert found[0].dtype == torch.float64


def test_models_that_review_knows_need_none() -> None:
    config = ModelConfig("decoder", "lm", 1, d_model=16, n_heads=2, d_ff=16, vocab_size=8)
    assert inputs_for(build_model(config)) is None
    assert inputs_for(nn.TransformerEncoderLayer(8, 2, 8)) is None


@pytest.mark.parametrize("model", [nn.Identity(), nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 5))])
def test_a_model_that_accepts_none_is_said(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="How is this model run"):
        inputs_for(model)
