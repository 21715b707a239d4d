"""Public-domain texts that Debian packages for SWORD, read verse by verse; nothing is fetched.

The zText format, as SWORD's ``zverse.cpp`` and ``rawverse`` indices have it: for each testament three files. ``.bzz``
holds compressed blocks; ``.bzs`` has 12 bytes a block, where it begins, its length and its length when decompressed;
``.bzv`` has 10 bytes a verse, its block, where it begins there, and its length. All are little-endian. Two modules of
one versification have the same verses at the same places, headings of books and chapters among them.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deepnet_edu.data.parts import Parts, balanced, normal, without_leaks
from deepnet_edu.data.translation import Pair
from deepnet_edu.files import read_bytes, read_text
from deepnet_edu.messages import UserError

#: By language, the module and the Debian package that has it.
MODULES = {"en": ("engKJV2006eb", "sword-text-kjv"), "es": ("spaRV1909eb", "sword-text-sparv")}
_BLOCK, _VERSE = struct.Struct("<III"), struct.Struct("<IIH")
#: Titles and notes are not of the verse.
_BESIDE = re.compile(r"<(note|title)\b[^>]*(?<!/)>.*?</\1>", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_NEEDED = {"ModDrv": "zText", "BlockType": "BOOK", "Versification": "KJV", "Encoding": "UTF-8", "CompressType": "ZIP"}


class Verse(NamedTuple):
    """A verse, or a heading, whose text is empty.

    Attributes:
        book: of the testament and the block that it is in, for example ``"ot 1"`` for Genesis.
        text: without markup.
    """

    book: str
    text: str


def folders() -> list[Path]:
    """Where modules may be, as SWORD looks for them."""
    given = [Path(os.environ["SWORD_PATH"])] if os.environ.get("SWORD_PATH") else []
    return [*given, Path.home() / ".sword", Path("/usr/share/sword")]


def read_module(language: str) -> list[Verse]:
    """All verses of a language's module, in the order of the versification, headings as empty ones.

    Raises:
        UserError: it is not installed, or is damaged, or of another format; the sentence says what to type.
    """
    name, package = MODULES[language]
    for folder in folders():
        if (path := folder / "mods.d" / f"{name}.conf").is_file():
            break
    else:
        raise UserError(f"The text {name} is not installed: on Debian and Ubuntu, apt install {package}.")
    try:
        settings = dict(re.findall(r"^(\w+)=(.*)$", read_text(path), re.MULTILINE))
        for key, wanted in _NEEDED.items():
            if settings.get(key) != wanted:
                raise ValueError(f"{key} is {settings.get(key)!r}, expected {wanted!r}")
        base = (folder / settings["DataPath"]).resolve()
        if not base.is_relative_to(folder.resolve()):
            raise ValueError(f"DataPath {settings['DataPath']!r} leads out of {folder}")
        return [verse for testament in ("ot", "nt") for verse in _read(base, testament)]
    except (OSError, ValueError, KeyError, IndexError, struct.error, zlib.error) as error:
        raise UserError(f"The text {name} in {folder} cannot be read ({error}): apt reinstall {package}.") from None


def _read(base: Path, testament: str) -> Iterator[Verse]:
    data, blocks, verses = (read_bytes(base / f"{testament}.{ending}") for ending in ("bzz", "bzs", "bzv"))
    texts = [
        zlib.decompress(data[begin : begin + length]) if length else b""
        for begin, length, _ in _BLOCK.iter_unpack(blocks)
    ]
    for block, begin, length in _VERSE.iter_unpack(verses):
        text = texts[block][begin : begin + length].decode()
        yield Verse(f"{testament} {block}", clean(text))


def clean(markup: str) -> str:
    """The words of a verse in OSIS markup, without titles, notes and paragraph signs."""
    return " ".join(_TAG.sub("", _BESIDE.sub("", markup)).replace("¶", "").split())


def books(language: str = "en") -> list[str]:
    """The text of each book, a line a verse.

    Raises:
        UserError: as :func:`read_module`.
    """
    found: dict[str, list[str]] = {}
    for verse in read_module(language):
        if verse.text:
            found.setdefault(verse.book, []).append(verse.text)
    return ["\n".join(verses) for verses in found.values()]


def verse_pairs(source: str = "en", target: str = "es") -> Parts[Pair]:
    """Verses and their translations, split by book, since verses of one book quote each other.

    Verses that one of the two lacks are left out, and those whose source another part has, too.

    Raises:
        UserError: as :func:`read_module`; or the two do not have the same verses.
    """
    sources, targets = read_module(source), read_module(target)
    if len(sources) != len(targets):
        raise UserError(
            f"{MODULES[source][0]} has {len(sources)} places and {MODULES[target][0]} {len(targets)}: "
            "expected two modules of one versification."
        )
    both = [
        (one.book, Pair(one.text, other.text, target))
        for one, other in zip(sources, targets, strict=True)
        if one.text and other.text
    ]
    groups: dict[str, list[int]] = {}
    for i, (book, _) in enumerate(both):
        groups.setdefault(book, []).append(i)
    parts = balanced(list(groups.values()), [1] * len(both)).map(lambda i: both[i][1])
    return without_leaks(parts, lambda pair: normal(pair.source))
