"""One writer for the folder of a run: the process that trains in it holds its lock, and a second one is told so."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from deepnet_edu import lock
from deepnet_edu.files import remedy
from deepnet_edu.lock import Holder, beating, holder, silent, take
from deepnet_edu.messages import UserError

LOCK = "train.lock"
#: Seconds between two lines about whom it waits for, where they go to a file.
SAY_EVERY = 30.0


class Claim:
    """A lock that this call holds.

    Args:
        path: of the lock, just taken.
        last: whether it writes itself, and calls nothing that would.
    """

    def __init__(self, path: Path, last: bool) -> None:
        self.path, self.last = path, last
        self._mine = path.read_bytes()

    def hold(self) -> None:
        """See that no other process has taken the run over, as may happen to a machine that slept.

        Raises:
            UserError: another has; what this process does from now on must not be written.
        """
        with suppress(OSError):
            if self.path.read_bytes() != self._mine:
                raise UserError(
                    f"{self.path.parent} was taken over by {holder(self.path) or 'another process'}: "
                    "this one has stopped, and writes nothing more there."
                )


_held: ContextVar[tuple[Claim, ...]] = ContextVar("folders that this call writes", default=())


@contextmanager
def claimed(folder: Path, *, last: bool = False, take_over: bool = False) -> Iterator[Claim]:
    """Be the only one who writes in a run's folder.

    Args:
        folder: is made if it is not there.
        last: nothing that is called in the block claims it once more; otherwise one may, and has it.
        take_over: wait for a sign of life of a process on another machine, and take its place where none comes.

    Raises:
        UserError: another process is at work there, or the folder cannot be written.
    """
    path = Path(os.path.realpath(folder), LOCK)
    for claim in _held.get():
        if claim.path == path and not claim.last:
            claim.last = last
            try:
                yield claim
            finally:
                claim.last = False
            return
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        other = take(path)
        if other is not None and take_over and other.elsewhere and _silent(path, other):
            other = take(path, over=other)
        if other is not None:
            raise UserError(_sentence(folder, other, take_over))
        claim = Claim(path, last)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{folder} cannot be written ({why}): {remedy(why)}, or choose another folder.") from None
    token = _held.set((*_held.get(), claim))
    try:
        with beating(path):
            yield claim
    finally:
        _held.reset(token)
        if new:
            with suppress(OSError):  # there is something in it
                folder.rmdir()


def _silent(path: Path, other: Holder) -> bool:
    """Whether no sign of life comes; it says for whom it waits."""
    said = lock.SILENCE + SAY_EVERY

    def look(left: float) -> None:
        nonlocal said
        if said - left >= SAY_EVERY:
            said = left
            with suppress(OSError):
                print(f"Waiting {left:.0f} s for a sign of life of {other} …", file=sys.stderr, flush=True)

    return silent(path, other, lock.SILENCE, look)


def _sentence(folder: Path, other: Holder, take_over: bool) -> str:
    said = f"{folder} is being written by {other}"
    if not other.elsewhere:
        me = " (this one)" if other.pid == os.getpid() else ""
        return f"{said}{me}: wait for its end, or end it, and it saves: kill {other.pid}."
    if take_over:
        return f"{said}, which is alive: end it there; then resume again."
    return f"{said}: end it there, or, if that machine is gone, resume with --take-over, or remove {folder / LOCK}."
