"""Each exercise of a lesson solved alone, for real; test_names.py proves as much of it as takes no run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepnet_edu.course.places import ROOT
from tests.notebooks.cards import WITH_EXERCISES, exercises, goes_on_without, states


@pytest.mark.course
@pytest.mark.parametrize("lesson", WITH_EXERCISES)
def test_solved_one_at_a_time(lesson: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.notebooks.substitute", lesson, str(tmp_path)]
    settings = {
        "DEEPNET_EDU_PROFILE": "smoke",
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(tmp_path),
    }
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    found = {run["solved"]: run["said"] for run in map(json.loads, result.stdout.splitlines())}
    names = exercises(lesson)
    assert found.keys() == {"", *names}
    for solved, text in found.items():
        assert states(text) == {name: "done" if name == solved else "open" for name in names}, solved
        assert {*goes_on_without(text)} == {*names} - {solved}
