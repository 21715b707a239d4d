"""A run at work in a slot: its process, what it sees, and what it says."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from deepnet_edu.batch.inside import CWD, GPU, NOTEBOOK_DIR
from deepnet_edu.batch.notebook import Notebook
from deepnet_edu.batch.processes import MARK, peak_gb, resident_gb
from deepnet_edu.batch.slots import DeviceSlot
from deepnet_edu.batch.state import Status
from deepnet_edu.course import places
from deepnet_edu.files import read_bytes

LOG = "log.txt"
#: Variables of the user's that would change what a run does: no assertions, no pictures, warnings that are errors also
#: in Jupyter's own code, an interpreter that waits at its end, programs of the user's, another standard library.
_APART = {"PYTHONOPTIMIZE", "MPLBACKEND", "PYTHONWARNINGS", "PYTHONINSPECT", "PYTHONSTARTUP", "PYTHONHOME"}


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
        peak: the largest memory seen, of a process or of all together, in GB.
        processes: those that were seen last.
    """

    run: Status
    slot: DeviceSlot
    folder: Path
    process: Any
    cells: int
    begin: float
    verdict: tuple[str, str] | None = None
    peak: float = 0.0
    processes: set[psutil.Process] = field(default_factory=set)

    @property
    def mark(self) -> str:
        """The mark of its processes."""
        return str(self.folder)

    def look(self, found: Collection[psutil.Process]) -> float:
        """What the run's processes hold in memory together, in GB.

        Args:
            found: the worker with all its descendants.
        """
        # Those whose parents were killed may be found by nothing else.
        self.processes = {one for one in self.processes if one.is_running()} | {*found}
        together = resident_gb(found)
        self.peak = max([self.peak, together, *map(peak_gb, found)])
        return together

    def progress(self) -> tuple[int, str]:
        """Number of the cell at work, and the last line that the notebook printed."""
        lines = log_tail(self.folder).splitlines()
        cells = [int(found[1]) for line in lines if (found := re.match(r"Executing Cell (\d+)", line))]
        said = [line for line in lines if line.strip() and not re.match(r"(Executing|Ending) ", line)]
        return (min(cells[-1], self.cells) if cells else 0), (said[-1] if said else "")


def environment(run: Status, slot: DeviceSlot, notebook: Notebook, mark: str) -> dict[str, str]:
    """What a run sees: its size, its device, its threads, this very package, and what is beside its notebook.

    Args:
        run: its status.
        slot: where it runs.
        notebook: what it runs.
        mark: of its processes.
    """
    names = {name for name in os.environ if not name.startswith("DEEPNET_EDU_")} - _APART
    beside = str(notebook.path.parent)
    # A path with a colon cannot be in the list: the kernel adds it itself.
    path = [str(places.ROOT), *[beside] * (os.pathsep not in beside), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "OMP_NUM_THREADS": str(slot.threads),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order of nvidia-smi
        **{name: os.environ[name] for name in names},
        "OMP_WAIT_POLICY": "PASSIVE",
        "CUDA_VISIBLE_DEVICES": slot.visible,
        "PYTHONPATH": os.pathsep.join(path),
        "DEEPNET_EDU_PROFILE": run.profile,
        NOTEBOOK_DIR: beside,
        CWD: str(notebook.working or ""),
        GPU: "" if slot.gpu is None else f"{slot.gpu}, {slot.device}",
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
        # -P: what an earlier attempt wrote into the folder is not a module.
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


def log_tail(folder: Path) -> str:
    """The last 4 kB of a run's log."""
    try:
        return read_bytes(folder / LOG, links=False, last=4096).decode(errors="replace")
    except (OSError, ValueError):
        return ""
