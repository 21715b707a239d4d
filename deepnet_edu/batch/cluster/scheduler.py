"""The scheduler of a Dask cluster: Dask's own command, at one address, and without a web page beyond loopback."""

import os
from collections.abc import Callable
from typing import Any

from deepnet_edu.batch.cluster.workers import LOOPBACK, NO_PAGE, check_host, check_installed, check_port
from deepnet_edu.messages import UserError


def run_scheduler(host: str, port: int, say: Callable[[str], None]) -> None:
    """Bring workers and runs together until SIGINT or SIGTERM.

    With ``distributed.comm.require-encryption`` in Dask's settings it speaks TLS alone.

    Args:
        host: address of this machine at which it listens; loopback, or where workers and clients reach it.
        port: likewise.
        say: told what happens.

    Raises:
        UserError: Dask is not installed, or it cannot listen there.
    """
    check_installed()
    check_port("--port", port)
    check_host(host, port)
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
    import dask
    from distributed import Security
    from distributed.cli import dask_scheduler

    tls = bool(Security().require_encryption)
    # A run that has lost its worker is given back to deepnet-edu run, which counts how often.
    dask.config.set({"distributed.scheduler.allowed-failures": 0})
    address = f"{'tls' if tls else 'tcp'}://{host}:{port}"
    say(f"Scheduler at {address}, until Ctrl-C. Next: deepnet-edu workers {address}")
    if host not in LOOPBACK and not tls:
        say("Anyone who reaches that address can run programs here: use a network that you trust, or TLS.")
    command: Any = dask_scheduler.main
    options = ["--host", host.strip("[]"), "--port", str(port), "--protocol", "tls" if tls else "tcp", "--no-jupyter"]
    try:
        command([*options, *NO_PAGE], standalone_mode=False)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror or error}. Choose another.") from None
