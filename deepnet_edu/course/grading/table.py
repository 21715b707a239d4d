"""What was found of each exercise of each student, as CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from deepnet_edu.progress import ExerciseState


@dataclass(frozen=True)
class Row:
    """One exercise of one student.

    Attributes:
        student: name.
        lesson: its number.
        exercise: name of the function.
        state: ``"done"``, ``"tried"`` or ``"open"``.
        points: the exercise's importance if it is done, else 0.
        out_of: what it is worth; an optional exercise is worth it on top.
        optional: whether it need not be done.
        evidence: how it was found.
        sentence: what the card says, empty where nothing is wrong.
    """

    student: str
    lesson: str
    exercise: str
    state: ExerciseState
    points: int
    out_of: int
    optional: bool
    evidence: str
    sentence: str


_HEAD = [field.name for field in fields(Row)]


def as_csv(rows: Sequence[Row]) -> str:
    """A line per student and exercise."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_HEAD)
    for row in rows:
        table.writerow([_harmless(value) for value in asdict(row).values()])
    return text.getvalue()


def is_ours(found: bytes) -> bool:
    """Whether a file with these bytes is such a table, and may be replaced."""
    return found.startswith(",".join(_HEAD).encode())


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula, as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
