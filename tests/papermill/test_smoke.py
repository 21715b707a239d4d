"""Every solution as `deepnet-edu run --profile smoke` executes it: papermill, and the audit of what really happened."""

from pathlib import Path

import pytest

from deepnet_edu.course.places import lesson_names
from deepnet_edu.course.run import execute, plan


@pytest.mark.parametrize("lesson", lesson_names())
def test_the_solution_runs_and_passes_the_audit(lesson: str, tmp_path: Path) -> None:
    (run,) = plan([lesson], "smoke", [], tmp_path)
    execute(run)
    assert run.problems == [], str(run)
    assert run.output.exists()
