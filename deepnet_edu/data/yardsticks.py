"""What a model should be measured against: counts and compressors, simple translators, the nearest image."""

import lzma
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepnet_edu.data.translation import Pair
from deepnet_edu.model import Batch

#: Highest order of the entropies: bytes before the one that is predicted.
HIGHEST = 3


def entropies(text: str) -> list[float]:
    """Entropy of a byte given the 0, 1, 2 and 3 before it, by the counts of the same text, in bits per byte.

    The higher orders know the text too well: most of what they count occurs once. For a text that was not counted,
    see :func:`count_models`.

    Raises:
        ValueError: the text has fewer than five bytes.
    """
    codes = _codes(text)
    found = []
    for order in range(HIGHEST + 1):
        grams = _entropy(_grams(codes, order))
        found.append(grams - (_entropy(_grams(codes[:-1], order - 1)) if order else 0.0))
    return found


def count_models(train: str, held_out: str) -> list[float]:
    """Bits per byte of a text for models that have counted another one, of orders 0 to 3.

    What was never seen after the bytes before it goes to the next lower order, by Witten and Bell's rule: with n counts
    of u different bytes after a context, p = (count + u·p of the lower order) / (n + u). Below order 0 all 256 are
    equally likely.

    Raises:
        ValueError: one of the texts has fewer than five bytes.

    Source: Witten and Bell 1991, method C, interpolated.
    """
    counted, read = _codes(train), _codes(held_out)
    p: NDArray[np.float64] = np.full(len(read) - HIGHEST, 1 / 256)
    bits = []
    for order in range(HIGHEST + 1):
        grams, counts = np.unique(_grams(counted, order), return_counts=True)
        contexts, first, different = np.unique(grams >> 8, return_index=True, return_counts=True)
        seen = np.add.reduceat(counts, first)
        asked = _grams(read, order)[HIGHEST - order :]
        count, n = _found(grams, counts, asked), _found(contexts, seen, asked >> 8)
        u = _found(contexts, different, asked >> 8)
        p = np.where(n > 0, (count + u * p) / np.maximum(n + u, 1), p)
        bits.append(float(-np.log2(p).mean()))
    return bits


def compressed(train: str, held_out: str) -> dict[str, tuple[float, float]]:
    """Bits per byte for zlib (level 9) and lzma (preset 6): of a text, and of another one after it.

    The second is what the other text adds to the compressed file, so that a compressor has read what a model has.
    """
    before, after = train.encode(), (train + held_out).encode()
    methods: dict[str, Callable[[bytes], bytes]] = {"zlib": lambda data: zlib.compress(data, 9), "lzma": lzma.compress}
    found = {}
    for name, method in methods.items():
        alone, both = len(method(before)), len(method(after))
        found[name] = 8 * alone / len(before), 8 * (both - alone) / (len(after) - len(before))
    return found


def copied(pairs: Iterable[Pair]) -> list[str]:
    """The sources: what a program that translates nothing answers."""
    return [pair.source for pair in pairs]


def most_similar(train: Sequence[Pair], pairs: Sequence[Pair]) -> list[str]:
    """For each pair the translation, into its language, of the training source that is most like its own.

    Like is the cosine of counts of 2 and 3 letters in a row inside words, rare ones weighing more (scikit-learn's
    TfidfVectorizer). Where training has nothing in the language the answer is empty.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    counter: Any = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), sublinear_tf=True)
    known = counter.fit_transform([pair.source for pair in train])
    asked = counter.transform([pair.source for pair in pairs])
    answers = [""] * len(pairs)
    for language in {pair.language for pair in pairs}:
        there = [i for i, pair in enumerate(train) if pair.language == language]
        here = [i for i, pair in enumerate(pairs) if pair.language == language]
        for first in range(0, len(here) if there else 0, 256):  # a table of all with all may not fit into memory
            some = here[first : first + 256]
            best = (asked[some] @ known[there].T).toarray().argmax(axis=1)
            for i, which in zip(some, best, strict=True):
                answers[i] = train[there[which]].target
    return answers


def nearest_accuracy(train: Batch, test: Batch) -> float:
    """Share of images that have the class of the training image nearest to them, by the distance of their pixels."""
    distances = torch.cdist(test.inputs.flatten(1), train.inputs.flatten(1))
    return float((train.targets[distances.argmin(1)] == test.targets).double().mean())


def _codes(text: str) -> NDArray[np.uint32]:
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.uint32)
    if len(codes) <= HIGHEST + 1:
        raise ValueError(f"The text has {len(codes)} bytes: expected {HIGHEST + 2} or more.")
    return codes


def _grams(codes: NDArray[np.uint32], order: int) -> NDArray[np.uint32]:
    """Each byte with the ``order`` before it, as one number, the last byte in the lowest place."""
    length = len(codes) - order
    return np.sum([codes[i : i + length] << np.uint32(8 * (order - i)) for i in range(order + 1)], 0, np.uint32)


def _entropy(values: NDArray[np.uint32]) -> float:
    share = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(share * np.log2(share)).sum())


def _found(keys: NDArray[Any], values: NDArray[np.int64], asked: NDArray[Any]) -> NDArray[np.int64]:
    """The value of each key that was asked for, 0 where there is none; keys are sorted."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)
