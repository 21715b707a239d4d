import json
from collections import Counter
from itertools import islice

import pytest
import torch

from deepnet_edu.data import BytePairs, Pair, Translations
from deepnet_edu.model import IGNORED, Batch, ModelConfig, build_model

BYTES = BytePairs(languages=["de", "en"])
# Lengths vary, and those of both sides go together as in real pairs; every pair is another.
PAIRS = [(f"q{i} " + "Satz " * (i * 7 % 25), f"z{i} " + "word " * (i * 7 % 25 + i % 3)) for i in range(200)]
NOBODY = torch.Generator()


def translations(**settings: int | bool) -> Translations:
    return Translations(PAIRS, BYTES, **{"max_tokens": 500, "max_length": 200} | settings)  # type: ignore[arg-type]


def epoch(task: Translations) -> list[Batch]:
    return [task.batch(NOBODY) for _ in range(task.batches_per_epoch)]


def read(batch: Batch) -> list[tuple[str, str]]:
    sources, targets = batch.inputs.tolist(), batch.targets.tolist()
    return [(BYTES.decode(source), BYTES.decode(target)) for source, target in zip(sources, targets, strict=True)]


def padding_share(batches: list[Batch]) -> float:
    total = sum(batch.inputs.numel() + batch.targets.numel() for batch in batches)
    answers = sum(int((batch.targets != IGNORED).sum()) for batch in batches)
    return 1 - (sum(int((batch.inputs != BYTES.pad).sum()) for batch in batches) + answers) / total


def test_a_batch_token_by_token() -> None:
    task = Translations([("ab", "c"), ("d", "efg")], BYTES)
    batch = task.batch(NOBODY)
    a, b, c, d, e, f, g = BYTES.encode("abcdefg")
    pad, start, end = BYTES.pad, BYTES.start, BYTES.end
    order = [0, 1] if batch.inputs[0, 0] == a else [1, 0]
    assert batch.padding is not None
    assert batch.target_inputs is not None
    assert batch.target_padding is not None
    assert batch.inputs[order].tolist() == [[a, b, end], [d, end, pad]]
    assert batch.padding[order].tolist() == [[False, False, False], [False, False, True]]
    assert batch.target_inputs[order].tolist() == [[start, c, pad, pad], [start, e, f, g]]
    assert batch.targets[order].tolist() == [[c, end, IGNORED, IGNORED], [e, f, g, end]]
    assert batch.target_padding[order].tolist() == [[False, False, True, True], [False] * 4]


def test_without_padding_there_is_no_mask() -> None:
    batch = Translations([("ab", "c"), ("de", "f")], BYTES).batch(NOBODY)
    assert batch.padding is None
    assert batch.target_padding is None


def test_a_tag_stands_before_the_source() -> None:
    task = Translations([Pair("ab", "c", "de"), Pair("ab", "c", "en"), Pair("ab", "c")], BYTES)
    a, b = BYTES.encode("ab")
    rows = sorted(task.batch(NOBODY).inputs.tolist())
    assert rows == sorted([[BYTES.tag("de"), a, b, 2], [BYTES.tag("en"), a, b, 2], [a, b, 2, BYTES.pad]])
    assert task.source_tokens("ab", "de") == [BYTES.tag("de"), a, b, BYTES.end]
    assert task.source_tokens("ab") == [a, b, BYTES.end]
    with pytest.raises(ValueError, match="Unknown language 'fr'"):
        Translations([Pair("ab", "c", "fr")], BYTES)


@pytest.mark.parametrize("bucketing", [True, False])
def test_every_pair_once_an_epoch_and_no_batch_too_large(bucketing: bool) -> None:
    task = translations(bucketing=bucketing)
    orders = []
    for _ in range(2):
        batches = epoch(task)
        orders.append([pair for batch in batches for pair in read(batch)])
        assert Counter(orders[-1]) == Counter(PAIRS)
        assert all(max(batch.inputs.numel(), batch.targets.numel()) <= 500 for batch in batches)
    assert orders[0] != orders[1]


def test_bucketing_saves_padding() -> None:
    with_buckets, without = epoch(translations()), epoch(translations(bucketing=False))
    assert padding_share(with_buckets) < 0.5 * padding_share(without)
    assert len(with_buckets) < len(without)


def test_the_seed_decides() -> None:
    first, again, other = ([read(batch) for batch in epoch(translations(seed=seed))] for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("bucketing", [True, False])
@pytest.mark.parametrize("before", [0, 3, 40])
def test_resumed_inside_an_epoch_equals_uninterrupted(before: int, bucketing: bool) -> None:
    uninterrupted, killed, resumed = (translations(bucketing=bucketing) for _ in range(3))
    for _ in range(before):
        killed.batch(NOBODY)
    resumed.load_state(json.loads(json.dumps(killed.state())))
    for _ in range(before):
        uninterrupted.batch(NOBODY)
    for _ in range(40):
        ours, theirs = resumed.batch(NOBODY), uninterrupted.batch(NOBODY)
        assert torch.equal(ours.inputs, theirs.inputs)
        assert torch.equal(ours.targets, theirs.targets)


def test_a_place_in_other_data_is_refused() -> None:
    state = translations().state()
    others = [translations(seed=1), translations(max_tokens=400), translations(bucketing=False)]
    for other in [*others, Translations(PAIRS[1:], BYTES, max_tokens=500, max_length=200)]:
        with pytest.raises(ValueError, match="The saved place is of"):
            other.load_state(state)


def test_pairs_that_are_too_long_are_dropped_and_counted() -> None:
    pairs = [("a" * 9, "b"), ("a" * 10, "b"), ("a", "b" * 9), ("a", "b" * 10), Pair("a" * 9, "b", "de")]
    with pytest.warns(UserWarning, match="3 of 5 pairs have more tokens than max_length=10 and were left out"):
        task = Translations(pairs, BYTES, max_length=10)
    assert (len(task), task.dropped) == (2, 3)
    assert Counter(read(task.batch(NOBODY))) == Counter([("a" * 9, "b"), ("a", "b" * 9)])


def test_pairs_may_come_from_a_generator_and_be_empty() -> None:
    task = Translations((pair for pair in [("", ""), ("a", "")]), BYTES)
    batch = task.batch(NOBODY)
    assert Counter(read(batch)) == Counter([("", ""), ("a", "")])
    assert batch.targets.tolist() == [[BYTES.end]] * 2


def test_a_translator_reads_the_batches() -> None:
    config = ModelConfig(
        architecture="encoder_decoder", task="translation", encoder_layers=1, decoder_layers=1,
        d_model=8, n_heads=2, d_ff=16, vocab_size=translations().vocab_size, max_length=200,
    )  # fmt: skip
    model = build_model(config)
    for batch in islice(epoch(translations()), 3):
        model.loss(batch).backward()
        # What is padding changes nothing.
        alone = [
            Batch(
                batch.inputs[i : i + 1, batch.inputs[i] != BYTES.pad],
                batch.targets[i : i + 1, batch.targets[i] != IGNORED],
                target_inputs=batch.target_inputs[i : i + 1, batch.targets[i] != IGNORED],  # type: ignore[index]
            )
            for i in range(len(batch.inputs))
        ]
        answers = torch.tensor([one.targets.numel() for one in alone])
        losses = torch.stack([model.loss(one) for one in alone])
        torch.testing.assert_close(model.loss(batch), (losses * answers).sum() / answers.sum())


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="max_length=600: expected at most max_tokens=500"):
        translations(max_length=600)
    with pytest.raises(ValueError, match="max_length=1: expected a whole number, 2 or more"):
        translations(max_length=1)
    with pytest.raises(ValueError, match="No pair to translate: 0 were longer than max_length=256"):
        Translations([], BYTES)
    with pytest.raises(ValueError, match="No pair to translate: 1 were longer than max_length=5"):
        Translations([("long enough", "a")], BYTES, max_length=5)
    with pytest.raises(ValueError, match=r"seed=1.5: expected a whole number"):
        translations(seed=1.5)  # type: ignore[arg-type]
