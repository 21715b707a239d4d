"""Explorers without a kernel: each as one page, all answers to its dials inside, which asks for nothing from anywhere.

The page is the live one, its script and its style sheet; instead of asking Python, a script of a hundred lines looks up
what Python has answered beforehand, for the positions of :mod:`~deepnet_edu.explorers.positions`.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from deepnet_edu import __version__
from deepnet_edu.explorers import EXPLORERS, NAMES, grid
from deepnet_edu.explorers.base import SCRIPT, STYLE, Explorer
from deepnet_edu.explorers.dials import Choice, Dial
from deepnet_edu.explorers.packing import pack
from deepnet_edu.explorers.positions import LEFT_OUT, RecordedGame, Sheet, about, recorded, sheets
from deepnet_edu.files import write_atomic
from deepnet_edu.messages import UserError

_HERE = resources.files(__package__)
#: Texts of an answer, by name; the alternative text is put together of them.
TEXTS = ("title", "said", "note", "moved", "extra", "code", "state", "dials")
#: Inches of the pictures: wide enough for a laptop, and letters can be read.
_ROOMS = {"race": (5.8, 3.5), "signal": (8.0, 4.9), "game": (7.6, 3.9)}
_ROOM = (8.0, 4.2)


def room(name: str) -> tuple[float, float]:
    """Width and height in inches of an explorer's pictures."""
    return _ROOMS.get(name, _ROOM)


@dataclass
class Answers:
    """What an explorer answers, at all positions of a page.

    Attributes:
        explorer: which was asked.
        dials: those that the page has.
        texts: by name of ``TEXTS``, of each answer.
        pictures: SVG of each.
        roots: a tree for each state of the explorer besides its dials: a node is the number of a dial among all, and a
            branch for each of its stops, None where there is nothing; a leaf is the number of an answer. Dials that
            follow from others have no node.
        presses: by name of a button, the state that follows on each answer.
        presets: the answer of each.
    """

    explorer: Explorer
    dials: list[str]
    texts: dict[str, list[str]]
    pictures: list[str]
    roots: list[Any]
    presses: dict[str, list[int]]
    presets: list[int]

    def at(self, root: int = 0) -> int:
        """The answer for what the dials of the explorer say now.

        Raises:
            LookupError: the page has none.
        """
        node = self.roots[root]
        names = list(self.explorer.dials)
        while isinstance(node, list):
            dial = self.explorer.dials[names[node[0]]]
            node = node[1][_values(dial).index(dial.value)]
        if node is None:
            raise LookupError(f"{self.explorer.name}: the page has nothing for {self.explorer.state}")
        return int(node)


def answers(name: str, own: Sequence[Sheet] | None = None) -> Answers:
    """Ask an explorer all that its page can be asked.

    Args:
        name: of ``EXPLORERS``.
        own: positions of its dials; by default those of :func:`~deepnet_edu.explorers.positions.sheets`.
    """
    explorer = recorded(name)
    explorer.figure.fit(*room(name))
    own = sheets(name) if own is None else own
    dials = []
    for dial, one in explorer.dials.items():
        wanted = {value for sheet in own for value in sheet.get(dial, ())} or {one.value}
        if len(wanted) > 1:
            dials.append(dial)
        if isinstance(one, Choice):
            one.options = [option for option in one.options if option[1] in wanted]
        else:
            one.stops = sorted(int(value) if one.whole else float(value) for value in wanted)
    found = Answers(explorer, dials, {name: [] for name in TEXTS}, [], [], {}, [])
    if isinstance(explorer, RecordedGame):
        _ask_game(found, own)
    else:
        found.roots.append(_ask(found, own, 0))
    for preset in explorer.presets.values():
        explorer._set(explorer._begin)
        explorer._take(preset)
        found.presets.append(found.at())
    explorer._set(explorer._opening)
    explorer.follow()
    return found


def _values(dial: Dial | Choice) -> list[Any]:
    return [value for _, value in dial.options] if isinstance(dial, Choice) else dial.stops


def _ask(found: Answers, left: Sequence[Sheet], number: int) -> Any:
    """The tree below: from dial ``number`` on, for what those before it say."""
    explorer = found.explorer
    names = list(explorer.dials)
    if number == len(names):
        return _note(found)
    name = names[number]
    explorer.follow()
    dial, begin = explorer.dials[name], explorer._begin[name]
    if dial.disabled:
        dial.value = begin  # which follows from others, or says nothing
    if dial.disabled or name not in found.dials:
        return _ask(found, left, number + 1)
    branches = []
    for value in _values(dial):
        here = [sheet for sheet in left if value in sheet.get(name, [begin])]
        dial.value = value
        branches.append(_ask(found, here, number + 1) if here else None)
    return [number, branches]


def _note(found: Answers) -> int:
    """Keep what the explorer shows now."""
    explorer = found.explorer
    explorer.follow()
    explorer.draw()
    shown = explorer.shown
    before, after = f"{shown['title'].rstrip('.')}. ", f" {shown['said']} {shown['note']}"
    assert shown["alt"].startswith(before)
    assert shown["alt"].endswith(after)
    texts = {
        **{name: shown[name] for name in ("title", "said", "note", "extra", "code")},
        "moved": shown["alt"][len(before) : -len(after)],
        "state": json.dumps({name: str(value) for name, value in shown["state"].items()}, ensure_ascii=False),
        "dials": json.dumps([list(now.values()) for now in shown["dials"].values()], ensure_ascii=False),
    }
    for name, text in texts.items():
        found.texts[name].append(text)
    found.pictures.append(shown["svg"])
    return len(found.pictures) - 1


def _ask_game(found: Answers, own: Sequence[Sheet]) -> None:
    """The game: a tree for its beginning and one after each round that there can be."""
    game = found.explorer
    assert isinstance(game, RecordedGame)
    found.roots.append(_ask(found, own, 0))
    rounds = list(game.rounds_of())
    depth_of = [game.ladder[0]]
    for depth, alpha in rounds:
        game.after(depth, alpha)
        depth_of.append(game.depth)
        found.roots.append(_ask(found, own, 0))
    after = {one: i + 1 for i, one in enumerate(rounds)}
    alphas = game.alpha.stops
    following = [[after[depth, alpha] for alpha in alphas] for depth in depth_of]
    found.presses["play"] = [state for row in following for state in row]
    found.presses["again"] = [0] * len(found.pictures)
    game.restart()


# --- the page


def packed(found: Answers) -> bytes:
    """All that the page of an explorer has to know."""
    explorer = found.explorer
    opening = found.at()
    explorer.draw()
    fixed = {
        **explorer.fixed,
        "dials": [{"name": name, **explorer.dials[name].fixed()} for name in found.dials],
    }
    more = {
        "fixed": fixed,
        "names": list(explorer.dials),
        "stops": [[str(value) for value in _values(dial)] for dial in explorer.dials.values()],
        "backdrop": explorer.backdrop,
        "panels": explorer.panels,
        "roots": found.roots,
        "presses": found.presses,
        "presets": found.presets,
        "opening": opening,
    }
    return pack(found.texts, found.pictures, more)


def page(name: str, beside: Sequence[str] = NAMES, home: str = "") -> str:
    """One explorer as HTML.

    Args:
        name: of ``EXPLORERS``.
        beside: explorers whose pages are in the same folder.
        home: address of the book's first page from there, empty for none.
    """
    found = answers(name)
    kind = type(found.explorer)
    links = []
    for one in beside:
        here = ' aria-current="page"' if one == name else ""
        links.append(f'<a href="{one}.html"{here}>{escape(EXPLORERS[one].title)}</a>')
    template = Template(_HERE.joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        title=escape(kind.title),
        about=escape(about(name)),
        links="\n".join(f"<li>{link}</li>" for link in links),
        name=name,
        book=f'<p class="book"><a href="{home}">A thousand layers deep</a></p>' if home else "",
        left_out=escape(LEFT_OUT.get(name, "")),
        count=f"{len(found.pictures):,}",
        version=escape(__version__),
        recorded=escape(grid.load().date),
        style=STYLE,
        front=SCRIPT.replace("export default { render };", ""),
        script=_HERE.joinpath("page.js").read_text("utf-8"),
        answers=base64.b64encode(packed(found)).decode(),
    )


def write_pages(folder: Path, names: Sequence[str] = NAMES, home: str = "") -> list[Path]:
    """Write the pages of explorers, a file each.

    Args:
        folder: made if it is not there.
        names: of ``EXPLORERS``.
        home: address of the book's first page from there, empty for none.

    Returns:
        The files.

    Raises:
        UserError: the folder is a file, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Pages cannot be written into {folder}: {error.strerror}. Give another folder.") from error
    paths = [folder / f"{name}.html" for name in names]
    for name, path in zip(names, paths, strict=True):
        write_atomic(path, page(name, names, home))
    return paths
