"""A learner's way through a lesson: nothing solved, one exercise, all. Each runs to its end and says so."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from deepnet_edu.checks import check
from deepnet_edu.course.places import ROOT, SOLUTIONS

WITH_EXERCISES = sorted(set(check.lesson_of.values()))


def states(said: str) -> dict[str, str]:
    """What the cards said, by exercise."""
    meaning = {"○": "open", "✗": "tried", "✓": "done"}
    return {name: meaning[sign] for sign, name in re.findall(r"^([○✗✓]) (\w+):", said, flags=re.MULTILINE)}


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
    found = {run["solved"]: run for run in map(json.loads, result.stdout.splitlines())}
    exercises = [name for name, home in check.lesson_of.items() if home == lesson]
    assert found.keys() == {"", *exercises}
    for solved, run in found.items():
        assert states(run["said"]) == {name: "done" if name == solved else "open" for name in exercises}, solved
        for name in exercises:
            goes_on = f"{name}: going on with the reference answer" in run["said"]
            assert goes_on == (name != solved), (solved, name)


@pytest.mark.parametrize("lesson", WITH_EXERCISES)
def test_the_solution_solves_all(lesson: str) -> None:
    (path,) = SOLUTIONS.glob(f"{lesson}_*.ipynb")
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    said = "\n".join(output.get("data", {}).get("text/plain", "") for output in outputs)
    assert states(said) == {name: "done" for name, home in check.lesson_of.items() if home == lesson}
