"""Pairs of sentences as batches for a translator, pairs of like length together, so that little is padding."""

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepnet_edu.data.bpe import BytePairs
from deepnet_edu.data.epochs import Epochs, check_numbers, fingerprint
from deepnet_edu.data.left_out import leave_out
from deepnet_edu.fields import checked
from deepnet_edu.messages import shown
from deepnet_edu.model import IGNORED, Batch


class Pair(NamedTuple):
    """A sentence and its translation.

    Attributes:
        source: what the encoder reads.
        target: what the decoder writes.
        language: whose tag goes before the source, the target's where there are many; None for no tag.
    """

    source: str
    target: str
    language: str | None = None


class Translations:
    """Translate: every pair once an epoch, in batches of a given number of tokens.

    The encoder reads the tag, if the pair has one (Johnson et al. 2017, arXiv 1611.04558), the source's tokens and the
    end token. The decoder reads the start token and the target's tokens, and answers the target's and the end token.

    Tokens of a batch are counted as fairseq does, and with it the paper's Tables 4 to 8: pairs times the longest
    sequence among them, source or target. In memory a token takes 4 bytes. Like
    :class:`~deepnet_edu.data.packing.PackedText` the object remembers its place.

    Args:
        pairs: :class:`Pair` or plain (source, target).
        tokenizer: of both languages.
        max_tokens: most tokens of a batch on either side, padding included.
        max_length: most tokens of a sequence, tag and end included; pairs beyond it are left out; a warning says how
            many.
        bucketing: pairs of like length go into a batch together; else whatever comes next.
        seed: of the order.

    Attributes:
        dropped: number of pairs that were too long.

    Raises:
        ValueError: a number is out of range, no pair is left, or a pair's language has no tag.
    """

    @checked()
    def __init__(
        self,
        pairs: Iterable[Pair | tuple[str, str]],
        tokenizer: BytePairs,
        *,
        max_tokens: int = 4096,
        max_length: int = 256,
        bucketing: bool = True,
        seed: int = 0,
    ) -> None:
        check_numbers(0, seed=seed)
        check_numbers(2, max_length=max_length, max_tokens=max_tokens)
        if max_length > max_tokens:
            raise ValueError(f"max_length={max_length!r}: expected at most max_tokens={max_tokens!r}.")
        self.tokenizer, self.max_tokens, self.max_length, self.bucketing = tokenizer, max_tokens, max_length, bucketing
        self.dropped = 0
        sources, targets = _Sequences(), _Sequences()
        for source, target in self._read(pairs):
            # The decoder reads all but the end token, and answers all but the start token.
            if max(len(source), len(target) - 1) > max_length:
                self.dropped += 1
            else:
                sources.append(source)
                targets.append(target)
        self._sources, self._targets = sources, targets
        self._source_lengths = sources.lengths()
        self._sizes = np.maximum(self._source_lengths, targets.lengths() - 1)
        if not len(self):
            raise ValueError(f"No pair to translate: {self.dropped} were longer than max_length={max_length}.")
        if self.dropped:
            longer = f"have more tokens than max_length={max_length}"
            leave_out(f"{self.dropped} of {self.dropped + len(self)} pairs {longer} and were left out.")
        data = fingerprint(
            *(np.frombuffer(side.tokens, np.int32) for side in (sources, targets)), max_tokens, bucketing
        )
        self._epochs = Epochs(self._order, seed, data)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._sizes)

    @property
    def identity(self) -> dict[str, Any]:
        """What is read, as plain JSON: a checkpoint resumes with the same only."""
        return {"pairs": self._epochs.data, "max_tokens": self.max_tokens, "max_length": self.max_length}

    @property
    def vocab_size(self) -> int:
        """Number of tokens that a model must know, on either side."""
        return self.tokenizer.vocab_size

    @property
    def batches_per_epoch(self) -> int:
        """Batches of the present epoch; without bucketing the next may have some more or fewer."""
        return len(self._epochs.order)

    def source_tokens(self, text: str, language: str | None = None) -> list[int]:
        """What the encoder reads for ``text``: tag, tokens, end.

        Raises:
            ValueError: the language has no tag.
        """
        return self._source(self.tokenizer.encode(text), language)

    def _source(self, tokens: list[int], language: str | None) -> list[int]:
        tag = [] if language is None else [self.tokenizer.tag(language)]
        return [*tag, *tokens, self.tokenizer.end]

    def _read(self, pairs: Iterable[Pair | tuple[str, str]]) -> Iterator[tuple[list[int], list[int]]]:
        """Source and target of each pair with all their special tokens."""
        languages: deque[str | None] = deque()

        def texts() -> Iterator[str]:
            for pair in pairs:
                try:
                    source, target, language = Pair(*pair)
                except TypeError:
                    raise ValueError(f"A pair is {shown(pair)}: expected a source and a target.") from None
                languages.append(language)
                yield from (source, target)

        encoded = self.tokenizer.encode_many(texts())
        for source, target in zip(encoded, encoded, strict=True):
            yield self._source(source, languages.popleft()), [self.tokenizer.start, *target, self.tokenizer.end]

    def _order(self, generator: np.random.Generator) -> list[NDArray[np.int64]]:
        """An epoch's batches, each the numbers of its pairs."""
        order = generator.permutation(len(self))
        if self.bucketing:
            order = order[np.lexsort((self._source_lengths[order], self._sizes[order]))]  # equals stay shuffled
        batches, first = [], 0
        while first < len(order):
            # The first pair alone says how many there can be at most; a longer one among them makes it fewer.
            sizes = self._sizes[order[first : first + self.max_tokens // self._sizes[order[first]]]]
            tokens = np.maximum.accumulate(sizes) * np.arange(1, len(sizes) + 1)
            count = int(np.count_nonzero(tokens <= self.max_tokens))
            batches.append(order[first : first + count])
            first += count
        return [batches[i] for i in generator.permutation(len(batches))]

    def batch(self, generator: torch.Generator | None = None) -> Batch:
        """The next batch on the CPU, (B, S) and (B, T). The order is the object's own: nothing is drawn."""
        pairs = self._epochs.next()
        pad = self.tokenizer.pad
        inputs, padding = self._sources.padded(pairs, pad)
        whole, beyond = self._targets.padded(pairs, pad)  # (B, T + 1)
        target_padding = beyond[:, 1:]
        return Batch(
            inputs=inputs,
            targets=whole[:, 1:].masked_fill(target_padding, IGNORED),
            padding=padding if padding.any() else None,
            target_inputs=whole[:, :-1].masked_fill(target_padding, pad),
            target_padding=target_padding if target_padding.any() else None,
        )

    def state(self) -> dict[str, Any]:
        """Which batch comes next, as plain JSON."""
        return self._epochs.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state` was asked.

        Raises:
            ValueError: the state is of other pairs, tokens, settings or seed, or damaged.
        """
        self._epochs.load_state(state)


class _Sequences:
    """Many sequences in one piece of memory; a list would take 8 bytes a token and a Python number besides."""

    def __init__(self) -> None:
        self.tokens, self.ends = array("i"), array("q", [0])

    def append(self, tokens: list[int]) -> None:
        self.tokens.extend(tokens)
        self.ends.append(len(self.tokens))

    def lengths(self) -> NDArray[np.int64]:
        return np.diff(np.array(self.ends))

    def padded(self, which: NDArray[np.int64], pad: int) -> tuple[Tensor, Tensor]:
        """The sentences in ``which``, one below the other, (B, longest) int64, and where they are padding, bool."""
        rows = [self.tokens[self.ends[i] : self.ends[i + 1]] for i in which]
        lengths = np.array([len(row) for row in rows])
        beyond = np.arange(lengths.max()) >= lengths[:, None]
        tokens = np.full(beyond.shape, pad)
        tokens[~beyond] = np.concatenate(rows)
        return torch.from_numpy(tokens), torch.from_numpy(beyond)
