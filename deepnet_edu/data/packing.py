"""Documents as one stream of tokens, cut into windows with no padding between them."""

from array import array
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepnet_edu.data.bpe import BytePairs
from deepnet_edu.data.epochs import Epochs, check_numbers, fingerprint
from deepnet_edu.data.text import VALIDATION_SHARE
from deepnet_edu.fields import checked
from deepnet_edu.model import Batch


class PackedText:
    """Predict the next token of text: every window of it once an epoch.

    Documents follow each other, an end token behind each. Other documents, or the last tenth of the stream, are held
    out for validation. A window is T + 1 tokens, its last being the next one's first, so that every token is an answer
    once an epoch; tokens at the end that fill no window are left out. In memory a token takes 4 bytes.

    The text remembers its place: a second run with the same object continues where the first one stopped. Make another
    one, or load the state of before, to read the same windows again.

    Args:
        documents: the text, document by document.
        tokenizer: makes its tokens; None: bytes, see :class:`~deepnet_edu.data.bpe.BytePairs`.
        validation: documents that are held out, see :mod:`deepnet_edu.data.documents`; None: the last tenth of the
            stream, whatever of it the rest repeats.
        length: T, tokens per sequence.
        batch_size: B, sequences per batch.
        seed: of the order.

    Raises:
        ValueError: ``length``, ``batch_size`` or ``seed`` is out of range, the text is too short, or one string was
            given for the documents.
    """

    @checked()
    def __init__(
        self,
        documents: Iterable[str],
        tokenizer: BytePairs | None = None,
        *,
        validation: Iterable[str] | None = None,
        length: int = 64,
        batch_size: int = 8,
        seed: int = 0,
    ) -> None:
        for name, given in (("documents", documents), ("validation", validation)):
            if isinstance(given, str):
                raise ValueError(f"{name}: expected a list of strings, for example [text], not one string.")
        check_numbers(0, seed=seed)
        check_numbers(1, length=length, batch_size=batch_size)
        self.tokenizer = tokenizer or BytePairs()
        self.length, self.batch_size = length, batch_size
        data = self._stream(documents)
        cut = int(len(data) * (1 - VALIDATION_SHARE))
        self.train, self.validation = data[:cut], data[cut:]
        if validation is not None:
            self.train, self.validation = data, self._stream(validation)
            if len(self.train) < 2 or len(self.validation) < 2:
                raise ValueError("validation: it and the documents need two tokens or more each.")
        elif len(self.validation) < 2:
            raise ValueError(f"The text has {len(data)} tokens: expected 20 or more, a tenth of them is held out.")
        if length >= len(self.validation):
            raise ValueError(
                f"length={length}: expected 1 to {len(self.validation) - 1} tokens, what the held-out part has."
            )
        if length >= len(self.train):
            raise ValueError(f"length={length}: expected 1 to {len(self.train) - 1} tokens, what the documents have.")
        #: Windows in an epoch.
        self.windows = (len(self.train) - 1) // length
        self._epochs: Epochs[int] = Epochs(
            lambda generator: generator.permutation(self.windows), seed, fingerprint(data.numpy(), length)
        )

    def _stream(self, documents: Iterable[str]) -> Tensor:
        stream = array("i")
        for tokens in self.tokenizer.encode_many(documents):
            stream.extend(tokens)
            stream.append(self.tokenizer.end)
        return torch.from_numpy(np.array(stream))

    @property
    def vocab_size(self) -> int:
        """Number of tokens that a model of this text must know."""
        return self.tokenizer.vocab_size

    @property
    def identity(self) -> dict[str, Any]:
        """What is read, as plain JSON: a checkpoint resumes with the same only."""
        return {"text": self._epochs.data, "length": self.length, "batch_size": self.batch_size}

    @property
    def chance(self) -> float:
        """Loss of the best guess that looks at no other token: the unigram entropy."""
        return self.unigram_entropy

    @cached_property
    def unigram_entropy(self) -> float:
        """Entropy of the training tokens taken one by one, in nats per token."""
        share = self.train.bincount().double() / len(self.train)
        return float(torch.special.entr(share).sum())

    def batch(self, generator: torch.Generator | None = None) -> Batch:
        """The next windows of the training part on the CPU, (B, T). The order is the text's own: nothing is drawn."""
        windows = [self._epochs.next() for _ in range(self.batch_size)]
        return self._cut(self.train, torch.tensor(windows, device="cpu") * self.length)

    def validation_batch(self, generator: torch.Generator) -> Batch:
        """Random windows of the held-out part on the CPU, (B, T)."""
        last = len(self.validation) - self.length
        return self._cut(self.validation, torch.randint(last, (self.batch_size,), generator=generator, device="cpu"))

    def _cut(self, data: Tensor, starts: Tensor) -> Batch:
        windows = data[starts[:, None] + torch.arange(self.length + 1, device="cpu")].long()  # (B, T + 1)
        return Batch(inputs=windows[:, :-1], targets=windows[:, 1:])

    def state(self) -> dict[str, Any]:
        """Which windows come next, as plain JSON."""
        return self._epochs.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state` was asked.

        Raises:
            ValueError: the state is of another text, tokenizer, length or seed, or damaged.
        """
        self._epochs.load_state(state)
