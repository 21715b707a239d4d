"""Writing files and folders so that a reader never sees half of one; reading files that anybody may have written."""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import signal
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepnet_edu.messages import UserError

#: More bytes than any table, state or notebook of this package has.
MOST_BYTES = 256 * 2**20
#: Tests name a fault point here, and the process is killed when it gets there.
KILL_AT = "DEEPNET_EDU_KILL_AT"
#: How JUnit XML begins.
_JUNIT = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<testsuites?\b")


def write_atomic(path: Path, content: str | bytes, name: str = "", *, lasting: bool = True) -> None:
    """Write ``content`` under a temporary name beside ``path``, then rename it.

    Whatever happens in between, ``path`` holds either its old content or the new one. The mode of a file that is there
    is kept, so that a private one stays private. A link is replaced, since in a folder that another user may have made
    it can lead to any file; who means the file to which it leads gives ``Path(os.path.realpath(path))``.

    Args:
        path: its folder exists.
        content: text is written as UTF-8.
        name: of its fault points: ``name: before`` and ``name: after`` the rename.
        lasting: on the disk before it returns, which takes milliseconds; otherwise a power cut may lose it.

    Raises:
        OSError: the folder cannot be written, or ``path`` is a pipe or a device; it is as it was.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # root would put a file in the place of /dev/null
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    data = content.encode() if isinstance(content, str) else content
    write_point(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        fault_point(f"{name}: before")
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fault_point(f"{name}: after")


def _mode(path: Path) -> int:
    """Permissions of the file that is replaced; a new one is as readable as any other, and not private."""
    try:
        found = os.lstat(path).st_mode
    except OSError:
        return 0o644
    return stat.S_IMODE(found) & 0o777 if stat.S_ISREG(found) else 0o644


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
        write_point(path)
        for file in temporary.iterdir():
            os.chmod(file, 0o644)  # safetensors makes its files private, in a folder that is not
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


def check_output(
    option: str, path: Path, kind: str, ours: Callable[[bytes], bool], *, folder_comes: bool = False
) -> None:
    """See that an output file can be written, before a night's work and not after it.

    Args:
        option: that names it, for the sentence: ``"--junit"``.
        path: of the file.
        kind: of file: ``"JUnit"``.
        ours: whether a file with these bytes is of this kind, and may be replaced.
        folder_comes: its folder is made later, and need not be there.

    Raises:
        UserError: the file cannot be written, or holds something else.
    """
    with _one_sentence(option, path):
        _keep_others(option, path, kind, ours)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "not a regular file")
        if not folder_comes or path.parent.exists():
            tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part").close()


def write_output(option: str, path: Path, kind: str, ours: Callable[[bytes], bool], text: str) -> None:
    """Write an output file; arguments and errors are those of :func:`check_output`, ``text`` is what it will hold."""
    with _one_sentence(option, path):
        _keep_others(option, path, kind, ours)
        write_atomic(path, text)


def is_junit(found: bytes) -> bool:
    """Whether a file with these bytes is one of JUnit's."""
    return bool(_JUNIT.match(found[:1000]))


def _keep_others(option: str, path: Path, kind: str, ours: Callable[[bytes], bool]) -> None:
    """Refuse to replace a file of another kind."""
    if not os.path.lexists(path) or path.is_dir():
        return
    try:
        found = read_bytes(path)
        theirs = bool(found.strip()) and not ours(found)
    except FileNotFoundError:  # a link to nothing
        theirs = False
    except ValueError:  # a pipe, a device, or larger than any such file
        theirs = True
    if theirs:
        raise UserError(f"{option} {path} is not a {kind} file, and stays as it is: choose another file.")


@contextmanager
def _one_sentence(option: str, path: Path) -> Iterator[None]:
    """What the system says of a file that cannot be written, as a sentence."""
    try:
        yield
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{option} {path} cannot be written ({why}): choose another file.") from None


def read_bytes(path: Path, *, most: int = MOST_BYTES, links: bool = True, last: int = 0) -> bytes:
    """All of a regular file, which may be damaged or forged: a pipe or a device is refused, not waited for.

    Args:
        path: of the file.
        most: bytes that it may have.
        links: follow a link. In a folder that another user may have made, a link can name any private file.
        last: read at most this many bytes from the end of a file of any size; 0 for all of it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, or too large.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | (0 if links else getattr(os, "O_NOFOLLOW", 0))
    try:
        handle = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and not links:
            raise OSError(errno.ELOOP, "a link, which is not followed", str(path)) from None
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise ValueError("not a regular file")
    with os.fdopen(handle, "rb") as file:
        if last:
            file.seek(max(0, found.st_size - last))
            return file.read(last)
        if found.st_size > most:
            raise ValueError(f"{found.st_size:,} bytes, and {most:,} at most are expected")
        return file.read()


def read_text(path: Path, *, most: int = MOST_BYTES, links: bool = True) -> str:
    """The same as UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, too large, or not UTF-8.
    """
    data = read_bytes(path, most=most, links=links)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start})") from None


def read_json(path: Path, *, most: int = MOST_BYTES, links: bool = True) -> Any:
    """The same as JSON.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, too large, or no JSON that a person or this package would write.
    """
    return parse_json(read_text(path, most=most, links=links))


def parse_json(text: str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is none, nested without end, or has a number of thousands of digits; the reason, in a few words.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:  # Python reads no number of more than 4,300 digits
        raise ValueError("a number has thousands of digits") from None


def json_text(value: Any, *, indent: int | None = None, ensure_ascii: bool = True) -> str:
    """Plain data as JSON. NaN and the infinities, which JSON does not have, become text: ``"nan"``, ``"inf"``."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), indent=indent, ensure_ascii=ensure_ascii)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def parse_toml(text: str) -> dict[str, Any]:
    """What a TOML text says.

    Raises:
        ValueError: it is none, nested without end, or has a number of thousands of digits; the reason, in a few words.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not TOML ({error})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("a number has thousands of digits") from None


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fault_point(name: str) -> None:
    """Where a process may be killed at the worst moment: tests do so, to see that nothing is lost."""
    if os.environ.get(KILL_AT) == name:
        os.kill(os.getpid(), signal.SIGKILL)


def write_point(path: Path) -> None:
    """Called before anything is written to ``path``, or appended to it: tests put a full disk in its place."""


def remedy(reason: str) -> str:
    """What to do about a write that failed, in a few words.

    Args:
        reason: the system's own, as ``OSError.strerror`` has it.
    """
    known = {
        "make room": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        "make it writable": (errno.EACCES, errno.EPERM, errno.EROFS),
        "look after the disk, which reports a fault": (errno.EIO,),
        "choose a shorter name": (errno.ENAMETOOLONG,),
    }
    for what, numbers in known.items():
        if any(os.strerror(number) in reason for number in numbers):
            return what
    return "fix that"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
