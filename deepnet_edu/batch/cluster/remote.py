"""What a worker of a Dask cluster does: one run at a time, of which everything comes in and goes back as bytes.

Nothing is shared but the connection. A worker is a process of ``deepnet-edu workers``; it ends with that command, the
run with its worker.
"""

import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deepnet_edu import __version__
from deepnet_edu.batch.active import LOG, Active
from deepnet_edu.batch.folder import SOURCES, source_of
from deepnet_edu.batch.judge import MOST_BYTES, NOTEBOOK
from deepnet_edu.batch.notebook import Notebook
from deepnet_edu.batch.runner import Limits, Runner
from deepnet_edu.batch.slots import Gpu, driver_fault, find_gpus, make_slots
from deepnet_edu.batch.state import Status
from deepnet_edu.batch.worker import PARTIAL
from deepnet_edu.course import places
from deepnet_edu.files import read_bytes
from deepnet_edu.lock import HOST


@dataclass(frozen=True)
class RemoteNotebook:
    """A run as it is sent.

    Attributes:
        run: its status, queued, with the hashes of notebook and package.
        notebook: the file.
        kernel: that runs it.
        cells: how many cells.
        gpu: whether it may use the GPU of its worker.
        limits: for this one attempt.
        version: of the sender's package.
        topic: under which its progress is told.
        beside: modules and data that go along, by their paths from the notebook.
        working: folder of the worker's machine in which it runs; the folder of its run if empty.
    """

    run: Status
    notebook: bytes
    kernel: str
    cells: int
    gpu: bool
    limits: Limits
    version: str
    topic: str
    beside: dict[str, bytes] = field(default_factory=dict, repr=False)
    working: str = ""


@dataclass(frozen=True)
class Reply:
    """What a run has left, or why it was not even begun.

    Attributes:
        run: its status; None if the worker refused it.
        refused: the sentence why.
        log: what papermill and the kernel said.
        files: by name; the whole notebook, or the part that was executed.
    """

    run: Status | None = None
    refused: str = ""
    log: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)


def run_here(task: RemoteNotebook) -> Reply:
    """Run a notebook on this worker, by the runner of one machine, in a folder that is gone afterwards."""
    from distributed import get_worker

    gpus = find_gpus() if task.gpu else []
    if sentence := refusal(task, gpus):
        return Reply(refused=sentence)
    # Dask removes what a killed worker has left in this folder.
    with TemporaryDirectory(
        prefix="deepnet-edu-", dir=get_worker().local_directory, ignore_cleanup_errors=True
    ) as name:
        folder, run = Path(name), task.run
        stands = folder / SOURCES / run.notebook
        notebook = Notebook(run.notebook, stands, task.notebook, run.hashes["notebook"], task.kernel, cells=task.cells)
        notebook.working = Path(task.working) if task.working else None
        (folder / SOURCES).mkdir()
        source_of(folder, notebook).write_bytes(task.notebook)
        for name, content in task.beside.items():
            notebook.files[name] = folder / SOURCES / name
            notebook.files[name].parent.mkdir(parents=True, exist_ok=True)
            notebook.files[name].write_bytes(content)
        notebook.beside = run.hashes.get("beside", "")
        (place := folder / run.id).mkdir()
        run.write(place)
        slots = make_slots("all", 1, gpus)
        watch = Link(task.topic)
        watch.runner = Runner(folder, [run], {run.id: notebook}, slots, task.limits, watch)
        watch.runner.run()
        left = {name: _left(place / name) for name in (LOG, NOTEBOOK, PARTIAL)}
        files = {name: one for name in (NOTEBOOK, PARTIAL) if (one := left[name]) is not None}
        return Reply(run, "", left[LOG] or b"", files)


def _left(path: Path) -> bytes | None:
    """A file that a run has left; None where there is none, or something that no runner writes."""
    try:
        return read_bytes(path, most=MOST_BYTES, links=False)
    except (OSError, ValueError):
        return None


def refusal(task: RemoteNotebook, gpus: Sequence[Gpu]) -> str:
    """Why this worker must not run it, a sentence; empty if it may.

    Args:
        task: what it was sent.
        gpus: those of the worker that can be used.
    """
    wanted, here = task.run.hashes["package"], places.package_digest()
    if wanted != here:
        return (
            f"{HOST} has deepnet_edu {__version__} ({here[:12]}) and the batch {task.version} ({wanted[:12]}): install "
            "the same one there."
        )
    if sha256(task.notebook).hexdigest() != task.run.hashes["notebook"]:
        return f"{HOST} was sent another notebook than {task.run.id} stands for: begin the batch again."
    if task.gpu and not gpus:
        why = driver_fault() or "nvidia-smi finds none"
        return f"{HOST} cannot use its GPU any more ({why}): fix that, and start its worker again."
    if task.working and not Path(task.working).is_dir():
        return f"{HOST} has no folder {task.working}: name one that all workers see with --cwd."
    return ""


class Link:
    """Watches a run for the client: tells it how far the run is, and ends it when no client waits for it any more.

    Args:
        topic: under which it tells.
    """

    runner: Runner

    def __init__(self, topic: str) -> None:
        from distributed import get_worker

        self.worker = get_worker()
        self.key, self.topic = self.worker.get_current_task(), topic
        self._told: tuple[int, str] = (0, "")

    def look(self, active: Sequence[Active], waiting: int) -> None:
        """Many times a second."""
        task = self.worker.state.tasks.get(self.key)
        # Cancelled by the client, or its client is gone, or the scheduler is.
        if self.worker.status.name != "running" or task is None or task.state != "executing":
            self.runner.stops = 2
        for one in active:
            if (now := one.progress()) != self._told:
                self._told = now
                self.worker.log_event(self.topic, {"key": self.key, "progress": list(now)})

    def started(self, active: Active) -> None:
        """The client knows."""

    def ended(self, run: Status, again: str) -> None:
        """The reply says it."""

    def say(self, sentence: str) -> None:
        """Says nothing, since no client listens."""


def main(arguments: list[str]) -> None:
    """A worker process: Dask's own command, which ends when standard input closes, because its starter is gone."""
    from distributed.cli import dask_worker

    def end_with_the_starter() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=end_with_the_starter, daemon=True).start()
    command: Any = dask_worker.main
    command(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
