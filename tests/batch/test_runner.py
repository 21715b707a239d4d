"""The runner, with shell scripts in the place of workers: limits, retries, a GPU alone, a full disk."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from deepnet_edu import __version__
from deepnet_edu.batch import folder as batch_folder
from deepnet_edu.batch.active import Active, environment
from deepnet_edu.batch.folder import fill_folder, take_folder
from deepnet_edu.batch.plan import BatchPlan, Request, make_plan
from deepnet_edu.batch.report.junit import check_place, write_junit
from deepnet_edu.batch.run import refuse_dirty_tree, run_batch
from deepnet_edu.batch.runner import Limits, Runner
from deepnet_edu.batch.slots import Gpu, make_slots
from deepnet_edu.batch.state import Status
from deepnet_edu.batch.timings import keep_timings
from deepnet_edu.batch.watch import Lines, LiveTable
from deepnet_edu.batch.worker import END_MIME
from deepnet_edu.course.places import ROOT
from deepnet_edu.lock import HOST, Holder, release
from deepnet_edu.messages import UserError
from tests.batch.conftest import stand_in, write_notebook

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no sh")
Run = Callable[..., list[Status]]


@pytest.fixture
def run(working: Path, stub: list[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a notebook with some seeds by a script, which may use ``"$0.ipynb"``, the notebook that went well."""
    write_notebook(working / "x.ipynb")

    def go(script: str, seeds: int = 1, slots: int = 1, **limits: object) -> list[Status]:
        (working / "stub").write_text(script)
        monkeypatch.setattr("deepnet_edu.batch.active.start_worker", stand_in(*stub))
        plan = make_plan(Request(("x.ipynb",), seeds=seeds))
        where = make_slots("none", slots, [])
        return run_batch(plan, working / "out", where, Limits(**limits), resume=True, quiet=True)  # type: ignore[arg-type]

    return go


GOOD = 'sed "s/777/$((2 * $1))/" "$0.ipynb" > partial.ipynb\n'


@pytest.mark.parametrize(
    ("script", "limits", "state", "problem"),
    [
        ("sleep 600", {"timeout": 0.3}, "timed out", "it took longer than 0.3 s"),
        ("exit 3", {"cell_timeout": 7}, "timed out", "a cell took longer than 7 s"),
        (
            "echo Timeout waiting for IOPub output >&2; exit 3",
            {},
            "timed out",
            "papermill gave up: Timeout waiting for IO",
        ),
        ("exit 4", {}, "killed", "its kernel died: killed, crashed, or out of memory"),
        ("kill -9 $$", {}, "killed", "its process was ended by signal 9: killed, crashed, or out of memory"),
        ("exit 6", {}, "failed", "the disk is full"),
        ("exit 7", {}, "failed", "its kernel did not start, 3 times over: see its log"),
        ("echo NoSuchKernel: julia >&2; exit 5", {}, "failed", f"NoSuchKernel: julia, on {HOST}: install it there, or"),
        ("printf '{\"cells\": [{' > partial.ipynb", {}, "failed", "papermill left no whole notebook: it said nothing"),
        (GOOD + "echo odd >&2; exit 1", {}, "failed", "papermill ended with status 1: odd"),
        ("sed s/record+json/x/ $0.ipynb > partial.ipynb", {}, "failed", "it calls record(), but recorded nothing"),
        (
            "sed 's/{\"double\": 777}/[7]/' $0.ipynb > partial.ipynb",
            {},
            "failed",
            "it calls record(), but recorded nothing",
        ),
        (
            "mkdir notebook.ipynb\n" + GOOD,
            {},
            "failed",
            "what it left cannot be audited (notebook.ipynb: Is a directory)",
        ),
        (
            'echo \'{"cells": [{"source": 1}]}\' > partial.ipynb',
            {},
            "failed",
            "what it left cannot be audited (TypeE",
        ),
        ("mkdir .x.part; exit 4", {}, "killed", "its kernel died"),
        ('rm -rf "$PWD"', {}, "failed", "papermill left no whole notebook: it said nothing"),
    ],
)
def test_how_a_run_can_end(run: Run, script: str, limits: dict[str, float], state: str, problem: str) -> None:
    (one,) = run(script, **limits)
    assert (one.state, one.attempts) == (state, 1)
    assert one.problems[0].startswith(problem)
    (again,) = run(GOOD)
    assert (again.state, again.attempts, again.problems, again.metrics) == ("done", 2, [], {"double": 0})


def test_rows_that_the_data_lack_are_noted_and_fail_nothing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    note = "words.csv: 1 of 3 rows lack a text and were left out."
    told = json.dumps({END_MIME: {"notes": [note, 7]}})[1:-1]
    (one,) = run(f"""sed -e "s/777/8/" -e 's|"{END_MIME}": {{}}|{told}|' "$0.ipynb" > partial.ipynb""")
    assert (one.state, one.problems, one.notes) == ("done", [], [note, "7"])
    Lines(1).ended(one, "")
    assert note in capsys.readouterr().out


def test_memory_is_limited(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepnet_edu.batch.active.resident_gb", lambda processes: 3.0)
    (one,) = run("sleep 600", memory_gb=2)
    assert (one.state, one.problems) == ("killed", ["it needed more than 2 GB of memory"])
    assert one.memory_gb == 3.0


def test_retries_and_what_follows_a_failure(run: Run) -> None:
    once_bad = "[ -e tried ] || { touch tried; exit 4; }\n" + GOOD
    assert [(one.state, one.attempts) for one in run(once_bad, seeds=2, retries=1)] == [("done", 2)] * 2
    bad = f"[ $1 = 2 ] && exit 4\n{GOOD}"
    assert [one.state for one in run(bad, seeds=5)] == ["done", "done", "killed", "done", "done"]
    bad = f"[ $1 = 6 ] && exit 4\n{GOOD}"
    assert [one.state for one in run(bad, seeds=9, fail_fast=True)][5:] == ["done", "killed", "queued", "queued"]
    assert [one.attempts for one in run(GOOD, seeds=9)] == [2, 2, 2, 1, 1, 1, 2, 1, 1]


def test_out_of_gpu_memory_is_tried_once_more_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    beside: list[set[int]] = []

    def look(self: object, active: Sequence[Active], waiting: int) -> None:
        beside.append({one.run.seed for one in active})

    monkeypatch.setattr("deepnet_edu.batch.watch.Lines.look", look)
    error = '{"output_type":"error","ename":"OutOfMemoryError","evalue":"CUDA out of memory","traceback":[]},'
    full = f's/"outputs": \\[/&{error}/'
    bad = f"sed '{full}' $0.ipynb > partial.ipynb; exit 1"
    script = f"sleep 0.2\n[ $1 != 1 ] && {{ {GOOD.strip()}; exit 0; }}\n{bad}"
    runs = run(script, seeds=5, slots=3)
    assert [(one.state, one.attempts) for one in runs] == [("done", 1), ("failed", 2), *[("done", 1)] * 3]
    assert "cell 1 raised OutOfMemoryError: CUDA out of memory" in runs[1].problems
    assert {0, 1, 2} in beside
    assert {1} in beside  # the second time
    assert run(f"[ $1 = 1 ] && [ ! -e tried ] && {{ touch tried; {bad}; }}\n{GOOD}", seeds=5)[1].state == "done"


def test_a_full_disk_ends_the_batch_and_no_process_stays(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Status, folder: Path) -> None:
        if self.state == "done":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "status.json"))
        write(self, folder)

    write = Status.write
    with monkeypatch.context() as broken:
        broken.setattr(Status, "write", full)
        with pytest.raises(UserError, match=r"No space left on device. What is done stays: .*--resume"):
            run(f"[ $1 = 0 ] || sleep 600\n{GOOD}", seeds=2, slots=2)
    assert [one.state for one in run(GOOD, seeds=2)] == ["done", "done"]
    with monkeypatch.context() as broken:
        broken.setattr(batch_folder, "write_atomic", lambda *_: os.open("/nowhere/at/all", os.O_RDONLY))
        with pytest.raises(UserError, match="Fix that, and run the same again with --resume"):
            run(GOOD)


def test_a_package_that_changes_on_the_way(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter(["old", "old", "new"])
    monkeypatch.setattr("deepnet_edu.course.places.package_digest", lambda: next(found))
    assert [one.state for one in run(GOOD, seeds=3)] == ["done", "queued", "queued"]


def test_a_module_that_changes_on_the_way(run: Run, working: Path) -> None:
    write_notebook(working / "x.ipynb", "import helper")
    (working / "helper.py").write_text("")
    changes = f"echo '# another' >> '{working}/helper.py'\n{GOOD}"
    assert [one.state for one in run(changes, seeds=2)] == ["done", "queued"]
    assert [one.state for one in run(GOOD, seeds=2)] == ["done", "done"]
    assert len(list((working / "out" / "earlier").iterdir())) == 2  # both of the module as it was


def test_what_a_run_sees(run: Run, working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    monkeypatch.setenv("DEEPNET_EDU_KILL_AT", "nowhere")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (one,) = run(f"env > seen\n{GOOD}")
    place = working / "out" / one.id
    seen = dict(line.split("=", 1) for line in (place / "seen").read_text().splitlines() if "=" in line)
    assert seen["PWD"] == str(place) == seen["DEEPNET_EDU_BATCH_RUN"]
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["DEEPNET_EDU_PROFILE"]) == ("", "cpu")
    assert int(seen["OMP_NUM_THREADS"]) >= 1
    assert seen["PYTHONPATH"].split(os.pathsep)[:2] == [str(ROOT), str(working)]
    assert not {"PYTHONOPTIMIZE", "DEEPNET_EDU_KILL_AT"} & set(seen)
    assert {path.name for path in place.iterdir()} == {"seen", "log.txt", "notebook.ipynb", "status.json"}
    assert one.seconds > 0
    assert one.versions.keys() == {"python", "torch", "deepnet_edu"}


def test_a_folder_with_a_colon_is_no_list_of_folders(planned: Callable[..., BatchPlan], working: Path) -> None:
    (notebook,) = planned(str(write_notebook(working / "a:b" / "x.ipynb").relative_to(working))).notebooks.values()
    seen = environment(Status("x.1", "x"), make_slots("none", 1, [])[0], notebook, "mark")
    assert "a" not in [Path(part).name for part in seen["PYTHONPATH"].split(os.pathsep)]
    assert seen["DEEPNET_EDU_NOTEBOOK_DIR"] == str(working / "a:b")  # from which the kernel takes it


def test_what_goes_along_with_a_notebook_reaches_a_worker_of_a_cluster(
    working: Path, stub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    from deepnet_edu.batch.cluster import remote

    (working / "stub").write_text(f'cat sets/a.txt "$DEEPNET_EDU_NOTEBOOK_DIR/helper.py" >&2\nls >&2\n{GOOD}')
    (working / "helper.py").write_text("# helps\n")
    (working / "sets").mkdir()
    (working / "sets" / "a.txt").write_text("data\n")
    write_notebook(working / "x.ipynb", "import helper\nopen('sets/a.txt')")
    plan = make_plan(Request(("x.ipynb",)))
    (run,), (notebook,) = plan.runs, plan.notebooks.values()
    monkeypatch.setattr("deepnet_edu.batch.active.start_worker", stand_in(*stub))
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(local_directory=str(working)))
    monkeypatch.setattr(remote, "Link", lambda topic: Lines(1, quiet=True))
    beside = {name: path.read_bytes() for name, path in {**notebook.modules, **notebook.files}.items()}
    task = remote.RemoteNotebook(run, notebook.data, "python3", 1, False, Limits(), __version__, "topic", beside)
    for path in (working / "helper.py", working / "sets" / "a.txt"):
        path.unlink()
    reply = remote.run_here(task)
    assert reply.run is not None
    assert (reply.run.state, reply.run.problems) == ("done", [])
    assert reply.log.decode().splitlines()[:2] == ["data", "# helps"]
    far = replace(task, working=str(working / "nowhere"))
    assert "has no folder" in remote.run_here(far).refused
    assert "cannot use its GPU any more" in remote.refusal(replace(task, gpu=True), [])


@pytest.mark.parametrize("lost", [BrokenPipeError, OSError, SystemExit])
def test_a_terminal_that_is_lost_ends_no_batch(lost: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise lost

    watch = Lines(1)
    monkeypatch.setattr(watch.console, "print", gone)
    watch.say("something")
    assert watch.console.quiet


def test_what_a_notebook_prints_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    Lines(1).say("cell 2 raised \x1b[2JValueError: a\x07 [b] ü✓")
    assert capsys.readouterr().out == "cell 2 raised  [2JValueError: a  [b] ü✓\n"


def test_the_live_table(working: Path, planned: Callable[..., BatchPlan], monkeypatch: pytest.MonkeyPatch) -> None:
    write_notebook(working / "x.ipynb", "1")
    (run,) = planned("x.ipynb", given=("DEPTH=3",)).runs
    monkeypatch.setattr("deepnet_edu.batch.watch.ask_gpus", lambda _: [["0", "10240", "81920", "97"]])
    (working / "log.txt").write_text("Executing Cell 1----\nEnding Cell 1---\nExecuting Cell 2---\nloss [0.5]\n\n")
    (slot,) = make_slots("0", None, [Gpu(0, "0", "H")])
    one = Active(run, slot, working, None, 5, 0.0)  # type: ignore[arg-type]
    watch = LiveTable(3)
    watch.look([one], 2)
    table = watch.table([one], 2)
    assert str(table.title) == "0 of 3 ended, 1 at work, 2 waiting"
    said = [next(iter(column.cells)) for column in table.columns]
    assert said[1] == "x (cpu, DEPTH=3)"
    assert said[3:] == ["2 of 5", "10.0 of 80 GB, 97%", "loss [0.5]"]


def test_junit(tmp_path: Path) -> None:
    runs = [
        Status("a.1", "a", state="done", seconds=1.5),
        Status("b.1", "b", state="failed", problems=["cell 1 raised \x1b[31mE<&"]),
        Status("c.1", "c", state="timed out", problems=["long"]),
        Status("d.1", "d"),
    ]
    write_junit(tmp_path / "junit.xml", "night", runs)
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")]
    assert counts == ["4", "1", "1", "1", "1.50"]
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["error"], ["skipped"]]
    assert suite[1][0].get("message") == "cell 1 raised  [31mE<&"


def test_junit_of_names_that_xml_cannot_hold(tmp_path: Path) -> None:
    write_junit(
        tmp_path / "junit.xml", "\x02night", [Status("a.1", "\udcffa", parameters={"I": "a\x01b"}, state="done")]
    )
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("name"), suite[0].get("classname"), suite[0].get("name")) == (" night", " a", " a (cpu, I=a b)")


def test_a_place_for_junit_is_looked_at_before(working: Path) -> None:
    for path in ("here.xml", "runs/x/junit.xml", "runs/beside.xml", str(working / "runs" / "junit.xml")):
        check_place(Path(path), Path("runs/x"))
    assert not any(working.iterdir())
    (working / "own").mkdir()
    for path, why in (("none/x.xml", "No such file"), ("own", "Is a directory"), ("x" * 300, "File name too long")):
        said = f"--junit {path[:50]}.* cannot be written .{why}.*: choose another file"
        with pytest.raises(UserError, match=said):
            check_place(Path(path), Path("runs/x"))
        with pytest.raises(UserError, match=said):  # it may have come to this in the meantime
            write_junit(Path(path), "x", [])


def test_timings_keep_what_went_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("deepnet_edu.course.places", "deepnet_edu.course.header"):
        monkeypatch.setattr(f"{module}.TIMINGS", tmp_path / "timings.json")
    known = {"state": "done", "source": "solutions/x.ipynb", "versions": {"python": "3", "torch": "2"}}
    good = Status("0", "00_x", seconds=12.3, memory_gb=0.5, device="H", gpu=0, **known)  # type: ignore[arg-type]
    bad = Status("1", "01_x", seconds=1.0, **{**known, "state": "failed"})  # type: ignore[arg-type]
    deep = Status("2", "02_x", parameters={"DEPTH": 3}, **known)  # type: ignore[arg-type]
    own = Status("3", "03_x", **{**known, "source": "mine/x.ipynb"})  # type: ignore[arg-type]
    keep_timings([good, bad, deep, own])
    keep_timings([Status("4", "00_x", profile="gpu", seconds=2.0, device="H", gpu=0, **known)])  # type: ignore[arg-type]
    lessons = json.loads((tmp_path / "timings.json").read_text())["lessons"]
    assert list(lessons) == ["00_x"]
    assert [(name, one["seconds"], one["device"]) for name, one in lessons["00_x"].items()] == [
        ("cpu", 12, "CPU"),
        ("gpu", 2, "H"),
    ]


def test_records_are_made_from_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepnet_edu.course.places.ROOT", tmp_path)
    with pytest.raises(UserError, match="needs git, which cannot say"):
        refuse_dirty_tree()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    refuse_dirty_tree()
    monkeypatch.setattr("deepnet_edu.course.places.RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x.json").write_text("")
    with pytest.raises(UserError, match="results/ has some: commit them first"):
        refuse_dirty_tree()
    refuse_dirty_tree(resume=True)  # what was recorded before the batch was killed
    shutil.rmtree(tmp_path / "results")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("")
    for resume in (False, True):
        with pytest.raises(UserError, match=r"a\.txt has some, with 1 more: commit them first"):
            refuse_dirty_tree(resume=resume)


def test_a_runner_that_has_nothing_to_do(tmp_path: Path) -> None:
    Runner(tmp_path, [], {}, make_slots("none", 1, []), Limits(), LiveTable(0)).run()


def test_a_run_of_another_runner_is_waited_for_and_taken_over_when_that_dies(
    run: Run, working: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other runner is a process that sleeps and is killed; its run was under way."""
    plan = make_plan(Request(("x.ipynb",), seeds=2))
    place = working / "out" / plan.runs[1].id
    take_folder(working / "out", resume=False, join=False)
    fill_folder(working / "out", plan, [])
    release(working / "out" / "lock.json")
    with subprocess.Popen(["sleep", "600"]) as other:
        plan.runs[1].state, plan.runs[1].attempts = "running", 1
        plan.runs[1].write(place)
        claim = Holder.of(other.pid)
        (place / "claim.json").write_text(json.dumps(vars(claim)))

        def look(self: object, active: Sequence[Active], waiting: int) -> None:
            if not active:
                other.kill()
                other.wait()

        monkeypatch.setattr("deepnet_edu.batch.watch.Lines.look", look)
        runs = run(GOOD, seeds=2)
    assert [(one.state, one.attempts) for one in runs] == [("done", 1), ("done", 2)]
