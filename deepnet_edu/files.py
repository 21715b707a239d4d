"""Writing files and folders so that a reader never sees half of one."""

import hashlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Tests name a fault point here, and the process is killed when it gets there.
KILL_AT = "DEEPNET_EDU_KILL_AT"


def write_atomic(path: Path, content: str | bytes, name: str = "", *, lasting: bool = True) -> None:
    """Write ``content`` under a temporary name beside ``path``, then rename it.

    Whatever happens in between, ``path`` holds either its old content or the new one.

    Args:
        path: its folder exists.
        content: text is written as UTF-8.
        name: of its fault points: ``name: before`` and ``name: after`` the rename.
        lasting: on the disk before it returns, which takes milliseconds; otherwise a power cut may lose it.

    Raises:
        OSError: the folder cannot be written; ``path`` is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        # mkstemp makes the file private; a notebook should be as readable as any other file.
        os.chmod(temporary, 0o644)
        fault_point(f"{name}: before")
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fault_point(f"{name}: after")


@contextmanager
def folder_atomic(path: Path, name: str) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill; on leaving it is written to the disk and renamed to ``path``.

    Whatever happens in between, ``path`` is there whole or not at all; what an ended process left is removed.

    Args:
        path: must not exist.
        name: of its fault points: ``name: before``, ``name: during`` and ``name: after`` the rename.

    Raises:
        OSError: the disk is full, the folder cannot be written, or ``path`` exists.
    """
    for left in path.parent.glob(f".{path.name}.*.part"):
        shutil.rmtree(left)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        fault_point(f"{name}: before")
        os.chmod(temporary, 0o755)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fault_point(f"{name}: during")  # renamed, and the disk may not know yet
    _sync(path.parent)
    fault_point(f"{name}: after")


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fault_point(name: str) -> None:
    """Where a process may be killed at the worst moment: tests do so, to see that nothing is lost."""
    if os.environ.get(KILL_AT) == name:
        os.kill(os.getpid(), signal.SIGKILL)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
