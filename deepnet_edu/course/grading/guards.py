"""What a process gives up before it runs an answer: files, the network, signals to others, memory without end.

On Linux the kernel holds the answer to that: Landlock, beside the namespaces in which the sandbox was started. An
audit hook of Python's does the same everywhere, for all that goes through Python: it is a fence, not a wall.
"""

import ctypes
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deepnet_edu.course.places import PACKAGE, REFERENCES, ROOT

CPU_S = 120
MEMORY_BYTES = 6 * 2**30
FILE_BYTES = 64 * 2**20

#: Audit events that no answer needs.
_REFUSED = {
    "os.system": "start a program",
    "os.exec": "start a program",
    "os.posix_spawn": "start a program",
    "os.spawn": "start a program",
    "subprocess.Popen": "start a program",
    "pty.spawn": "start a program",
    "os.fork": "start a process",
    "os.forkpty": "start a process",
    "os.kill": "send a signal",
    "os.killpg": "send a signal",
    "signal.pthread_kill": "send a signal",
    "ctypes.dlopen": "load C code",
    "ctypes.dlsym": "load C code",
    "gc.get_objects": "look at what is not its own",
    "gc.get_referrers": "look at what is not its own",
    "gc.get_referents": "look at what is not its own",
    "sys._current_frames": "look at what is not its own",
    "sys._current_exceptions": "look at what is not its own",
    "sys.settrace": "look at what is not its own",
    "sys.setprofile": "look at what is not its own",
}
#: Audit events whose paths must be in the answer's own folder, and how many of their arguments are paths.
_WRITES = {
    "os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2, "os.truncate": 1,
    "os.chmod": 1, "os.chown": 1, "os.utime": 1, "os.setxattr": 1, "os.removexattr": 1, "shutil.rmtree": 1,
    "os.chflags": 1, "os.mkfifo": 1, "os.mknod": 1,
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def readable() -> Iterator[Path]:
    """What of the project an answer may read: the library, without the reference answers and the lessons' judges."""
    for path in PACKAGE.iterdir():
        if path.name == "course":
            yield from (one for one in path.iterdir() if one != REFERENCES)
        elif path.name == "checks":
            yield from (one for one in path.iterdir() if not one.name.startswith("lesson_"))
        else:
            yield path


def limit() -> None:
    """Time, memory and files: what is more ends in an error, or ends the process."""
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # not Linux
        used = 0
    for what, most in (
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
        *([(resource.RLIMIT_AS, used + MEMORY_BYTES)] if used else []),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def fence(folder: Path) -> None:
    """Python's audit hook, which cannot be taken away again.

    Args:
        folder: the answer's own, in which it may write.
    """
    own, project, may = str(folder.resolve()), str(ROOT), [str(path) for path in readable()]
    may += [os.path.realpath(one) for one in (sys.prefix, sys.base_prefix)] + [sys.prefix, sys.base_prefix]
    withheld = ("deepnet_edu.course.references", "deepnet_edu.checks.lesson_", "tests.")
    real, within = os.path.realpath, _within

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event in _REFUSED:
            raise PermissionError(f"an answer may not {_REFUSED[event]}")
        if event.startswith("socket."):
            raise PermissionError("an answer may not use the network")
        if event == "import" and str(details[0]).startswith(withheld):
            raise ImportError(f"an answer may not import {details[0]}")
        if event == "open" and isinstance(details[0], str | bytes | os.PathLike):
            path = real(os.fsdecode(details[0]))
            flags = details[2] if isinstance(details[2], int) else 0
            if flags & _WRITING and not within(path, own) and path != os.devnull:
                raise PermissionError("an answer may not write outside its own folder")
            if within(path, project) and not any(within(path, one) for one in may):
                raise PermissionError("an answer may not read that file")
        for path in details[: _WRITES.get(event, 0)]:
            if not isinstance(path, str | bytes | os.PathLike) or not within(real(os.fsdecode(path)), own):
                raise PermissionError("an answer may not change files outside its own folder")

    sys.addaudithook(hook)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


_ABI_NETWORK, _ABI_SCOPES = 4, 6
_EXECUTE, _READ, _LIST, _WRITE, _TRUNCATE, _DEVICE = 1, 1 << 2, 1 << 3, 1 << 1, 1 << 14, 1 << 15
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _NO_NEW_PRIVILEGES = 444, 445, 446, 38


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def landlock(folder: Path) -> bool:
    """Landlock, the kernel's: from now on this process reads Python and the library, writes in ``folder``, opens no
    TCP connection, and signals no process outside, as far as the kernel knows how. Returns whether it does anything.
    """
    if sys.platform != "linux":
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    abi = call(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return False
    files = (1 << (13 + (abi >= 2) + (abi >= 3))) - 1 | (_DEVICE if abi >= 5 else 0)
    rules = _Ruleset(files, 3 if abi >= _ABI_NETWORK else 0, 3 if abi >= _ABI_SCOPES else 0)
    size = 24 if abi >= _ABI_SCOPES else 16 if abi >= _ABI_NETWORK else 8
    ruleset = call(_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    see = _EXECUTE | _READ | _LIST
    for path, allowed in _allowed(folder, see, files):
        try:
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # not on this machine
            continue
        if not os.path.isdir(path):
            allowed &= _EXECUTE | _READ | _WRITE | files & (_TRUNCATE | _DEVICE)
        rule = _Beneath(allowed & files, parent)
        call(_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
        os.close(parent)
    libc: Callable[..., int] = ctypes.CDLL(None).prctl
    done = libc(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 and call(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return done


def _allowed(folder: Path, see: int, everything: int) -> Iterator[tuple[Path, int]]:
    yield folder, everything & ~_EXECUTE
    yield Path(os.devnull), _READ | _WRITE
    yield Path("/dev/urandom"), _READ
    yield PACKAGE, _LIST
    system = ["/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime"]
    for one in dict.fromkeys([sys.prefix, sys.base_prefix, sys.exec_prefix, *system]):
        yield Path(one), see
    for path in readable():
        yield path, see
