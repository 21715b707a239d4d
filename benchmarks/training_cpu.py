"""What the loop adds to its steps, what a watched step costs, and how fast checkpoints are; one thread of a CPU.

Each step of ``train`` is followed by a bare step on the same batch, of another model of the same kind. What ``train``
does between two calls of ``on_step``, making the batch, the step, the lines on disk and the bar, is compared with the
bare step beside it. Checkpoints are written, copied as plain files, and read in turn. Writes results/training_cpu.json.

Run with: python benchmarks/training_cpu.py (about three minutes)
"""

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from datetime import UTC, datetime
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is not part of the package

from benchmarks.depth import processor, spread
from deepnet_edu import ModelConfig, build_model
from deepnet_edu.data import PythonDocs
from deepnet_edu.files import write_atomic
from deepnet_edu.model import Batch
from deepnet_edu.training import TrainConfig, TrainStep, train
from deepnet_edu.training.checkpoint import load, save

RESULTS = Path(__file__).parent / "results" / "training_cpu.json"
SHAPE: dict[str, Any] = {"d_model": 64, "n_heads": 4, "d_ff": 256, "vocab_size": 128}
SEQUENCES, TOKENS, SEED = 4, 64, 0
#: Layers, steps, and steps that are watched.
RUNS = ((1000, 15, 9), (12, 400, 100))
#: Layers of the model whose checkpoint is written, and how often.
SAVED, ROUNDS = 1000, 5
WARM = 2
#: Shares of a step: all that the loop does around it, and the signals by layer.
MOST_LOOP, MOST_WATCHED = 0.05, 0.03


class Remembered:
    """A task that keeps its last batch."""

    last: Batch

    def __init__(self) -> None:
        self.task = PythonDocs(TOKENS, SEQUENCES)

    def batch(self, generator: torch.Generator) -> Batch:
        """The task's next."""
        self.last = self.task.batch(generator)
        return self.last


class Terminal(io.StringIO):
    """Where a bar draws as often as in a terminal."""

    def isatty(self) -> bool:
        """So it says."""
        return True


def config(layers: int) -> ModelConfig:
    """A decoder."""
    return ModelConfig("decoder", "lm", layers, max_length=TOKENS, **SHAPE)


def loop_over_bare(layers: int, steps: int, profile_every: int) -> list[tuple[float, float]]:
    """Seconds of a turn of the loop, and of the bare step on the same batch, turn by turn."""
    recipe = TrainConfig(steps=steps + WARM, learning_rate=1e-4, seed=SEED, profile_every=profile_every)
    task, pairs, begin = Remembered(), [], 0.0
    with TrainStep(build_model(config(layers)), recipe) as bare, tempfile.TemporaryDirectory() as folder:

        def on_step(_: Any) -> None:
            nonlocal begin
            turn = time.perf_counter() - begin
            alone = timed(lambda: bare(task.last))
            pairs.append((turn, alone))
            begin = time.perf_counter()

        with redirect_stderr(Terminal()):
            train(build_model(config(layers)), task, recipe, out=Path(folder) / "run", on_step=on_step)
    return pairs[WARM:]


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def checkpoint_rounds(layers: int, rounds: int) -> list[dict[str, float]]:
    """Bytes and seconds of a checkpoint written, its files copied and written to the disk, and the checkpoint read."""
    found = []
    generator, task = torch.Generator().manual_seed(SEED), PythonDocs(TOKENS, SEQUENCES)
    with (
        TrainStep(build_model(config(layers)), TrainConfig(steps=9, learning_rate=1e-4)) as step,
        tempfile.TemporaryDirectory(dir=RESULTS.parent) as folder,  # on a disk, as /tmp may not be
    ):
        step(task.batch(generator))
        run, copy = Path(folder) / "run", Path(folder) / "copy"
        for _ in range(rounds):
            os.sync()
            begin = time.perf_counter()
            path = save(run, step, generator, 0, {})
            written = time.perf_counter() - begin
            size = sum(file.stat().st_size for file in path.iterdir())
            copied = timed(lambda path=path: copy_synced(path, copy))  # type: ignore[misc]
            read = timed(lambda path=path: load(path, step, generator))  # type: ignore[misc]
            found.append({"bytes": size, "save": written, "copy": copied, "load": read})
            shutil.rmtree(path)
            shutil.rmtree(copy)
    return found


def copy_synced(source: Path, target: Path) -> None:
    """Plain copies of a folder's files, on the disk when this returns."""
    target.mkdir()
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)
        with (target / file.name).open("rb") as copied:
            os.fsync(copied.fileno())


def loop_row(layers: int, pairs: list[tuple[float, float]], watched: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians of the ratios, turn by turn, and how often a step may be watched."""
    loop, signals = (statistics.median(turn / alone for turn, alone in some) for some in (pairs, watched))
    # What a watched turn adds to a plain turn of the loop, spread over the steps up to the next.
    cost = max(0.0, signals / loop - 1)
    return {
        "layers": layers,
        "bare step, s": spread([alone for _, alone in pairs], 5),
        "loop over bare": round(loop, 4),
        "watched over bare": round(signals, 4),
        "profile_every for its share": max(1, ceil(cost / MOST_WATCHED)),
    }


def checkpoint_row(layers: int, found: list[dict[str, float]]) -> dict[str, Any]:
    """GB/s, and ratios to the copy of the same round."""
    ways = ("save", "load", "copy")
    rates = {f"{how}, GB/s": spread([one["bytes"] / one[how] / 1e9 for one in found]) for how in ways}
    over = {f"{how} over copy": spread([one[how] / one["copy"] for one in found]) for how in ways[:2]}
    return {"layers": layers, "bytes": int(found[0]["bytes"]), "rounds": len(found), **rates, **over}


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was aimed at, and what came of it."""
    return [
        {
            "what": f"loading, logging and bar at {row['layers']:,} layers, share of the step",
            "measured": round(row["loop over bare"] - 1, 4),
            "target": f"at most {MOST_LOOP:g}",
            "met": row["loop over bare"] - 1 <= MOST_LOOP,
        }
        for row in rows
    ]


def main() -> None:
    """Measure, print and keep everything."""
    parser = argparse.ArgumentParser(description="What the training loop adds to its steps, and checkpoints.")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; nothing is kept")
    smoke = parser.parse_args().smoke
    torch.set_num_threads(1)
    rows = []
    for layers, steps, watched in ((3, 3, 2), (2, 3, 2)) if smoke else RUNS:
        rows.append(loop_row(layers, loop_over_bare(layers, steps, 0), loop_over_bare(layers, watched, 1)))
        print(rows[-1], flush=True)
    saved = checkpoint_row(*((3, checkpoint_rounds(3, 2)) if smoke else (SAVED, checkpoint_rounds(SAVED, ROUNDS))))
    print(saved)
    for one in (goals := targets(rows)):
        print("met" if one["met"] else "missed", one)
    if smoke:
        return
    record = {
        "what": "A turn of train() over the bare step on the same batch, float32; a checkpoint beside a plain copy",
        "command": "python benchmarks/training_cpu.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": f"{processor()}, CPU, one thread",
        "versions": {name: version(name) for name in ("torch", "deepnet-edu")} | {"python": platform.python_version()},
        "seed": SEED,
        "shape": {**SHAPE, "sequences": SEQUENCES, "tokens": TOKENS},
        "runs": [dict(zip(("layers", "steps", "watched steps"), run, strict=True)) for run in RUNS],
        "rows": rows,
        "checkpoint": saved,
        "targets": goals,
    }
    write_atomic(RESULTS, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
