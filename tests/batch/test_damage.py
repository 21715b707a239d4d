"""Whatever the files of a batch have become, and wherever the disk is full: nothing is lost, and others continue."""

import errno
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deepnet_edu.batch.active import Active
from deepnet_edu.batch.folder import fill_folder, read_request, take_folder
from deepnet_edu.batch.plan import Request, make_plan
from deepnet_edu.batch.run import run_batch
from deepnet_edu.batch.runner import Limits
from deepnet_edu.batch.slots import make_slots
from deepnet_edu.batch.state import Status, read_batch
from deepnet_edu.cli import app
from deepnet_edu.lock import release
from deepnet_edu.messages import UserError
from tests.batch.conftest import stand_in, write_notebook

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no sh")
GOOD = 'sed "s/777/$((2 * $1))/" "$0.ipynb" > partial.ipynb\n'
Run = Callable[..., list[Status]]


@pytest.fixture
def run(working: Path, stub: list[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run or resume a batch of three by a script."""
    write_notebook(working / "x.ipynb")
    monkeypatch.setattr("deepnet_edu.batch.active.start_worker", stand_in(*stub))

    def go(script: str = GOOD, seeds: int = 3) -> list[Status]:
        (working / "stub").write_text(script)
        plan = make_plan(Request(("x.ipynb",), seeds=seeds))
        return run_batch(plan, Path("out"), make_slots("none", 1, []), Limits(), resume=True, quiet=True)

    return go


def ended(runs: Sequence[Status]) -> list[tuple[str, int]]:
    return [(one.state, one.attempts) for one in runs]


def a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "inside").touch()


def a_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def a_link(path: Path) -> None:
    path.unlink(missing_ok=True)
    (path.parent.parent / "elsewhere").write_text("mine")
    path.symlink_to("../elsewhere")


def a_loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def nonsense(path: Path) -> None:
    path.write_bytes(b'{"\xff')


DAMAGES = [a_folder, a_pipe, a_link, a_loop, nonsense]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("status.json", damage) for damage in DAMAGES),
        *((name, damage) for name in ("claim.json", "log.txt", "notebook.ipynb") for damage in DAMAGES[:3]),
    ],
)
def test_a_damaged_run_is_shown_and_run_again(run: Run, name: str, damage: Callable[[Path], None]) -> None:
    first, _ = run("[ $1 = 0 ] && exit 4\n" + GOOD, seeds=2)
    damage(Path("out") / first.id / name)
    result = CliRunner().invoke(app, ["report", "out"])
    assert result.exit_code == 0, result.output
    if name == "status.json":
        assert "status.json cannot be read (" in Path("out/report.html").read_text()
    assert "mine" not in Path("out/report.html").read_text()
    again = 1 if name == "status.json" else 2
    assert ended(run(seeds=2)) == [("done", again), ("done", 1)]
    for elsewhere in Path("out").glob("elsewhere"):
        assert elsewhere.read_text() == "mine"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["batch.json", "lock.json", "sources"])
def test_a_damaged_batch_is_resumed(run: Run, name: str, damage: Callable[[Path], None]) -> None:
    run("[ $1 = 0 ] && exit 4\n" + GOOD)
    path = Path("out") / name
    if name == "sources":
        (path,) = path.iterdir()
    damage(path)
    if name == "batch.json":
        with pytest.raises(UserError, match="batch.json cannot be read .*: give --resume the notebooks and parameters"):
            read_request(Path("out"))
    assert ended(run()) == [("done", 2), ("done", 1), ("done", 1)]
    assert read_request(Path("out")).seeds == 3


@pytest.mark.parametrize("make", ["mkdir -p", "mkfifo", "ln -s /etc/passwd"])
def test_a_notebook_that_damages_its_own_and_others_files(run: Run, make: str) -> None:
    bad = f"[ $1 = 1 ] && for i in . ../x.*; do rm -rf $i/status.json; {make} $i/status.json; done\n"
    runs = run(bad + GOOD)
    assert {one.state for one in runs} <= {"done", "failed"}
    assert (runs[1].state, runs[2].state) == ("done", "done")
    assert [state for state, _ in ended(run())] == ["done"] * 3


def test_a_notebook_that_leaves_pipes_is_not_waited_for(run: Run) -> None:
    runs = run("for i in log.txt partial.ipynb notebook.ipynb claim.json; do rm -f $i; mkfifo $i; done", seeds=1)
    assert (runs[0].state, runs[0].problems[0][:33]) == ("failed", "papermill left no whole notebook:")
    assert ended(run(seeds=1)) == [("done", 2)]


def test_a_notebook_that_removes_all_other_runs(run: Run) -> None:
    runs = run(f'[ $1 = 1 ] && for i in ../x.*; do [ "$PWD" -ef $i ] || rm -rf $i; done\n{GOOD}')
    assert [one.state for one in runs] == ["failed", "done", "done"]
    assert "its folder is gone" in runs[0].problems[0]
    assert [state for state, _ in ended(run())] == ["done"] * 3


def test_what_is_recorded_is_json_and_not_endless(run: Run) -> None:
    deep = "[" * 500 + "]" * 500
    runs = run(
        f'[ $1 = 0 ] && sed "s/777/{deep}/" $0.ipynb > partial.ipynb || sed s/777/Infinity/ $0.ipynb > partial.ipynb'
    )
    assert (runs[0].state, runs[0].metrics) == ("failed", {})
    assert "what it recorded is nested too deeply" in runs[0].problems[0]
    assert runs[1].metrics == {"double": "inf"}
    for text in (
        (Path("out") / runs[1].id / "status.json").read_text(),
        CliRunner().invoke(app, ["report", "out", "--json"]).stdout,
    ):
        assert "Infinity" not in text
        json.loads(text, parse_constant=lambda name: pytest.fail(name))


WRONG: dict[str, list[Any]] = {
    "id": ["../x", "", 3],
    "state": ["finished", 3, None],
    "attempts": [-1, "1", 1.5, True, 10**400],
    "seconds": [-1.0, float("nan"), float("inf"), "long", 10**400],
    "memory_gb": ["much", float("nan")],
    "seed": ["0", 1.5, None],
    "gpu": [-1, "0"],
    "parameters": [[], {"a": json.loads("[" * 40 + "]" * 40)}],
    "hashes": [{"notebook": 3}, "x"],
    "versions": [{"python": None}],
    "started": ["yesterday", 3, "2026-01-01T10:00:00"],
    "problems": ["text", [3]],
    "audited": ["yes", 1],
    "metrics": [[1], None],
    "version": [2, None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_value_of_the_wrong_kind_is_damage(tmp_path: Path, name: str, value: object) -> None:
    (place := tmp_path / "x.1").mkdir()
    Status("x.1", "x").write(place)
    content = json.loads((place / "status.json").read_text())
    (place / "status.json").write_text(json.dumps({**content, name: value}))
    with pytest.raises(UserError, match=r"status.json cannot be read .*: run the batch again with --resume"):
        Status.read(place)
    assert CliRunner().invoke(app, ["report", str(tmp_path)]).exit_code == 0


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{}", "[" * 100_000, '{"seed": ' + "1" * 5000 + "}"])
def test_a_status_that_is_none_is_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.1").mkdir()
    (tmp_path / "x.1" / "status.json").write_text(text)
    (run,) = read_batch(tmp_path)
    assert (run.id, run.notebook, run.state) == ("x.1", "x", "failed")


@pytest.mark.parametrize(
    "change", [{"seeds": -1}, {"seeds": 10**9}, {"seeds": "3"}, {"given": "A=1"}, {"profile": 3}, {"more": 1}]
)
def test_a_request_of_the_wrong_kind_is_refused(run: Run, change: dict[str, object]) -> None:
    run()
    content = json.loads(Path("out/batch.json").read_text())
    content["request"] |= change
    Path("out/batch.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="batch.json cannot be read"):
        read_request(Path("out"))


class FullDisk:
    """A disk that is full at the ``nth`` file that is written; 0 for never."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nth = self.count = 0
        make, system_open = tempfile.mkstemp, os.open

        def mkstemp(*arguments: Any, **options: Any) -> tuple[int, str]:
            self.write()
            return make(*arguments, **options)

        def opened(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            if flags & os.O_EXCL and str(path).endswith(".json"):  # a lock
                self.write()
            return system_open(path, flags, *rest, **options)

        monkeypatch.setattr("deepnet_edu.files.tempfile.mkstemp", mkstemp)
        monkeypatch.setattr("deepnet_edu.lock.os.open", opened)

    def write(self) -> None:
        self.count += 1
        if self.count == self.nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/somewhere")


def test_a_disk_that_is_full_at_any_write(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    run(seeds=2)
    writes = disk.count
    assert writes > 12
    for disk.nth in range(1, writes + 1):
        shutil.rmtree("out")
        disk.count = 0
        with pytest.raises(UserError, match=os.strerror(errno.ENOSPC)):
            run(seeds=2)
        assert not [*Path("out").glob("lock.json"), *Path("out").glob("*/claim.json")]
        assert not [one for one in read_batch(Path("out")) if one.state == "running"]
        kept = {one.id: one for one in read_batch(Path("out")) if one.state == "done"}
        runs = run(seeds=2)
        assert [(one.state, one.metrics["double"]) for one in runs] == [("done", 0), ("done", 2)]
        assert all(one == kept.get(one.id, one) for one in runs)  # what was done is not done again


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_terminal_that_closes_and_a_scheduler_that_warns(
    run: Run, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs comes to its end, and nothing more is started, however often they say so."""

    def look(self: object, active: Sequence[Active], waiting: int) -> None:
        os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr("deepnet_edu.batch.watch.Lines.look", look)
        assert [state for state, _ in ended(run("sleep 0.2\n" + GOOD))] == ["done", "queued", "queued"]
    assert ended(run()) == [("done", 1)] * 3


def test_nohup_is_respected(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr("deepnet_edu.batch.watch.Lines.look", lambda *_: os.kill(os.getpid(), signal.SIGHUP))
    try:
        assert ended(run()) == [("done", 1)] * 3
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_exit_status_tells_stopped_from_failed(
    working: Path, stub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_notebook(working / "x.ipynb")
    monkeypatch.setattr("deepnet_edu.batch.active.start_worker", stand_in(*stub))
    arguments = ["run", "x.ipynb", "--seeds", "2", "--gpus", "none", "--out", "out", "--resume"]
    with monkeypatch.context() as patched:
        patched.setattr("deepnet_edu.batch.watch.Lines.look", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert CliRunner().invoke(app, arguments).exit_code == 130
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (working / "stub").write_text("exit 4")
    assert CliRunner().invoke(app, [*arguments, "--seeds", "3"]).exit_code == 1


def test_a_runner_that_was_killed_at_its_first_write_has_begun_nothing(run: Run) -> None:
    Path("out").mkdir()
    for name in (".batch.json.abc_12.part", ".lock.json.0123.part"):
        (Path("out") / name).touch()
    assert ended(run()) == [("done", 1)] * 3
    assert not [*Path("out").glob(".*.part")]


def test_names_of_any_length(working: Path, stub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepnet_edu.batch.active.start_worker", stand_in(*stub))
    names = ["x" * 245, "ü" * 120, "x"]
    for name in names:
        write_notebook(working / f"{name}.ipynb", f"# {name[:3]}")
    plan = make_plan(Request(tuple(f"{name}.ipynb" for name in names)))
    runs = run_batch(plan, Path("out"), make_slots("none", 1, []), Limits(), quiet=True)
    assert [one.state for one in runs] == ["done"] * 3


def test_the_copy_is_run_where_the_original_is_gone(
    working: Path, stub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepnet_edu.batch.active.start_worker", stand_in(*stub))
    home = working / "home"
    write_notebook(home / "x.ipynb")
    plan = make_plan(Request(("x.ipynb",), seeds=2, working=str(home)), home)
    take_folder(working / "out", resume=False, join=False)
    fill_folder(working / "out", plan, [])
    release(working / "out" / "lock.json")
    shutil.rmtree(home)
    result = CliRunner().invoke(app, ["run", "--resume", "--out", "out", "--gpus", "none"])
    assert result.exit_code == 0, result.output
    assert f"x.ipynb is no longer in {home}: running the batch's own copy of it." in result.stderr
    assert "2 of 2 runs are done" in result.stdout
    assert {one.id for one in plan.runs} == {one.id for one in read_batch(working / "out")}
    (copy,) = (working / "out" / "sources").iterdir()
    copy.write_text("{}")  # which is not what was run
    result = CliRunner().invoke(app, ["run", "--resume", "--out", "out"])
    assert "There is no notebook x.ipynb" in str(result.exception)


def test_a_batch_may_be_anywhere_by_any_link(working: Path, stub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepnet_edu.batch.active.start_worker", stand_in(*stub))
    write_notebook(working / "home" / "x.ipynb")
    (working / "scratch").mkdir()
    (working / "home" / "runs").symlink_to(working / "scratch")
    (working / "home" / "later").symlink_to(working / "scratch" / "made")
    monkeypatch.chdir(working / "home")
    for out in ("runs/a", str(working / "scratch" / "b"), "../scratch/c", "later"):
        assert CliRunner().invoke(app, ["run", "x.ipynb", "--gpus", "none", "--out", out]).exit_code == 0
    assert sorted(path.name for path in (working / "scratch").iterdir()) == ["a", "b", "c", "made"]
    monkeypatch.setattr("deepnet_edu.course.places.RUNS", working / "home" / "runs")
    assert CliRunner().invoke(app, ["run", "x.ipynb", "--gpus", "none"]).exit_code == 0
    assert len([*(working / "scratch").iterdir()]) == 5
