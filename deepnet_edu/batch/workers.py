"""The workers that this machine lends to a Dask cluster: a process per GPU, or processes that share the cores."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from deepnet_edu.batch.slots import Slot
from deepnet_edu.lock import HOST
from deepnet_edu.messages import UserError, shown

#: Before a worker that has ended is started again.
AGAIN_S = 2.0
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def check_address(address: str) -> str:
    """The host in a scheduler's address.

    Raises:
        UserError: Dask is not installed, or it is no such address.
    """
    if find_spec("distributed") is None:
        raise UserError("A cluster needs Dask distributed: pip install 'deepnet-edu[cluster]'")
    found = re.fullmatch(r"(?:tcp|tls)://([^/:\s]+|\[[0-9a-f:]+\]):(\d{1,5})", address)
    if found is None:
        raise UserError(f"{address} is no scheduler's address: expected one such as tcp://127.0.0.1:8786.")
    return found[1]


def check_host(host: str) -> None:
    """See that a worker can listen by this name.

    Raises:
        UserError: it is not an address of this machine.
    """
    try:
        if "*" in host:  # to Python every address, to Dask none
            raise OSError("it is not a name")
        family, kind, _, _, place = socket.getaddrinfo(host.strip("[]"), 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as tried:
            tried.bind(place)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"--host {shown(host)} is not an address of this machine ({why}): see hostname -I.") from None


def run_workers(
    address: str, slots: Sequence[Slot], host: str | None, port: int | None, say: Callable[[str], None]
) -> None:
    """A worker per slot, each started again when it ends, until SIGINT or SIGTERM; then all of them end.

    Args:
        address: of the scheduler; it need not be there yet.
        slots: of this machine.
        host: by which the scheduler and the clients reach this machine; loopback by default.
        port: of the first worker, the others count on from it; free ones by default.
        say: told what goes on.

    Raises:
        UserError: Dask is not installed, the address is none, or the scheduler is on another machine and ``host`` is
            not given.
    """
    scheduler = check_address(address)
    if host is None and scheduler not in LOOPBACK:
        raise UserError(
            f"{address} is another machine: say by which address it reaches this one, --host ADDRESS. Whoever reaches "
            "that address too can run programs here: use a network that you trust, or TLS."
        )
    if host is not None:
        check_host(host)
    ended: list[int] = []
    before = {one: signal.signal(one, lambda *_: ended.append(1)) for one in (signal.SIGINT, signal.SIGTERM)}
    processes: dict[int, subprocess.Popen[bytes]] = {}
    begun: dict[int, float] = {}
    try:
        say(f"{len(slots)} worker{'s' if len(slots) > 1 else ''} for {address}, until Ctrl-C.")
        while not ended:
            for slot in slots:
                number = slot.number
                if number in processes and processes[number].poll() is None:
                    continue
                if time.monotonic() - begun.get(number, -AGAIN_S) < AGAIN_S:
                    continue
                if number in processes:
                    say(f"Worker {number} has ended ({processes[number].returncode}): it is started again.")
                begun[number] = time.monotonic()
                processes[number] = start(address, slot, host or LOOPBACK[0], port)
            time.sleep(0.1)
    finally:
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()  # at which a worker ends, and with it its run
        for process in processes.values():
            process.wait()
        for one, handler in before.items():
            signal.signal(one, handler)


def start(address: str, slot: Slot, host: str, port: int | None) -> "subprocess.Popen[bytes]":
    """The process of a worker, in a session of its own: Ctrl-C in the terminal does not reach it.

    Args:
        address: of the scheduler.
        slot: what it may use.
        host: where it listens.
        port: of the first slot's worker.
    """
    what = "cpu" if slot.gpu is None else "gpu"
    options = {
        "--host": host,
        "--nthreads": "1",
        "--name": f"{HOST}-{what}{slot.number}-{os.getpid()}",
        "--memory-limit": "0",  # Dask would count the worker alone, and its run is another process
    }
    if slot.gpu is not None:
        options["--resources"] = "GPU=1"
    if port is not None:
        options["--worker-port"] = str(port + slot.number)
    # No nanny: it would set OMP_NUM_THREADS to 1, which changes sums, and run_workers does what is left.
    command = [address, "--no-nanny", "--no-dashboard", *(part for pair in options.items() for part in pair)]
    return subprocess.Popen(
        [sys.executable, "-m", "deepnet_edu.batch.remote", *command],
        env={
            "OMP_NUM_THREADS": str(slot.threads),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "DASK_LOGGING__DISTRIBUTED": "warning",
            **os.environ,
            "OMP_WAIT_POLICY": "PASSIVE",
            "CUDA_VISIBLE_DEVICES": slot.visible,
        },
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
