"""Scores beside sacreBLEU called by hand."""

import json
import random

import pytest
import sacrebleu

from deepnet_edu.data import compare
from deepnet_edu.data.scores import Interval

REFERENCES = ["the cat sat on the mat", "there is a small dog", "open the window now please", "it rains"] * 10
GOOD = ["a cat sat on the mat", "there is a dog", "open the window please", "it rains"] * 10
BAD = ["a cat on a mat", "a dog is there", "window open", "rain"] * 10


def test_scores_are_sacrebleu_s() -> None:
    found = compare({"good": GOOD, "bad": BAD}, REFERENCES)
    for name, outputs in (("good", GOOD), ("bad", BAD)):
        assert found.systems[name]["BLEU"].score == pytest.approx(sacrebleu.corpus_bleu(outputs, [REFERENCES]).score)
        assert found.systems[name]["chrF"].score == pytest.approx(sacrebleu.corpus_chrf(outputs, [REFERENCES]).score)
        for interval in found.systems[name].values():
            assert interval.low < interval.score < interval.high
    assert found.systems["good"]["BLEU"].p is None
    assert found.systems["bad"]["BLEU"].p < 0.01
    assert found.sentences == 40


def test_equal_systems_do_not_differ() -> None:
    found = compare({"a": GOOD, "b": GOOD}, REFERENCES)
    assert found.systems["b"]["BLEU"].p == found.systems["b"]["chrF"].p == 1
    assert found.systems["b"]["BLEU"][:3] == found.systems["a"]["BLEU"][:3]


def test_a_placeholder_is_one_word() -> None:
    sources = ["Delete %(object_name)s of %(user_name)s"] * 8
    targets = ["%(object_name)s von %(user_name)s löschen"] * 8
    copied = compare({"copy": sources}, targets, sources)
    plain = sacrebleu.corpus_bleu(sources, [targets]).score
    as_words = sacrebleu.corpus_bleu(["Delete XX of XX"] * 8, [["XX von XX löschen"] * 8]).score
    assert copied.systems["copy"]["BLEU"].score == pytest.approx(as_words)
    assert plain > 2 * as_words


def test_lost_placeholders_are_counted() -> None:
    sources = ["Delete %(a)s", "Delete {b}", "Delete", "Keep {c}"]
    outputs = ["%(a)s löschen", "löschen", "löschen", "{d} behalten"]
    references = ["%(a)s löschen", "{b} löschen", "löschen", "{c} behalten"]
    found = compare({"us": outputs, "empty": [""] * 4, "right": references}, references, sources)
    assert found.kept == {"us": 1 / 3, "empty": 0.0, "right": 1.0}
    assert found.systems["empty"]["BLEU"].score == found.systems["empty"]["chrF"].score == 0
    assert found.systems["right"]["chrF"].score == pytest.approx(100)
    assert compare({"a": ["x"]}, ["y"]).kept == {"a": None}


def test_what_is_printed_says_how() -> None:
    found = compare({"good": GOOD, "bad": BAD}, REFERENCES, draws=200)
    words = str(found)
    version = sacrebleu.__version__
    assert f"tok:13a|smooth:exp|version:{version}|placeholders:one word" in words
    assert "bs:200|seed:12345" in words
    first, row, *_ = words.splitlines()
    assert first.split() == ["BLEU", "chrF", "placeholders", "kept"]
    assert row.startswith("good")
    assert str(Interval(31.04, 20.0, 41.96, 0.25)) == "31.0 [20.0, 42.0], p = 0.250"
    assert json.loads(json.dumps(found.to_dict()))["systems"]["bad"]["BLEU"]["score"] == pytest.approx(
        found.systems["bad"]["BLEU"].score
    )


def test_letters_for_languages_without_spaces() -> None:
    outputs, references = ["ファイルを削除"], ["ファイルを消去"]
    assert compare({"a": outputs}, references).systems["a"]["BLEU"].score < 5
    assert compare({"a": outputs}, references, tokenize="char").systems["a"]["BLEU"].score > 40


def test_pairing_sees_what_intervals_hide() -> None:
    """Hard sentences are hard for both: a difference that is small beside the intervals is still sure."""
    draw = random.Random(0)
    references, a, b = [], [], []
    for _ in range(150):
        words = [draw.choice("abcdefghijklmnop") * 3 for _ in range(12)]
        hard = draw.random()
        wrong = ["zzz" if draw.random() < hard else word for word in words]
        references.append(" ".join(words))
        a.append(" ".join(wrong))
        b.append(" ".join(["yyy", *wrong[1:]]))
    found = compare({"a": a, "b": b}, references).systems
    assert found["b"]["BLEU"].high > found["a"]["BLEU"].low
    assert found["b"]["BLEU"].p < 0.01


@pytest.mark.parametrize(
    ("systems", "references", "settings", "sentence"),
    [
        ({}, ["a"], {}, "Nothing to score"),
        ({"a": []}, [], {}, "Nothing to score"),
        ({"a": ["b", "c"]}, ["a"], {}, "a: expected a list of 1, one for each reference"),
        ({"a": "b"}, ["b"], {}, "a: expected a list of 1"),
        ({"a": ["b"]}, ["b"], {"sources": ["a", "b"]}, "sources: expected a list of 1"),
        ({"a": ["b"]}, ["b"], {"tokenize": "13b"}, "Unknown tokenize '13b': did you mean '13a'"),
        ({"a": ["b"]}, ["b"], {"draws": 0}, "draws=0 of 1 sentences: expected 1 to"),
        ({"a": ["b"] * 6000}, ["b"] * 6000, {}, "draws=1000 of 6000 sentences: expected 1 to 833"),
    ],
)
def test_bad_input(systems: dict, references: list, settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        compare(systems, references, **settings)
