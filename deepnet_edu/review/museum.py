"""The bug museum: a room for each way in which a model departs from DeepNorm, and which room a finding belongs to.

Lesson 09 builds most of these bugs. The rooms are in museum.toml, of which ``python -m tests.review.museum`` makes
docs/museum.md.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deepnet_edu.files import parse_toml

#: Where a room is read. A book with a public address has a page for each: "https://…/museum/{slug}.html".
PAGE = "docs/museum.md#{slug}"

#: The room of a finding of which no more is known than its row.
ROOM_OF_ROW = {
    "α on the skip": "alpha-of-another-depth",
    "norm outside": "another-design",
    "independent layers": "copies",
    "gain of value, output and FFN": "another-gain",
    "gain of query and key": "another-gain",
    "gain of the norms": "gain-of-the-norms",
    "gradient through F": "detached-branch",
    "signal at depth": "signal-at-depth",
}


@dataclass(frozen=True)
class Room:
    """A bug.

    Attributes:
        title: its name.
        text: what the code does, and what becomes of the model.
        repair: what to do.
        published: where it was found, at which commit or release; empty where it is only possible.
    """

    title: str
    text: str
    repair: str
    published: str = ""


def link(slug: str) -> str:
    """Where the room of this slug is read."""
    return PAGE.format(slug=slug)


@cache
def rooms() -> dict[str, Room]:
    """All rooms, by slug."""
    found = parse_toml(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {slug: Room(**{name: " ".join(text.split()) for name, text in room.items()}) for slug, room in found.items()}
