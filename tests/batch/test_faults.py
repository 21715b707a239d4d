"""Whoever is killed, a batch that is resumed has each run done once. benchmarks/batch_faults.py does it at length, and
with kernels; here a shell script stands for worker and kernel."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import batch_faults
from deepnet_edu.batch.run import run_batch
from deepnet_edu.batch.slots import make_slots
from deepnet_edu.lock import HOST
from deepnet_edu.messages import UserError
from tests.batch.conftest import SCRIPT, stand_in
from tests.zygote import Python

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="Windows has no sh"), pytest.mark.xdist_group("zygote")]


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner is a process of its own that was forked: most of a trial would be its start."""

    def start(folder: Path, *given: Any) -> Python:
        task = json.dumps([str(folder), *given])
        return Python("-m", "benchmarks.batch_faults", "--runner", task, cwd=folder.parent)

    monkeypatch.setattr(batch_faults, "start", start)


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
    if victim != "runner":  # not all at the same moment: while one is audited, others must be there to be killed
        (tmp_path / "stub").write_text(SCRIPT.replace("0.2", "0.$((2 + $1 % 4 * 2))"))
    trial = batch_faults.trial(tmp_path, victim, point, nth, slots=4, stub=stub)
    assert trial.killed
    assert trial.wrong == []


def test_a_second_runner_is_refused_or_joins(tmp_path: Path, stub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first runner is a process of its own, the second is this one: all runs are done, each by one of them."""
    batch_faults.make_notebook(tmp_path / "small.ipynb")
    folder = tmp_path / "batch"
    with batch_faults.start(folder, 1, "runner", "", 1, stub) as first:
        while not list(folder.glob("*/claim.json")):
            assert first.poll() is None
        plan = batch_faults.make_plan(batch_faults.Request(("small.ipynb",), seeds=batch_faults.NOTEBOOKS), tmp_path)
        slots = make_slots("none", 1, [])
        with pytest.raises(UserError, match=f"by process {first.pid} on {HOST}: help it with --join"):
            run_batch(plan, folder, slots, batch_faults.Limits(), resume=True, quiet=True)
        monkeypatch.setattr("deepnet_edu.batch.active.start_worker", stand_in(*stub))
        runs = run_batch(plan, folder, slots, batch_faults.Limits(), join=True, quiet=True)
        assert first.wait(60) == 0
    runs = batch_faults.read_batch(folder)
    assert {run.state for run in runs} == {"done"}
    assert {run.attempts for run in runs} == {1}
    assert {run.pid for run in runs} == {first.pid, os.getpid()}
    assert batch_faults.look(folder, {}) == []


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_lets_runs_end_and_twice_does_not(tmp_path: Path, stub: list[str], times: int) -> None:
    (tmp_path / "stub").write_text(SCRIPT.replace("0.2", "1" if times == 1 else "600"))
    batch_faults.make_notebook(tmp_path / "small.ipynb")
    folder = tmp_path / "batch"
    with batch_faults.start(folder, 2, "runner", "", 1, stub) as runner:
        while len(list(folder.glob("*/claim.json"))) < 2 or len(batch_faults.processes(folder)["kernel"]) < 2:
            assert runner.poll() is None
            time.sleep(0.02)
        for _ in range(times):
            runner.send_signal(signal.SIGINT)
            time.sleep(0.2)
        assert runner.wait(60) == 0
    states = [run.state for run in batch_faults.read_batch(folder) if run.state != "queued"]
    assert states == ["done" if times == 1 else "killed"] * 2
    assert not any(batch_faults.processes(folder).values())
    assert not [*folder.glob("*/claim.json"), *folder.glob("lock.json")]
