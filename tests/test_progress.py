"""The learner's progress: kept, never lost, and only where it is wanted."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from deepnet_edu import lock, progress
from deepnet_edu.checks import check
from deepnet_edu.progress import by_lesson, next_step, note, note_opened, note_score, read, read_scores, trouble


def test_done_stays_done_and_attempts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    for state in ("open", "tried", "done", "tried"):
        note(path, "a", state)  # type: ignore[arg-type]
    entry = read(path)["a"]
    assert (entry["state"], entry["attempts"]) == ("done", 3)
    assert entry["first"] <= entry["last"]
    assert json.loads(path.read_text())["version"] == 1


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"exercises": 3}', "null", "\x00\x01", "[" * 100_000, '{"a": 1' + "0" * 5000 + "}"],
    ids=["empty", "cut", "list", "number", "null", "zeros", "deep", "digits"],
)
def test_a_damaged_file_is_kept_beside_and_a_new_one_started(tmp_path: Path, content: str) -> None:
    path = tmp_path / "p.json"
    for n in (1, 2):
        path.write_text(content)
        assert read(path) == {}
        note(path, "a", "done")
        assert read(path)["a"]["state"] == "done"
        assert (tmp_path / f"p.json.damaged-{n}").read_text() == content


def test_an_entry_that_makes_no_sense_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(
        '{"exercises": {"a": {"state": "done", "attempts": 1}, "b": {"state": "?", "attempts": 1}, "c": 3}}'
    )
    before = path.read_text()
    assert list(read(path)) == ["a"]
    note(path, "d", "tried")
    assert list(read(path)) == ["a", "d"]
    assert (tmp_path / "p.json.damaged-1").read_text() == before
    note(path, "d", "tried")
    assert not (tmp_path / "p.json.damaged-2").exists()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.json"
    note(path, "a", "done")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress, "write_atomic", full)
    monkeypatch.setenv(progress.ENVIRONMENT, str(path))
    assert check.input_share(lambda n, f, alpha: 0.5).state == "tried"  # the learner still gets the answer
    assert list(read(path)) == ["a"]


def test_a_check_notes_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.json"
    monkeypatch.delenv(progress.ENVIRONMENT, raising=False)
    check.input_share(lambda n, f, alpha: 0.5)
    assert not path.exists()
    monkeypatch.setenv(progress.ENVIRONMENT, str(path))
    check.input_share(lambda n, f, alpha: 0.5)
    assert read(path)["input_share"]["state"] == "tried"
    check.input_share(lambda n, f, alpha: (alpha**2 / (alpha**2 + f)) ** n)
    assert read(path)["input_share"]["state"] == "done"


def test_by_lesson() -> None:
    known = {"a": {"state": "done"}, "b": {"state": "tried"}, "d": {"state": "done"}, "gone": {"state": "done"}}
    first, second = by_lesson(known, {"a": "01", "b": "01", "c": "01", "d": "02"})
    assert (first.done, first.tried, first.open) == (("a",), ("b",), ("c",))
    assert str(first).endswith("1 of 3 done, 1 tried, 1 open, next: b")
    assert str(second) == "lesson 02 ████████████████████ 1 of 1 done"


def test_two_notebooks_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".progress.json"
    code = (
        "import sys\nfrom pathlib import Path\nfrom deepnet_edu.progress import note\n"
        f"for i in range(40): note(Path({str(path)!r}), sys.argv[1] + str(i), 'done')"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(read(path)) == 80
    assert [file.name for file in tmp_path.iterdir()] == [".progress.json"]


def another(**changed: object) -> str:
    """A lock as another process holds it."""
    return json.dumps(asdict(lock.Holder.of(os.getppid())) | changed)


@pytest.mark.parametrize("when", [0.0, 2e9, 4e9])
@pytest.mark.parametrize(
    "left",
    ["", "{", another(born=1.0), another(boot="an earlier start"), another(), another(host="another machine")],
    ids=["empty", "cut", "killed", "before a restart", "stands still", "another machine"],
)
def test_no_lock_delays_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str, when: float) -> None:
    """Whatever it says, and whatever date it has."""
    monkeypatch.setattr(progress, "_LOCK_S", 0.05)
    path, held = tmp_path / ".progress.json", tmp_path / ".progress.json.lock"
    held.write_text(left)
    os.utime(held, (when, when))
    note(path, "f", "done")
    assert read(path)["f"]["state"] == "done"
    assert not held.exists()


def test_a_lock_that_is_held_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, held = tmp_path / ".progress.json", tmp_path / ".progress.json.lock"
    held.write_text(another())
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            held.unlink()

    monkeypatch.setattr(progress.time, "sleep", sleep)
    note(path, "f", "done")
    assert len(waits) == 3


def test_fields_that_somebody_else_added_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    entry = {"state": "tried", "attempts": 1, "hints": 2}
    path.write_text(json.dumps({"version": 1, "exercises": {"a": entry}, "reviews": [1, 2]}))
    note(path, "a", "done")
    note_score(path, "depth_game", 8)
    note_opened(path)
    content = json.loads(path.read_text())
    assert content["reviews"] == [1, 2]
    assert content["exercises"]["a"]["hints"] == 2
    assert not (tmp_path / "p.json.damaged-1").exists()


def test_a_newer_versions_file_is_read_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('{"version": 2, "exercises": {"a": {"state": "done", "attempts": 1}}, "scores": [3]}')
    before = path.read_text()
    for change in (lambda: note(path, "b", "done"), lambda: note_opened(path), lambda: note_score(path, "g", 1)):
        with pytest.raises(OSError, match="written by a newer version"):
            change()
    assert read(path)["a"]["state"] == "done"
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["p.json"]
    assert "newer version of this package" in trouble(path)


@pytest.mark.parametrize("scores", ["[3]", '"many"', '{"depth_game": "x"}', "null"])
def test_scores_that_make_no_sense_are_kept_beside(tmp_path: Path, scores: str) -> None:
    path = tmp_path / "p.json"
    path.write_text('{"version": 1, "exercises": {}, "scores": ' + scores + "}")
    before = path.read_text()
    assert "is damaged" in trouble(path)
    assert note_score(path, "depth_game", 16) == 16
    assert (tmp_path / "p.json.damaged-1").read_text() == before
    assert trouble(path) == ""


def test_a_private_file_stays_private_and_a_link_a_link(tmp_path: Path) -> None:
    kept = tmp_path / "synchronised" / "progress"
    kept.parent.mkdir()
    path = tmp_path / ".progress.json"
    path.symlink_to(kept)
    note(path, "a", "done")  # the link led nowhere yet
    kept.chmod(0o600)
    note(path, "b", "done")
    assert path.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert list(read(kept)) == ["a", "b"]


def test_what_is_not_a_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        note(path, "a", "done")
    assert path.is_fifo()
    assert trouble(path) == f"{path} is not a file: nothing is noted until you move it away."


def test_times_that_nobody_lived_count_nothing(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    entries = {name: {"state": "done", "attempts": 1, "seconds": s} for name, s in (("a", 10**400), ("b", -5))}
    path.write_text(json.dumps({"exercises": entries}))
    (lesson,) = by_lesson(read(path), {"a": "01", "b": "01"})
    assert str(lesson).endswith("2 of 2 done")


def test_a_state_is_never_lowered(tmp_path: Path) -> None:
    path = tmp_path / ".progress.json"
    for state in ("open", "tried", "open"):
        note(path, "f", state)
    assert read(path)["f"]["state"] == "tried"


def test_a_games_score_only_rises_and_stands_beside_the_exercises(tmp_path: Path) -> None:
    file = tmp_path / ".progress.json"
    note(file, "input_share", "done")
    assert note_score(file, "depth_game", 64) == 64
    assert note_score(file, "depth_game", 16) == 64
    note(file, "cloned_growth", "tried")
    assert read_scores(file) == {"depth_game": 64}
    assert set(read(file)) == {"input_share", "cloned_growth"}
    file.write_text("{ what is this")
    assert read_scores(file) == {}
    assert note_score(file, "depth_game", 8) == 8
    assert file.with_name(".progress.json.damaged-1").read_text() == "{ what is this"


class Noon(datetime):
    """A clock that stands still: on a slow machine seconds pass between two lines."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Noon":
        return cls(2026, 1, 1, 12, tzinfo=tz)


def ago(seconds: int) -> str:
    return (Noon.now() - timedelta(seconds=seconds)).isoformat(timespec="seconds")


def test_time_counts_from_the_last_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "datetime", Noon)
    path = tmp_path / "p.json"
    note_opened(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "opened": ago(300)}))
    note(path, "a", "tried")  # five minutes after the lesson was opened
    assert read(path)["a"]["seconds"] == 300
    note(path, "b", "done")  # at once
    assert read(path)["b"]["seconds"] == 0
    content = json.loads(path.read_text())
    for entry in content["exercises"].values():
        entry["last"] = ago(5 * 3600)
    path.write_text(json.dumps({**content, "opened": ago(6 * 3600)}))
    note(path, "a", "done")  # after lunch
    assert read(path)["a"]["seconds"] == 300
    (lesson,) = by_lesson(read(path), {"a": "01", "b": "01", "c": "01"})
    assert lesson.seconds == 300
    assert str(lesson).endswith("2 of 3 done, 1 open, 5 min, next: c")


@pytest.mark.parametrize("opened", ["yesterday", "2026-01-01T00:00:00+00:00", 3])
def test_a_time_that_cannot_be_read_counts_nothing(tmp_path: Path, opened: object) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"version": 1, "exercises": {}, "opened": opened}))
    note(path, "a", "done")
    assert read(path)["a"]["seconds"] == 0


def test_the_next_step_is_what_was_tried_then_what_was_begun_then_the_first() -> None:
    homes = {"a": "01", "b": "02", "c": "02", "d": "03"}

    def said(**states: str) -> str:
        return next_step(by_lesson({name: {"state": state} for name, state in states.items()}, homes))

    assert said() == "Next: a in lesson 01."
    assert said(b="done") == "Next: c in lesson 02."
    assert said(b="done", d="tried") == "Next: d in lesson 03."
    assert said(a="done", b="done", c="done") == "Next: d in lesson 03."
    assert said(**dict.fromkeys(homes, "done")) == "All exercises are done."
