"""What a batch costs beside plain papermill, what two slots save, and how fast a thousand runs are planned and resumed.

Prints a table and writes results/batch_overhead.json. Plain papermill and the batch take turns, so that both see the
same machine; a median over the rounds counts.

Run with: python benchmarks/batch_overhead.py [--rounds 3]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from deepnet_edu.batch.folder import fill_folder, runs_of, take_folder
from deepnet_edu.batch.plan import Request, make_plan
from deepnet_edu.batch.run import run_batch
from deepnet_edu.batch.runner import Limits
from deepnet_edu.batch.slots import cores, make_slots
from deepnet_edu.files import write_atomic

RESULTS = Path(__file__).parent / "results" / "batch_overhead.json"
NOTEBOOKS = 8
#: A cell that waits, and one that computes, a few seconds each.
WAITS = "import time\ntime.sleep(4)"
COMPUTES = "import time\nend = time.process_time() + 4\nwhile time.process_time() < end:\n    sum(range(10000))"


def write_notebook(path: Path, *sources: str) -> None:
    """A notebook with a cell of parameters and the given cells."""
    cells = [
        {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
        for source in ("SEED = 0", *sources)
    ]
    cells[0]["metadata"] = {"tags": ["parameters"]}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    path.write_text(json.dumps(notebook))


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def plain(home: Path) -> None:
    """All notebooks by papermill's own command, one after the other."""
    for seed in range(NOTEBOOKS):
        command = [sys.executable, "-m", "papermill", "x.ipynb", f"plain-{seed}.ipynb", "-p", "SEED", str(seed)]
        command += ["--no-progress-bar", "--log-level", "ERROR"]
        subprocess.run(command, cwd=home, check=True, stderr=subprocess.DEVNULL)


def batch(home: Path, slots: int) -> None:
    """All notebooks as a batch."""
    folder = Path(tempfile.mkdtemp(dir=home)) / "out"
    plan = make_plan(Request(("x.ipynb",), seeds=NOTEBOOKS), home)
    runs = run_batch(plan, folder, make_slots("none", slots, []), Limits(), quiet=True)
    assert all(run.state == "done" for run in runs), [run.problems for run in runs]


def thousand(home: Path) -> dict[str, float]:
    """Seconds to plan and queue 1,000 runs, and to find out on resuming what is to be done."""
    request = Request(("x.ipynb",), sweeps=(f"DEPTH={','.join(map(str, range(100)))}",), seeds=10)
    write_notebook(home / "x.ipynb")
    notebook = json.loads((home / "x.ipynb").read_text())
    notebook["cells"][0]["source"] = "SEED = 0\nDEPTH = 1"
    (home / "x.ipynb").write_text(json.dumps(notebook))
    folder = Path(tempfile.mkdtemp(dir=home)) / "out"

    def begin() -> None:
        plan = make_plan(request, home)
        take_folder(folder, resume=False, join=False)
        fill_folder(folder, plan, [])

    def resume() -> None:
        plan = make_plan(request, home)
        fill_folder(folder, plan, [])
        assert len(runs_of(folder, plan)) == 1000

    return {"planned_s": round(seconds(begin), 2), "resumed_s": round(seconds(resume), 2)}


def main() -> None:
    """All measurements, their table and their record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    os.environ["OMP_NUM_THREADS"] = "1"
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name).resolve()
        for what, source in (("waits", WAITS), ("computes", COMPUTES)):
            write_notebook(home / "x.ipynb", source)
            ways = {
                "papermill_s": lambda: plain(home),
                "one_slot_s": lambda: batch(home, 1),
                "two_slots_s": lambda: batch(home, 2),
            }
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, work in ways.items():
                    times[way].append(round(seconds(work), 2))
            median = {way: statistics.median(found) for way, found in times.items()}
            over = round(median["one_slot_s"] / median["papermill_s"], 3)
            saved = round(median["one_slot_s"] / median["two_slots_s"], 3)
            rows.append({"notebooks": what, **times, "over_papermill": over, "two_slots_gain": saved})
            print(f"{what}: {over:.2f} times plain papermill; two slots {saved:.2f} times as fast as one", flush=True)
        rows.append({"notebooks": "1,000 queued", **thousand(home)})
        print(f"1,000 runs: planned in {rows[-1]['planned_s']} s, resumed in {rows[-1]['resumed_s']} s")
    record = {
        "made_by": "python benchmarks/batch_overhead.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": f"CPU, {cores()} cores",
        "versions": {
            "python": platform.python_version(),
            "papermill": version("papermill"),
            "ipykernel": version("ipykernel"),
        },
        "notebooks": NOTEBOOKS,
        "runs": rows,
    }
    write_atomic(RESULTS, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
