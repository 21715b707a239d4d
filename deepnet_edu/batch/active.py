"""A run at work in a slot: its process, what it sees, and what it says."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepnet_edu.batch.plan import Notebook
from deepnet_edu.batch.processes import MARK
from deepnet_edu.batch.slots import Slot
from deepnet_edu.batch.state import Status
from deepnet_edu.course import places
from deepnet_edu.files import read_bytes

LOG = "log.txt"


@dataclass
class Active:
    """A run in a slot.

    Attributes:
        run: its status.
        slot: where it runs.
        folder: of the run.
        process: the worker's; on a cluster the future of its reply.
        cells: how many cells it has, with the one that sets its parameters.
        begin: when it began, by the monotonic clock.
        verdict: state and sentence, where the runner ended it.
        memory_looked: when its memory was looked at last.
    """

    run: Status
    slot: Slot
    folder: Path
    process: Any
    cells: int
    begin: float
    verdict: tuple[str, str] | None = None
    memory_looked: float = 0.0

    @property
    def mark(self) -> str:
        """Of its processes."""
        return str(self.folder)

    def progress(self) -> tuple[int, str]:
        """Number of the cell at work, and the last line that the notebook printed."""
        lines = log_tail(self.folder).splitlines()
        cells = [int(found[1]) for line in lines if (found := re.match(r"Executing Cell (\d+)", line))]
        said = [line for line in lines if line.strip() and not re.match(r"(Executing|Ending) ", line)]
        return (min(cells[-1], self.cells) if cells else 0), (said[-1] if said else "")


def environment(run: Status, slot: Slot, notebook: Notebook, mark: str) -> dict[str, str]:
    """What a run sees: its size, its device, its threads, this very package, and the modules beside its notebook.

    Args:
        run: its status.
        slot: where it runs.
        notebook: what it runs.
        mark: of its processes.
    """
    apart = {"PYTHONOPTIMIZE"}  # under which assertions do not run
    names = {name for name in os.environ if not name.startswith("DEEPNET_EDU_")} - apart
    path = [str(places.ROOT), str(notebook.path.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "OMP_NUM_THREADS": str(slot.threads),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order of nvidia-smi
        **{name: os.environ[name] for name in names},
        "OMP_WAIT_POLICY": "PASSIVE",
        "CUDA_VISIBLE_DEVICES": slot.visible,
        "PYTHONPATH": os.pathsep.join(path),
        "DEEPNET_EDU_PROFILE": run.profile,
        MARK: mark,
    }


def start_worker(
    task: dict[str, Any], folder: Path, environment: Mapping[str, str], log: int
) -> "subprocess.Popen[bytes]":
    """The process of a run, in a session of its own: Ctrl-C in the terminal does not reach it.

    Args:
        task: what it reads from standard input, which stays open while this process lives.
        folder: where it runs.
        environment: all of it.
        log: file descriptor of what it says.
    """
    process = subprocess.Popen(
        # -P: what an earlier attempt wrote into the folder is no module.
        [sys.executable, "-P", "-m", "deepnet_edu.batch.worker"],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has ended already, and its log says why
        process.stdin.write(json.dumps(task).encode() + b"\n")
        process.stdin.flush()
    return process


def wait(process: "subprocess.Popen[bytes]") -> float | None:
    """Look whether a process has ended; if so, the largest memory of it or of what it started, in GB, where the system
    says."""
    if not hasattr(os, "wait4"):
        process.poll()
        return None
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if not pid:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def log_tail(folder: Path) -> str:
    """The last 4 kB of a run's log."""
    try:
        return read_bytes(folder / LOG, links=False, last=4096).decode(errors="replace")
    except (OSError, ValueError):
        return ""
