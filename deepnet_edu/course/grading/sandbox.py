"""The sandbox as the grader sees it: started once, and a fresh process for each answer."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from deepnet_edu.course.grading import wire
from deepnet_edu.course.places import PACKAGE
from deepnet_edu.messages import UserError

#: Namespaces of its own: no network but itself, no process but its own.
_UNSHARE = ["unshare", "--user", "--net", "--pid", "--ipc", "--fork", "--kill-child"]
_START_S = 300.0
#: What is guarded, in words.
GUARDED = {
    "network": "the network",
    "files": "files outside its folder",
    "signals": "other processes",
    "answers": "the reference answers",
}


class Sandbox:
    """Processes in which answers run: without a network, in an empty folder, with limits, and without this process's
    environment.

    Attributes:
        held: by what each guard is held, tried before the first answer runs: True by the system, False by Python alone.

    Raises:
        UserError: it cannot be started here.
    """

    def __init__(self) -> None:
        if sys.platform == "win32":
            raise UserError("Windows has no sandbox for answers: grade on Linux, macOS or in WSL.")
        self._folder = Path(tempfile.mkdtemp(prefix="deepnet-edu-grade-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.held: dict[str, bool] = {}
        self._namespaces = _works(_UNSHARE)

    def __enter__(self) -> "Sandbox":
        self.held = self._tried()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def begin(self, job: dict[str, Any], timeout: float) -> socket.socket:
        """Start a process for one answer; the line to it. The process before it is ended.

        Args:
            job: what inside.py is to do.
            timeout: seconds after which a call on the line gives up.

        Raises:
            UserError: the sandbox cannot be started.
        """
        for attempt in range(2):
            ours, theirs = socket.socketpair()
            try:
                if self._control is None:
                    self._start()
                assert self._control is not None
                socket.send_fds(self._control, [b"j"], [theirs.fileno()])
                theirs.close()
                ours.settimeout(_START_S)
                if not ours.recv(1):  # what was forked says that it is there
                    raise ConnectionResetError
                ours.settimeout(timeout)
                wire.send(ours, job)
                return ours
            except OSError:  # it was killed, for want of memory perhaps
                ours.close()
                self._stop()
                if attempt:
                    raise UserError("The sandbox for answers ended by itself: is there memory left?") from None
            finally:
                theirs.close()
        raise AssertionError

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        # Nothing of this process's environment, which may hold passwords.
        clean = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder),
            "PYTHONPATH": str(PACKAGE.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MPLBACKEND": "agg",
            "DEEPNET_EDU_PROFILE": "smoke",
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        }
        inside = [sys.executable, "-P", "-m", "deepnet_edu.course.grading.inside", str(theirs.fileno())]
        complaint = self._folder / "complaint.txt"
        with theirs, complaint.open("wb") as errors:
            self._process = subprocess.Popen(
                [*(_UNSHARE if self._namespaces else []), *inside, str(self._folder)],
                cwd=self._folder,
                env=clean,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        ours.settimeout(_START_S)
        try:
            ready = ours.recv(1)
        except OSError:
            ready = b""
        if not ready:
            said = complaint.read_text(errors="replace").strip().rpartition("\n")[2]
            ours.close()
            self._stop()
            raise UserError(f"The sandbox for answers did not start: {said or 'it gave no reason'}.")
        self._control = ours

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _tried(self) -> dict[str, bool]:
        """What the system refuses to a process of the sandbox, by trying."""
        outside = tempfile.mkdtemp(prefix="deepnet-edu-outside-")
        try:
            with socket.create_server(("127.0.0.1", 0)) as server:
                job = {
                    "kind": "probe",
                    "name": "",
                    "cells": [],
                    "port": server.getsockname()[1],
                    "outside": os.path.join(outside, "file"),
                    "pid": os.getpid(),
                }
                with self.begin(job, _START_S) as line:
                    found = wire.receive(line)
            return {name: bool(found[name]) for name in GUARDED}
        except (EOFError, ValueError, OSError, KeyError):
            return dict.fromkeys(GUARDED, False)
        finally:
            shutil.rmtree(outside, ignore_errors=True)

    def in_words(self) -> str:
        """How answers are held, in a sentence."""
        system = [said for name, said in GUARDED.items() if self.held.get(name)]
        python = [said for name, said in GUARDED.items() if not self.held.get(name)]
        parts = [f"the system keeps answers from {_listed(system)}"] if system else []
        parts += [f"Python alone keeps them from {_listed(python)}"] if python else []
        return f"Sandbox: {'; '.join(parts)}."


def _listed(words: list[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]


def _works(command: list[str]) -> bool:
    """Whether this system lets us start a program so."""
    if sys.platform != "linux" or not shutil.which(command[0]):
        return False
    try:
        return subprocess.run([*command, "true"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
