"""Pythons that need not load torch, Dask and the library, which takes seconds: they are forked from one that has.

That one is the fork server of the standard library; a process of the tests starts it when it first needs it. Where the
start of a command is what is tested, or what it does with signals from its first moment on, tests start it as users do.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LOADED = [
    "torch",
    "distributed.cli.dask_scheduler",
    "distributed.cli.dask_worker",
    "deepnet_edu.cli",
    "deepnet_edu.batch.cluster.remote",
    "deepnet_edu.batch.run",
    "deepnet_edu.batch.cluster.scheduler",
    "deepnet_edu.course.build",
]


@cache
def _server() -> Any:
    """Windows has none."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(LOADED)
    return server


class Python:
    """``python ARGUMENTS``, in a session of its own; in the words of subprocess.Popen, and ``with`` waits for its end.

    Args:
        arguments: ``-c CODE …`` or ``-m MODULE …``.
        cwd: its working folder.
        env: its environment; that of the caller by default.
        stdout: the file that gets what it prints.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: Path | str = os.devnull,
    ) -> None:
        reader, self.stdin = _server().Pipe(duplex=False)
        given = (arguments, cwd or Path.cwd(), dict(os.environ if env is None else env), stdout, reader)
        self._process = _server().Process(target=_begin, args=given, daemon=True)
        self._process.start()
        reader.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None as long as it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To the process alone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """By SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Python":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # no process tells it to end any more
            self.kill()
        self.wait()


def _begin(arguments: tuple[str, ...], cwd: Path, env: dict[str, str], stdout: Path | str, stdin: Connection) -> None:
    """What the forked process does."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    os.dup2(stdin.fileno(), 0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    with open(stdout, "wb") as file:
        os.dup2(file.fileno(), 1)
    kind, what, *rest = arguments
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(what, space)
