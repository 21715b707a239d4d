"""Lessons with answers of other kinds than the solution's, for real: each exercise solved alone, all exercises in every
form of the reference answer, and with every other right answer that we know.

test_names.py and tests/checks/test_forms.py prove as much of it as takes no run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepnet_edu.course.places import ROOT
from tests.checks.forms import INSIDE, RETURNED, WRITTEN
from tests.notebooks.cards import WITH_EXERCISES, exercises, goes_on_without, states

#: More right answers of one exercise than anybody lists.
_MOST = 12


def run(lesson: str, folder: Path, *way: str) -> dict[str, str]:
    """What the cells said, by the exercise solved."""
    command = [sys.executable, "-m", "tests.notebooks.substitute", lesson, str(folder), *way]
    settings = {
        "DEEPNET_EDU_PROFILE": "smoke",
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(folder),
    }
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return {one["solved"]: one["said"] for one in map(json.loads, result.stdout.splitlines())}


@pytest.mark.course
@pytest.mark.parametrize("lesson", WITH_EXERCISES)
def test_solved_one_at_a_time(lesson: str, tmp_path: Path) -> None:
    found = run(lesson, tmp_path)
    names = exercises(lesson)
    assert found.keys() == {"", *names}
    for solved, text in found.items():
        assert states(text) == {name: "done" if name == solved else "open" for name in names}, solved
        assert {*goes_on_without(text)} == {*names} - {solved}


@pytest.mark.course
@pytest.mark.parametrize("way", [*WRITTEN, *RETURNED, *INSIDE, *map(str, range(_MOST))])
@pytest.mark.parametrize("lesson", WITH_EXERCISES)
def test_any_right_answers_carry_the_lesson_to_its_end(lesson: str, way: str, tmp_path: Path) -> None:
    said = run(lesson, tmp_path, way)[""]
    assert set(states(said).values()) == {"done"}
    assert not goes_on_without(said)
    assert "the other process takes the reference answer" not in said
