"""Starting the ranks of one machine, by PyTorch's own elastic agent, as torchrun does."""

import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

import psutil
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from deepnet_edu.messages import UserError


def launch(ranks: int, module: str, arguments: list[str], *, port: int = 0, again: str = "") -> int:
    """Start ``python -m module arguments`` as many times, and wait.

    Args:
        ranks: processes of this machine; on GPUs, one each.
        module: its name.
        arguments: of each.
        port: where the ranks find each other; 0 for any that is free.
        again: what to type after a failure.

    Returns:
        The exit status: 0 if all ranks had it.

    Raises:
        UserError: the port is in use.
    """
    check_port(port)
    # One sentence is printed by one rank, and the agent would add a page.
    for name in ("torch.distributed.elastic", "torch.distributed.launcher"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // ranks, 1)))
    settings: dict[str, Any] = {
        "min_nodes": 1,
        "max_nodes": 1,
        "nproc_per_node": ranks,
        "rdzv_backend": "c10d",
        "rdzv_endpoint": f"localhost:{port}",
        "run_id": f"deepnet-edu-{os.getpid()}",
        "max_restarts": 0,
        "monitor_interval": 0.1,
        "logs_specs": DefaultLogsSpecs(),
    }
    if "signals_to_handle" in LaunchConfig.__dataclass_fields__:  # the agent would give them 30 seconds to save
        settings["signals_to_handle"] = "SIGHUP"
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _hand_on)
    try:
        elastic_launch(LaunchConfig(**settings), sys.executable)("-m", module, *arguments)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        if all(code < 0 for code in codes):  # nobody was left to say it
            raise UserError(
                f"All ranks were killed ({_names(codes)}). Go on after the last checkpoint: {again}"
            ) from None
        return 1
    return 0


def check_port(port: int) -> None:
    """See that nobody listens at the port.

    Raises:
        UserError: somebody does.
    """
    if not port:
        return
    try:
        with socket.create_server(("", port)):
            pass
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--port {port}: {getattr(error, 'strerror', None) or error}. Choose another, or leave --port out for any "
            "that is free."
        ) from None


def _hand_on(number: int, _frame: FrameType | None) -> None:
    """The ranks have sessions of their own: Ctrl-C reaches this process only, and they save and end."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            child.send_signal(number)


def _names(codes: list[int]) -> str:
    return ", ".join(sorted({signal.Signals(-code).name for code in codes}))
