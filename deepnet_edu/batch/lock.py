"""Who is at work: a file that only one process can create, with its host and process.

A file that a dead process of this host left behind holds nobody off.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from deepnet_edu.batch.plan import now
from deepnet_edu.batch.processes import HOST, born

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "lock.json"
CLAIM = "claim.json"


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock.

    Attributes:
        host: where it runs.
        pid: its number there.
        started: when it took the lock, ISO.
        born: when the process began, seconds since 1970: numbers are used again.
    """

    host: str
    pid: int
    started: str
    born: float

    @property
    def alive(self) -> bool:
        """Whether it is at work still; of another host's process nothing can be known, so it counts as alive."""
        if self.host != HOST:
            return True
        began = born(self.pid)
        return began is not None and abs(began - self.born) < 1

    @property
    def is_me(self) -> bool:
        """Whether it is this process."""
        return (self.host, self.pid) == (HOST, os.getpid()) and self.alive


def holder(path: Path) -> Holder | None:
    """Who holds a lock; None if nobody does, or somebody who was killed while taking it."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def take(path: Path) -> Holder | None:
    """Take a lock.

    Returns:
        None if it is this process's now; otherwise the one who holds it.

    Raises:
        OSError: the folder cannot be written.
    """
    me = Holder(HOST, os.getpid(), now(), born(os.getpid()) or 0.0)
    with _alone(path.parent):
        while True:
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                other = holder(path)
                if other is not None and other.alive:
                    return other
                path.unlink(missing_ok=True)
                continue
            with os.fdopen(handle, "w") as file:
                file.write(json.dumps(asdict(me)))
            return None


def release(path: Path) -> None:
    """Give a lock back; another's stays."""
    found = holder(path)
    if found is not None and found.is_me:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process of this host at a time: two that find a dead one's lock must not both remove it, one of them the
    other's new one."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
