"""Every solution as `deepnet-edu run` executes it: papermill, and the audit of what really happened."""

from pathlib import Path

import pytest
from deepnet_edu.course.run import execute, plan

from deepnet_edu.course.places import lesson_names

# Lesson 00 at its full depth takes as long as all others together: it begins first.
RUNS = [("00_a_thousand_layers", "cpu"), *((lesson, "smoke") for lesson in lesson_names())]


@pytest.mark.parametrize(("lesson", "profile"), RUNS)
def test_the_solution_runs_and_passes_the_audit(lesson: str, profile: str, tmp_path: Path) -> None:
    (run,) = plan([lesson], profile, [], tmp_path)
    execute(run)
    assert run.problems == [], str(run)
    assert run.output.exists()
