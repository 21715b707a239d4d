"""A batch whose machine was lost is resumed on another, and a process that waits names the other; hosts are made up."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deepnet_edu import lock
from deepnet_edu.batch import claims
from deepnet_edu.batch.active import Active
from deepnet_edu.batch.folder import fill_folder, take_folder
from deepnet_edu.batch.plan import BatchPlan, Request, make_plan
from deepnet_edu.batch.run import run_batch
from deepnet_edu.batch.runner import Limits
from deepnet_edu.batch.slots import make_slots
from deepnet_edu.batch.state import Status
from deepnet_edu.lock import Holder, holder, release
from deepnet_edu.messages import UserError
from tests.batch.conftest import stand_in, write_notebook

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no sh")
GOOD = 'sed "s/777/$((2 * $1))/" "$0.ipynb" > partial.ipynb\n'
GONE = replace(Holder.of(os.getpid()), host="node-a", pid=4321)
Run = Callable[..., list[Status]]


@pytest.fixture
def plan(working: Path, stub: list[str], monkeypatch: pytest.MonkeyPatch) -> BatchPlan:
    """Three runs, planned in the folder ``out``; none is begun, and the lock is free."""
    write_notebook(working / "x.ipynb")
    (working / "stub").write_text(GOOD)
    monkeypatch.setattr("deepnet_edu.batch.active.start_worker", stand_in(*stub))
    monkeypatch.setattr(lock, "SILENCE", 0.3)
    monkeypatch.setattr("deepnet_edu.batch.runner.ELSEWHERE_S", 0.05)
    plan = make_plan(Request(("x.ipynb",), seeds=3))
    take_folder(working / "out", resume=False, join=False)
    fill_folder(working / "out", plan, [])
    release(working / "out" / "lock.json")
    return plan


def begin(plan: BatchPlan, number: int, who: Holder) -> Path:
    """One of the runs, as a runner has it that is at work on it."""
    run = plan.runs[number]
    begun = replace(run, state="running", attempts=1)
    begun.write(place := Path("out") / run.id)
    (place / "claim.json").write_text(json.dumps(vars(who)))
    return place / "claim.json"


def run(plan: BatchPlan, **options: bool) -> list[Status]:
    return run_batch(plan, Path("out"), make_slots("none", 1, []), Limits(), resume=True, **options)  # type: ignore[arg-type]


def lose_machine(plan: BatchPlan) -> None:
    Path("out/lock.json").write_text(json.dumps(vars(GONE)))
    begin(plan, 1, replace(GONE, started="2026-01-01T10:00:00+00:00"))


def test_a_lost_machines_batch_is_resumed_where_one_says_so(
    plan: BatchPlan, capsys: pytest.CaptureFixture[str]
) -> None:
    lose_machine(plan)
    with pytest.raises(UserError, match=r"by process 4321 on node-a: help it with --join; .* --resume --take-over\."):
        run(plan)
    assert [one.state for one in run(plan, take_over=True)] == ["done"] * 3
    assert "Waiting 0.3 s for a sign of life of process 4321 on node-a." in capsys.readouterr().err
    assert not [*Path("out").glob("*/claim.json"), *Path("out").glob("lock.json")]


def test_a_machine_that_lives_keeps_its_batch(plan: BatchPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_machine(plan)
    monkeypatch.setattr(time, "sleep", lambda _: lock.beat(Path("out/lock.json")))
    with pytest.raises(UserError, match="process 4321 on node-a, and it has just given a sign of life"):
        run(plan, take_over=True)
    assert holder(Path("out/lock.json")) == GONE


def test_a_process_of_this_machine_is_not_taken_over(plan: BatchPlan) -> None:
    Path("out/lock.json").write_text(json.dumps(vars(Holder.of(os.getppid()))))
    with pytest.raises(UserError, match="help it with --join, or end that process first"):
        run(plan, take_over=True)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_claim_that_does_not_beat_holds_nothing_for_ever(
    plan: BatchPlan, damaged: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock was removed by hand, or another runner works beside."""
    monkeypatch.setattr(claims, "WAIT_S", 0.0)
    claim = begin(plan, 1, GONE)
    if damaged:
        (claim.parent / "status.json").write_text("{")
    assert [one.state for one in run(plan)] == ["done"] * 3
    said = capsys.readouterr().out
    assert f"Waiting for process 4321 on node-a, since {GONE.started}: it is at work on {plan.runs[1].id}." in said
    assert "process 4321 on node-a has given no sign of life for 0.3 s" in said


def test_a_claim_that_beats_is_waited_for(plan: BatchPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, begun = begin(plan, 1, GONE), time.monotonic()

    def look(self: object, active: Sequence[Active], waiting: int) -> None:
        lock.beat(claim)
        if not active and time.monotonic() - begun > 1:  # three times SILENCE: it is done by now
            replace(plan.runs[1], state="done", audited=True, attempts=7).write(claim.parent)

    monkeypatch.setattr("deepnet_edu.batch.watch.Lines.look", look)
    assert [one.attempts for one in run(plan)] == [1, 7, 1]


def test_a_run_that_another_has_taken_is_let_go(
    plan: BatchPlan, monkeypatch: pytest.MonkeyPatch, working: Path
) -> None:
    """As when this machine slept for longer than a lock may be silent."""
    (working / "stub").write_text("[ $1 = 1 ] && sleep 600\n" + GOOD)
    said: list[str] = []

    def look(self: object, active: Sequence[Active], waiting: int) -> None:
        if active and active[0].run.seed == 1:
            (active[0].folder / "claim.json").write_text(json.dumps(vars(GONE)))
            replace(active[0].run, state="done", audited=True, attempts=7).write(active[0].folder)

    monkeypatch.setattr("deepnet_edu.batch.watch.Lines.look", look)
    monkeypatch.setattr("deepnet_edu.batch.watch.Lines.say", lambda self, sentence: said.append(sentence))
    assert [one.attempts for one in run(plan)] == [1, 7, 1]
    assert any("was taken over by process 4321 on node-a" in sentence for sentence in said)
    assert holder(Path("out") / plan.runs[1].id / "claim.json") == GONE


def test_lock_and_claims_beat(plan: BatchPlan, monkeypatch: pytest.MonkeyPatch, working: Path) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.02)
    (working / "stub").write_text(
        "for i in $(seq 2000); do [ -e ../../enough ] && break; sleep 0.05; done\n"
        f"[ -e ../../enough ] || exit 4\n{GOOD}"
    )
    touched: set[tuple[str, int]] = set()

    def look(self: object, active: Sequence[Active], waiting: int) -> None:
        if active:
            for path in (Path("out/lock.json"), active[0].folder / "claim.json"):
                touched.add((path.name, path.stat().st_mtime_ns))
            often = Counter(name for name, _ in touched)
            if min(often["lock.json"], often["claim.json"]) > 3:
                (working / "enough").touch()

    monkeypatch.setattr("deepnet_edu.batch.watch.Lines.look", look)
    assert [one.state for one in run(plan)] == ["done"] * 3
