"""A sweep on a Dask cluster whose workers are killed and replaced, and the same sweep on one machine: are the final
states and the metrics the same?

A scheduler and its workers are processes of their own on loopback. Prints a table and writes
results/batch_cluster.json. The least of it belongs to the tests.

Run with: python benchmarks/batch_cluster.py [--seeds 24] [--kill 3]
"""

import argparse
import json
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deepnet_edu.batch import active
from deepnet_edu.batch.cluster import remote
from deepnet_edu.batch.cluster.dask import Cluster
from deepnet_edu.batch.cluster.workers import NO_PAGE
from deepnet_edu.batch.plan import Request, make_plan
from deepnet_edu.batch.run import run_batch
from deepnet_edu.batch.runner import Limits
from deepnet_edu.batch.slots import Gpu, cores, make_slots
from deepnet_edu.batch.state import Status, read_batch
from deepnet_edu.batch.worker import END_MIME, PARTIAL
from deepnet_edu.course import places
from deepnet_edu.course.places import RECORD_MIME
from deepnet_edu.files import write_atomic

RESULTS = Path(__file__).parent / "results" / "batch_cluster.json"
CELLS = [
    "import time\nSEED = 0",
    "time.sleep(0.2)",
    f"from IPython.display import display\ndisplay({{'{RECORD_MIME}': {{'double': 2 * SEED}}}}, raw=True)",
]
START_S = 300.0


class Machines:
    """A scheduler and workers on loopback, each a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._home = tempfile.TemporaryDirectory()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.start_scheduler()

    def start_scheduler(self) -> None:
        """On the same port each time, until it listens."""
        command = ["-c", "from deepnet_edu.cli import main; main()", "scheduler", "--port", str(self.port)]
        self.scheduler = _start(command, dict(os.environ))
        while self.scheduler.poll() is None:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        raise RuntimeError(f"the scheduler has ended with status {self.scheduler.returncode}")

    def add(self, name: str, *, seconds: float | None = None, package: str = "", gpu: bool = False) -> None:
        """A worker; for tests one whose runs last some seconds (see :meth:`last`) and need no kernel, one with another
        package, or one that says it has a GPU."""
        options = ["--host", "127.0.0.1", "--no-nanny", *NO_PAGE, "--nthreads", "1", "--name", name]
        options += ["--resources", "GPU=1"] if gpu else []
        if seconds is not None:
            self.last(name, seconds)
        stubbed = None if seconds is None else str(self._seconds(name))
        task = json.dumps([stubbed, package, [self.address, *options]])
        self.workers[name] = _start(["-m", "benchmarks.batch_cluster", "--worker", task], dict(os.environ))

    def last(self, name: str, seconds: float) -> None:
        """From now on the runs of that worker last so long."""
        self._seconds(name).write_text(f"{seconds:g}")

    def _seconds(self, name: str) -> Path:
        return Path(self._home.name) / name

    def kill(self, name: str) -> None:
        """By SIGKILL."""
        worker = self.workers.pop(name)
        worker.kill()
        worker.wait()

    def close(self) -> None:
        """All of them."""
        for name in list(self.workers):
            self.kill(name)
        self.scheduler.kill()
        self.scheduler.wait()
        self._home.cleanup()


def free_port() -> int:
    """One that the system gives to no connection by itself, so that it stays free while the scheduler is away."""
    while True:
        with suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port := random.randrange(20_000, 30_000)))
            return port


def _start(arguments: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    path = os.pathsep.join([str(places.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**environment, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@contextmanager
def machines() -> Iterator[Machines]:
    """A scheduler, and as many workers as are added."""
    made = Machines()
    try:
        yield made
    finally:
        made.close()


def work(seconds: str | None, package: str, arguments: list[str]) -> None:
    """What a worker's process does."""
    if seconds is not None:
        active.start_worker = stub(Path(seconds))
    if package:
        places.package_digest = lambda: package
    if "GPU=1" in arguments:
        remote.find_gpus = lambda: [Gpu(0, "0", "in name only")]
    remote.main(arguments)


def stub(seconds: float | Path) -> Any:
    """In place of ``start_worker``: a process that needs no kernel; its notebook is there at once. It lasts this many
    seconds, or as many as a file says then."""

    def cell(source: str, data: dict[str, Any]) -> dict[str, Any]:
        output = {"output_type": "display_data", "data": data, "metadata": {}}
        return {"cell_type": "code", "execution_count": 1, "metadata": {}, "outputs": [output], "source": source}

    def start(task: dict[str, Any], folder: Path, environment: Any, log: int) -> "subprocess.Popen[bytes]":
        recorded = {RECORD_MIME: {"double": 2 * task["parameters"]["SEED"]}}
        notebook = {
            "cells": [cell("kit.record(double=2 * SEED)", recorded), cell(END_MIME, {END_MIME: {}})],
            "metadata": {"papermill": {"duration": 1.0}},
            "nbformat": 4,
            "nbformat_minor": 4,
        }
        (folder / PARTIAL).write_text(json.dumps(notebook))
        os.write(log, b"Executing Cell 1\n")
        # As the real one, it ends when standard input closes.
        waits = "import select, sys; select.select([0], [], [], float(sys.argv[1]))"
        return subprocess.Popen(
            [sys.executable, "-SIc", waits, seconds.read_text() if isinstance(seconds, Path) else f"{seconds:g}"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    return start


def make_notebook(path: Path) -> None:
    """A notebook of three cells with one parameter."""
    cells = [{"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": s} for s in CELLS]
    cells[0]["metadata"] = {"tags": ["parameters"]}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    path.write_text(json.dumps(notebook))


def outcome(runs: list[Status]) -> list[tuple[Any, ...]]:
    """What must not depend on where a run ran."""
    return sorted((run.id, run.state, run.audited, run.exit, sorted(run.metrics.items()), run.problems) for run in runs)


def on_one_machine(notebook: Path, seeds: int, folder: Path, slots: int) -> list[Status]:
    """The sweep on this machine."""
    plan = make_plan(Request((notebook.name,), seeds=seeds), notebook.parent)
    return run_batch(plan, folder, make_slots("none", slots, []), Limits(), quiet=True)


def on_cluster(
    pool: ThreadPoolExecutor, notebook: Path, seeds: int, folder: Path, address: str
) -> "Future[list[Status]]":
    """The sweep on a cluster, in a thread, so that the caller can kill meanwhile."""
    plan = make_plan(Request((notebook.name,), seeds=seeds), notebook.parent)
    cluster = Cluster(address)
    return pool.submit(run_batch, plan, folder, [], Limits(), resume=True, quiet=True, cluster=cluster)


def at_work(folder: Path) -> dict[str, str]:
    """Runs at work by the name of their worker."""
    return {str(run.device): run.id for run in read_batch(folder) if run.state == "running"}


def wait_until(what: Any, seconds: float = START_S) -> Any:
    """The first true answer.

    Raises:
        TimeoutError: there was none in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise TimeoutError(f"waited {seconds:g} s")


def main() -> None:
    """Both sweeps, and their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=24, help="runs of the sweep")
    parser.add_argument("--kill", type=int, default=3, help="workers that are killed, each replaced by another")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(*json.loads(given.worker))
        return
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as home, machines() as here, ThreadPoolExecutor(1) as pool:
        make_notebook(notebook := Path(home) / "small.ipynb")
        begin = time.monotonic()
        alone = on_one_machine(notebook, given.seeds, Path(home) / "alone", 3)
        alone_s = time.monotonic() - begin
        for name in ("w0", "w1", "w2"):
            here.add(name)
        begin, folder, killed = time.monotonic(), Path(home) / "cluster", []
        future = on_cluster(pool, notebook, given.seeds, folder, here.address)
        for n in range(given.kill):

            def victim(n: int = n) -> str | None:
                ended = sum(run.state == "done" for run in read_batch(folder)) if folder.exists() else 0
                busy = sorted(at_work(folder).keys() & here.workers.keys()) if ended >= 3 * (n + 1) else []
                return chance.choice(busy) if busy else None

            name = wait_until(victim, 600)
            killed.append(at_work(folder).get(name))
            here.kill(name)
            here.add(f"w{3 + n}")
        far = future.result(1200)
        far_s = time.monotonic() - begin
    rows = [
        {"where": "one machine, 3 slots", **row(alone), "seconds": round(alone_s, 1)},
        {"where": f"cluster, {given.kill} of 3 workers killed", **row(far), "seconds": round(far_s, 1)},
    ]
    same = outcome(alone) == outcome(far)
    for one in rows:
        print(
            f"{one['where']:<32} {one['done']:>3} of {one['runs']} done, {one['attempts']} attempts, {one['seconds']} s"
        )
    print(f"final states and metrics are {'the same' if same else 'NOT the same'}")
    record = {
        "made_by": "python benchmarks/batch_cluster.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": f"CPU, {cores()} cores",
        "versions": {"python": platform.python_version(), **{p: version(p) for p in ("distributed", "papermill")}},
        "runs": rows,
        "same": same,
    }
    write_atomic(RESULTS, json.dumps(record, indent=1) + "\n")
    sys.exit(not same)


def row(runs: list[Status]) -> dict[str, Any]:
    """How a sweep went."""
    return {
        "runs": len(runs),
        "done": sum(run.state == "done" and run.audited for run in runs),
        "attempts": sum(run.attempts for run in runs),
    }


if __name__ == "__main__":
    main()
