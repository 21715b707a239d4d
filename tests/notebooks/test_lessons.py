"""Every lesson as a learner opens it, nothing solved, as `deepnet-edu run` runs it: papermill, and the audit of what
really happened.

A solution has the same cells but for its answers; nbval runs those.
"""

from pathlib import Path

import nbformat
import pytest

from deepnet_edu.batch.judge import NOTEBOOK
from deepnet_edu.batch.plan import Request, make_plan
from deepnet_edu.batch.run import run_batch
from deepnet_edu.batch.runner import Limits
from deepnet_edu.batch.slots import make_slots
from deepnet_edu.course.places import LESSONS, lesson_names
from tests.notebooks.cards import exercises, goes_on_without, said, states


@pytest.mark.parametrize("lesson", lesson_names())
def test_an_untouched_lesson_runs_and_passes_the_audit(lesson: str, tmp_path: Path) -> None:
    plan = make_plan(Request((str(LESSONS / f"{lesson}.ipynb"),), "smoke"))
    (run,) = run_batch(plan, tmp_path / "out", make_slots("all", 1, []), Limits(), quiet=True)
    assert (run.state, run.problems) == ("done", [])
    text = said(nbformat.read(tmp_path / "out" / run.id / NOTEBOOK, as_version=4))
    assert states(text) == dict.fromkeys(exercises(lesson), "open")
    assert sorted(goes_on_without(text)) == sorted(exercises(lesson))
