"""Starting the ranks of one machine: they meet in a folder that is the user's alone, and talk over loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import psutil

from deepnet_edu.messages import UserError
from deepnet_edu.training.distributed.process import LAUNCHER, SIGNALS
from deepnet_edu.training.distributed.ranks import MEETING

#: Seconds that the other ranks have to end by themselves once one has.
GRACE = 30.0
#: Of a rank that was asked to stop, and has saved.
STOPPED = tuple(128 + number for number in SIGNALS)


def launch(ranks: int, module: str, arguments: list[str], *, again: str = "") -> int:
    """Start ``python -m module arguments`` as many times, and wait.

    No port is open beyond loopback: ranks meet at a file in a private folder, and gloo and NCCL are bound to loopback.
    SIGINT, SIGTERM, SIGHUP and SIGUSR1 are handed on to the ranks, which save and end. Ranks end when this process
    does, however that ends.

    Args:
        ranks: processes of this machine; on GPUs, one each.
        module: its name; it calls :func:`deepnet_edu.training.distributed.process.run_rank`.
        arguments: of each.
        again: what to type after a failure.

    Returns:
        The exit status: 0 if all ranks are done, 128 and the signal's number if a signal has stopped them, otherwise 1.

    Raises:
        UserError: ranks were killed, and none was left to say so; this machine has no loopback, or no temporary folder.
    """
    asked: list[int] = []
    processes: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        # The ranks have sessions of their own: Ctrl-C reaches this process only.
        asked.append(number)
        for process in processes:
            process.send_signal(number)

    with _meeting() as folder, _signals(hand_on):
        shared = {**os.environ, **_environment(ranks), MEETING: folder, LAUNCHER: str(os.getpid())}
        with _held_back():  # until all are started; a rank holds them back until it can answer them
            for rank in range(ranks):
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", module, *arguments],
                        env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                        stdin=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                )
        try:
            codes = _wait(processes)
        finally:
            for process in processes:
                process.kill()
    if all(code in (0, *STOPPED) for code in codes):
        return 128 + asked[0] if asked and any(codes) else max(codes)
    if any(code > 0 and code not in STOPPED for code in codes):  # one of them has said why
        return 1
    names = ", ".join(sorted({signal.Signals(-code).name for code in codes if code < 0}))
    who = "All ranks were" if max(codes) < 0 else "A rank was"
    raise UserError(f"{who} killed ({names}). Resume after the last checkpoint: {again}")


def _meeting() -> "TemporaryDirectory[str]":
    """A folder that no other user may enter, gone afterwards."""
    try:
        return TemporaryDirectory(prefix="deepnet_edu_", ignore_cleanup_errors=True)
    except OSError as error:
        raise UserError(
            f"Ranks meet in a temporary folder, and none can be made ({error.strerror or error}): set TMPDIR to one "
            "that you can write."
        ) from None


def _wait(processes: "list[subprocess.Popen[bytes]]") -> list[int]:
    """Exit statuses, once all have ended. Where one fails, the others are asked to end; who does not is killed."""
    end: float | None = None
    while any(process.poll() is None for process in processes):
        ended = {process.returncode for process in processes} - {None, 0}
        if ended and end is None:
            end = time.monotonic() + GRACE
            if not ended <= {*STOPPED}:
                for process in processes:
                    process.terminate()
        if end is not None and time.monotonic() > end:
            for process in processes:
                process.kill()
        time.sleep(0.05)
    return [process.returncode for process in processes]


def _environment(ranks: int) -> dict[str, str]:
    """The environment of all ranks; whatever the user's says, they talk over loopback."""
    loopback = _loopback()
    return {
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // ranks, 1))),
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),  # a rank says one sentence, not a page
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": f"={loopback}",
        "NCCL_SOCKET_FAMILY": "AF_INET",
        "NCCL_RAS_ENABLE": "0",  # it would listen for questions
    }


def _loopback() -> str:
    """The name of the network interface that only this machine reaches.

    Raises:
        UserError: there is none.
    """
    for name, addresses in psutil.net_if_addrs().items():
        found = [one.address for one in addresses if one.family == socket.AF_INET]
        if found and all(address.startswith("127.") for address in found):
            return name
    raise UserError(
        "Ranks of one machine talk over its loopback, and no network interface here has the address 127.0.0.1 alone: "
        "set it up (ip link set lo up), or train without --gpus."
    )


@contextmanager
def _signals(handler: Any) -> Iterator[None]:
    """While entered, these signals are the handler's; SIGHUP stays ignored where nohup has done that."""
    taken = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGINT]
    before = {number: signal.signal(number, handler) for number in taken}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def _held_back() -> Iterator[None]:
    """While entered, these signals wait, also in processes that are started."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
