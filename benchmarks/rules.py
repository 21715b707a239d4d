"""What residual rules cost: a training step of each beside torch.nn's layers of the same width, on one thread.

Each has a process of its own, and they take one step in turn, so that the machine's drift meets all. Seconds are the
process's own, and the ratio is that of the shortest steps: others who are at work on the machine make steps longer, and
they do not meet all equally. Writes results/rules.json, unless --rounds is given.

Run with: python benchmarks/rules.py (three minutes), or --rounds 5 for a first look, which keeps nothing
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed will do

import depth

from deepnet_edu.files import write_atomic

RESULTS = Path(__file__).parent / "results" / "rules.json"
RULES = ("pre_ln", "hyper_connections", "mhc", "ngpt", "dlcl")
#: Times torch.nn's step, at the first width.
TARGETS = {"hyper_connections": 1.3, "mhc": 2.0, "ngpt": 1.3, "dlcl": 1.3}
#: Layers and rounds, by width.
WIDTHS = {64: (10, 40), 512: (4, 8)}
BESIDE, WARM = "torch.nn", 2


def work(name: str, width: int) -> None:
    """In a process of its own: a step and its seconds for every line that comes in."""
    import torch

    torch.set_num_threads(1)
    depth.SHAPE.update(d_model=width, d_ff=4 * width)
    layers, _ = WIDTHS[width]
    step = depth.torch_nn(layers) if name == BESIDE else depth.ours(layers, path="plain", residual=name)
    for _ in range(WARM):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = time.process_time()
        step()
        print(time.process_time() - begin, flush=True)


def measure(width: int, rounds: int) -> list[dict[str, Any]]:
    """All in turn."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    workers: dict[str, Any] = {}
    for name in (BESIDE, *RULES):
        command = [sys.executable, __file__, "--worker", name, str(width)]
        workers[name] = subprocess.Popen(command, text=True, **pipes)
        workers[name].stdout.readline()  # ready: one is at work at a time
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            worker.stdin.write("\n")
            worker.stdin.flush()
            seconds[name].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate()
    base = seconds[BESIDE]
    return [
        {
            "width": width,
            "rule": name,
            "CPU seconds a layer": float(f"{min(found) / WIDTHS[width][0]:.3g}"),
            "times torch.nn": round(min(found) / min(base), 2),
            "median of the rounds' ratios": round(
                statistics.median(a / b for a, b in zip(found, base, strict=True)), 2
            ),
        }
        for name, found in seconds.items()
    ]


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description="The cost of residual rules.")
    parser.add_argument("--rounds", type=int, default=0, help="rounds at each width; given, nothing is kept")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker[0], int(arguments.worker[1]))
        return
    rows = [row for width, (_, rounds) in WIDTHS.items() for row in measure(width, arguments.rounds or rounds)]
    print(*rows, sep="\n")
    if arguments.rounds:
        return
    first = {row["rule"]: row["times torch.nn"] for row in rows if row["width"] == next(iter(WIDTHS))}
    record = {
        "what": "Training steps by the plain path over torch.nn's of the same width, 4 sequences of 64 tokens, float32",
        "command": "python benchmarks/rules.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": "CPU, one thread",
        "versions": {name: version(name) for name in ("torch", "deepnet-edu")} | {"python": platform.python_version()},
        "seed": 0,
        "layers and rounds, by width": WIDTHS,
        "rows": rows,
        "targets": [
            {"what": rule, "target": f"at most {most:g}", "measured": first[rule], "met": first[rule] <= most}
            for rule, most in TARGETS.items()
        ],
    }
    write_atomic(RESULTS, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
