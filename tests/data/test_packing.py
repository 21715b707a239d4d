import json
import math
from collections import Counter

import pytest
import torch

from deepnet_edu.data import BytePairs, PackedText, PythonDocs, python_documents

DOCUMENTS = [f"Document {i} has the number {i * i}. " * (i % 5 + 1) for i in range(40)]
NOBODY = torch.Generator()


def text(**settings: int) -> PackedText:
    return PackedText(DOCUMENTS, **{"length": 16, "batch_size": 4} | settings)


def windows(packed: PackedText, batches: int) -> list[tuple[int, ...]]:
    found = []
    for _ in range(batches):
        batch = packed.batch(NOBODY)
        found += [(*row.tolist(), last.item()) for row, last in zip(batch.inputs, batch.targets[:, -1], strict=True)]
    return found


def test_documents_follow_each_other_with_an_end_behind_each() -> None:
    packed, tokenizer = text(), BytePairs()
    expected = [token for document in DOCUMENTS for token in [*tokenizer.encode(document), tokenizer.end]]
    assert torch.cat([packed.train, packed.validation]).tolist() == expected
    assert len(packed.validation) / len(expected) == pytest.approx(0.1, abs=0.001)


def test_two_epochs_see_every_window_once_each() -> None:
    packed = text(batch_size=1)
    stream = packed.train.tolist()
    expected = Counter(tuple(stream[i : i + 17]) for i in range(0, len(stream) - 16, 16))
    assert sum(expected.values()) == packed.windows
    first, second = windows(packed, packed.windows), windows(packed, packed.windows)
    assert Counter(first) == Counter(second) == expected
    assert first != second


def test_batches_reach_across_epochs() -> None:
    packed = text(batch_size=7)
    assert packed.windows % 7
    assert windows(packed, packed.windows) == windows(text(batch_size=1), 7 * packed.windows)


def test_every_token_but_the_first_is_an_answer_once_an_epoch() -> None:
    packed = text(batch_size=1)
    answers = Counter(t for _ in range(packed.windows) for t in packed.batch(NOBODY).targets.flatten().tolist())
    assert answers == Counter(packed.train[1 : packed.windows * 16 + 1].tolist())


def test_inputs_are_the_targets_one_step_later() -> None:
    batch = text().batch(NOBODY)
    assert batch.inputs.shape == batch.targets.shape == (4, 16)
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def test_the_seed_decides() -> None:
    assert windows(text(seed=1), 5) == windows(text(seed=1), 5) != windows(text(seed=2), 5)


@pytest.mark.parametrize("before", [0, 3, 40, 200])
def test_resumed_inside_an_epoch_equals_uninterrupted(before: int) -> None:
    uninterrupted, killed, resumed = text(), text(), text()
    windows(killed, before)
    resumed.load_state(json.loads(json.dumps(killed.state())))
    everything = windows(uninterrupted, before + 60)
    assert windows(resumed, 60) == everything[4 * before :]


def test_a_place_in_other_data_is_refused() -> None:
    packed = text()
    windows(packed, 2)
    state = packed.state()
    for other in (text(length=8), text(seed=1), PackedText(DOCUMENTS[:-1], length=16)):
        with pytest.raises(ValueError, match=r"The saved place is of (data|seed) .*resume with the same data"):
            other.load_state(state)
    for change in ({"position": -1}, {"position": 10**6}, {"position": "1"}, {"epoch": -1}, {"epoch": None}):
        with pytest.raises(ValueError, match="expected"):
            packed.load_state(state | change)
    # What was refused has changed nothing.
    assert windows(packed, 3) == windows(text(), 5)[8:]


def test_validation_is_held_out() -> None:
    packed = text()
    held_out = packed.validation.tolist()
    starts = [held_out[i : i + 16] for i in range(len(held_out))]
    batch = packed.validation_batch(torch.Generator().manual_seed(0))
    assert all(row in starts for row in batch.inputs.tolist())
    # It does not move the place in the training part.
    assert windows(packed, 3) == windows(text(), 3)


def test_the_unigram_entropy_comes_from_the_data() -> None:
    packed = text()
    counts = Counter(packed.train.tolist())
    expected = sum(n / len(packed.train) * math.log(len(packed.train) / n) for n in counts.values())
    assert packed.unigram_entropy == packed.chance == pytest.approx(expected)


def test_python_s_documentation_by_bytes_and_by_pairs() -> None:
    documents = python_documents()
    docs = PythonDocs()
    as_bytes = PackedText(documents)
    assert as_bytes.vocab_size == 259
    # The same text but for the end tokens, which are where PythonDocs has two line ends.
    assert as_bytes.unigram_entropy == pytest.approx(docs.unigram_entropy, abs=0.02)
    tokenizer = BytePairs.train(documents[:20], 512)
    packed = PackedText(documents[:20], tokenizer, length=32)
    assert packed.vocab_size == 512
    assert (
        tokenizer.decode(packed.train.tolist()) == "".join(documents[:20])[: -len(tokenizer.decode(packed.validation))]
    )
    assert packed.batch(NOBODY).inputs.max() < 512


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="length=0: expected a whole number, 1 or more"):
        text(length=0)
    with pytest.raises(ValueError, match="length=100000: expected 1 to"):
        text(length=100_000)
    with pytest.raises(ValueError, match="batch_size=0: expected a whole number, 1 or more"):
        text(batch_size=0)
    with pytest.raises(ValueError, match="seed=-1: expected a whole number, 0 or more"):
        text(seed=-1)
    with pytest.raises(ValueError, match="The text has 3 tokens: expected 20 or more"):
        PackedText(["ab"])
    with pytest.raises(ValueError, match="The text has 0 tokens"):
        PackedText([])
    with pytest.raises(ValueError, match="expected a list of strings"):
        PackedText("one string")
