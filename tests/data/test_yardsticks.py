"""Entropies and count models beside functions written out, byte by byte."""

import lzma
import random
import zlib
from collections import Counter, defaultdict
from math import log2

import pytest
import torch

from deepnet_edu.data import Pair, PythonDocs, compressed, copied, count_models, entropies, most_similar
from deepnet_edu.data.yardsticks import nearest_accuracy
from deepnet_edu.model import Batch

TEXT = "Größe ≤ 9: " + "".join(random.Random(0).choices("abcab ", k=3000))
OTHER = "Größe ≥ 7, " + "".join(random.Random(1).choices("abbcd ", k=500))


def entropy_written_out(data: bytes, order: int) -> float:
    """Of a byte given the ``order`` before it: mean of -log2 of its share among what follows them."""
    following: dict[bytes, Counter[int]] = defaultdict(Counter)
    for i in range(order, len(data)):
        following[data[i - order : i]][data[i]] += 1
    bits = [
        -log2(following[data[i - order : i]][data[i]] / following[data[i - order : i]].total())
        for i in range(order, len(data))
    ]
    return sum(bits) / len(bits)


def model_written_out(train: bytes, read: bytes, highest: int) -> float:
    """Witten and Bell's interpolation, one byte after the other."""
    following: dict[bytes, Counter[int]] = defaultdict(Counter)
    for order in range(4):
        for i in range(order, len(train)):
            following[train[i - order : i]][train[i]] += 1

    def p(context: bytes, byte: int) -> float:
        counts = following.get(context, Counter())
        lower = p(context[1:], byte) if context else 1 / 256
        n, different = counts.total(), len(counts)
        return (counts[byte] + different * lower) / (n + different) if n else lower

    return -sum(log2(p(read[i - highest : i], read[i])) for i in range(3, len(read))) / (len(read) - 3)


def test_entropies_of_orders_0_to_3() -> None:
    found = entropies(TEXT)
    expected = [entropy_written_out(TEXT.encode(), order) for order in range(4)]
    assert found == pytest.approx(expected, abs=1e-9)
    assert found == sorted(found, reverse=True)


def test_entropies_agree_with_the_task_s_own() -> None:
    task = PythonDocs()
    text = bytes(task.train.tolist()).decode()
    assert entropies(text)[:2] == pytest.approx([task.unigram_entropy / 0.6931471805599453,
                                                 task.bigram_entropy / 0.6931471805599453])  # fmt: skip


def test_models_that_count() -> None:
    found = count_models(TEXT, OTHER)
    assert found == pytest.approx([model_written_out(TEXT.encode(), OTHER.encode(), k) for k in range(4)], abs=1e-9)


def test_a_byte_that_was_never_seen_costs_bits_and_not_infinity() -> None:
    assert all(8 < bits < 30 for bits in count_models("a" * 1000, "zzzzzzzz"))


def test_a_count_of_the_same_text_knows_it_too_well() -> None:
    noise = "".join(random.Random(2).choices("abcdefgh", k=2000))
    other = "".join(random.Random(3).choices("abcdefgh", k=2000))
    assert entropies(noise)[3] < 2.1
    assert count_models(noise, other)[3] > 3  # what uniform letters cost


@pytest.mark.parametrize("text", ["", "abcd"])
def test_too_short(text: str) -> None:
    with pytest.raises(ValueError, match="expected 5 or more"):
        entropies(text)
    with pytest.raises(ValueError, match="expected 5 or more"):
        count_models(TEXT, text)


def test_compressors_have_read_the_training_text() -> None:
    found = compressed(TEXT, TEXT[:500])
    assert found["zlib"][0] == 8 * len(zlib.compress(TEXT.encode(), 9)) / len(TEXT.encode())
    for name, method in (("zlib", lambda data: zlib.compress(data, 9)), ("lzma", lzma.compress)):
        alone = 8 * len(method(TEXT[:500].encode())) / len(TEXT[:500].encode())
        assert found[name][1] < 0.5 * alone


# --- translations

TRAIN = [
    Pair("Delete the file", "Datei löschen", "de"),
    Pair("Delete the file", "Supprimer le fichier", "fr"),
    Pair("Open a window", "Fenster öffnen", "de"),
]


def test_the_most_similar_source_in_the_language() -> None:
    asked = [
        Pair("Delete this file?", "", "de"),
        Pair("Open the windows", "", "de"),
        Pair("Open the windows", "", "fr"),
        Pair("Delete", "", "es"),
    ]
    assert most_similar(TRAIN, asked) == ["Datei löschen", "Fenster öffnen", "Supprimer le fichier", ""]
    assert copied(asked)[0] == "Delete this file?"


def test_the_nearest_image() -> None:
    train = Batch(torch.tensor([0.0, 1.0, 5.0])[:, None, None, None], torch.tensor([0, 1, 2]))
    test = Batch(torch.tensor([0.4, 0.6, 9.0, 2.0])[:, None, None, None], torch.tensor([0, 1, 2, 2]))
    assert nearest_accuracy(train, test) == 0.75
