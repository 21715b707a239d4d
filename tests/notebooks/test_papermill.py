"""Every solution as `deepnet-edu run` executes it: papermill, and the audit of what really happened."""

from pathlib import Path

import pytest

from deepnet_edu.batch.local import Limits
from deepnet_edu.batch.plan import Request, make_plan
from deepnet_edu.batch.run import run_batch
from deepnet_edu.batch.slots import make_slots
from deepnet_edu.course.places import lesson_names

# Lesson 00 at its full depth takes as long as all others together: it begins first.
FULL = "00_a_thousand_layers"
RUNS = [(FULL, "cpu"), *((lesson, "smoke") for lesson in lesson_names() if lesson != FULL)]


@pytest.mark.parametrize(("lesson", "profile"), RUNS)
def test_the_solution_runs_and_passes_the_audit(lesson: str, profile: str, tmp_path: Path) -> None:
    plan = make_plan(Request((lesson,), profile))
    (run,) = run_batch(plan, tmp_path / "out", make_slots("all", 1, []), Limits(), quiet=True)
    assert (run.state, run.problems) == ("done", [])
