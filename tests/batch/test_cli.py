"""deepnet-edu run as a user types it; a shell script stands for the worker."""

import io
import json
import os
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from deepnet_edu.batch.state import read_batch
from deepnet_edu.cli import app, main
from deepnet_edu.cli.batch import seconds
from deepnet_edu.course.places import lesson_names
from deepnet_edu.messages import UserError
from tests.batch.conftest import stand_in, write_notebook
from tests.batch.made_up import make_run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no sh")


@pytest.fixture
def worker(working: Path, stub: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook in the working folder, and the script of its worker."""
    write_notebook(working / "x y.ipynb", "1")
    monkeypatch.setattr("deepnet_edu.batch.active.start_worker", stand_in(*stub))
    return working / "stub"


def here(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["run", *arguments])


def refused(*arguments: str) -> str:
    result = here(*arguments)
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def test_run_fails_says_why_and_goes_on(worker: Path) -> None:
    good = worker.read_text()
    worker.write_text(f"[ $1 = 1 ] && exit 4\n{good}")
    own = ["--seeds", "2", "--set", "DEPTH=3", "--out", "over night", "--junit", "junit.xml"]
    limits = ["--retries", "0", "--timeout", "30m", "--memory", "2", "--fail-fast"]
    result = here("x y.ipynb", *own, *limits)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0] == " start  x y (cpu, DEPTH=3 SEED=0) on CPU, slot 0"
    assert lines[1].startswith("    ok  x y (cpu, DEPTH=3 SEED=0), ")
    assert lines[1].endswith(" [1/2]")
    assert lines[4:] == [
        "        its kernel died: killed, crashed, or out of memory",
        "1 of 2 runs are done: over night",
        "Continue with: deepnet-edu run --resume --out 'over night' --timeout 30m --memory 2 --fail-fast",
        "All of it on one page: deepnet-edu report 'over night'",
    ]
    assert '<error message="its kernel died' in Path("junit.xml").read_text()
    assert "holds a batch already: continue it with --resume" in refused("x y.ipynb", *own)

    worker.write_text(good)
    result = here("--resume", "--out", "over night", "--json")  # what was asked for is remembered
    assert result.exit_code == 0, result.output
    runs = json.loads(result.stdout)
    assert [(run["state"], run["attempts"], run["metrics"]) for run in runs] == [
        ("done", 1, {"double": 0}),
        ("done", 2, {"double": 2}),
    ]
    assert runs[0]["parameters"] == {"DEPTH": 3, "SEED": 0}
    result = here("--resume", "--out", "over night", "--seeds", "3")
    assert result.output.splitlines()[-2] == "3 of 3 runs are done: over night"
    assert "[3/3]" in result.output
    batch = json.loads(Path("over night/batch.json").read_text())
    assert batch["request"]["seeds"] == 3
    assert [one["name"] for one in batch["notebooks"]] == ["x y"]


def test_what_was_asked_for_can_be_asked_for_again(worker: Path) -> None:
    assert here("x y.ipynb", "--out", "out").exit_code == 0
    Path("out/batch.json").write_text('{"request"')
    said = "batch.json cannot be read (not JSON (Expecting ':' delimiter at line 1, column 11)): give --resume the"
    assert said in refused("--resume", "--out", "out")
    result = here("x y.ipynb", "--resume", "--out", "out", "--seeds", "2")
    assert "2 of 2 runs are done" in result.output


def test_the_rest_of_a_batch_is_done(worker: Path) -> None:
    Path("bad.ipynb").write_text("no")
    result = here("bad.ipynb", "x y.ipynb", "--out", "out")
    assert result.exit_code == 1
    assert result.output.startswith("FAILED  bad cannot run: bad.ipynb is not a notebook: it is not JSON")
    assert "1 of 2 runs are done" in result.output


def test_a_batch_goes_on_from_wherever_one_stands(worker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_notebook(worker.parent / "sub" / "x y.ipynb", "2")
    monkeypatch.chdir(worker.parent / "sub")
    assert here("x y.ipynb", "--out", "out").exit_code == 0
    monkeypatch.chdir(worker.parent)
    result = here("--resume", "--out", "sub/out")
    assert "1 of 1 runs are done: sub/out" in result.output
    assert "start" not in result.output
    assert not Path("sub/out/earlier").exists()


def test_a_run_that_lost_its_runner_does_not_run(worker: Path) -> None:
    make_run(worker.parent / "out", "x.0", state="running", audited=False)
    said = json.loads(CliRunner().invoke(app, ["report", "out", "--json"]).stdout)
    assert said["summary"]["states"] == {"killed": 1}
    assert said["runs"][0]["problems"] == ["its runner was ended before it: continue with --resume"]


def test_a_dry_run_runs_nothing(worker: Path) -> None:
    result = here("x y.ipynb", "--sweep", "DEPTH=1,2", "--seeds", "2", "--dry-run")
    assert result.exit_code == 0
    head, *rows = [line.split() for line in result.output.splitlines()]
    assert head == ["run", "notebook", "profile", "parameters", "state"]
    assert [row[-3:-1] for row in rows] == [[f"DEPTH={n}", f"SEED={m}"] for n in (1, 2) for m in (0, 1)]
    assert len(json.loads(here("x y.ipynb", "--seeds", "7", "--dry-run", "--json").stdout)) == 7
    Path("bad.ipynb").write_text("no")
    result = here("x y.ipynb", "bad.ipynb", "--dry-run")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("bad cannot run: bad.ipynb is not a notebook: it is not JSON")
    every = json.loads(here("--dry-run", "--json").stdout)
    assert [run["notebook"] for run in every] == lesson_names()
    assert not any(path.is_dir() for path in Path().iterdir())


def test_what_is_refused(worker: Path) -> None:
    Path("loop").symlink_to("loop")
    for given, said in [
        (["--resume"], "Say which batch to continue: --out runs/NAME."),
        (["--resume", "--out", "runs/nihgt"], "runs/nihgt holds no batch: begin one without --resume, with the names"),
        (["x y.ipynb", "--dry-run", "--timeout", "soon"], "--timeout soon: expected a time"),
        (["x y.ipynb", "--out", "x y.ipynb"], "x y.ipynb is not an empty folder: choose another --out."),
        (["x y.ipynb", "--out", "x" * 300], "(File name too long): choose another --out."),
        (["x y.ipynb", "--out", "loop/runs"], "cannot be written (Too many levels of symbolic links)"),
        (["x y.ipynb", "--take-over", "--out", "new"], "give it together with --resume"),
        (["x y.ipynb", "--timeout", "٣s"], "--timeout ٣s: expected a time"),
        (["x y.ipynb", "--cell-timeout", f"{'9' * 400}h"], "expected a time such as 90s"),
        (["x y.ipynb", "--cell-timeout", "999999999h"], "--cell-timeout 999999999h: expected a year at most."),
        (["x y.ipynb", "--seeds", "100000000"], "That makes 100,000,000 runs"),
        (["x y.ipynb", "--set", "RATE=1e309"], "RATE='1e309' does not fit: expected a number"),
        (["x y.ipynb", "--set", "RATE=-1e309"], "does not fit: expected a number"),
        (["x y.ipynb", "--timings", "--slots", "2"], "--timings measures one run after the other"),
        (["x y.ipynb", "--timeout", "soon"], "--timeout soon: expected a time such as 90s, 30m or 2h."),
        (["x y.ipynb", "--retries", "-1"], "--retries '-1': expected a whole number from 0 to 100."),
        (["x y.ipynb", "--junit", "none/x.xml"], "--junit none/x.xml cannot be written (No such file or directory)"),
        (["x y.ipynb", "--memory", "0"], "--memory '0': expected GB, more than 0, for example 2.5."),
        (["x y.ipynb", "--gpus", "0"], "--gpus 0: there is no GPU '0' here"),
        (["y.ipynb"], "There is no notebook y.ipynb in"),
        (["x y.ipynb", "--kernel", "pyhton3"], "--kernel pyhton3: Unknown kernel 'pyhton3': did you mean 'python3'?"),
        (["x y.ipynb", "--cwd", "nowhere"], "--cwd nowhere: there is no folder"),
        (["x y.ipynb", "--cwd", "notebook", "--cluster", "tcp://127.0.0.1:1"], "--cwd notebook is for one machine"),
        (["x y.ipynb", "--set", "DEPHT=1"], "did you mean 'DEPTH'?"),
    ]:
        assert said in refused(*given)
    assert not any(path.is_dir() for path in Path().iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("command", ["run x.ipynb --gpus none --out new", "run x.ipynb --dry-run --json", "report out"])
def test_what_cannot_be_printed_is_said(
    worker: Path, command: str, unbuffered: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_notebook(Path("x.ipynb"), "2")
    make_run(worker.parent / "out", "x.0")
    monkeypatch.setattr("sys.argv", ["deepnet-edu", *command.split()])
    with open("/dev/full", "wb", buffering=0) as raw, io.TextIOWrapper(raw, "utf-8", write_through=unbuffered) as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "What this prints cannot be written (No space left on device).\n"
    if "new" in command:
        assert [run.state for run in read_batch(Path("new"))] == ["done"]


def test_times() -> None:
    assert [seconds("--timeout", text) for text in (None, "90", "90s", "1.5m", "2h")] == [None, 90, 90, 90, 7200]
    for text in ("0", "-1", "1d", ""):
        with pytest.raises(UserError, match="expected a time"):
            seconds("--timeout", text)
