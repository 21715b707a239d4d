"""Links from lessons to the words of docs/glossary.md, each to the anchor in front of its word.

A lesson writes ``[stream](glossary.md)`` where the text of the link is the word, and names the anchor where it is not:
``[part of it](glossary.md#input-share)``. An anchor is ``<a id="…"></a>``, which GitHub and JupyterLab's Markdown
preview both keep.
"""

import re

from deepnet_edu.messages import UserError, unknown

PAGE = "glossary.md"
_LINK = re.compile(rf"\[([^][]+)\]\({re.escape(PAGE)}(?:#([^)]*))?\)")


def slug(word: str) -> str:
    """The anchor of a word: ``"Input share"`` has ``"input-share"``."""
    return re.sub(r"\W+", "-", word.lower().replace("'", "")).strip("-")


def anchors(page: str) -> list[str]:
    """The anchors of the glossary, in its order.

    Args:
        page: its text.
    """
    return re.findall(r'<a id="([^"]+)"></a>', page)


def linked(source: str, known: list[str], where: str) -> str:
    """A Markdown cell in which each link to the glossary leads to its word.

    Args:
        source: the cell's text.
        known: the glossary's anchors.
        where: the lesson's name, for the message.

    Raises:
        UserError: a link's text is not a word of the glossary and it names no anchor, or names one that is missing.
    """

    def one(link: re.Match[str]) -> str:
        text, anchor = link.groups()
        word = slug(text.removesuffix("'s"))
        if anchor is None and word == "glossary":  # the whole page
            return link[0]
        if (found := anchor if anchor is not None else word) not in known:
            remedy = f"write [{text}]({PAGE}#anchor), or add the word to docs/{PAGE}."
            raise UserError(f"{where}, {link[0]}: {unknown('word of the glossary', found, known)} Otherwise {remedy}")
        return f"[{text}]({PAGE}#{found})"

    return _LINK.sub(one, source)
