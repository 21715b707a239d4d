"""What the learner has done: a small file of plain JSON, written atomically, never thrown away.

``deepnet-edu lab`` names the file to the notebooks through the environment; where it names none (tests, batches),
nothing is kept.
"""

import errno
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from deepnet_edu import lock
from deepnet_edu.files import read_bytes, read_json, write_atomic

ExerciseState = Literal["open", "tried", "done"]

ENVIRONMENT = "DEEPNET_EDU_PROGRESS"
FILE = ".progress.json"
_STATES = ("open", "tried", "done")
_BAR_WIDTH = 20
#: A longer silence between two signs of life is taken for a break, in seconds.
BREAK_S = 30 * 60
#: No process holds the lock for a tenth of this, in seconds.
_LOCK_S = 2.0
#: Of the file's form, which is written into it.
_VERSION = 1
#: No learner works longer on one exercise: 30 years.
_MOST_SECONDS = 10**9


def progress_file() -> Path | None:
    """The learner's file, or None where nothing is kept."""
    name = os.environ.get(ENVIRONMENT)
    return Path(name) if name else None


def read(path: Path) -> dict[str, dict[str, Any]]:
    """What is known of each exercise, by name. A file that is missing or cannot be understood gives nothing.

    Returns:
        ``state``, ``attempts``, ``first`` and ``last`` (ISO time) for each exercise, and the ``seconds`` spent on it.
    """
    return _exercises(_load(path))


def read_scores(path: Path) -> dict[str, int]:
    """The best scores by game; none where the file is missing or cannot be understood."""
    return _scores(_load(path))


def trouble(path: Path) -> str:
    """What is wrong with the file, and what will happen to it, in one sentence; empty if nothing is."""
    if not os.path.lexists(path):
        return ""
    if not path.is_file():
        return f"{path} is not a file: nothing is noted until you move it away."
    try:
        content = read_json(path)
        if _newer(content):
            return f"{path} was written by a newer version of this package: nothing is noted in it until you update."
        if _understood(content):
            return ""
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}): nothing is noted in it."
    except ValueError as error:
        return f"{path} is damaged ({error}): the next check keeps it beside and starts a new one."
    return f"{path} is damaged: the next check keeps it beside and continues with what can be read."


def note(path: Path, exercise: str, state: ExerciseState) -> None:
    """Write down that ``exercise`` was checked and found in ``state``. What is done stays done, what was tried tried.

    A file that cannot be understood, or not in all its entries, is kept beside under the first free name
    ``….damaged-1``, and a new one started with what was understood.

    Raises:
        OSError: the folder cannot be written, or a newer version of this package wrote the file.
    """
    with _changing(path) as content:
        known = content["exercises"]
        add(known, exercise, state, _since(known, str(content.get("opened", ""))))


def note_opened(path: Path) -> None:
    """Write down that a lesson was opened: from now on time counts for the exercise that is checked next.

    Raises:
        OSError: the folder cannot be written, or a newer version of this package wrote the file.
    """
    with _changing(path) as content:
        content["opened"] = _now()


def note_score(path: Path, game: str, score: int) -> int:
    """Write down what was reached in ``game``, if it is the best so far. Returns the best.

    Raises:
        OSError: the folder cannot be written, or a newer version of this package wrote the file.
    """
    with _changing(path) as content:
        scores = content["scores"] = _scores(content)
        scores[game] = max(score, scores.get(game, 0))
    return scores[game]


def _load(path: Path) -> dict[str, Any]:
    """The file's content; an empty table if it is missing or is none."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _exercises(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    exercises = content.get("exercises")
    return {name: one for name, one in exercises.items() if _makes_sense(one)} if isinstance(exercises, dict) else {}


def _scores(content: dict[str, Any]) -> dict[str, int]:
    scores = content.get("scores")
    return {game: n for game, n in scores.items() if isinstance(n, int)} if isinstance(scores, dict) else {}


def _newer(content: Any) -> bool:
    version = content.get("version") if isinstance(content, dict) else None
    return isinstance(version, int | float) and version > _VERSION


def _understood(content: Any) -> bool:
    """Whether what :func:`read` and :func:`read_scores` return is all that the file says."""
    return (
        isinstance(content, dict)
        and _exercises(content) == content.get("exercises")
        and _scores(content) == content.get("scores", {})
    )


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, Any]]:
    """The content to change, with all fields that another program put there; it is written when the block ends."""
    with locked(path, _LOCK_S):
        content = _load(path)
        if _newer(content):
            raise OSError(errno.EPERM, "written by a newer version of deepnet_edu", str(path))
        if path.exists() and not _understood(content):
            _keep_damaged(path)
            content |= {"exercises": _exercises(content), "scores": _scores(content)}
        content = {"version": _VERSION, "exercises": {}} | content
        yield content
        # A link leads to where the learner keeps the file.
        write_atomic(Path(os.path.realpath(path)), json.dumps(content, indent=1) + "\n")


def _keep_damaged(path: Path) -> None:
    n = next(n for n in range(1, 10_000) if not os.path.lexists(_damaged(path, n)))
    try:
        content = read_bytes(path)
    except ValueError as error:  # not a file, or one of many gigabytes: it stays where it is
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    write_atomic(_damaged(path, n), content)


def _now() -> str:
    return datetime.now().isoformat(timespec="seconds")


def _since(known: Mapping[str, Mapping[str, Any]], opened: str) -> int:
    """Seconds since the last sign of life, a check or a lesson opened; 0 after a break."""
    last = max([opened, *(str(entry.get("last", "")) for entry in known.values())])
    try:
        seconds = (datetime.now() - datetime.fromisoformat(last)).total_seconds()
    except (ValueError, TypeError):  # none yet, or not a local time
        return 0
    return round(seconds) if 0 <= seconds <= BREAK_S else 0


@contextmanager
def locked(path: Path, patience: float) -> Iterator[None]:
    """Two processes that change a file take turns, by a lock beside it.

    A lock that a killed process of this machine left is taken over at once; any other one, whatever its date, after a
    while by this process's own clock.

    Args:
        path: of the file; its folder exists.
        patience: seconds after which a holder counts as dead.

    Raises:
        OSError: the folder cannot be written.
    """
    file = path.with_name(f"{path.name}.lock")
    over, seen, since = None, None, 0.0
    while other := lock.take(file, over):
        if other != seen:
            seen, since = other, time.monotonic()
        over = other if time.monotonic() - since > patience else None
        time.sleep(0.01)
    try:
        yield
    finally:
        lock.release(file)


def add(known: dict[str, dict[str, Any]], exercise: str, state: ExerciseState, seconds: int = 0) -> None:
    """The same in memory, with the time since the last sign of life."""
    now = _now()
    before = known.get(exercise, {"state": "open", "attempts": 0, "first": now})
    known[exercise] = {
        **before,
        "state": max(state, before["state"], key=_STATES.index),
        "attempts": before["attempts"] + (state != "open"),
        "seconds": _seconds(before) + seconds,
        "last": now,
    }


def _damaged(path: Path, n: int) -> Path:
    return path.with_name(f"{path.name}.damaged-{n}")


def _seconds(entry: Mapping[str, Any]) -> int:
    seconds = entry.get("seconds", 0)
    return seconds if isinstance(seconds, int) and 0 <= seconds < _MOST_SECONDS else 0


def _makes_sense(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("state") in _STATES and isinstance(entry.get("attempts"), int)


@dataclass(frozen=True)
class LessonProgress:
    """How far a lesson is.

    Attributes:
        lesson: its number.
        done: exercises whose check has passed.
        tried: exercises that were attempted and are not right yet.
        open: exercises not attempted.
        seconds: spent between signs of life (a lesson opened, an exercise checked), breaks left out.
    """

    lesson: str
    done: tuple[str, ...]
    tried: tuple[str, ...]
    open: tuple[str, ...]
    seconds: int = 0

    @property
    def bar(self) -> str:
        """How much is done, drawn and in words."""
        total = len(self.done) + len(self.tried) + len(self.open)
        filled = round(_BAR_WIDTH * len(self.done) / total) if total else 0
        return f"lesson {self.lesson} {'█' * filled}{'░' * (_BAR_WIDTH - filled)} {len(self.done)} of {total} done"

    @property
    def next(self) -> str:
        """The exercise to take up: one that was tried, else the first open one; empty if all are done."""
        return (*self.tried, *self.open, "")[0]

    def __str__(self) -> str:
        parts = [self.bar]
        parts += [f"{len(these)} {word}" for word, these in (("tried", self.tried), ("open", self.open)) if these]
        parts += [f"{max(1, round(self.seconds / 60))} min"] if self.seconds >= 30 else []
        parts += [f"next: {self.next}"] if self.next else []
        return ", ".join(parts)


def by_lesson(known: Mapping[str, Mapping[str, Any]], lesson_of: Mapping[str, str]) -> list[LessonProgress]:
    """Progress of each lesson, in order.

    Args:
        known: as :func:`read` returns it.
        lesson_of: the lesson of every exercise, in the order in which they are met.
    """

    def of(lesson: str, state: ExerciseState) -> Iterable[str]:
        for exercise, home in lesson_of.items():
            if home == lesson and known.get(exercise, {"state": "open"})["state"] == state:
                yield exercise

    def spent(lesson: str) -> int:
        return sum(
            _seconds(known[exercise]) for exercise, home in lesson_of.items() if home == lesson and exercise in known
        )

    return [
        LessonProgress(
            lesson, tuple(of(lesson, "done")), tuple(of(lesson, "tried")), tuple(of(lesson, "open")), spent(lesson)
        )
        for lesson in dict.fromkeys(lesson_of.values())
    ]


def next_step(lessons: Sequence[LessonProgress]) -> str:
    """What to do next, one sentence: an exercise that was tried, else the first open one of the lesson that was begun
    last, else of the first that is not done."""
    begun = [lesson for lesson in lessons if lesson.next and (lesson.done or lesson.tried)]
    waiting = [lesson for lesson in lessons if lesson.tried] or begun[-1:] or [one for one in lessons if one.next]
    if not waiting:
        return "All exercises are done."
    return f"Next: {waiting[0].next} in lesson {waiting[0].lesson}."
