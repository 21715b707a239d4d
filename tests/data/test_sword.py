"""Texts of SWORD: a module written by the format's description, damaged ones, and Debian's where they are installed."""

import struct
import zlib
from pathlib import Path

import pytest

from deepnet_edu.data import king_james, leaks, normal, verse_pairs
from deepnet_edu.data.parts import shared_passages
from deepnet_edu.data.sword import MODULES, Verse, books, clean, folders, read_module
from deepnet_edu.messages import UserError

CONF = """[{name}]
DataPath=./modules/texts/ztext/{name}/
ModDrv=zText
BlockType=BOOK
Versification=KJV
Encoding=UTF-8
CompressType=ZIP
Lang=xx
"""
BOOKS = 30


def module(folder: Path, language: str, *, verses: int = 4, missing: tuple[int, ...] = ()) -> Path:
    """Two testaments of 15 books: a heading each, then verses; as zverse.cpp reads it."""
    name, _ = MODULES[language]
    (folder / "mods.d").mkdir(parents=True, exist_ok=True)
    (folder / "mods.d" / f"{name}.conf").write_text(CONF.format(name=name))
    place = folder / "modules" / "texts" / "ztext" / name
    place.mkdir(parents=True)
    for number, testament in enumerate(("ot", "nt")):
        data, blocks, places = b"", b"", b""
        for block in range(BOOKS // 2):
            book = number * BOOKS // 2 + block
            texts = ['<div type="book"/><title type="main">A title</title>']
            for verse in range(verses):
                text = f'<w lemma="H1">{language}</w> é word{book} of <note>no</note>{book * 31 + verse}. '
                texts.append("" if book * verses + verse in missing else text)
            whole = b""
            for text in texts:
                places += struct.pack("<IIH", block, len(whole), len(text.encode()))
                whole += text.encode()
            packed = zlib.compress(whole)
            blocks += struct.pack("<III", len(data), len(packed), len(whole))
            data += packed
        for ending, content in (("bzz", data), ("bzs", blocks), ("bzv", places)):
            (place / f"{testament}.{ending}").write_bytes(content)
    return place


@pytest.fixture
def sword(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWORD_PATH", str(tmp_path / "sword"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path / "sword"


def test_a_module(sword: Path) -> None:
    module(sword, "en")
    verses = read_module("en")
    assert len(verses) == BOOKS * 5
    assert verses[:3] == [Verse("ot 0", ""), Verse("ot 0", "en é word0 of 0."), Verse("ot 0", "en é word0 of 1.")]
    assert verses[-1] == Verse("nt 14", "en é word29 of 902.")
    assert books("en")[1] == "\n".join(f"en é word1 of {31 + i}." for i in range(4))


def test_pairs_are_split_by_book(sword: Path) -> None:
    module(sword, "en", missing=(7, 50))
    module(sword, "es", missing=(9,))
    parts = verse_pairs()
    assert sum(len(part) for _, part in parts.items()) == BOOKS * 4 - 3
    for part in (parts.train, parts.validation, parts.test):
        assert part
        for pair in part:
            assert pair.target == pair.source.replace("en", "es")
            assert pair.language == "es"
    found = [{pair.source.split()[2] for pair in part} for _, part in parts.items()]
    assert sum(map(len, found)) == len(set().union(*found)) == BOOKS
    assert leaks(parts, lambda pair: normal(pair.source)) == []


def test_what_is_no_word_of_a_verse() -> None:
    assert clean('<title level="1">Psalm</title><lb/>In <w x="1">the</w>\n <note n="1">or <i>a</i></note>end. ¶') == (
        "In the end."
    )
    assert clean('<title/>Kept <milestone n="note"/>text') == "Kept text"


def test_without_the_packages_it_says_what_to_type(sword: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepnet_edu.data.sword.folders", lambda: [sword])
    with pytest.raises(UserError, match="apt install sword-text-kjv"):
        king_james()
    module(sword, "en")
    with pytest.raises(UserError, match="apt install sword-text-sparv"):
        verse_pairs()


@pytest.mark.parametrize("ending", ["bzz", "bzs", "bzv"])
@pytest.mark.parametrize("how", ["cut", "noise", "gone"])
def test_a_damaged_module(sword: Path, ending: str, how: str) -> None:
    file = module(sword, "en") / f"nt.{ending}"
    content = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2 + 1] if how == "cut" else bytes(255 - b for b in content))
    with pytest.raises(UserError, match=r"engKJV2006eb in .* cannot be read .*: apt reinstall sword-text-kjv"):
        read_module("en")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("BOOK", "CHAPTER", "BlockType is 'CHAPTER', expected 'BOOK'"),
        ("zText", "RawText", "ModDrv is 'RawText'"),
        ("./modules/texts", "../../etc", "leads out of"),
        ("DataPath", "Path", "'DataPath'"),
    ],
)
def test_a_module_of_another_format(sword: Path, old: str, new: str, why: str) -> None:
    module(sword, "en")
    conf = sword / "mods.d" / "engKJV2006eb.conf"
    conf.write_text(conf.read_text().replace(old, new))
    with pytest.raises(UserError, match=why):
        read_module("en")


def test_modules_of_two_versifications(sword: Path) -> None:
    module(sword, "en")
    module(sword, "es", verses=5)
    with pytest.raises(UserError, match="150 places and spaRV1909eb 180: expected two modules of one versification"):
        verse_pairs()


INSTALLED = all(
    any((folder / "mods.d" / f"{name}.conf").is_file() for folder in folders()) for name, _ in MODULES.values()
)


@pytest.mark.skipif(not INSTALLED, reason="needs apt install sword-text-kjv sword-text-sparv")
def test_debian_s_texts() -> None:
    sources, targets = read_module("en"), read_module("es")
    assert sum(bool(one.text and other.text) for one, other in zip(sources, targets, strict=True)) == 31_084
    parts = verse_pairs()
    assert [len(part) for _, part in parts.items()] == [24_833, 3_096, 3_076]
    assert leaks(parts, lambda pair: normal(pair.source)) == []
    assert shared_passages(king_james()) == []
