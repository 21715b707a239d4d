"""Whatever is killed, a batch that is resumed has each run done once. benchmarks/batch_faults.py does it at length, and
with kernels; here a shell script stands for worker and kernel."""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks import batch_faults
from deepnet_edu.batch.active import Active
from deepnet_edu.batch.run import run_batch
from deepnet_edu.batch.slots import make_slots
from deepnet_edu.lock import HOST
from deepnet_edu.messages import UserError
from tests.batch.conftest import SCRIPT, stand_in
from tests.zygote import Python

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="Windows has no sh"), pytest.mark.xdist_group("zygote")]

#: While the first two runs are audited, the others are there to be killed; who comes later need not wait.
VICTIMS = """if [ ! -e ../killed ]; then
    case $1 in
        0|1) until [ -e ../ready ]; do sleep 0.05; done ;;
        *) sleep 600 & touch ../ready; wait $! ;;
    esac
fi"""


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner is a process of its own that was forked: most of a trial would be its start."""

    def start(folder: Path, *given: Any) -> Python:
        task = json.dumps([str(folder), *given])
        return Python("-m", "benchmarks.batch_faults", "--runner", task, cwd=folder.parent)

    monkeypatch.setattr(batch_faults, "start", start)


def wait_until(what: Callable[[], object], runner: Python) -> None:
    """Until it is true; the runner must live so long."""
    while not what():
        assert runner.poll() is None
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("victim", "point", "nth"),
    [
        ("runner", "status: before", 5),  # while it plans
        ("runner", "status: before", 15),
        ("runner", "status: after", 15),
        ("runner", "result: before", 3),
        ("runner", "result: copied", 2),
        ("runner", "audit: during", 4),
        ("worker", "status: after", 15),
        ("kernel", "audit: during", 2),
    ],
)
def test_killed_and_resumed(tmp_path: Path, stub: list[str], victim: str, point: str, nth: int) -> None:
    if victim != "runner":
        (tmp_path / "stub").write_text(SCRIPT.replace("sleep 0.2", VICTIMS))
    trial = batch_faults.trial(tmp_path, victim, point, nth, slots=4, stub=stub)
    assert trial.killed
    assert trial.wrong == []


@pytest.fixture
def gate(tmp_path: Path, stub: list[str]) -> Path:
    """A pipe at which each run waits until it is opened, unless a file says that it is open."""
    os.mkfifo(tmp_path / "stub.gate")
    (tmp_path / "stub").write_text(SCRIPT.replace("sleep 0.2", '[ -e "$0.open" ] || cat "$0.gate"'))
    batch_faults.make_notebook(tmp_path / "small.ipynb")
    return tmp_path / "stub.gate"


def open_once(gate: Path) -> None:
    """For those who wait; without anybody it is nothing."""
    with suppress(OSError):
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))


def test_a_second_runner_is_refused_or_joins(
    tmp_path: Path, stub: list[str], gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first runner is a process of its own, the second is this one: all runs are done, each by one of them."""
    folder = tmp_path / "batch"

    def look(self: object, active: Sequence[Active], waiting: int) -> None:
        if not active and not waiting:  # all but that of the first runner
            open_once(gate)

    with batch_faults.start(folder, 1, "runner", "", 1, stub) as first:
        wait_until(lambda: batch_faults.processes(folder)["kernel"], first)
        plan = batch_faults.make_plan(batch_faults.Request(("small.ipynb",), seeds=batch_faults.NOTEBOOKS), tmp_path)
        slots = make_slots("none", 1, [])
        with pytest.raises(UserError, match=f"by process {first.pid} on {HOST}: help it with --join"):
            run_batch(plan, folder, slots, batch_faults.Limits(), resume=True, quiet=True)
        gate.with_suffix(".open").touch()
        monkeypatch.setattr("deepnet_edu.batch.active.start_worker", stand_in(*stub))
        monkeypatch.setattr("deepnet_edu.batch.watch.Lines.look", look)
        runs = run_batch(plan, folder, slots, batch_faults.Limits(), join=True, quiet=True)
        assert first.wait() == 0
    runs = batch_faults.read_batch(folder)
    assert {run.state for run in runs} == {"done"}
    assert {run.attempts for run in runs} == {1}
    assert {run.pid for run in runs} == {first.pid, os.getpid()}
    assert batch_faults.look(folder, {}) == []


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_lets_runs_end_and_twice_does_not(tmp_path: Path, stub: list[str], gate: Path, times: int) -> None:
    folder = tmp_path / "batch"
    with batch_faults.start(folder, 2, "runner", "", 1, stub) as runner:
        wait_until(lambda: len(batch_faults.processes(folder)["kernel"]) == 2, runner)
        for _ in range(times):
            runner.send_signal(signal.SIGINT)
            time.sleep(1)  # two that come together are one
        while times == 1 and runner.poll() is None:
            open_once(gate)
            time.sleep(0.05)
        assert runner.wait() == 0
    states = [run.state for run in batch_faults.read_batch(folder) if run.state != "queued"]
    assert states == ["done" if times == 1 else "killed"] * 2
    assert not any(batch_faults.processes(folder).values())
    assert not [*folder.glob("*/claim.json"), *folder.glob("lock.json")]
