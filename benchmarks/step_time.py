"""Measured time of training steps beside planning's formula: constants fitted to half of the runs, judged on the rest.

Each run has a process of its own with one thread, in turn, three rounds. In it steps and the floor, the step's matrix
products alone, take turns, so that the machine's drift meets both. Seconds are the process's own, as others may be at
work on the machine. Writes results/step_time.json.

Run with: python benchmarks/step_time.py (eight to eleven minutes), or --rounds 1 for a first look that keeps nothing
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from deepnet_edu.files import write_atomic
from deepnet_edu.model import ModelConfig
from deepnet_edu.planning import time as formula

RESULTS = Path(__file__).parent / "results" / "step_time.json"
ROUNDS, WARM, STEPS, SECONDS = 3, 1, (2, 6), 2
#: Numbers in each of the vectors that measure the bandwidth, more than any cache holds.
LONG = 32_000_000
LM = {"vocab_size": 128, "max_length": 256}


def decoder(layers: int, width: int, **more: Any) -> dict[str, Any]:
    """A language model."""
    sizes = {"d_model": width, "n_heads": width // 16, "d_ff": 4 * width, **LM, **more}
    return asdict(ModelConfig("decoder", "lm", layers, **sizes))


def translator(layers: int, width: int, **more: Any) -> dict[str, Any]:
    """Two stacks of this many layers."""
    sizes = {"d_model": width, "n_heads": width // 16, "d_ff": 4 * width, "vocab_size": 1000, "max_length": 256, **more}
    return asdict(ModelConfig("encoder_decoder", "translation", layers, layers, **sizes))


#: config, and how it runs. The first nine are for the fit.
RUNS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (decoder(1000, 64), {"sequences": 4, "tokens": 64}),
    (decoder(1000, 32), {"sequences": 4, "tokens": 32}),
    (decoder(100, 256), {"sequences": 2, "tokens": 64}),
    (decoder(200, 64, residual="pre_ln"), {"sequences": 4, "tokens": 128}),
    (decoder(200, 128), {"sequences": 4, "tokens": 32, "checkpoint_every": 1}),
    (decoder(300, 32), {"sequences": 4, "tokens": 32, "path": "plain"}),
    (decoder(200, 64), {"sequences": 4, "tokens": 64, "path": "plain"}),
    (decoder(100, 128), {"sequences": 1, "tokens": 256}),
    (decoder(200, 32), {"sequences": 4, "tokens": 32, "checkpoint_every": 4, "path": "plain"}),
    (decoder(150, 128), {"sequences": 8, "tokens": 32}),
    (decoder(400, 64, residual="pre_ln", activation="relu"), {"sequences": 4, "tokens": 64, "checkpoint_every": 8}),
    (decoder(500, 32), {"sequences": 4, "tokens": 128}),
    (decoder(100, 256), {"sequences": 2, "tokens": 128}),
    (translator(100, 64), {"sequences": 4, "tokens": 64}),
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
FIT = 9


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


def work(index: int) -> dict[str, Any]:
    """In a process of its own: steps and floors in turn; medians of their seconds, and the bandwidth."""
    import torch

    from deepnet_edu import build_model
    from deepnet_edu.model import random_batch
    from deepnet_edu.training import TrainConfig, TrainStep

    torch.set_num_threads(1)
    config, how = ModelConfig(**RUNS[index][0]), RUNS[index][1]
    model, batch = build_model(config), random_batch(config, how["sequences"], how["tokens"])
    model.use_path(how.get("path", "auto"))
    model.checkpoint_every(how.get("checkpoint_every", 0))
    products, operations = floor(config, how["sequences"], how["tokens"])
    a, b, c = torch.ones(3, LONG)
    with TrainStep(model, TrainConfig(steps=99, learning_rate=1e-5, warmup=0, clip=0, weight_decay=0.01)) as step:
        calls = (products, lambda: step(batch), lambda: torch.add(a, b, out=c))
        seconds: list[Any] = []
        least, most = STEPS
        while len(seconds) < WARM + least or (len(seconds) < WARM + most and np.sum(seconds[WARM:]) < SECONDS):
            marks = [time.process_time()]
            for call in calls:
                call()
                marks.append(time.process_time())
            seconds.append(np.diff(marks))
        taken = {stack.path_taken for stack in model.stacks().values()}
    low, own, add = np.median(seconds[WARM:], axis=0)
    found = {"floor": float(low), "step": float(own), "bandwidth": float(3 * 4 * LONG / add), "operations": operations}
    return {**found, "taken": taken.pop()}


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
        # What else is at work on the machine can only make it slower.
        "floor, CPU seconds": round(min(one["floor"] for one in found), 4),
        "rate": float(f"{counted.operations / min(one['floor'] for one in found):.3g}"),
        "bandwidth": float(f"{max(one['bandwidth'] for one in found):.3g}"),
    }


def counts(one: dict[str, Any]) -> formula._Counts:
    """Of a run."""
    how = {"source_tokens": 0, "checkpoint_every": 0, "path": "auto", **one["how"]}
    return formula._count(ModelConfig(**one["config"]), every=how.pop("checkpoint_every"), precision="float32", **how)


def fit_floor(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Operations a second and seconds a product, by least squares of the relative errors of the floors."""
    made = [counts(one) for one in rows]
    low = np.array([one["floor, CPU seconds"] for one in rows])
    a = np.array([[one.operations.products, one.products] for one in made]) / low[:, None]
    x = positive(a, np.ones(len(rows)))
    return float(f"{1 / x[0]:.3g}"), float(f"{x[1]:.3g}")


def over_floor(one: dict[str, Any], machine: tuple[float, float, float], fitted: formula.Fitted) -> float:
    """The step over the floor by the formula."""
    plan = formula._plan(counts(one), *machine, fitted)
    return plan.total / plan.floor


def fit(rows: list[dict[str, Any]], machine: tuple[float, float, float]) -> formula.Fitted:
    """The constants of the step, by least squares of the relative errors of its time over the floor's."""
    names = [field.name for field in fields(formula.Fitted)]
    zero = dict.fromkeys(names, 0.0)
    target = np.array([one["step over floor"]["median"] for one in rows])
    zero = dict.fromkeys(names, 0.0)
    base = np.array([over_floor(one, machine, formula.Fitted(**zero)) for one in rows])
    # The formula is linear in each constant: a column is what one of them adds where it is 1.
    units = [formula.Fitted(**{**zero, name: 1.0}) for name in names]
    columns = [np.array([over_floor(one, machine, unit) for one in rows]) - base for unit in units]
    x = positive(np.stack(columns, 1) / target[:, None], (target - base) / target)
    return formula.Fitted(**{name: float(f"{value:.3g}") for name, value in zip(names, x, strict=True)})


def positive(a: Any, b: Any) -> Any:
    """The x ≥ 0 with the least ‖ax - b‖: of all choices of columns the best whose own solution is positive."""
    best, least = np.zeros(a.shape[1]), float(b @ b)
    for size in range(1, a.shape[1] + 1):
        for chosen in map(list, combinations(range(a.shape[1]), size)):
            x = np.zeros(a.shape[1])
            x[chosen] = np.linalg.lstsq(a[:, chosen], b, rcond=None)[0]
            error = float(np.sum((a @ x - b) ** 2))
            if (x >= 0).all() and error < least:
                best, least = x, error
    return best


def main() -> None:
    """Measure, fit, judge, print and keep."""
    parser = argparse.ArgumentParser(description="The time of a step, by planning's formula and measured.")
    parser.add_argument("--rounds", type=int, default=0, help=f"rounds, {ROUNDS} by default; given, nothing is kept")
    arguments = parser.parse_args()
    begin = time.monotonic()
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    # Each is forked from a process that has imported PyTorch and done nothing else.
    context = get_context("forkserver" if hasattr(os, "fork") else "spawn")
    context.set_forkserver_preload(["deepnet_edu.training"])
    found: list[list[dict[str, Any]]] = [[] for _ in RUNS]
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for turn in range(arguments.rounds or ROUNDS):
            for index in range(len(RUNS)):
                found[index].append(pool.submit(work, index).result())
                print(f"round {turn + 1}, run {index}: {found[index][-1]}", file=sys.stderr, flush=True)
    rows = [row(index, one) for index, one in enumerate(found)]
    rate, launch = fit_floor(rows[:FIT])
    machine = rate, launch, float(f"{statistics.median(one['bandwidth'] for one in rows):.2g}")
    fitted = fit(rows[:FIT], machine)
    for one in rows:
        low = formula._plan(counts(one), *machine, fitted).floor
        one["off by"] = round(over_floor(one, machine, fitted) / one["step over floor"]["median"] - 1, 3)
        one["floor off by"] = round(low / one["floor, CPU seconds"] - 1, 3)
        print(*(one[name] for name in ("used for", "off by", "floor off by", "step over floor", "path", "rate", "how")))
    worst = {
        f"{name}, {used}": max(abs(one[name]) for one in rows if one["used for"] == used)
        for name in ("off by", "floor off by")
        for used in ("fit", "judgement")
    }
    print(machine, fitted, worst, f"{time.monotonic() - begin:.0f} s", sep="\n")
    if arguments.rounds:
        return
    record = {
        "what": "A training step of planning.training_time over its matrix products alone, float32, AdamW",
        "command": "python benchmarks/step_time.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": "CPU, one thread",
        "versions": {name: version(name) for name in ("torch", "deepnet-edu")} | {"python": platform.python_version()},
        "seed": 0,
        "rounds": ROUNDS,
        "steps a round": list(STEPS),
        "machine": dict(zip(("rate", "launch", "bandwidth"), machine, strict=True)),
        "fit": asdict(fitted),
        "worst": worst,
        "rows": rows,
    }
    write_atomic(RESULTS, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
