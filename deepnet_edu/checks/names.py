"""Which exercises there are, and of which lesson: read in the judges' files, none of which is run for that."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path


@cache
def lesson_of() -> dict[str, str]:
    """The lesson of every exercise, in the order in which they are met.

    Raises:
        ValueError: two lessons have an exercise of one name.
    """
    found: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("lesson_*")):
        lesson = path.stem.removeprefix("lesson_")
        path = path / "__init__.py" if path.is_dir() else path
        for exercise in _judged(path):
            if exercise in found:
                raise ValueError(f"The exercise {exercise!r} of lesson {lesson} exists in {found[exercise]}.")
            found[exercise] = lesson
    return found


def _judged(path: Path) -> Iterator[str]:
    """The keys of a file's table JUDGES."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id="JUDGES"), value=ast.Dict(keys=keys)):
                yield from (ast.literal_eval(key) for key in keys if key is not None)
