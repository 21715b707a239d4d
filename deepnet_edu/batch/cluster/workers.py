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

from deepnet_edu.batch.slots import DeviceSlot
from deepnet_edu.lock import HOST
from deepnet_edu.messages import UserError, shown

#: Before a worker that has ended is started again.
AGAIN_S = 2.0
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
#: Options of Dask's commands. Its pages have no password, and --no-dashboard leaves some of them there, on all
#: interfaces.
NO_PAGE = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")


def check_installed() -> None:
    """See that Dask is there.

    Raises:
        UserError: it is not.
    """
    if find_spec("distributed") is None:
        raise UserError("A cluster needs Dask distributed: pip install 'deepnet-edu[cluster]'")


def listens(address: str) -> bool:
    """Whether anybody takes a connection there."""
    from distributed.comm import parse_address
    from distributed.comm.addressing import parse_host_port

    try:
        socket.create_connection(parse_host_port(parse_address(address)[1]), timeout=5).close()
    except OSError:
        return False
    return True


def check_address(address: str) -> str:
    """The host in a scheduler's address.

    Raises:
        UserError: Dask is not installed, or it is not such an address.
    """
    check_installed()
    found = re.fullmatch(r"(?:tcp|tls)://([^/:\s]+|\[[0-9a-f:]+\]):([0-9]{1,5})", address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise UserError(f"{address} is not a scheduler's address: expected one such as tcp://127.0.0.1:8786.")
    return found[1]


def check_port(option: str, port: int, many: int = 1) -> None:
    """See that there are this many ports from this one on.

    Raises:
        UserError: they do not.
    """
    if not 0 < port <= 65536 - many:
        raise UserError(f"{option} {port}: expected a port from 1 to {65536 - many}.")


def check_host(host: str, port: int = 0) -> None:
    """See that this machine can listen at an address, and, where it is named, at the port.

    Raises:
        UserError: it cannot.
    """
    try:
        if not host or "*" in host:  # to Python every address, to Dask none
            raise OSError("it is not a name")
        family, kind, _, _, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
    except (OSError, UnicodeError) as error:
        where = f"--host {shown(host)} --port {port}" if port else f"--host {shown(host)}"
        raise UserError(
            f"{where}: this machine cannot listen there ({getattr(error, 'strerror', None) or error}). Expected an "
            f"address of this machine{' and a port that is free' if port else ''}."
        ) from None


def run_workers(
    address: str, slots: Sequence[DeviceSlot], host: str | None, port: int | None, say: Callable[[str], None]
) -> None:
    """A worker per slot, each started again when it ends, until SIGINT, SIGTERM or SIGHUP; then all of them end.

    Args:
        address: of the scheduler; it need not be there yet.
        slots: of this machine.
        host: by which the scheduler and the clients reach this machine; loopback by default.
        port: of the first worker, the others count on from it; free ones by default.
        say: told what happens.

    Raises:
        UserError: Dask is not installed, an address or port does not exist, or the scheduler is on another machine
            and ``host`` is not given.
    """
    scheduler = check_address(address)
    if host is None and scheduler not in LOOPBACK:
        raise UserError(
            f"{address} is another machine: say by which address it reaches this one, --host ADDRESS. Anyone who "
            "reaches that address, too, can run programs here: use a network that you trust, or TLS."
        )
    if host is not None:
        check_host(host)
    if port is not None:
        check_port("--port", port, len(slots))
    ended: list[int] = []
    asked = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
        asked.append(signal.SIGHUP)
    before = {one: signal.signal(one, lambda *_: ended.append(1)) for one in asked}
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


def start(address: str, slot: DeviceSlot, host: str, port: int | None) -> "subprocess.Popen[bytes]":
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
    command = [address, "--no-nanny", *NO_PAGE, *(part for pair in options.items() for part in pair)]
    return subprocess.Popen(
        [sys.executable, "-m", "deepnet_edu.batch.cluster.remote", *command],
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
