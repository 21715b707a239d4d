"""Who is at work in a folder: a file that only one process can create, with its machine and process.

A file that a dead process of this machine left behind holds nobody off. Of a process on another machine nothing can be
known but its heartbeat: as long as it lives it touches its file, and whoever wants to take over waits until no touch
comes any more, by a clock of its own.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from json import dumps
from pathlib import Path

import psutil

from deepnet_edu.fields import from_dict
from deepnet_edu.files import read_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HOST = socket.gethostname()
#: Seconds between two touches, and without one after which a process of another machine counts as dead. The second
#: leaves time for a network's file system, which may show a file's old time for a minute.
BEAT, SILENCE = 5.0, 90.0


def now() -> str:
    """The time with its zone, ISO 8601, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(errors="replace").strip()
    return ""


def machine() -> str:
    """What tells this machine from others of the same name: its identity, and the namespace of its process numbers."""
    with contextlib.suppress(OSError):
        return f"{_read('/etc/machine-id')} {os.readlink('/proc/self/ns/pid')}".strip()
    return ""


def boot() -> str:
    """What tells this start of the machine from earlier ones, whatever its clock says; empty where nothing does."""
    return _read("/proc/sys/kernel/random/boot_id")


def born(pid: int) -> float | None:
    """When a process of this machine began; None if there is none.

    In clock ticks since the machine's start where /proc tells them, since seconds since 1970 move with the clock.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        # After the last bracket, since a program's name may hold brackets and spaces.
        stat = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return float(stat[19]) if len(stat) > 19 else process.create_time()
    except psutil.Error:
        return None


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock.

    Attributes:
        host: where it runs.
        pid: its number there.
        started: when it took the lock, ISO.
        born: when the process began, as :func:`born` says: numbers are used again.
        boot: as :func:`boot` says.
        machine: as :func:`machine` says.
    """

    host: str
    pid: int
    started: str
    born: float
    boot: str
    machine: str

    @classmethod
    def of(cls, pid: int) -> "Holder":
        """A process of this machine, as the holder of a lock that it takes now."""
        return cls(HOST, pid, now(), born(pid) or 0.0, boot(), machine())

    @property
    def elsewhere(self) -> bool:
        """Whether it runs on another machine, or where this process cannot see its number."""
        return (self.host, self.machine) != (HOST, machine())

    @property
    def alive(self) -> bool:
        """Whether it is at work still; on another machine nothing can be known, so it counts as alive."""
        if self.elsewhere:
            return True
        began = born(self.pid)
        return self.boot == boot() and began is not None and abs(began - self.born) < 1

    @property
    def is_me(self) -> bool:
        """Whether it is this process."""
        return not self.elsewhere and self.pid == os.getpid() and self.alive

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.started}"


def holder(path: Path) -> Holder | None:
    """Who holds a lock; None if nobody does, or somebody who was killed while taking it."""
    try:
        return from_dict(Holder, read_json(path))
    except (OSError, ValueError):
        return None


def take(path: Path, over: Holder | None = None) -> Holder | None:
    """Take a lock.

    Args:
        path: of the lock; its folder exists.
        over: a holder that was found dead (:func:`silent`), whose lock may be taken.

    Returns:
        None if it is this process's now; otherwise the one who holds it.

    Raises:
        OSError: the folder cannot be written.
    """
    with _alone(path.parent):
        while True:
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                other = holder(path)
                if other is not None and other.alive and other != over:
                    return other
                path.unlink(missing_ok=True)
                continue
            with os.fdopen(handle, "w") as file:
                file.write(dumps(asdict(Holder.of(os.getpid()))))
            return None


def release(path: Path) -> None:
    """Give a lock back; another's stays."""
    found = holder(path)
    if found is not None and found.is_me:
        path.unlink(missing_ok=True)


def beat(path: Path) -> None:
    """One touch of a lock that this process holds. A lock that is gone stays gone."""
    with contextlib.suppress(OSError):
        os.utime(path)


@contextlib.contextmanager
def beating(path: Path) -> Iterator[None]:
    """Touch a lock that this process holds as long as the block runs, and give it back at its end."""
    over = threading.Event()

    def go() -> None:
        while not over.wait(BEAT):
            beat(path)

    thread = threading.Thread(target=go, name=f"heartbeat of {path.name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        release(path)


def silent(path: Path, found: Holder, seconds: float = SILENCE, look: Callable[[float], None] | None = None) -> bool:
    """Whether a lock gets no touch for so long. It waits, and takes no machine's clock for another's.

    Args:
        path: of the lock.
        found: who holds it.
        seconds: how long to watch.
        look: is told the seconds that are left, about once a second.
    """
    before = _touched(path)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if look:
            look(left)
        time.sleep(min(1.0, left))
        if holder(path) != found or _touched(path) != before:
            return False
    return True


def _touched(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process of this machine at a time: two that find a dead one's lock must not both remove it, one of them the
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
