"""What is known of a run: one small JSON file, written whole or not at all."""

import os
import tempfile
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from deepnet_edu.fields import from_dict
from deepnet_edu.files import json_text, read_json, write_atomic
from deepnet_edu.messages import UserError, unknown

STATUS = "status.json"
BATCH = "batch.json"
#: Who runs the batch, and in a run's folder who is at work on it.
LOCK, CLAIM = "lock.json", "claim.json"
STATES = ("queued", "running", "done", "failed", "timed out", "killed")
VERSION = 1
#: The problem of a run that the user has ended.
STOPPED = "it was stopped"
#: Levels of lists and tables in a parameter or a metric.
DEEPEST = 32
#: More than any count, second or GB of a run: about 30,000 years.
MOST = 1e12


@dataclass
class Status:
    """One run of a notebook.

    Attributes:
        id: name of its folder: the notebook's stem and 12 digits of what identifies the run.
        notebook: its stem.
        source: where the notebook is.
        state: one of ``STATES``.
        attempts: how often it was started.
        exit: status of the process, None while there is none.
        host, pid, device, gpu: where it ran; ``pid`` is the runner's.
        profile, seed, parameters: what was asked for; ``seed`` is the parameter SEED, 0 where there is none.
        hashes: of ``notebook`` and ``package``, SHA-256.
        versions: of ``python``, ``torch`` and ``deepnet_edu``.
        queued, started, ended: ISO times.
        seconds: wall time.
        memory_gb: the largest, in GB.
        problems: what the audit found, a sentence each.
        notes: what a reader of its metrics should know, no failures, such as rows of the data that were left out.
        audited: whether the audit has been done.
        metrics: what ``kit.record`` wrote.
    """

    id: str
    notebook: str
    source: str = ""
    state: str = "queued"
    attempts: int = 0
    exit: int | None = None
    host: str = ""
    pid: int | None = None
    device: str | None = None
    gpu: int | None = None
    profile: str = "cpu"
    seed: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    queued: str = ""
    started: str | None = None
    ended: str | None = None
    seconds: float | None = 0.0
    memory_gb: float | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    audited: bool = False
    metrics: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Status":
        """The status from the folder of a run.

        Raises:
            UserError: there is no whole status of this version; a link or a pipe is none.
        """
        try:
            found = read_json(folder / STATUS, links=False)
            if isinstance(found, dict) and found.get("version") != VERSION:
                raise ValueError("of another version")
            known = {one.name for one in fields(cls)}
            run = from_dict(cls, {k: v for k, v in found.items() if k in known} if isinstance(found, dict) else found)
            run.check()
        except (OSError, ValueError) as error:
            why = str(getattr(error, "strerror", None) or error)[:300]
            raise UserError(f"{folder / STATUS} cannot be read ({why}): run the batch again with --resume.") from None
        return run

    def check(self) -> None:
        """See that all values are in their ranges; their types are checked where they are read.

        Raises:
            ValueError: one is not.
        """
        if not self.id or Path(self.id).name != self.id:
            raise ValueError("id: expected the name of a folder")
        if self.state not in STATES:
            raise ValueError(unknown("state", self.state[:60], STATES))
        for name in ("attempts", "pid", "gpu", "seconds", "memory_gb"):
            if (number := getattr(self, name)) is not None and not 0 <= number <= MOST:
                raise ValueError(f"{name}: expected a number from 0 on")
        for name in ("queued", "started", "ended"):
            if (time := getattr(self, name)) and datetime.fromisoformat(time).tzinfo is None:
                raise ValueError(f"{name}: expected a time with its zone")
        if nested(self.parameters) or nested(self.metrics):
            raise ValueError(f"parameters and metrics: expected {DEEPEST} levels of lists and tables at most")

    def write(self, folder: Path) -> None:
        """Into the folder of its run, atomically. Fault points: ``status: before`` and ``status: after``."""
        text = json_text({"version": VERSION, **asdict(self)}, indent=1) + "\n"
        make_way(folder / STATUS)
        # A thousand queued runs are written at once; one that a power cut loses is planned again.
        write_atomic(folder / STATUS, text, "status", lasting=self.state != "queued")


def nested(value: Any, levels: int = DEEPEST) -> bool:
    """Whether plain data has more than this many levels of lists and tables."""
    if not isinstance(value, dict | list | tuple):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(nested(one, levels - 1) for one in inside)


def make_way(path: Path) -> None:
    """Move what is not a regular file aside, to a name beside it: a notebook can make a folder of any name."""
    if path.is_dir() and not path.is_symlink():
        # A folder can replace an empty one, and nothing else.
        os.replace(path, tempfile.mkdtemp(prefix=f"{path.name}.", suffix=".aside", dir=path.parent))
    elif os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        path.unlink()


def read_batch(folder: Path) -> list[Status]:
    """All runs of a batch, by name. One whose status is damaged counts as failed, and says why.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:  # it belongs to another user, or its name is not one
        raise UserError(f"{folder} cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    return [_read_or_failed(folder / name) for name in names if os.path.lexists(folder / name / STATUS)]


def _read_or_failed(place: Path) -> Status:
    try:
        if place.is_symlink():
            raise UserError(f"{place} is a link, which is not followed: run the batch again with --resume.")
        run = Status.read(place)
        if run.id != place.name:
            raise UserError(f"{place / STATUS} is that of another run, {run.id}: run the batch again with --resume.")
    except UserError as error:
        return Status(place.name, place.name.rpartition(".")[0] or place.name, state="failed", problems=[str(error)])
    return run
