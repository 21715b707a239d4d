"""The process at work in a folder: a file that only one can create, with its machine and process.

A file that a dead process of this machine left behind blocks no one. Of a process on another machine nothing can be
known but its heartbeat: as long as it lives it touches its file, and another that wants to take over waits until no
touch comes any more, by a clock of its own.
"""

import contextlib
import os
import shutil
import socket
import threading
import time
import uuid
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
        machine: as :func:`machine` says. Locks of earlier versions have neither, so their machine is an unknown one.
    """

    host: str
    pid: int
    started: str
    born: float
    boot: str = ""
    machine: str = ""

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
    """The process that holds a lock; None if none does, it was killed while taking it, or the file is not ours."""
    try:
        found = from_dict(Holder, read_json(path, links=False))
    except (OSError, ValueError):
        return None
    # What is shown in a sentence may not move a terminal's cursor.
    plain = found.pid > 0 and all(text.isprintable() for text in (found.host, found.started))
    return found if plain else None


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
                _clear(path, other)
                continue
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(dumps(asdict(Holder.of(os.getpid()))))
            except OSError:  # the disk is full
                path.unlink(missing_ok=True)
                raise
            return None


def _clear(path: Path, expected: Holder | None) -> None:
    """Remove a lock that blocks no one, unless another machine has just replaced it by its own."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if holder(aside) != expected:
        with contextlib.suppress(OSError):
            os.link(aside, path)
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink()


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
def beating(held: Path | set[Path]) -> Iterator[None]:
    """Touch locks that this process holds as long as the block runs, and give them back at its end.

    Args:
        held: a lock, or a set of them that may change meanwhile.
    """
    over, paths = threading.Event(), {held} if isinstance(held, Path) else held

    def go() -> None:
        while not over.wait(BEAT):
            for path in tuple(paths):
                beat(path)

    thread = threading.Thread(target=go, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for path in tuple(paths):
            release(path)


def silent(
    path: Path, found: Holder, seconds: float | None = None, look: Callable[[float], None] | None = None
) -> bool:
    """Whether a lock gets no touch for so long. It waits, and takes no machine's clock for another's.

    Args:
        path: of the lock.
        found: who holds it.
        seconds: how long to watch; ``SILENCE`` by default.
        look: is told the seconds that are left, about once a second.
    """
    before = touched(path)
    end = time.monotonic() + (SILENCE if seconds is None else seconds)
    while (left := end - time.monotonic()) > 0:
        if look:
            look(left)
        time.sleep(min(1.0, left))
        if holder(path) != found or touched(path) != before:
            return False
    return True


def touched(path: Path) -> int | None:
    """When a lock was touched last, by some machine's clock: two of these are equal or not, and mean nothing else."""
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
        with contextlib.suppress(OSError):  # some network disks have no such locks, or none for folders
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
