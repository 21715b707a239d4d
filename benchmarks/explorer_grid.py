"""What the explorers show as measured at once: writes deepnet_edu/explorers/grid.npz.

Three parts, each run made by a function of deepnet_edu.explorers.measured: signals through freshly drawn stacks, by
rule and depth; training runs by α, depth and seed; update races by rule, depth, learning rate and warm-up. A sweep that
was stopped continues where it was (runs/explorer_grid.json).

Run with: python benchmarks/explorer_grid.py (about half an hour on two cores)
"""

import argparse
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from deepnet_edu.explorers import grid, measured
from deepnet_edu.files import write_atomic
from deepnet_edu.model import ModelConfig
from deepnet_edu.residual import RESIDUALS
from deepnet_edu.theory.prediction import predicted

PARTIAL = Path(__file__).parents[1] / "runs" / "explorer_grid.json"
SIGNAL_DEPTHS = (6, 12, 24, 50, 100, 200, 400, 1000, 2000)
MAP_DEPTHS = (8, 16, 32, 64, 128, 256, 512, 1000)
#: By quarter octaves where the edge is, by halves above.
MAP_ALPHAS = tuple(round(2 ** (k / 4), 4) for k in (*range(-1, 9), *range(10, 21, 2)))
MAP_SEEDS = (0, 1, 2)
RACE_RULES = ("post_ln", "pre_ln", "deepnorm", "deepnorm_glm")
RACE_DEPTHS = (12, 25, 50, 100, 200, 400, 1000)
RACE_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
RACE_WARMUPS = (0, 100)


def tasks() -> Iterator[tuple[str, dict[str, Any]]]:
    """All runs of the grid, the shallow ones first."""
    for depth in SIGNAL_DEPTHS:
        for residual in RESIDUALS:
            if predictable(residual):
                yield "signal", {"residual": residual, "depth": depth}
    for depth in RACE_DEPTHS:
        for residual in RACE_RULES:
            for rate in RACE_RATES:
                for warmup in RACE_WARMUPS:
                    yield "race", {"residual": residual, "depth": depth, "learning_rate": rate, "warmup": warmup}
    for depth in MAP_DEPTHS:
        for alpha in MAP_ALPHAS:
            for seed in MAP_SEEDS:
                yield "map", {"depth": depth, "alpha": alpha, "seed": seed}


def predictable(residual: str) -> bool:
    """Whether theory has lines for it."""
    try:
        predicted(measured.decoder(residual, 4), measured.TOKENS)
    except ValueError:
        return False
    return True


def run(part: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One run, as plain JSON values, with its seconds."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    begin = time.perf_counter()
    if part == "signal":
        found = measured.SignalMeter()(measured.SignalSettings(**settings))
        result = {name: [float(f"{value:.5g}") for value in values] for name, values in found.items()}
    elif part == "race":
        result = {"update": measured.race(measured.RaceSettings(**settings)).tolist()}
    else:
        result = asdict(measured.map_run(**settings))
        result["loss"] = result["loss"].tolist()
    return {"seconds": time.perf_counter() - begin, **result}


def recorded(part: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """One run as the committed grid has it; None where it does not."""
    there = grid.load()
    if part == "map":
        cell = there.cell(settings["depth"], settings["alpha"])
        return asdict(cell[there.seeds.index(settings["seed"])]) if cell else None
    if part == "race":
        found = there.race(measured.RaceSettings(**settings))
        return None if found is None else {"update": found}
    return there.signal(measured.SignalSettings(**settings))


def main() -> None:
    """Run what is missing, then write the grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--add", action="store_true", help="measure what the committed grid lacks, and keep the rest")
    arguments = parser.parse_args()
    known: dict[str, Any] = json.loads(PARTIAL.read_text()) if PARTIAL.exists() else {}
    kept = {json.dumps(task): found for task in tasks() if arguments.add and (found := recorded(*task)) is not None}
    known |= kept
    PARTIAL.parent.mkdir(exist_ok=True)
    wanted = {json.dumps(task): task for task in tasks()}
    missing = [key for key in wanted if key not in known]
    written = time.monotonic()
    # Not forked: a copy of a process that has used PyTorch's threads may wait for them for ever.
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(run, *wanted[key]): key for key in missing}
        for n, future in enumerate(as_completed(futures), 1):
            known[futures[future]] = future.result()
            if time.monotonic() > written + 20 or n == len(missing):
                write_atomic(PARTIAL, json.dumps({key: run for key, run in known.items() if key not in kept}))
                written = time.monotonic()
                print(f"{n} of {len(missing)}", flush=True)
    runs = [(part, settings, known[key]) for key, (part, settings) in wanted.items()]
    made = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": "CPU",
        "seconds": round(sum(known[key]["seconds"] for key in wanted if key not in kept)),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", "deepnet_edu")}},
    }
    head = {
        "made_by": "python benchmarks/explorer_grid.py",
        **made,
        "seeds": {"signal": 0, "map": MAP_SEEDS, "race": 0},
        "map_recipe": asdict(measured.MAP_RECIPE),
        "map_task": asdict(measured.MAP_TASK),
        "shape": asdict(ModelConfig(**{**asdict(measured.decoder("deepnorm", 1)), "decoder_layers": 1})),
    }
    if kept:  # how most of it was made stays, and what came to it is said
        new = [json.loads(key)[1] for key in wanted if key not in kept]
        before = grid.load().head
        head = {**before, "added": [*before.get("added", []), {**made, "runs": new}]}
    grid.write(grid.PATH, head, runs)
    print(f"{grid.PATH.name}: {len(runs)} runs, {grid.PATH.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
