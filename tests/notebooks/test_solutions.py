"""The solutions as they are committed. nbval runs them and compares: what holds of these outputs holds of a run."""

import json

import nbformat
import pytest

from deepnet_edu.batch.audit import audit
from deepnet_edu.course.places import SOLUTIONS, lesson_names
from tests.notebooks.cards import exercises, goes_on_without, said, states


@pytest.mark.parametrize("lesson", lesson_names())
def test_the_solution_passes_the_audit(lesson: str) -> None:
    """What dies unseen in a kernel is told where the lesson runs, which has the same cells but for the answers."""
    notebook = json.loads((SOLUTIONS / f"{lesson}.ipynb").read_text(encoding="utf-8"))
    notebook["metadata"]["papermill"] = {"duration": 1.0}  # `make build` executes by nbclient, which takes no time
    assert audit(notebook, ended={}) == []


@pytest.mark.parametrize("lesson", lesson_names())
def test_the_solution_solves_all(lesson: str) -> None:
    text = said(nbformat.read(SOLUTIONS / f"{lesson}.ipynb", as_version=4))
    assert states(text) == dict.fromkeys(exercises(lesson), "done")
    assert goes_on_without(text) == []
