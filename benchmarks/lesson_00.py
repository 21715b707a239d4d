"""The runs that lesson 00 draws from its record: three seeds, a grid of recipes, parts of a stack, controls, real text.

    python benchmarks/lesson_00.py [--jobs 2]

Writes deepnet_edu/course/records/lesson_00.json after every run, so that an interrupted recording resumes where it was.
A run that is already there is skipped; to record afresh, delete the file.
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import date
from importlib.metadata import version
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from torch import Generator, nn

from deepnet_edu import ModelConfig, TrainConfig, build_model, probe, train
from deepnet_edu.course.places import RECORDS
from deepnet_edu.data import PreviousToken, PythonDocs, TokenMap
from deepnet_edu.files import read_json, write_atomic
from deepnet_edu.model import Model
from deepnet_edu.probing import update_group
from deepnet_edu.training import Task, TrainStep

FILE = RECORDS / "lesson_00.json"
SEEDS = (0, 1, 2)
RULES = ("post_ln", "pre_ln", "deepnorm")
#: What all runs of the lesson share; the lesson states it and compares.
SHAPE = {"d_model": 32, "n_heads": 2, "d_ff": 128, "max_length": 32}
TASKS = {
    "token_map": lambda: TokenMap(vocab_size=16, length=16, batch_size=16),
    "previous_token": lambda: PreviousToken(vocab_size=16, length=8, batch_size=32),
    "text": lambda: PythonDocs(length=32, batch_size=8),
}
#: Parts of a stack that are trained alone, where a run's ``parameters`` name one of them.
PARTS: dict[str, Callable[[Model], list[nn.Parameter]]] = {
    "last norm": lambda model: list(model.sublayers()[-1].residual.parameters()),
    "norms": lambda model: update_group(model, "norms"),
    "matrices": lambda model: update_group(model, "matrices"),
    "matrices of the upper 100 layers": lambda model: _matrices(model, slice(-200, None)),
    "matrices of the lower 900 layers": lambda model: _matrices(model, slice(0, -200)),
}


def _matrices(model: Model, chosen: slice) -> list[nn.Parameter]:
    return [weight for sublayer in model.sublayers()[chosen] for weight in sublayer.matrices()]


@dataclass(frozen=True)
class Run:
    """One training run: everything that identifies it."""

    task: str
    residual: str
    layers: int
    parameters: str
    learning_rate: float
    warmup: int
    steps: int
    seed: int


def plan() -> list[Run]:
    """All runs, the ones that the lesson needs most first."""
    runs = []
    for seed in SEEDS:
        runs += [Run("token_map", rule, 1000, "stack", 3e-4, 20, 60, seed) for rule in RULES]
        runs += [Run("previous_token", rule, 1000, "stack", 2e-4, 20, 120, seed) for rule in RULES]
        runs += [Run("text", rule, 100, "all", 1e-3, 20, 300, seed) for rule in RULES]
        # Controls: what embedding and head reach without a stack, and around a stack that stays as it was drawn.
        for task, steps, own_rate in (("token_map", 60, 3e-4), ("previous_token", 120, 2e-4), ("text", 300, 1e-3)):
            runs += [Run(task, "deepnorm", 0, "ends", rate, 20, steps, seed) for rate in (own_rate, 3e-3, 1e-2)]
    runs += [Run("token_map", "deepnorm", 1000, "ends", rate, 20, 60, 0) for rate in (3e-4, 3e-3)]
    runs += [Run("previous_token", "deepnorm", 1000, "ends", rate, 20, 120, 0) for rate in (2e-4, 1e-2)]
    runs += [Run("text", "deepnorm", 100, "ends", rate, 20, 300, 0) for rate in (1e-3, 1e-2)]
    # Is it only the recipe? Post-LN over learning rates and warm-ups, DeepNorm beside it.
    for seed in SEEDS:
        for rate, warmup in ((3e-5, 20), (1e-4, 20), (1e-3, 20), (3e-4, 0), (3e-4, 50)):
            runs += [Run("token_map", rule, 1000, "stack", rate, warmup, 60, seed) for rule in ("post_ln", "deepnorm")]
    # Pre-LN has a second learning rate, too; with one seed, all three have a larger one.
    runs += [Run("token_map", "pre_ln", 1000, "stack", 1e-3, 20, 60, seed) for seed in SEEDS]
    runs += [Run("token_map", rule, 1000, "stack", 3e-3, 20, 60, 0) for rule in RULES]
    # Which part of Post-LN's stack brings its loss down to chance?
    runs += [Run("token_map", "post_ln", 1000, part, 3e-4, 20, 40, 0) for part in PARTS]
    return runs


def perform(run: Run) -> dict[str, Any]:
    """Train one run in a process of its own, on one thread."""
    import resource

    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    task = TASKS[run.task]()
    config = ModelConfig(
        architecture="decoder",
        task="lm",
        decoder_layers=run.layers,
        vocab_size=task.vocab_size,
        residual=run.residual if run.layers else "none",
        **SHAPE,
    )
    model = build_model(config, seed=run.seed)
    at_init = probe(model, task.batch(torch.Generator().manual_seed(1000 + run.seed))) if run.layers else None
    part = run.parameters in PARTS
    settings = TrainConfig(
        steps=run.steps,
        learning_rate=run.learning_rate,
        warmup=run.warmup,
        parameters="stack" if part else run.parameters,
        seed=run.seed,
        profile_every=run.steps,
    )
    begin = time.perf_counter()
    if part:
        losses, at_end = train_part(model, task, settings, PARTS[run.parameters](model)), None
    else:
        history = train(model, task, settings, progress=False)
        losses, at_end = history.loss, history.profiles[run.steps - 1]
    return {
        **asdict(run),
        "loss": [round(loss, 4) for loss in losses],
        "seconds_per_step": round((time.perf_counter() - begin) / run.steps, 3),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "at_init": at_init.to_dict(every=50) if at_init else None,
        # Its gradient is left out: the lesson shows that of its own run.
        "at_end": replace(at_end, gradient_norm=None).to_dict(every=50) if at_end and run.layers else None,
    }


def train_part(model: Model, task: Task, config: TrainConfig, part: list[nn.Parameter]) -> list[float]:
    """Losses by step of a run that trains some of a stack's parameters: batches and recipe are those of ``train``."""
    batches = Generator().manual_seed(config.seed)
    with TrainStep(model, config, part) as step:
        return [step(task.batch(batches)).loss for _ in range(config.steps)]


def main() -> None:
    """Record what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; one per core")
    jobs = parser.parse_args().jobs
    runs = json.loads(FILE.read_text())["runs"] if FILE.exists() else []
    key = tuple(Run.__dataclass_fields__)
    done = {tuple(run[name] for name in key) for run in runs}
    missing = [run for run in plan() if tuple(asdict(run).values()) not in done]
    print(f"{len(runs)} runs recorded, {len(missing)} to go", flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(perform, run) for run in missing]):
            run = future.result()
            runs.append(run)
            print(*(run[name] for name in key), f"loss {sum(run['loss'][-5:]) / 5:.3f}", flush=True)
            save(runs)


def save(runs: list[dict[str, Any]]) -> None:
    """The whole record, in the order of the plan; runs that are no longer planned are left out."""
    names = Run.__dataclass_fields__
    recorded = {tuple(run[name] for name in names): run for run in runs}
    runs = [recorded[key] for key in (tuple(asdict(run).values()) for run in plan()) if key in recorded]
    today = date.today().isoformat()
    first = read_json(FILE)["date"][: len(today)] if FILE.exists() else today
    head = {
        "what": "Runs of lesson 00; loss in nats per token before each update; profiles at every 50th sub-layer",
        "command": "python benchmarks/lesson_00.py",
        "date": today if first == today else f"{first} to {today}",
        "device": "CPU, one thread a run",
        "versions": {
            "python": platform.python_version(),
            "torch": version("torch"),
            "deepnet-edu": version("deepnet-edu"),
        },
        "shape": SHAPE,
        "initialisation": "Xavier-normal by role, biases 0; embedding + position of variance 1; head N(0, 1/d_model)",
        "optimizer": "AdamW, weight decay 0, betas 0.9 and 0.999, gradient clipped to norm 1, linear warm-up",
        "input share": "squared cosines without the 1/31 that chance gives: (s - 1/31)/(1 - 1/31)",
    }
    lines = ",\n".join(json.dumps(run) for run in runs)
    write_atomic(FILE, json.dumps(head, indent=1).removesuffix("\n}") + f',\n "runs": [\n{lines}\n]\n}}\n')


if __name__ == "__main__":
    sys.exit(main())
