"""Parts that share nothing, and that a leak planted between them is found."""

import random

import pytest
import torch

from deepnet_edu.data import BytePairs, PackedText, Pair, Parts, leaks, normal, python_topics, split, split_documents
from deepnet_edu.data.parts import RUN, shared_passages, without_leaks
from deepnet_edu.model import ModelConfig, build_model
from deepnet_edu.training import TrainConfig, train

SOURCES = [f"Please enter {n} valid values for field {n * 7}." for n in range(2000)]
PAIRS = [Pair(source, f"{language} {i}", language) for i, source in enumerate(SOURCES) for language in ("de", "fr")]


def key(pair: Pair) -> str:
    return normal(pair.source)


@pytest.mark.parametrize(
    "variant",
    [
        "enter a valid e-mail address", "ENTER A VALID E-MAIL ADDRESS!", "Enter a valid email address.",
        "Enter  a valid\n“e‑mail” address…", "Énter à valid e-mail address", "Enter a valid e-mail addresses",
    ],
)  # fmt: skip
def test_variants_of_a_source_are_one_source(variant: str) -> None:
    assert normal(variant) == normal("Enter a valid e-mail address.")


def test_placeholders_by_other_names_are_one_source() -> None:
    assert normal("%(count)d of %(total)s items") == normal("{n} of {all} item")
    assert normal("Delete %(name)s") != normal("Delete name")


def test_other_sources_are_others() -> None:
    texts = ["Yes", "No", "May 5, 2024", "May 6, 2024", "%", "‰", "", "5 km", "6 km", "日本", "中国"]
    assert len({normal(text) for text in texts}) == len(texts)


def test_no_source_is_in_two_parts() -> None:
    parts = split(PAIRS, key)
    assert leaks(parts, key) == []
    assert sum(len(part) for _, part in parts.items()) == len(PAIRS)
    # Four standard deviations of a binomial of 2,000 sources.
    for part in (parts.validation, parts.test):
        assert abs(len({pair.source for pair in part}) - 200) < 4 * (2000 * 0.1 * 0.9) ** 0.5


def test_the_part_depends_on_the_source_alone() -> None:
    shuffled = random.Random(0).sample(PAIRS, len(PAIRS))
    more = [Pair(f"Another {n}", "x", "de") for n in range(500)]
    before, after = split(PAIRS, key), split(more + shuffled, key)
    for (_, old), (_, new) in zip(before.items(), after.items(), strict=True):
        assert {*old} <= {*new}


@pytest.mark.parametrize(
    "change", [str.upper, lambda text: text.replace(".", " !"), lambda text: text.lower().replace("values", "value")]
)
def test_a_planted_leak_is_found(change) -> None:
    parts = split(PAIRS, key)
    stolen = parts.test[5]
    parts.train.append(Pair(change(stolen.source), "gestohlen", "de"))
    assert leaks(parts, key) == [key(stolen)]
    clean = without_leaks(parts, key)
    assert leaks(clean, key) == []
    assert len(clean.train) == len(parts.train) - 1
    assert len(clean.test) == len(parts.test) - 2  # in both languages


def test_a_split_by_pair_leaks() -> None:
    parts = split(PAIRS, lambda pair: pair.target)
    assert len(leaks(parts, key)) > 300


# --- documents


def words(seed: int, count: int = 200) -> str:
    draw = random.Random(seed)
    return " ".join(f"w{draw.randrange(10**6)}" for _ in range(count))


def test_documents_that_quote_each_other_stay_together() -> None:
    documents = [words(seed) for seed in range(60)]
    passage = " ".join(words(7).split()[20 : 20 + RUN])
    documents[40] += "\n\n" + passage.replace(" ", "\n  ")
    documents[13] += " " + " ".join(words(40).split()[:RUN])  # 13 with 40, and so with 7
    parts = split_documents(documents)
    assert shared_passages(parts) == []
    (together,) = [part for _, part in parts.items() if documents[7] in part]
    assert documents[40] in together
    assert documents[13] in together
    assert sorted(len(part) for _, part in parts.items()) == [6, 6, 48]


def test_a_planted_passage_is_found() -> None:
    parts = split_documents([words(seed) for seed in range(60)])
    passage = " ".join(parts.test[0].split()[50 : 50 + RUN])
    parts.train[3] += f" before {passage} after"
    assert shared_passages(parts) == [passage]
    parts.train[3] = parts.train[3].replace(passage.split()[4], "x")
    assert shared_passages(parts) == []


def test_a_document_shorter_than_a_passage() -> None:
    assert shared_passages(Parts(["a b"], ["b a"], ["", "a"])) == []
    assert shared_passages(Parts(["a  b"], ["a b"], [])) == ["a b"]
    assert split_documents(["", "a"]).train


def test_pythons_documentation_is_split_by_topic() -> None:
    parts = python_topics()
    assert shared_passages(parts) == []
    total = sum(len(document) for _, part in parts.items() for document in part)
    for part in (parts.validation, parts.test):
        assert len(part) > 5
        assert sum(map(len, part)) == pytest.approx(total / 10, rel=0.1)


def test_the_parts_are_read_as_they_are() -> None:
    parts = python_topics()
    text = PackedText(parts.train, validation=parts.validation)
    for found, part in ((text.train, parts.train), (text.validation, parts.validation)):
        assert len(found) == sum(len(document.encode()) + 1 for document in part)
        assert text.tokenizer.decode(found.tolist()) == "".join(part)


def test_a_language_model_trains_on_bytes_and_on_byte_pairs() -> None:
    parts = python_topics()
    for tokenizer in (None, BytePairs.train(parts.train, 400)):
        text = PackedText(parts.train, tokenizer, validation=parts.validation, length=16, batch_size=2)
        config = ModelConfig("decoder", "lm", 2, d_model=16, n_heads=2, d_ff=32, vocab_size=text.vocab_size)
        history = train(build_model(config), text, TrainConfig(steps=2), progress=False)
        assert all(0 < loss < 10 for loss in history.loss)
        assert text.validation_batch(torch.Generator()).inputs.shape == (2, 16)


def test_documents_to_hold_out_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="validation: expected a list of strings"):
        PackedText(["a" * 100], validation="text")
    with pytest.raises(ValueError, match="two tokens or more"):
        PackedText(["a" * 100], validation=[])
    with pytest.raises(ValueError, match="length=64: expected 1 to 10 tokens, what the held-out part has"):
        PackedText(["a" * 100], validation=["b" * 10])
    with pytest.raises(ValueError, match="length=64: expected 1 to 10 tokens, what the documents have"):
        PackedText(["a" * 10], validation=["b" * 100])
