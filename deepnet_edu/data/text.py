"""Real text that every Python installation carries: the language's own documentation."""

from collections import Counter
from functools import cached_property
from itertools import pairwise
from math import log
from typing import Any

import torch
from torch import Tensor

from deepnet_edu.data.epochs import fingerprint
from deepnet_edu.fields import Count, checked
from deepnet_edu.model import Batch

VALIDATION_SHARE = 0.1


def python_documents() -> list[str]:
    """The topics of ``pydoc_data.topics``, about half a megabyte of English and code, in the order of their names."""
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]


class PythonDocs:
    """Bytes of ``pydoc_data.topics``, about half a megabyte of English and code; predict the next byte.

    The text differs between Python versions, so its yardsticks are computed from the file that is read.
    Characters outside ASCII become ``?``. The last tenth is held out, whole, for validation. Topics quote each other,
    so that some of it is in the training part, too (9% of its paragraphs' characters in Python 3.11): for held-out
    numbers, :func:`~deepnet_edu.data.documents.python_topics` are split without a leak.

    Args:
        length: T, bytes per sequence.
        batch_size: B, sequences per batch.
    """

    vocab_size = 128

    @checked()
    def __init__(self, length: int = 64, batch_size: Count = 8) -> None:
        text = "\n\n".join(python_documents())
        data = torch.tensor(list(text.encode("ascii", errors="replace")), device="cpu")
        cut = int(len(data) * (1 - VALIDATION_SHARE))
        self.train, self.validation = data[:cut], data[cut:]
        if not 1 <= length < len(self.validation):
            raise ValueError(
                f"length={length}: expected 1 to {len(self.validation) - 1} bytes, what the held-out part has."
            )
        self.length, self.batch_size = length, batch_size

    @property
    def identity(self) -> dict[str, Any]:
        """What is read, as plain JSON: a checkpoint resumes with the same only."""
        return {"text": fingerprint(self.train.numpy()), "length": self.length, "batch_size": self.batch_size}

    @property
    def chance(self) -> float:
        """Loss of the best guess that looks at no other byte: the unigram entropy."""
        return self.unigram_entropy

    @cached_property
    def unigram_entropy(self) -> float:
        """Entropy of the training bytes taken one by one, in nats per byte."""
        return _entropy(Counter(self.train.tolist()))

    @cached_property
    def bigram_entropy(self) -> float:
        """Entropy of a training byte given the one before it, in nats per byte."""
        values = self.train.tolist()
        pairs = Counter(pairwise(values))
        return _entropy(pairs) - _entropy(Counter(values[:-1]))

    def batch(self, generator: torch.Generator) -> Batch:
        """Random windows of the training part on the CPU, (B, T)."""
        return self._windows(self.train, generator)

    def validation_batch(self, generator: torch.Generator) -> Batch:
        """Random windows of the held-out part on the CPU, (B, T)."""
        return self._windows(self.validation, generator)

    def _windows(self, data: Tensor, generator: torch.Generator) -> Batch:
        starts = torch.randint(len(data) - self.length, (self.batch_size, 1), generator=generator, device="cpu")
        windows = data[starts + torch.arange(self.length + 1, device="cpu")]  # (B, T + 1)
        return Batch(inputs=windows[:, :-1], targets=windows[:, 1:])


def _entropy(counts: Counter[int] | Counter[tuple[int, int]]) -> float:
    total = sum(counts.values())
    return -sum(n / total * log(n / total) for n in counts.values())
