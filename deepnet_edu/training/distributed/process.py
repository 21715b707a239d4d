"""One rank as a process: whatever ends a run is said in one sentence, by one of the ranks, and all of them end."""

import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import FrameType
from typing import NoReturn

import torch.distributed as dist

from deepnet_edu.messages import UserError
from deepnet_edu.training.distributed.ranks import MEETING, initialise, meet

#: What stops a run: each rank finishes its step, saves and ends.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
#: Environment variable: the process that has started the ranks, where it is not the parent.
LAUNCHER = "DEEPNET_EDU_LAUNCHER"
#: Seconds between looks at the other ranks; what a rank has, once another is gone, to say what happened; and what it
#: waits for the others to be seen as gone, once it has failed itself.
LOOK, GRACE, WAIT = 0.5, 4.0, 3.0
#: How long a question to the store may last, which may have gone with another rank.
STORE = timedelta(seconds=5)
#: What PyTorch says where the other side of a connection has gone.
_CONNECTION = ("onnection", "remote process", "NCCL", "Gloo", "peer")


def run_rank(work: Callable[[], int], device: str, go_on: str) -> NoReturn:
    """Do ``work`` as one of the ranks that :func:`.launch` or torchrun has started, then end the process.

    A mistake of the user's is one sentence, printed by one rank. A rank that is lost, killed for example, ends all the
    others, and one of them says so; so does the loss of the process that has started them.

    Args:
        work: what is done while the ranks know each other; it returns the exit status.
        device: ``"cpu"`` or ``"cuda"``.
        go_on: what to type then, to continue after the last checkpoint.
    """
    starter = int(os.environ.get(LAUNCHER, os.getppid()))
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGINT:  # nohup ignores SIGHUP
            signal.signal(number, _ended)
    rank = int(os.environ.get("RANK", "0"))
    try:
        if hasattr(signal, "pthread_sigmask"):  # launch() has them wait
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        store, _, size = meet()
        others = Others(store, rank, size, starter, go_on)
    except UserError as error:
        sys.exit(str(error))
    except (ValueError, RuntimeError) as error:
        sys.exit(_unreachable(rank, error))
    except _Ended as ended:
        sys.exit(ended.status)
    try:
        others.watch()
        initialise(device, store)
        others.done(work())
    except UserError as error:
        others.leave(1, str(error))
    except BaseException as error:
        others.failed(error)


class Others:
    """The other ranks of a run, as far as one of them can see.

    Args:
        store: that all ranks share.
        rank: of this one.
        size: how many there are.
        starter: the process that has started them.
        go_on: what to type after a failure.
    """

    def __init__(self, store: dist.Store, rank: int, size: int, starter: int, go_on: str) -> None:
        # A connection of its own: on the first one, another thread may be waiting for a rank that is gone.
        self.store = store
        if hasattr(store, "clone"):
            self.store = store.clone()
            self.store.set_timeout(STORE)
        self.rank, self.size, self.starter, self.go_on = rank, size, starter, go_on
        self.host = socket.gethostname()
        store.set(f"rank {rank}", f"{self.host} {os.getpid()}")
        self._here: dict[int, int] = {}
        self._leaving = threading.Lock()

    def watch(self) -> None:
        """Look at the ranks of this machine, and at who has started them, from now on: where one is gone, a rank that
        waits for it would wait on."""
        threading.Thread(target=self._look, daemon=True).start()

    def lost(self) -> list[int]:
        """Ranks of this machine that have ended without a word."""
        here = list(self._here.items())
        return [other for other, pid in here if not _alive(pid) and not self._done(other)]

    def _done(self, other: int) -> bool:
        with suppress(Exception):  # the store may have gone with it
            return self.store.check([f"done {other}"])
        return False

    def done(self, status: int) -> NoReturn:
        """End after the work; the others may be at their last words still."""
        self._ignore_signals()
        with suppress(Exception):
            self.store.set(f"done {self.rank}", "")
        _flush()
        with suppress(Exception):
            dist.destroy_process_group()
        os._exit(status)

    def leave(self, status: int, sentence: str = "") -> NoReturn:
        """Print the sentence, unless another rank has printed one, and end."""
        self._ignore_signals()
        self._leaving.acquire()  # of two threads, one
        with suppress(Exception):  # the store may have gone with another rank: then everybody speaks
            if sentence and _alive(self.starter) and self.store.add("said", 1) > 1:
                sentence = ""
        with suppress(OSError):  # the reader may be gone
            if sentence:
                print(sentence, file=sys.stderr)
        _flush()
        if MEETING in os.environ and not _alive(self.starter):
            shutil.rmtree(os.environ[MEETING], ignore_errors=True)
        os._exit(status)  # not through destructors that would wait for ranks that are gone

    def _ignore_signals(self) -> None:
        """The process that starts the ranks ends them all after the first, and this one is ending already."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    def failed(self, error: BaseException) -> NoReturn:
        """Say what ended this rank: another one that is lost, if it was that; otherwise the error as it is."""
        self._ignore_signals()  # one that came now would be a traceback
        if not _alive(self.starter):
            self._without_starter()
        end = time.monotonic() + WAIT
        while not (lost := self.lost()) and time.monotonic() < end:
            time.sleep(0.1)
        if lost:
            self.leave(1, self._sentence(lost))
        if isinstance(error, _Ended):
            self.leave(error.status)
        if isinstance(error, RuntimeError) and any(word in str(error) for word in _CONNECTION):
            reason = str(error).strip().splitlines()[0]
            self.leave(1, f"Another rank does not answer any more ({reason[:200].rstrip('.')}). {self._again()}")
        self.leave(1, "".join(traceback.format_exception(error)))

    def _look(self) -> None:
        unknown = set(range(self.size)) - {self.rank}
        while _alive(self.starter):
            with suppress(Exception):  # the store may have gone with another rank
                for other in [one for one in unknown if self.store.check([f"rank {one}"])]:
                    unknown.remove(other)
                    host, pid = self.store.get(f"rank {other}").decode().rsplit(" ", 1)
                    if host == self.host:
                        self._here[other] = int(pid)
            if self.lost():
                time.sleep(GRACE)
                self.leave(1, self._sentence(self.lost()))
            time.sleep(LOOK)
        self._without_starter()

    def _without_starter(self) -> NoReturn:
        """End; the first one speaks for all."""
        if self.rank:
            time.sleep(2 * LOOK)
            self.leave(1)
        self.leave(1, f"\nProcess {self.starter}, which had started the ranks, has ended. {self._again()}")

    def _sentence(self, lost: list[int]) -> str:
        names = ", ".join(f"{other} (process {self._here[other]})" for other in lost)
        # A line of its own, since the bar of a rank that is gone may be there.
        return f"\nRank {names} ended without a word, as a process does that is killed. {self._again()}"

    def _again(self) -> str:
        return f"All ranks have stopped; resume after the last checkpoint: {self.go_on}"


def _unreachable(rank: int, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0][:200].rstrip(".")
    if MEETING in os.environ:
        return f"Rank {rank} cannot meet the others in {os.environ[MEETING]} ({reason}): TMPDIR names another disk."
    address = ":".join(os.environ.get(name, f"({name} not set)") for name in ("MASTER_ADDR", "MASTER_PORT"))
    return (
        f"Rank {rank} cannot meet the others at {address} ({reason}): if the port is in use, choose another by "
        "torchrun's --master-port; if rank 0 is not there, start it."
    )


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


class _Ended(BaseException):
    """A signal while nothing is there to be saved.

    Attributes:
        status: with which the process ends.
    """

    def __init__(self, number: int) -> None:
        self.status = 128 + number


def _ended(number: int, _frame: FrameType | None) -> NoReturn:
    raise _Ended(number)


def _alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0] not in "ZX"
    return True
