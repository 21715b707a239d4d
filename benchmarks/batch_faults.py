"""Runner, kernel and worker of a batch killed with SIGKILL, at random and at each transition of a run's state; then the
batch is resumed, and checked: is each run done exactly once, is nothing lost, half-written or left behind?

Prints a table and writes results/batch_faults.json. The least of these trials belong to the tests. Each trial is kept
in runs/ when it is over, so that --resume continues after the last one of the same package.

Run with: python benchmarks/batch_faults.py [--random 30] [--each 3] [--slots 2] [--resume]
"""

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from deepnet_edu import files
from deepnet_edu.batch import active, audit, judge, worker
from deepnet_edu.batch.plan import Request, make_plan
from deepnet_edu.batch.processes import MARK
from deepnet_edu.batch.run import run_batch
from deepnet_edu.batch.runner import Limits
from deepnet_edu.batch.slots import cores, make_slots
from deepnet_edu.batch.state import CLAIM, LOCK, Status, read_batch
from deepnet_edu.course.places import RECORD_MIME, RUNS, package_digest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "batch_faults.json"
VICTIMS = ("runner", "worker", "kernel")
POINTS = ("status: before", "status: after", "result: before", "result: copied", "audit: during")
#: Each trial as a line of JSON, with the package that it was of.
KEPT = RUNS / "batch_faults.jsonl"
NOTEBOOKS = 12
TRIES = 5
CELLS = [
    "import time\nSEED = 0",
    "time.sleep(0.2)",
    f"from IPython.display import display\ndisplay({{'{RECORD_MIME}': {{'double': 2 * SEED}}}}, raw=True)",
]


@dataclass
class Trial:
    """A batch that lost a process, and was resumed.

    Attributes:
        victim: what was killed.
        when: the fault point, or ``at random``.
        killed: whether it came to that before the batch was over.
        ended: state of the runs between the kill and the resumption.
        wrong: what must not be, a sentence each.
        first_seconds: until the first runner had ended.
        seconds: of both parts.
    """

    victim: str
    when: str
    killed: bool
    ended: dict[str, int]
    wrong: list[str]
    first_seconds: float
    seconds: float


def processes(folder: Path) -> dict[str, list[psutil.Process]]:
    """Worker and kernel processes of a batch, and what else bears its mark."""
    found: dict[str, list[psutil.Process]] = {"worker": [], "kernel": [], "other": []}
    mine = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK, "").startswith(f"{folder}{os.sep}"):
                mine.append((process, process.ppid()))
        except (psutil.Error, OSError):
            continue
    pids = {process.pid for process, _ in mine}
    workers = {process.pid for process, parent in mine if parent not in pids}
    for process, parent in mine:
        kind = "worker" if process.pid in workers else "kernel" if parent in workers else "other"
        found[kind].append(process)
    return found


def kill(folder: Path, victim: str, runner: int) -> bool:
    """Kill the runner, or all workers or kernels that there are now; False if there is none."""
    if victim == "runner":
        os.kill(runner, signal.SIGKILL)
        return True
    killed = False
    for process in processes(folder)[victim]:
        with contextlib.suppress(psutil.Error):  # it has just ended
            process.kill()
            killed = True
    return killed


def run_with_fault(folder: Path, slots: int, victim: str, point: str, nth: int, stub: list[str] | None) -> None:
    """What the runner's process does: run or resume the batch, and kill one at the nth visit of a fault point."""
    seen, armed = 0, bool(point)

    def visit(name: str) -> None:
        nonlocal seen, armed
        seen += name == point
        if armed and name == point and seen >= nth and kill(folder, victim, os.getpid()):
            armed = False
            (folder / "killed").touch()

    for module in (files, judge, audit):
        vars(module)["fault_point"] = visit
    if stub:  # for tests: a worker that takes no second to start

        def start_stub(task: Any, place: Path, environment: Any, log: int) -> "subprocess.Popen[bytes]":
            return subprocess.Popen(
                [*stub, str(task["parameters"]["SEED"])],
                cwd=place,
                env=environment,
                stdin=subprocess.PIPE,
                start_new_session=True,
            )

        active.start_worker = start_stub  # type: ignore[assignment]
    plan = make_plan(Request(("small.ipynb",), seeds=NOTEBOOKS), folder.parent)
    run_batch(plan, folder, make_slots("none", slots, []), Limits(), resume=True, quiet=True)


def trial(
    home: Path, victim: str, point: str = "", nth: int = 1, wait: float = 0.0, slots: int = 2, stub: Any = None
) -> Trial:
    """One batch: killed at the nth visit of a fault point, or after ``wait`` seconds, then resumed and checked."""
    folder = home / "batch"
    if not (notebook := home / "small.ipynb").exists():
        make_notebook(notebook)
    begin = time.monotonic()
    killed = False
    with start(folder, slots, victim, point, nth, stub) as process:
        if not point:
            time.sleep(wait)
            while process.poll() is None and not (killed := kill(folder, victim, process.pid)):
                time.sleep(0.05)  # there is no kernel, say, at this moment
        process.wait()
    first = time.monotonic() - begin
    killed = killed or (victim == "runner" and process.returncode == -signal.SIGKILL) or (folder / "killed").exists()
    before = {} if not folder.exists() else {run.id: run for run in readable(folder)}
    with start(folder, slots, victim, "", 1, stub) as process:
        process.wait()
    wrong = look(folder, before)
    if process.returncode:
        wrong.append(f"the runner that resumed ended with status {process.returncode}")
    ended = Counter(run.state for run in before.values())
    seconds = round(time.monotonic() - begin, 1)
    return Trial(victim, point or "at random", killed, dict(ended), wrong, round(first, 1), seconds)


def start(folder: Path, slots: int, victim: str, point: str, nth: int, stub: Any) -> "subprocess.Popen[bytes]":
    """The runner in a process of its own."""
    task = json.dumps([str(folder), slots, victim, point, nth, stub])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "benchmarks.batch_faults", "--runner", task]
    return subprocess.Popen(command, cwd=folder.parent, env=environment, stdout=subprocess.DEVNULL)


def make_notebook(path: Path) -> None:
    """A notebook of three cells with one parameter."""
    cells = [{"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": s} for s in CELLS]
    cells[0]["metadata"] = {"tags": ["parameters"]}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    path.write_text(json.dumps(notebook))


def readable(folder: Path) -> list[Status]:
    """The runs that a killed runner has left: each is whole, or reading raises."""
    return read_batch(folder)


def look(folder: Path, before: dict[str, Status], seeds: int = NOTEBOOKS) -> list[str]:
    """What is wrong with a batch that was resumed."""
    wrong = []
    runs = read_batch(folder)
    done = [run for run in runs if run.state == "done" and run.audited]
    if (found := sorted(run.parameters["SEED"] for run in done)) != list(range(seeds)):
        wrong.append(f"done are the seeds {found}")
    if len(runs) != len(done):
        wrong.append(f"{len(runs) - len(done)} runs are not done")
    for run in done:
        place = folder / run.id
        notebook = json.loads((place / judge.NOTEBOOK).read_text(encoding="utf-8"))
        if run.metrics != {"double": 2 * run.parameters["SEED"]} or audit.recorded(notebook) != run.metrics:
            wrong.append(f"seed {run.parameters['SEED']} recorded {run.metrics}")
        was = before.get(run.id)
        if was is not None and was.state == "done" and (was.attempts, was.ended) != (run.attempts, run.ended):
            wrong.append(f"seed {run.parameters['SEED']} was done, and ran again")
    names = (LOCK, CLAIM, worker.PARTIAL)
    left = [path for path in folder.rglob("*") if path.suffix == ".part" or path.name in names or path.is_socket()]
    wrong += [f"left behind: {path.relative_to(folder)}" for path in left]
    deadline = time.monotonic() + 5
    while (alive := [one for found in processes(folder).values() for one in found]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return wrong + [f"left behind: process {process.pid}" for process in alive]


def main() -> None:
    """All trials, and their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=30, help="times that each is killed at random")
    parser.add_argument("--each", type=int, default=3, help="times that each is killed at each fault point")
    parser.add_argument("--slots", type=int, default=cores())
    parser.add_argument("--resume", action="store_true", help="take over the trials that this package has had already")
    parser.add_argument("--runner", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.runner:
        folder, slots, victim, point, nth, stub = json.loads(given.runner)
        run_with_fault(Path(folder), slots, victim, point, nth, stub)
        return
    before = kept(given.slots) if given.resume else {}
    KEPT.parent.mkdir(exist_ok=True)
    trials = []
    with KEPT.open("a" if given.resume else "w") as lines, tempfile.TemporaryDirectory() as home:
        quiet = Path(home).resolve() / "quiet"
        quiet.mkdir()
        length = trial(quiet, "runner", "never", slots=given.slots).first_seconds
        plans = [(victim, point, n) for victim in VICTIMS for point in POINTS for n in range(given.each)]
        plans += [(victim, "", n) for victim in VICTIMS for n in range(given.random)]
        for number, (victim, point, n) in enumerate(plans):
            # The first statuses are those of the queue; then come the runs'.
            nth = 1 + n * 3 + (NOTEBOOKS if point.startswith("status") and victim != "runner" else 0)
            name = f"{victim}, {point or 'at random'}, {n}"
            if name in before:
                trials.append(before[name])
                continue
            chance = random.Random(name)
            for again in range(TRIES):  # until one is killed: the moment may come when all is over
                place = Path(home).resolve() / f"{number}-{again}"
                place.mkdir()
                one = trial(place, victim, point, nth, chance.uniform(0, length), given.slots)
                if one.killed or one.wrong:
                    break
            trials.append(one)
            told = {"package": package_digest(), "slots": given.slots, "name": name, **asdict(trials[-1])}
            print(json.dumps(told), file=lines, flush=True)
            print(f"{number + 1}/{len(plans)} {asdict(trials[-1])}", flush=True)
    rows = table(trials)
    for row in rows:
        said = "; ".join(row["wrong"]) or "nothing wrong"
        print(f"{row['victim']:>8} {row['when']:<16} {row['trials']:>3} trials, {row['killed']:>3} killed: {said}")
    files.write_atomic(
        RESULTS,
        json.dumps(
            {
                "made_by": "python benchmarks/batch_faults.py",
                "date": datetime.now(UTC).date().isoformat(),
                "device": f"CPU, {cores()} cores",
                "versions": {
                    "python": platform.python_version(),
                    "papermill": version("papermill"),
                    "ipykernel": version("ipykernel"),
                },
                "notebooks": NOTEBOOKS,
                "slots": given.slots,
                "runs": rows,
            },
            indent=1,
        )
        + "\n",
    )
    sys.exit(any(row["wrong"] for row in rows))


def kept(slots: int) -> dict[str, Trial]:
    """Trials of this package in this many slots, by name."""
    found = {}
    for line in KEPT.read_text().splitlines() if KEPT.exists() else []:
        told = json.loads(line)
        name = told.pop("name")
        same = (told.pop("package"), told.pop("slots")) == (package_digest(), slots)
        if same and (told["killed"] or told["wrong"]):
            found[name] = Trial(**told)
    return found


def table(trials: list[Trial]) -> list[dict[str, Any]]:
    """A row per victim and moment."""
    rows = []
    for victim, when in dict.fromkeys((one.victim, one.when) for one in trials):
        mine = [one for one in trials if (one.victim, one.when) == (victim, when)]
        rows.append(
            {
                "victim": victim,
                "when": when,
                "trials": len(mine),
                "killed": sum(one.killed for one in mine),
                "done_at_the_kill": [one.ended.get("done", 0) for one in mine],
                "seconds": round(sum(one.seconds for one in mine), 1),
                "wrong": sorted({sentence for one in mine for sentence in one.wrong}),
            }
        )
    return rows


if __name__ == "__main__":
    main()
