"""Sentences for bad input: what was given, what was expected, what to type."""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

#: Class of the sentence that an explorer shows where it has a fault; ``deepnet-edu run`` looks for it.
FAULT = "deepnet-edu-fault"
#: Letters of a value that a sentence repeats, and of a whole sentence.
MOST_SHOWN, MOST_SAID = 60, 1000


def shown(value: Any) -> str:
    """A value as a sentence repeats it: as Python writes it, cut where it is long."""
    if isinstance(value, int) and value.bit_length() > 3 * MOST_SHOWN:  # Python writes no number of 4,300 digits
        return "a number of very many digits"
    try:
        text = repr(value[: 2 * MOST_SHOWN]) if isinstance(value, str) else " ".join(repr(value).split())
    except (RecursionError, ValueError):
        return f"a {type(value).__name__} that is nested too deeply or has a number of thousands of digits"
    except Exception:  # a class of the user's may fail at this
        text = f"a {type(value).__name__}"
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"


def one_line(text: str) -> str:
    """A sentence that stays one, whatever was given and is repeated in it: short, on one line, without control
    characters."""
    plain = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    plain = re.sub(r"\S{200,}", lambda word: f"{word[0][:MOST_SHOWN]}…", plain)
    return plain if len(plain) <= MOST_SAID else f"{plain[: MOST_SAID // 2]} … {plain[-MOST_SAID // 2 :]}"


def without_long(sentence: str, given: Iterable[str]) -> str:
    """A sentence that repeats what was given, where that is long, by its beginning alone.

    Args:
        sentence: any.
        given: arguments of a command line; of NAME=VALUE the value counts, too.
    """
    for text in given:
        for part in (text, text.partition("=")[2]):
            if len(part) > 2 * MOST_SHOWN:
                for form in (part, os.path.normpath(part), repr(part)[1:-1]):
                    sentence = sentence.replace(form, f"{part[:MOST_SHOWN]}…")
    return sentence


def unknown(kind: str, given: object, valid: Iterable[str]) -> str:
    """The sentence for a name that does not exist.

    Args:
        kind: what the name should have named, for example ``"residual"``.
        given: what the user typed.
        valid: the names that exist.

    Returns:
        One sentence that names the nearest valid name, or all of them when none is near.
    """
    names = list(valid)
    word = given[: 2 * MOST_SHOWN] if isinstance(given, str) else ""
    near = [name for name in names if _folded(name) == _folded(word)] or get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "expected one of " + ", ".join(map(repr, names)) + "."
    return f"Unknown {kind} {shown(given)}: {hint}"


def _folded(name: str) -> str:
    """A name as it is compared: capitals, and the kind of stroke in it, do not count."""
    return name.casefold().replace("-", "_")


class UserError(Exception):
    """Something that the user can fix. The message is the sentence to show, on one line and without a stack trace."""

    def __str__(self) -> str:
        return one_line(super().__str__())
