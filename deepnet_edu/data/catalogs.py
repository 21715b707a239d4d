"""Django's message catalogs, sentences of a program in 96 languages, read from where Django is installed."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from deepnet_edu.data.left_out import leave_out
from deepnet_edu.data.placeholders import kept
from deepnet_edu.data.translation import Pair
from deepnet_edu.files import read_text
from deepnet_edu.messages import UserError

#: Why an entry is skipped.
BROKEN, FUZZY, DIFFERENT = "cannot be read", "marked as doubtful", "placeholders differ"
_LINE = re.compile(r'(?:(msgctxt|msgid|msgid_plural|msgstr(?:\[\d\])?) )?[ \t]*("(?:[^"\\]|\\.)*")')


def read_catalog(path: Path) -> tuple[list[tuple[str, str]], Counter[str]]:
    """Messages of a .po file with their translations, and how many entries were skipped for which reason.

    Of a message with a plural the first form is the singular's and the last the plural's. Spaces and line ends are one
    space each. What has no translation yet is left out.

    An entry is parsed by itself, so that a broken one takes no other with it; Babel's reader, which we would use
    otherwise, prints a warning and keeps what it could make of it.

    Raises:
        OSError: the file cannot be read.
    """
    skipped: Counter[str] = Counter()
    found: list[tuple[str, str]] = []
    try:
        text = read_text(path)
    except ValueError:  # not UTF-8
        return found, Counter({BROKEN: 1})
    for block in re.split(r"\n\s*\n", text):
        lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
        entry = _entry(lines)
        if not lines or (entry and not entry.get("msgid")):  # comments alone, or the head
            continue
        if entry is None:
            skipped[BROKEN] += 1
            continue
        messages = [(source, target) for source, target in _messages(entry) if source and target]
        if re.search(r"^#,.*\bfuzzy\b", block, re.MULTILINE):
            skipped[FUZZY] += len(messages)
            continue
        right = [message for message in messages if kept(*message)]
        skipped[DIFFERENT] += len(messages) - len(right)
        found += right
    return found, +skipped


def _entry(lines: Sequence[str]) -> dict[str, str] | None:
    """An entry's texts by keyword; None where a line is not of the format, or a keyword is missing or occurs twice."""
    from babel.messages.pofile import unescape

    entry: dict[str, str] = {}
    keyword = ""
    for line in lines:
        match = _LINE.fullmatch(line.rstrip())
        if match is None or match[1] in entry or not (match[1] or keyword):
            return None
        keyword = match[1] or keyword
        entry[keyword] = entry.get(keyword, "") + (unescape(match[2]) if "\\" in match[2] else match[2][1:-1])
    if "msgid" not in entry or not any(name.startswith("msgstr") for name in entry):
        return None
    return {name: " ".join(text.split()) for name, text in entry.items()}


def _messages(entry: dict[str, str]) -> Iterator[tuple[str, str]]:
    if "msgid_plural" not in entry:
        yield entry["msgid"], entry.get("msgstr", "")
        return
    forms = [text for name, text in sorted(entry.items()) if name.startswith("msgstr")]
    if len(forms) > 1:
        yield entry["msgid"], forms[0]
    yield entry["msgid_plural"], forms[-1]


def django_root() -> Path:
    """The folder of Django, which is not imported.

    Raises:
        UserError: it is not installed.
    """
    found = find_spec("django")
    if found is None or not found.submodule_search_locations:
        raise UserError("Django, whose catalogs are read, is not installed: python -m pip install django")
    return Path(next(iter(found.submodule_search_locations)))


def catalogs(root: Path) -> dict[str, list[Path]]:
    """Catalogs under a folder by language, ``"pt_BR"`` for example; not those of English, which copy the source."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("LC_MESSAGES/*.po")):
        found.setdefault(path.parts[-3], []).append(path)
    return {language: paths for language, paths in sorted(found.items()) if language.split("_")[0] != "en"}


def django_pairs(languages: Sequence[str], root: Path | None = None) -> tuple[list[Pair], Counter[str]]:
    """Messages with the translations into some languages, and how many were skipped for which reason.

    Args:
        languages: names of folders, as :func:`catalogs` has them.
        root: a folder with catalogs; None for Django's.

    Raises:
        UserError: Django is not installed.
    """
    root = django_root() if root is None else root
    known, skipped, broken = catalogs(root), Counter[str](), []
    pairs: list[Pair] = []
    for language in languages:
        for path in known.get(language, []):
            messages, here = read_catalog(path)
            pairs += [Pair(source, target, language) for source, target in messages]
            skipped += here
            broken += [str(path.relative_to(root))] * here[BROKEN]
    if broken:
        leave_out(f"{len(broken)} entries of catalogs cannot be read and were left out, the first in {broken[0]}.")
    return pairs, skipped
