"""Many answers of one explorer in little room: what repeats is written once, numbers are differences, then gzip.

Answers differ in numbers alone, for the most part. So each text is a form, the text with gaps, and the numbers that
fill them. A picture is first cut into its pieces, and a piece that many pictures share is kept once; coordinates are
tenths of a point, and a curve is kept as its steps, less those of the curve before it, which are small. ``page.js``
reads what :func:`pack` writes, and so does :func:`unpack`.
"""

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
#: Where a number of a form goes.
GAP = "\x00"
#: Coordinates are kept in this many parts of a point.
PARTS = 10
_NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e[+-]?\d+)?")
_COORDINATE = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_PLACED = re.compile(r' (?:d|x|y)="[^"]*"')
_SHARED = re.compile(r"(<defs>.*?</defs>)", re.DOTALL)
_PIECE = re.compile(r"(?=\n <g |<text |</svg>)")


def pack(texts: Mapping[str, Sequence[str]], pictures: Sequence[str], more: Mapping[str, Any]) -> bytes:
    """All answers as one block.

    Args:
        texts: by name, a text of each answer.
        pictures: SVG of each answer.
        more: plain JSON values that go along.
    """
    pieces = [_PIECE.split(_without_names(picture)) for picture in pictures]
    numbered = {piece: i for i, piece in enumerate(dict.fromkeys(piece for one in pieces for piece in one))}
    forms: dict[str, list[tuple[int, list[int]]]] = {}
    for piece, number in numbered.items():
        form, values = _taken_apart(piece)
        forms.setdefault(form, []).append((number, values))
    integers = [_steps(np.array([values for _, values in own], dtype=np.int64)).ravel() for own in forms.values()]
    integers.append(np.array(list(_listed([[numbered[piece] for piece in one] for one in pieces])), dtype=np.int64))
    head = {
        **more,
        "answers": len(pictures),
        "texts": {name: _columns(own) for name, own in texts.items()},
        "forms": [[form, [number for number, _ in own]] for form, own in forms.items()],
    }
    said = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    block = len(said).to_bytes(4, "little") + said + _bytes(np.concatenate(integers))
    return gzip.compress(block, 9, mtime=0)


def unpack(packed: bytes) -> tuple[dict[str, list[str]], list[str], dict[str, Any]]:
    """What :func:`pack` was given; pictures without names of groups, and with coordinates in tenths of a point."""
    block = gzip.decompress(packed)
    size = int.from_bytes(block[:4], "little")
    head = json.loads(block[4 : 4 + size])
    integers = _integers(block[4 + size :])
    texts = {name: _filled(*own) for name, own in head.pop("texts").items()}
    pieces = {}
    for form, numbers in head.pop("forms"):
        between = form.split(GAP)
        rows = _summed(np.array([[next(integers) for _ in between[1:]] for _ in numbers], dtype=np.int64))
        for number, row in zip(numbers, rows, strict=True):
            pieces[number] = _joined(between, [_decimal(value) for value in row])
    pictures = []
    last: list[int] = []
    for _ in range(head.pop("answers")):
        last = [next(integers) + (last[i] if i < len(last) else 0) for i in range(next(integers))]
        pictures.append("".join(pieces[number] for number in last))
    return texts, pictures, head


def plain(picture: str) -> str:
    """A picture as it comes out of the block: without names of groups, coordinates in tenths of a point."""
    parts = []
    for piece in _PIECE.split(_without_names(picture)):
        form, values = _taken_apart(piece)
        parts.append(_joined(form.split(GAP), [_decimal(value) for value in values]))
    return "".join(parts)


# --- pictures


def _without_names(picture: str) -> str:
    return re.sub(r' id="\w+_\d+"', "", picture)


def _taken_apart(piece: str) -> tuple[str, list[int]]:
    """The form of a piece, and its coordinates; shapes of markers stay in the form."""
    values: list[int] = []

    def taken(found: re.Match[str]) -> str:
        values.append(round(PARTS * float(found[0])))
        return GAP

    def placed(found: re.Match[str]) -> str:
        return " " + _COORDINATE.sub(taken, " ".join(found[0].split()))

    parts = _SHARED.split(piece)
    parts[::2] = [_PLACED.sub(placed, part) for part in parts[::2]]
    return "".join(parts), values


def _decimal(value: int) -> str:
    return f"{value / PARTS:g}" if abs(value) < 1e5 else f"{value / PARTS:.1f}"


def _steps(rows: Integers) -> Integers:
    """Rows of x, y, x, y, … as steps from point to point, and each row as its difference from the one before."""
    rows = rows.copy()
    rows[:, 2:] -= rows[:, :-2].copy()
    return np.diff(rows, axis=0, prepend=0)


def _summed(rows: Integers) -> Integers:
    """From steps back to coordinates."""
    rows = np.cumsum(rows, axis=0)
    for first in (0, 1):
        rows[:, first::2] = np.cumsum(rows[:, first::2], axis=1)
    return rows


def _listed(pieces: Sequence[Sequence[int]]) -> Iterator[int]:
    """How many pieces each picture has, and their numbers less those at the same place of the picture before."""
    last: Sequence[int] = []
    for one in pieces:
        yield len(one)
        yield from (number - (last[i] if i < len(last) else 0) for i, number in enumerate(one))
        last = one


# --- texts


def _columns(texts: Sequence[str]) -> tuple[list[str], list[int], list[list[str]]]:
    """The forms of texts, which form each has, and for each gap of each form its numbers, apart by spaces."""
    forms: dict[str, list[list[str]]] = {}
    which = []
    places: dict[str, int] = {}
    for text in texts:
        form = _NUMBER.sub(GAP, text)
        which.append(places.setdefault(form, len(places)))
        forms.setdefault(form, []).append(_NUMBER.findall(text))
    columns = [[" ".join(column) for column in zip(*rows, strict=True)] for rows in forms.values()]
    return list(forms), which, columns


def _filled(forms: list[str], which: list[int], columns: list[list[str]]) -> list[str]:
    between = [form.split(GAP) for form in forms]
    taken = [[iter(column.split(" ")) for column in own] for own in columns]
    return [_joined(between[i], [next(column) for column in taken[i]]) for i in which]


def _joined(between: Sequence[str], numbers: Sequence[str]) -> str:
    return between[0] + "".join(number + rest for number, rest in zip(numbers, between[1:], strict=True))


# --- integers as bytes: seven bits each, the lowest first, the sign in the last bit


def _bytes(integers: Integers) -> bytes:
    out = bytearray()
    for value in ((integers << 1) ^ (integers >> 63)).tolist():
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
    return bytes(out)


def _integers(block: Iterable[int]) -> Iterator[int]:
    value = shift = 0
    for byte in block:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield (value >> 1) ^ -(value & 1)
            value = shift = 0
