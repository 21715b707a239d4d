"""Placeholders of messages, ``%(name)s``, ``{n}``, ``<a href="…">``: what a translation must carry over unchanged."""

import re
from collections import Counter

from deepnet_edu.data.translation import Pair
from deepnet_edu.messages import shown

#: Of Python's % and format, and tags of HTML. "50 % of", "100%" and "x < y" have none.
PLACEHOLDER = re.compile(r"%\(\w+\)[-#0 +]?\d*[sdifgr]|%[sdifr](?!\w)|\{\w*\}|</?[A-Za-z][^<>]*>")
#: A placeholder as a word of the alphabet, which every tokenizer of a score leaves whole.
WORD = "XX"
#: The first letter of Unicode's private use area stands for a message's first placeholder, the next for its second …
_FIRST, _MOST = 0xE000, 64
_MARK = re.compile(f"[{chr(_FIRST)}-{chr(_FIRST + _MOST - 1)}]")


def placeholders(text: str) -> list[str]:
    """The placeholders of a message, in order."""
    return PLACEHOLDER.findall(text)


def one_word(text: str) -> str:
    """The message with each placeholder as one word, ``XX``, so that copying it earns one word and not five."""
    return " ".join(PLACEHOLDER.sub(f" {WORD} ", text).split())


def kept(source: str, output: str) -> bool:
    """Whether an output has the placeholders of its source, each as often, in any order."""
    return Counter(placeholders(source)) == Counter(placeholders(output))


def protect(pair: Pair) -> Pair:
    """The pair with each placeholder as one letter that no language uses, the same on both sides.

    A model then copies one letter instead of spelling ``%(name)s``; :func:`restore` puts the placeholder back.

    Raises:
        ValueError: a text has such letters already, or more than 64 different placeholders.
    """
    marks = _marks(pair.source)

    def marked(text: str) -> str:
        if found := _MARK.search(text):
            raise ValueError(
                f"{shown(text)} has the letter U+{ord(found[0]):04X}, which stands for a placeholder here."
            )
        return PLACEHOLDER.sub(lambda found: marks.get(found[0], found[0]), text)

    return Pair(marked(pair.source), marked(pair.target), pair.language)


def restore(output: str, source: str) -> str:
    """An output of a model that read :func:`protect`'s letters, with the placeholders of its source.

    Letters that stand for no placeholder of this source are left out; :func:`kept` says whether all is there.
    """
    names = {mark: name for name, mark in _marks(source).items()}
    return _MARK.sub(lambda found: names.get(found[0], ""), output)


def _marks(source: str) -> dict[str, str]:
    names = list(dict.fromkeys(placeholders(source)))
    if len(names) > _MOST:
        raise ValueError(f"A message has {len(names)} different placeholders: expected {_MOST} at most.")
    return {name: chr(_FIRST + i) for i, name in enumerate(names)}
