"""What is known of a run: one small JSON file, written whole or not at all."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from deepnet_edu.files import write_atomic
from deepnet_edu.messages import UserError

STATUS = "status.json"
BATCH = "batch.json"
#: Who runs the batch, and in a run's folder who is at work on it.
LOCK, CLAIM = "lock.json", "claim.json"
STATES = ("queued", "running", "done", "failed", "timed out", "killed")
VERSION = 1


@dataclass
class Status:
    """One run of a notebook.

    Attributes:
        id: name of its folder: the notebook's stem and 12 digits of what identifies the run.
        notebook: its stem.
        source: where the notebook stands.
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
    seconds: float = 0.0
    memory_gb: float | None = None
    problems: list[str] = field(default_factory=list)
    audited: bool = False
    metrics: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Status":
        """From the folder of a run.

        Raises:
            UserError: there is no whole status of this version.
        """
        try:
            found = json.loads((folder / STATUS).read_text(encoding="utf-8"))
            if found.pop("version") != VERSION:
                raise ValueError("another version")
            return cls(**{one.name: found[one.name] for one in fields(cls)})
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{folder / STATUS} cannot be read ({error}): run the batch again with --resume.") from None

    def write(self, folder: Path) -> None:
        """Into the folder of its run, atomically. Fault points: ``status: before`` and ``status: after``."""
        text = json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n"
        # A thousand queued runs are written at once; one that a power cut loses is planned again.
        write_atomic(folder / STATUS, text, "status", lasting=self.state != "queued")


def read_batch(folder: Path) -> list[Status]:
    """All runs of a batch, by name.

    Raises:
        UserError: a status cannot be read.
    """
    return [Status.read(path.parent) for path in sorted(folder.glob(f"*/{STATUS}"))]
