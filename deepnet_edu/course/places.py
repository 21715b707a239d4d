"""Where things stand in a clone of the project, and lessons by name."""

from pathlib import Path

from deepnet_edu.messages import UserError, unknown

ROOT = Path(__file__).resolve().parents[2]
LESSONS = ROOT / "lessons"
SOLUTIONS = ROOT / "solutions"
RESULTS = ROOT / "benchmarks" / "results"
REFERENCES = Path(__file__).with_name("references")
IMAGES = ROOT / "docs" / "images"
WORKSPACE = ROOT / "workspace"


def lesson_names() -> list[str]:
    """Names of all lessons in order, for example ``00_a_thousand_layers``.

    Raises:
        UserError: the package is installed without its clone, so there are none.
    """
    names = sorted(path.stem for path in LESSONS.glob("[0-9][0-9]_*.ipynb"))
    if not names:
        raise UserError(f"There are no lessons in {LESSONS}: run this from a clone of the project, not from a wheel.")
    return names


def find_lesson(given: str) -> str:
    """The lesson that ``given`` names: its number, its name, or its file name.

    Raises:
        UserError: there is no such lesson; the sentence names the nearest.
    """
    names = lesson_names()
    stem = given.removesuffix(".ipynb")
    for name in names:
        if stem in (name, name[:2]):
            return name
    raise UserError(unknown("lesson", given, names))
