"""A learner's way through a lesson: nothing solved, one exercise, all. Each runs to its end and says so."""

import re
from pathlib import Path

import nbformat
import pytest

from deepnet_edu.checks import check
from deepnet_edu.course import build
from deepnet_edu.course.places import LESSONS, SOLUTIONS

WITH_EXERCISES = sorted(set(check.lesson_of.values()))


def cases() -> list[tuple[str, str | None]]:
    return [
        (lesson, solved)
        for lesson in WITH_EXERCISES
        for solved in (None, *(name for name, home in check.lesson_of.items() if home == lesson))
    ]


def notebooks(lesson: str) -> tuple[nbformat.NotebookNode, nbformat.NotebookNode]:
    (name,) = (path.name for path in LESSONS.glob(f"{lesson}_*.ipynb"))
    return nbformat.read(LESSONS / name, as_version=4), nbformat.read(SOLUTIONS / name, as_version=4)


def states(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """What the check cells said, by exercise."""
    found = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            card = re.match(r"([○✗✓]) (\w+):", output.get("data", {}).get("text/plain", ""))
            if card:
                found[card[2]] = {"○": "open", "✗": "tried", "✓": "done"}[card[1]]
    return found


@pytest.mark.parametrize(("lesson", "solved"), cases())
def test_solved_one_at_a_time(lesson: str, solved: str | None, tmp_path: Path) -> None:
    notebook, solution = notebooks(lesson)
    for cell, answer in zip(notebook.cells, solution.cells, strict=True):
        if solved and f'NotImplementedError("{solved}")' in cell.source:
            cell.source = answer.source
    result = build.executed(notebook, tmp_path, "smoke")
    expected = {name: "done" if name == solved else "open" for name, home in check.lesson_of.items() if home == lesson}
    assert states(result) == expected
    said = "".join(output.text for cell in result.cells for output in cell.get("outputs", []) if "text" in output)
    for name, state in expected.items():
        assert (f"{name}: going on with the reference answer" in said) == (state == "open")


@pytest.mark.parametrize("lesson", WITH_EXERCISES)
def test_the_solution_solves_all(lesson: str) -> None:
    _, solution = notebooks(lesson)
    assert states(solution) == {name: "done" for name, home in check.lesson_of.items() if home == lesson}
