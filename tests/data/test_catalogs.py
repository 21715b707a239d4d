"""Catalogs, whole and broken ones."""

from collections import Counter
from pathlib import Path

import pytest

from deepnet_edu.data import Pair, kept
from deepnet_edu.data.catalogs import BROKEN, DIFFERENT, FUZZY, catalogs, django_pairs, django_root, read_catalog

HEAD = 'msgid ""\nmsgstr ""\n"Plural-Forms: nplurals=3;\\n"\n'
RIGHT = r"""
#: somewhere.py:3
#, python-format
msgid "Delete %(name)s"
msgstr "%(name)s löschen"

msgid ""
"Two\n"
"lines and a \"quote\""
msgstr ""
"Zwei\n"
"Zeilen und ein „Zitat“"

msgctxt "month"
msgid "May"
msgstr "Mai"

msgid "one file"
msgid_plural "{n} files"
msgstr[0] "eine Datei"
msgstr[1] "{n} Datei"
msgstr[2] "{n} Dateien"

msgid "not yet"
msgstr ""

#~ msgid "gone"
#~ msgstr "weg"
"""
FOUND = [
    ("Delete %(name)s", "%(name)s löschen"),
    ('Two lines and a "quote"', "Zwei Zeilen und ein „Zitat“"),
    ("May", "Mai"),
    ("one file", "eine Datei"),
    ("{n} files", "{n} Dateien"),
]
FAULTS = {
    "no closing quote": ('msgid "a"\nmsgstr "b', BROKEN),
    "no opening quote": ('msgid a"\nmsgstr "b"', BROKEN),
    "quote inside": ('msgid "a"\nmsgstr "b "c" d"', BROKEN),
    "no msgstr": ('msgid "a"', BROKEN),
    "no msgid": ('msgstr "a"', BROKEN),
    "unknown keyword": ('msgid "a"\nmsgstrr "b"', BROKEN),
    "text before a keyword": ('"a"\nmsgid "a"\nmsgstr "b"', BROKEN),
    "twice": ('msgid "a"\nmsgstr "b"\nmsgstr "c"', BROKEN),
    "not a line of it": ("<<<<<<< HEAD", BROKEN),
    "doubtful": ('#, fuzzy\nmsgid "a"\nmsgstr "b"', FUZZY),
    "placeholder lost": ('msgid "a %(b)s"\nmsgstr "a"', DIFFERENT),
    "placeholder by another name": ('msgid "a %(b)s"\nmsgstr "a %(c)s"', DIFFERENT),
}


def written(folder: Path, language: str, text: str) -> Path:
    path = folder / "app" / "locale" / language / "LC_MESSAGES" / "django.po"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_catalog(tmp_path: Path) -> None:
    assert read_catalog(written(tmp_path, "de", HEAD + RIGHT)) == (FOUND, Counter())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("first", [True, False])
def test_a_broken_entry_is_skipped_and_counted_and_takes_no_other_with_it(
    tmp_path: Path, fault: str, first: bool
) -> None:
    broken, why = FAULTS[fault]
    parts = [HEAD, broken, RIGHT] if first else [HEAD, RIGHT, broken]
    assert read_catalog(written(tmp_path, "de", "\n\n".join(parts))) == (FOUND, Counter({why: 1}))


def test_broken_entries_are_reported(tmp_path: Path) -> None:
    written(tmp_path, "de", "\n\n".join([HEAD, RIGHT, *(text for text, _ in FAULTS.values())]))
    written(tmp_path, "fr", HEAD + RIGHT)
    (tmp_path / "app/locale/fr/LC_MESSAGES/other.po").write_bytes(b"\xff\xfe broken")
    with pytest.warns(UserWarning, match=r"10 entries of catalogs cannot be read and were left out, the first in app/"):
        pairs, skipped = django_pairs(["de", "fr"], tmp_path)
    assert pairs == [Pair(*one, language) for language in ("de", "fr") for one in FOUND]
    assert skipped == {BROKEN: 10, FUZZY: 1, DIFFERENT: 2}


def test_an_empty_catalog(tmp_path: Path) -> None:
    assert read_catalog(written(tmp_path, "de", "")) == ([], Counter())


def test_django_s_catalogs_can_all_be_read() -> None:
    known = catalogs(django_root())
    assert len(known) > 90
    assert {"de", "ja", "pt_BR", "zh_Hans"} <= {*known}
    assert not [language for language in known if language.startswith("en")]
    pairs, skipped = django_pairs(["de", "ja"])
    assert len(pairs) > 1000
    assert skipped[BROKEN] == 0
    assert all(kept(pair.source, pair.target) for pair in pairs)
    assert Pair("Delete", "Löschen", "de") in pairs
