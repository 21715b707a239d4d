"""One process holds a lock, whatever its machine's clock says; of other machines' processes heartbeats are known."""

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from deepnet_edu import lock
from deepnet_edu.lock import Holder, beat, beating, holder, release, silent, take

PARENT = Holder.of(os.getppid())
ELSEWHERE = replace(PARENT, host="elsewhere")


def test_a_lock_is_taken_once_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    assert take(path) is None
    assert (mine := holder(path)) is not None
    assert mine.is_me
    assert take(path) == mine  # a second time is refused too
    release(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("other", "holds"),
    [
        (PARENT, True),
        (ELSEWHERE, True),
        (replace(PARENT, machine="a container of the same name"), True),
        (replace(PARENT, born=1.0), False),  # its number was used again
        (replace(PARENT, pid=2**22 + 1), False),
        (replace(PARENT, boot="before the power cut"), False),
    ],
)
def test_who_holds_off_others(tmp_path: Path, other: Holder, holds: bool) -> None:
    path = tmp_path / "lock.json"
    path.write_text(json.dumps(vars(other)))
    assert take(path) == (other if holds else None)
    release(path)
    assert path.exists() is holds


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "[" * 100_000, json.dumps({**vars(PARENT), "born": "x"}), '{"pid": ' + "1" * 5000 + "}"]
)
def test_a_damaged_lock_holds_nobody_off(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lock.json"
    path.write_text(content)
    assert take(path) is None


def test_a_lock_outlives_a_stepped_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil computes the start of a process from the machine's start, which moves with the wall clock."""
    with subprocess.Popen(["sleep", "600"]) as other:
        path = tmp_path / "lock.json"
        path.write_text(json.dumps(vars(held := Holder.of(other.pid))))
        monkeypatch.setattr(psutil.Process, "create_time", lambda _: time.time() + 3600)
        assert take(path) == held
        other.kill()
        other.wait()
        assert take(path) is None


def test_a_heartbeat_is_seen_and_a_silent_one_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock.json"
    path.write_text(json.dumps(vars(ELSEWHERE)))
    with monkeypatch.context() as alive:
        alive.setattr(time, "sleep", lambda _: beat(path))
        assert not silent(path, ELSEWHERE, 60)
    assert silent(path, ELSEWHERE, 0.05)
    assert take(path) == ELSEWHERE
    assert take(path, over=ELSEWHERE) is None
    assert not silent(path, ELSEWHERE, 0.05)  # it is another's now


def test_the_future_delays_nobody(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    path.write_text(json.dumps(vars(ELSEWHERE)))
    os.utime(path, (time.time() + 3600,) * 2)
    assert silent(path, ELSEWHERE, 0.05)


def test_a_lock_beats_and_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.02)
    path = tmp_path / "lock.json"
    assert take(path) is None
    os.utime(path, (0, 0))
    with beating(path):
        while path.stat().st_mtime == 0:
            time.sleep(0.01)
    assert not path.exists()
