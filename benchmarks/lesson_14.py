"""Deep and shallow encoders on handwritten digits at equal compute: rules × depths × seeds, rates tuned per arm.

The arms are those of lesson 14: an encoder that reads patches of 2 × 2 pixels, as wide as its depth leaves it. Every
arm runs at three learning rates with the seed 0, and at more while the best is the last one; the part for validation
chooses, and the best rate runs with five new seeds. The record has the share of the test that was wrong, and which
images.

    python benchmarks/lesson_14.py                      # all that is missing, two runs at a time
    python benchmarks/lesson_14.py --smoke --out t.json # the script itself, in seconds

Writes the record lesson_14.json after every run, so that what was interrupted resumes. Lesson 14 reads it.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is not part of the package

import torch

from benchmarks import tuned
from benchmarks.resumed import Row
from benchmarks.tuned import Arm
from deepnet_edu import ModelConfig, TrainConfig, build_model, train
from deepnet_edu.course.places import RECORDS
from deepnet_edu.data import digits
from deepnet_edu.training import TrainingDiverged

RESULTS = RECORDS / "lesson_14.json"
RULES = ("deepnorm", "pre_ln", "post_ln")


@dataclass(frozen=True)
class Size:
    """What is run: the width of each depth, rates at first and those beside them, seeds, updates."""

    widths: tuple[tuple[int, int], ...] = ((2, 112), (6, 64), (24, 32))
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    more: tuple[float, ...] = (1e-4, 3e-4, 3e-2)
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    steps: int = 250


SMOKE = Size(((1, 8),), (1e-3, 3e-3), (), (1,), 3)


def measure(arm: Arm, rate: float, seed: int, size: Size) -> Row:
    """One run: shares that are wrong, and the numbers of the images of the test."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    data = digits()
    sizes: dict[str, Any] = {"d_model": arm["width"], "n_heads": 4, "d_ff": 4 * arm["width"], "max_length": 16}
    config = ModelConfig(
        "encoder",
        "classification",
        encoder_layers=arm["layers"],
        residual=arm["rule"],
        n_classes=data.n_classes,
        patch_size=2,
        **sizes,
    )
    model = build_model(config, seed=seed)
    recipe = TrainConfig(size.steps, learning_rate=rate, warmup=size.steps // 10, schedule="cosine", seed=seed)
    begin, outcome = time.process_time(), "trained"
    try:
        train(model, data, recipe, progress=False)
    except TrainingDiverged:  # its weights are those of before, which still answer
        outcome = "diverged"
    seconds = time.process_time() - begin
    with torch.no_grad():
        wrong = {name: model.logits(part).argmax(-1) != part.targets for name, part in data.parts()}
    return {
        "tune": round(wrong["validation"].double().mean().item(), 5),
        "test": round(wrong["test"].double().mean().item(), 5),
        "wrong": wrong["test"].nonzero().flatten().tolist(),
        "outcome": outcome,
        "seconds": round(seconds, 1),
    }


def record(out: Path, size: Size, jobs: int) -> list[Row]:
    """All runs that ``out`` lacks."""
    head = {
        "what": "Encoders on 8 × 8 digits at equal compute, a learning rate tuned per arm; shares that are wrong",
        "command": "python benchmarks/lesson_14.py",
        "data": f"scikit-learn {version('scikit-learn')}",
        "size": vars(size),
        "recipe": "AdamW, batches of 64, cosine after a tenth of warm-up; every rate once, the best with new seeds",
    }
    arms = [{"rule": rule, "layers": layers, "width": width} for layers, width in size.widths for rule in RULES]
    return tuned.record(out, head, arms, partial(measure, size=size), size.rates, size.more, size.seeds, jobs)


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description="Encoders on handwritten digits at equal compute.")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, a thread each")
    parser.add_argument("--smoke", action="store_true", help="tiny; needs --out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.smoke and given.out == RESULTS:
        parser.error("--smoke measures nothing that a record should hold: add --out FILE.")
    if given.jobs < 1:
        parser.error(f"--jobs {given.jobs}: expected 1 or more.")
    record(given.out, SMOKE if given.smoke else Size(), given.jobs)


if __name__ == "__main__":
    main()
