"""deepnet-edu run: refused before it starts, audited after it ended, and whole whatever happens in between."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from deepnet_edu.course.run import audit, execute, keep_timings, plan, recorded

from deepnet_edu.course import run
from deepnet_edu.course.places import RECORD_MIME
from deepnet_edu.messages import UserError

PARAMETERS = 'PROFILE = "cpu"\nSEED = 0\nRATE = 3e-4\nDEEP = False\nNAME = "x"'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "solutions").mkdir()
    monkeypatch.setattr(run, "SOLUTIONS", tmp_path / "solutions")
    return tmp_path


def notebook(project: Path, *sources: str) -> Path:
    made = nbformat.v4.new_notebook()
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    parameters = nbformat.v4.new_code_cell(PARAMETERS)
    parameters.metadata.tags = ["parameters"]
    made.cells = [parameters, *(nbformat.v4.new_code_cell(source) for source in sources)]
    path = project / "solutions" / "00_x.ipynb"
    nbformat.write(made, path)
    return path


def ran(project: Path, *sources: str, given: tuple[str, ...] = ()) -> run.Run:
    notebook(project, *sources)
    (one,) = plan(["00_x"], "smoke", given, project / "runs")
    execute(one)
    return one


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("DEPHT=3", "00_x: Unknown parameter 'DEPHT'"),
        ("SED=3", "did you mean 'SEED'"),
        ("SEED", "Cannot read the parameter 'SEED': expected NAME=VALUE"),
        ("SEED=x", "00_x: SEED='x' does not fit: expected a whole number, as in SEED=0."),
        ("SEED=1.5", "expected a whole number"),
        ("SEED=True", "expected a whole number"),
        ("RATE=fast", "expected a number, as in RATE=0.0003|as in RATE=3e-4"),
        ("DEEP=1", "expected True or False"),
        ("PROFILE=smok", "Unknown PROFILE 'smok': did you mean 'smoke'"),
        ("SEED=__import__('os')", "expected a whole number"),
        ("SEED={[]:1}", "expected a whole number"),
    ],
)
def test_parameters_are_refused_before_anything_starts(project: Path, given: str, said: str) -> None:
    notebook(project)
    with pytest.raises(UserError, match=said.replace("(", r"\(").replace(")", r"\)")):
        plan(["00_x"], "smoke", ["SEED=1", given], project / "runs")
    assert not (project / "runs").exists()


def test_an_unknown_profile_is_refused(project: Path) -> None:
    with pytest.raises(UserError, match="Unknown profile 'smok': did you mean 'smoke'"):
        plan([], "smok", [], project)


def test_a_run_that_goes_well(project: Path) -> None:
    one = ran(
        project,
        "import os\nprint(os.environ['DEEPNET_EDU_PROFILE'], SEED, RATE, NAME, DEEP, os.getcwd())",
        "from deepnet_edu.course import kit\nkit.record(loss=0.5)\nkit.record(loss=0.25, depths=[1, 2])",
        "",
        given=("SEED=7", "RATE=1e-5", "NAME=a/../b; c"),
    )
    assert one.problems == []
    assert one.output == project / "runs" / "00_x.smoke.SEED=7.RATE=1e-05.NAME=a_.._b__c.ipynb"
    (said,) = [o for c in nbformat.read(one.output, 4).cells for o in c.get("outputs", []) if o.output_type == "stream"]
    assert said.text == f"smoke 7 1e-05 a/../b; c False {project / 'runs'}\n"
    assert one.recorded == {"loss": 0.25, "depths": [1, 2]}
    assert 0 < one.seconds < 60
    assert one.memory_gb is None or 0.03 < one.memory_gb < 4
    assert [path.name for path in (project / "runs").iterdir()] == [one.output.name]
    assert str(one).startswith("    ok  00_x (smoke, ")


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        (["1 / 0", "2"], "raised ZeroDivisionError: division by zero"),
        (["import sys\nsys.exit(0)", "2"], "did not run: cell"),
        (["import os\nos._exit(1)", "2"], "did not run: cell"),
        (
            [
                "import ipywidgets\nfrom IPython.display import display\n"
                "s = ipywidgets.IntSlider()\n"
                "w = ipywidgets.interactive_output(lambda x: 1 / x, {'x': s})\ndisplay(w)"
            ],
            "a widget's callback raised ZeroDivisionError: division by zero",
        ),
        (  # it stays inside the widget: no cell fails, and no output holds it
            [
                "from deepnet_edu.explorers import ConstantsExplorer\ne = ConstantsExplorer()\ne",
                "e.view = lambda measured: 1 / 0\ne.decoder._slider.value -= 1",
            ],
            "This explorer has a fault, please report it: ZeroDivisionError: division by zero",
        ),
    ],
)
def test_what_papermill_may_call_a_success_is_found(project: Path, sources: list[str], problem: str) -> None:
    one = ran(project, *sources)
    assert any(problem in said for said in one.problems), one.problems
    assert one.output.name == "00_x.smoke.failed.ipynb"
    assert one.output.exists()
    assert str(one).startswith("FAILED")


def test_a_failed_run_leaves_an_earlier_good_one(project: Path) -> None:
    good = ran(project, "1").output
    before = good.read_bytes()
    assert ran(project, "1 / 0").problems
    assert good.read_bytes() == before


def test_what_cannot_be_planned(project: Path) -> None:
    notebook(project)
    with pytest.raises(UserError, match="01_y has no solution yet: make it with deepnet-edu build 01"):
        plan(["01_y"], "smoke", [], project)
    with pytest.raises(UserError, match="has braces in its name"):
        plan(["00_x"], "smoke", [], project / "{x}")


def test_the_audit_of_a_notebook_that_never_ran(project: Path) -> None:
    problems = audit(nbformat.read(notebook(project, "print(1)"), as_version=4))
    assert problems == ["did not run: cells 1, 2", "it took no time: nothing was executed"]
    assert "there is no code in it" in audit(nbformat.v4.new_notebook())
    assert recorded(nbformat.v4.new_notebook()) == {}


def test_killed_in_the_middle_nothing_stands_under_the_results_name(project: Path) -> None:
    notebook(project, "import time\ntime.sleep(600)")
    code = (
        "from pathlib import Path\nfrom deepnet_edu.course import run\n"
        f"run.SOLUTIONS = Path({str(project / 'solutions')!r})\n"
        f"run.execute(run.plan(['00_x'], 'smoke', [], Path({str(project / 'runs')!r}))[0])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    deadline = time.monotonic() + 60
    while not (project / "runs" / "00_x.smoke.partial.ipynb").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert [path.name for path in (project / "runs").glob("*.ipynb")] == ["00_x.smoke.partial.ipynb"]
    assert ran(project, "print(1)").problems == []  # and the next run begins anew
    assert [path.name for path in (project / "runs").glob("*.ipynb")] == ["00_x.smoke.ipynb"]


def test_a_folder_that_cannot_be_written(project: Path) -> None:
    notebook(project)
    (project / "file").write_text("in the way")
    (one,) = plan(["00_x"], "smoke", [], project / "file" / "runs")
    with pytest.raises(UserError, match="cannot be written .*choose another --out"):
        execute(one)


def test_timings_keep_what_went_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("deepnet_edu.course.run", "deepnet_edu.course.header"):
        monkeypatch.setattr(f"{module}.TIMINGS", tmp_path / "timings.json")
    good = run.Run("00_x", "cpu", {}, tmp_path, seconds=12.3, memory_gb=0.5)
    bad = run.Run("01_x", "cpu", {}, tmp_path, problems=["it broke"], seconds=1.0)
    deep = run.Run("02_x", "cpu", {"DEPTH": 3}, tmp_path, seconds=1.0)
    keep_timings([good, bad, deep])
    keep_timings([run.Run("00_x", "smoke", {}, tmp_path, seconds=2.0)])
    lessons = json.loads((tmp_path / "timings.json").read_text())["lessons"]
    assert list(lessons) == ["00_x"]
    assert {profile: entry["seconds"] for profile, entry in lessons["00_x"].items()} == {"cpu": 12, "smoke": 2}
    assert lessons["00_x"]["cpu"]["device"] == "CPU"
    assert RECORD_MIME.endswith("+json")
