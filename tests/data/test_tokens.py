import math
from collections import Counter
from itertools import pairwise

import pytest
import torch

from deepnet_edu.data import PreviousToken, PythonDocs, SourceMap, TokenMap


def test_token_map() -> None:
    batch = TokenMap(vocab_size=16, length=5, batch_size=3).batch(torch.Generator().manual_seed(0))
    assert batch.inputs.shape == (3, 5)
    assert all((5 * x + 3) % 16 == y for x, y in zip(batch.inputs.flatten(), batch.targets.flatten(), strict=True))
    assert TokenMap(vocab_size=16).chance == math.log(16)


def test_previous_token() -> None:
    batch = PreviousToken(vocab_size=16, length=5, batch_size=3).batch(torch.Generator().manual_seed(0))
    assert (batch.targets[:, 0] == -100).all()
    assert torch.equal(batch.targets[:, 1:], batch.inputs[:, :-1])


def test_source_map_says_nothing_to_the_decoder() -> None:
    batch = SourceMap(vocab_size=16, length=5, batch_size=3).batch(torch.Generator().manual_seed(0))
    assert torch.equal(batch.targets, (5 * batch.inputs + 3) % 16)
    assert batch.target_inputs is not None
    assert batch.target_inputs.shape == (3, 5)
    assert (batch.target_inputs == 0).all()


@pytest.mark.parametrize("task", [TokenMap(), PreviousToken(), SourceMap(), PythonDocs(length=9, batch_size=2)])
def test_the_generator_decides(task: TokenMap) -> None:
    first, again, other = (task.batch(torch.Generator().manual_seed(seed)).inputs for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_text_is_real_and_split() -> None:
    text = PythonDocs(length=30, batch_size=4)
    assert len(text.train) > 300_000
    assert len(text.validation) / (len(text.train) + len(text.validation)) == pytest.approx(0.1, abs=0.001)
    assert text.train.max() < text.vocab_size == 128
    assert "statement" in bytes(text.train.tolist()).decode("ascii")
    batch = text.batch(torch.Generator().manual_seed(0))
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    held_out = bytes(text.validation.tolist())
    for window in text.validation_batch(torch.Generator().manual_seed(0)).inputs:
        assert bytes(window.tolist()) in held_out


def test_entropies_come_from_the_file() -> None:
    text = PythonDocs()
    counts = Counter(text.train.tolist())
    expected = sum(n / len(text.train) * math.log(len(text.train) / n) for n in counts.values())
    assert text.unigram_entropy == pytest.approx(expected)
    assert 0 < text.bigram_entropy < text.unigram_entropy < math.log(128)
    # A bigram table fitted to the text has exactly this cross-entropy on it.
    values = text.train.tolist()
    pairs, firsts = Counter(pairwise(values)), Counter(values[:-1])
    table = -sum(n * math.log(n / firsts[a]) for (a, _), n in pairs.items()) / (len(values) - 1)
    assert text.bigram_entropy == pytest.approx(table)


def test_a_sequence_without_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="length=1: expected 2 or more"):
        PreviousToken(length=1)


def test_a_length_beyond_the_text_is_refused() -> None:
    with pytest.raises(ValueError, match="length=1000000: expected 1 to"):
        PythonDocs(length=1_000_000)
