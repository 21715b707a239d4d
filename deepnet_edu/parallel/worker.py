"""One rank as a process: whatever ends a run is said in one sentence, by one of the ranks, and all of them end."""

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import torch.distributed as dist

from deepnet_edu.messages import UserError
from deepnet_edu.parallel.ranks import initialise

#: Seconds between looks at the other ranks; what a rank has, once another is gone, to say what happened; and what it
#: waits for the others to be seen as gone, once it has failed itself.
LOOK, GRACE, WAIT = 0.5, 4.0, 3.0
#: What PyTorch says where the other side of a connection has gone.
_CONNECTION = ("onnection", "remote process", "NCCL", "Gloo", "peer")


def run_rank(work: Callable[[], None], device: str, go_on: str) -> NoReturn:
    """Do ``work`` as one of the ranks that torchrun's environment describes, then end the process.

    A mistake of the user's is one sentence, printed by one rank. A rank that is lost, killed for example, ends all the
    others, and one of them says so.

    Args:
        work: what is done while the ranks know each other.
        device: ``"cpu"`` or ``"cuda"``.
        go_on: what to type then, to go on after the last checkpoint.
    """
    signal.signal(signal.SIGTERM, _ended)
    rank = int(os.environ.get("RANK", "0"))
    try:  # at rank 0's own port, or at that of the process that started the ranks, which outlives them
        store, _, size = next(iter(dist.rendezvous("env://")))
    except (ValueError, RuntimeError) as error:
        sys.exit(_unreachable(rank, error))
    others = Others(store, rank, size, go_on)
    try:
        others.watch()
        initialise(device, store)
        work()
        others.leave(0)
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
        go_on: what to type after a failure.
    """

    def __init__(self, store: dist.Store, rank: int, size: int, go_on: str) -> None:
        # A connection of its own: on the first one, another thread may be waiting for a rank that is gone.
        self.store = store.clone() if hasattr(store, "clone") else store
        self.rank, self.size, self.go_on = rank, size, go_on
        self.host = socket.gethostname()
        store.set(f"rank {rank}", f"{self.host} {os.getpid()}")
        self._here: dict[int, int] = {}

    def watch(self) -> None:
        """Look at the ranks of this machine from now on: where one is gone, a rank that waits for it would wait on."""
        threading.Thread(target=self._look, daemon=True).start()

    def lost(self) -> list[int]:
        """Ranks of this machine that have ended without a word."""
        here = list(self._here.items())
        return [other for other, pid in here if not _alive(pid) and not self._done(other)]

    def _done(self, other: int) -> bool:
        with suppress(Exception):  # the store may have gone with it
            return self.store.check([f"done {other}"])
        return False

    def leave(self, status: int, sentence: str = "") -> NoReturn:
        """Print the sentence, unless another rank has printed one, and end."""
        if threading.current_thread() is threading.main_thread():  # who starts the ranks ends them all after the first
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with suppress(Exception):  # the store may have gone with another rank: then everybody speaks
            if sentence and self.store.add("said", 1) > 1:
                sentence = ""
            if not status:
                self.store.set(f"done {self.rank}", "")
        if sentence:
            print(sentence, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        if not status and dist.is_initialized():
            with suppress(Exception):
                dist.destroy_process_group()
        os._exit(status)  # not through destructors that would wait for ranks that are gone

    def failed(self, error: BaseException) -> NoReturn:
        """Say what ended this rank: another one that is lost, if it was that; otherwise the error as it is."""
        end = time.monotonic() + WAIT
        while not (lost := self.lost()) and time.monotonic() < end:
            time.sleep(0.1)
        if lost:
            self.leave(1, self._sentence(lost))
        if isinstance(error, _Ended | KeyboardInterrupt):
            self.leave(128 + signal.SIGTERM)
        if isinstance(error, RuntimeError) and any(word in str(error) for word in _CONNECTION):
            reason = str(error).strip().splitlines()[0]
            self.leave(1, f"Another rank does not answer any more ({reason[:200].rstrip('.')}). {self._again()}")
        self.leave(1, "".join(traceback.format_exception(error)))

    def _look(self) -> None:
        for other in range(self.size):
            host, pid = self.store.get(f"rank {other}").decode().rsplit(" ", 1)  # waits for it
            if other != self.rank and host == self.host:
                self._here[other] = int(pid)
        while not self.lost():
            time.sleep(LOOK)
        time.sleep(GRACE)
        self.leave(1, self._sentence(self.lost()))

    def _sentence(self, lost: list[int]) -> str:
        names = ", ".join(f"{other} (process {self._here[other]})" for other in lost)
        return f"Rank {names} ended without a word, as a process does that is killed. {self._again()}"

    def _again(self) -> str:
        return f"All ranks have stopped; go on after the last checkpoint: {self.go_on}"


def _unreachable(rank: int, error: Exception) -> str:
    address = ":".join(os.environ.get(name, f"({name} not set)") for name in ("MASTER_ADDR", "MASTER_PORT"))
    reason = str(error).strip().splitlines()[0][:200].rstrip(".")
    return (
        f"Rank {rank} cannot meet the others at {address} ({reason}): if the port is in use, choose another by "
        "torchrun's --master-port; if rank 0 is not there, start it."
    )


class _Ended(BaseException):
    """SIGTERM while nothing is there to be saved."""


def _ended(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Ended


def _alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and that nobody has asked about does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0] not in "ZX"
    return True
