"""Measured time of training steps beside planning's formula: constants fitted to half of the runs, judged on the rest.

Each run has a process of its own with one thread, in turn, three rounds. In it steps and the floor, the step's matrix
products alone, take turns, so that the machine's drift meets both. Seconds are the process's own, as others may be at
work on the machine. Writes results/step_time.json.

Run with: python benchmarks/step_time.py (about seven minutes), or --rounds 1 for a first look that keeps nothing
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from deepnet_edu.files import write_atomic
from deepnet_edu.models import ModelConfig
from deepnet_edu.planning import time as formula

RESULTS = Path(__file__).parent / "results" / "step_time.json"
ROUNDS, WARM, STEPS = 3, 1, 2
#: Numbers in each of the vectors that measure the bandwidth, more than any cache holds.
LONG = 32_000_000
LM = {"vocab_size": 128, "max_length": 256}


def decoder(layers: int, width: int, **more: Any) -> dict[str, Any]:
    """A language model."""
    sizes = {"d_model": width, "n_heads": width // 16, "d_ff": 4 * width, **LM, **more}
    return asdict(ModelConfig("decoder", "lm", layers, **sizes))


def translator(layers: int, width: int, **more: Any) -> dict[str, Any]:
    """Two stacks of so many layers."""
    sizes = {"d_model": width, "n_heads": width // 16, "d_ff": 4 * width, "vocab_size": 1000, "max_length": 256, **more}
    return asdict(ModelConfig("encoder_decoder", "translation", layers, layers, **sizes))


#: config, and how it runs. The first eight are for the fit.
RUNS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (decoder(1000, 64), {"sequences": 4, "tokens": 64}),
    (decoder(1000, 32), {"sequences": 4, "tokens": 32}),
    (decoder(100, 256), {"sequences": 2, "tokens": 64}),
    (decoder(200, 64, residual="pre_ln"), {"sequences": 4, "tokens": 128}),
    (decoder(200, 128), {"sequences": 4, "tokens": 32, "checkpoint_every": 1}),
    (decoder(300, 32), {"sequences": 4, "tokens": 32, "path": "plain"}),
    (decoder(100, 128), {"sequences": 1, "tokens": 256}),
    (decoder(200, 32), {"sequences": 4, "tokens": 32, "checkpoint_every": 4, "path": "plain"}),
    (decoder(300, 128), {"sequences": 8, "tokens": 32}),
    (decoder(400, 64, residual="pre_ln", activation="relu"), {"sequences": 4, "tokens": 64, "checkpoint_every": 8}),
    (decoder(500, 32), {"sequences": 4, "tokens": 128}),
    (decoder(100, 256), {"sequences": 2, "tokens": 128}),
    (translator(100, 64), {"sequences": 4, "tokens": 64}),
    (decoder(200, 64), {"sequences": 4, "tokens": 64, "path": "plain"}),
    (decoder(100, 128, vocab_size=4000), {"sequences": 4, "tokens": 64, "path": "plain"}),
    (decoder(1000, 32), {"sequences": 4, "tokens": 32, "path": "plain"}),
    (
        decoder(100, 64, residual="peri_ln", norm="rms", activation="swiglu"),
        {"sequences": 2, "tokens": 64, "checkpoint_every": 1},
    ),
    (
        decoder(150, 64, residual="resi_dual", position="rotary", dropout=0.1),
        {"sequences": 4, "tokens": 64, "checkpoint_every": 10},
    ),
]
FIT = 8


def floor(config: ModelConfig, B: int, T: int) -> tuple[Callable[[], None], int]:
    """The matrix products of a step, forward, of the input's gradient and of the weight's, and how many operations."""
    import torch

    d, rows = config.d_model, B * T
    shapes = [(3 * d, d), (d, d)]
    ffn = [((2 if config.activation == "swiglu" else 1) * config.d_ff, d), (d, config.d_ff)]
    cross = [(d, d), (2 * d, d), (d, d)] if config.encoder_layers else []
    layers = [shapes + ffn] * config.encoder_layers + [shapes + cross + ffn] * config.decoder_layers
    layers.append([(config.vocab_size, d)])
    weights = [[0.01 * torch.randn(shape) for shape in layer] for layer in layers]
    gradients = [[torch.zeros(shape) for shape in layer] for layer in layers]
    widths = {width for layer in layers for shape in layer for width in shape}
    x = {width: torch.randn(rows, width) for width in widths}
    y, dx = ({width: torch.empty(rows, width) for width in widths} for _ in range(2))

    def step() -> None:
        for layer in weights:
            for w in layer:
                torch.mm(x[w.shape[1]], w.t(), out=y[w.shape[0]])
        for layer, gradient in zip(reversed(weights), reversed(gradients), strict=True):
            for w, dw in zip(reversed(layer), reversed(gradient), strict=True):
                torch.mm(y[w.shape[0]], w, out=dx[w.shape[1]])
                torch.mm(y[w.shape[0]].t(), x[w.shape[1]], out=dw)

    return step, 6 * rows * sum(w.numel() for layer in weights for w in layer)


def work(index: int) -> None:
    """In a process of its own: steps and floors in turn; prints their seconds, operations and bandwidth as JSON."""
    import torch

    from deepnet_edu import build_model
    from deepnet_edu.models import random_batch
    from deepnet_edu.training import TrainStep

    torch.set_num_threads(1)
    config, how = ModelConfig(**RUNS[index][0]), RUNS[index][1]
    model, batch = build_model(config), random_batch(config, how["sequences"], how["tokens"])
    model.use_path(how.get("path", "auto"))
    model.checkpoint_every(how.get("checkpoint_every", 0))
    products, operations = floor(config, how["sequences"], how["tokens"])
    a, b, c = torch.ones(3, LONG)
    with TrainStep(
        model, model.group("all"), peak=1e-5, warmup=0, clip=0, weight_decay=0.01, betas=(0.9, 0.999)
    ) as step:
        calls = (products, lambda: step(batch), lambda: torch.add(a, b, out=c))
        seconds = []
        for _ in range(WARM + STEPS):
            marks = [time.process_time()]
            for call in calls:
                call()
                marks.append(time.process_time())
            seconds.append(np.diff(marks))
        taken = {stack.taken for stack in model.stacks().values()}
    low, own, add = np.sum(seconds[WARM:], axis=0) / STEPS
    found = {"floor": low, "step": own, "bandwidth": 3 * 4 * LONG / add, "operations": operations}
    print(json.dumps({**found, "taken": taken.pop()}))


def measure(index: int) -> dict[str, Any]:
    """One process."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, __file__, "--worker", str(index)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"Run {index} failed: {result.stderr.strip().splitlines()[-1]}")
    return json.loads(result.stdout.splitlines()[-1])


def row(index: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    """What was measured in the rounds; the step over the floor is taken within each."""
    config, how = RUNS[index]
    counted = formula.training_time(ModelConfig(**config), **how)
    for one in found:
        assert one["operations"] == counted.operations, (index, one, counted)
        assert one["taken"].startswith("fast, compiled" if counted.path == "fast" else "plain"), (index, one)
    ratios = [one["step"] / one["floor"] for one in found]
    return {
        "used for": "fit" if index < FIT else "judgement",
        "config": config,
        "how": how,
        "path": counted.path,
        "step over floor": {
            "median": round(statistics.median(ratios), 3),
            "least": round(min(ratios), 3),
            "most": round(max(ratios), 3),
        },
        "floor, CPU seconds": round(statistics.median(one["floor"] for one in found), 4),
        "rate": float(f"{counted.operations / statistics.median(one['floor'] for one in found):.3g}"),
        "bandwidth": float(f"{statistics.median(one['bandwidth'] for one in found):.3g}"),
    }


def machine(rows: list[dict[str, Any]]) -> tuple[dict[int, float], float]:
    """Rates by width and the bandwidth: medians over the runs."""
    rates: dict[int, list[float]] = {}
    for one in rows:
        rates.setdefault(one["config"]["d_model"], []).append(one["rate"])
    middle = {width: float(f"{statistics.median(rates[width]):.2g}") for width in sorted(rates)}
    return middle, float(f"{statistics.median(one['bandwidth'] for one in rows):.2g}")


def over_floor(one: dict[str, Any], bandwidth: float, fitted: formula.Fitted) -> float:
    """The step over the floor by the formula, at the rate of the run."""
    how = {"source_tokens": 0, "checkpoint_every": 0, "path": "auto", **one["how"]}
    every = how.pop("checkpoint_every")
    counts = formula._count(ModelConfig(**one["config"]), **how, every=every, precision="float32")
    plan = formula._plan(counts, one["rate"], bandwidth, fitted)
    return plan.total / plan.floor


def fit(rows: list[dict[str, Any]], bandwidth: float) -> formula.Fitted:
    """Least squares of the relative errors, no constant below 0: of all choices of constants above 0 the best."""
    names = [field.name for field in fields(formula.Fitted)]
    zero = dict.fromkeys(names, 0.0)
    target = np.array([one["step over floor"]["median"] for one in rows])
    base = np.array([over_floor(one, bandwidth, formula.Fitted(**zero)) for one in rows])
    # The formula is linear in each constant: a column is what one of them adds where it is 1.
    columns = [
        np.array([over_floor(one, bandwidth, formula.Fitted(**{**zero, name: 1.0})) for one in rows]) - base
        for name in names
    ]
    a, b = np.stack(columns, 1) / target[:, None], (target - base) / target
    best, least = np.zeros(len(names)), float(b @ b)
    for size in range(1, len(names) + 1):
        for chosen in map(list, combinations(range(len(names)), size)):
            x = np.zeros(len(names))
            x[chosen] = np.linalg.lstsq(a[:, chosen], b, rcond=None)[0]
            error = float(np.sum((a @ x - b) ** 2))
            if (x >= 0).all() and error < least:
                best, least = x, error
    return formula.Fitted(**{name: float(f"{x:.3g}") for name, x in zip(names, best, strict=True)})


def main() -> None:
    """Measure, fit, judge, print and keep."""
    parser = argparse.ArgumentParser(description="The time of a step, by planning's formula and measured.")
    parser.add_argument("--rounds", type=int, default=0, help=f"rounds, {ROUNDS} by default; given, nothing is kept")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        return work(arguments.worker)
    begin = time.monotonic()
    found: list[list[dict[str, Any]]] = [[] for _ in RUNS]
    for turn in range(arguments.rounds or ROUNDS):
        for index in range(len(RUNS)):
            found[index].append(measure(index))
            print(f"round {turn + 1}, run {index}: {found[index][-1]}", file=sys.stderr, flush=True)
    rows = [row(index, one) for index, one in enumerate(found)]
    rates, bandwidth = machine(rows)
    fitted = fit(rows[:FIT], bandwidth)
    for one in rows:
        one["off by"] = round(over_floor(one, bandwidth, fitted) / one["step over floor"]["median"] - 1, 3)
        print(one["used for"], one["off by"], one["step over floor"], one["path"], one["rate"], one["how"])
    judged = max(abs(one["off by"]) for one in rows[FIT:])
    print(rates, bandwidth, fitted, f"worst judged: {judged}", f"{time.monotonic() - begin:.0f} s", sep="\n")
    if arguments.rounds:
        return None
    record = {
        "what": "A training step of planning.training_time over its matrix products alone, float32, AdamW",
        "command": "python benchmarks/step_time.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": "CPU, one thread",
        "versions": {name: version(name) for name in ("torch", "deepnet-edu")} | {"python": platform.python_version()},
        "seed": 0,
        "rounds": ROUNDS,
        "steps a round": STEPS,
        "rates": {str(width): rate for width, rate in rates.items()},
        "bandwidth": bandwidth,
        "fit": asdict(fitted),
        "worst fitted": max(abs(one["off by"]) for one in rows[:FIT]),
        "worst judged": judged,
        "rows": rows,
    }
    write_atomic(RESULTS, json.dumps(record, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
