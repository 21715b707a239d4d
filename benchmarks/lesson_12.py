"""What depth buys on real text: depths × rules at equal FLOPs and at equal parameters, a learning rate tuned per arm.

Bytes of Python's documentation. An arm is a rule, a depth and a width; where both comparisons want the same width it is
one arm. Every arm runs at three learning rates with the seed 0, and at more of them while the best is the smallest or
the largest (two more at most); its best rate then runs with the other seeds. Topics that no arm has learned from
choose, ``tune``, and others are reported, ``test``, in bits a byte.

    python benchmarks/lesson_12.py                      # all that is missing, two runs at a time
    python benchmarks/lesson_12.py --only deepnorm      # this rule alone
    python benchmarks/lesson_12.py --smoke --out t.json # the script itself, in seconds

Writes the record lesson_12.json after every run, so that what was interrupted resumes; a row that was deleted is
measured again. Lesson 12 reads it where it is there.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import log
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is not part of the package

import torch

from benchmarks import tuned
from benchmarks.resumed import Row
from benchmarks.tuned import Arm
from deepnet_edu import Batch, ModelConfig, TrainConfig, build_model, train
from deepnet_edu.course.places import RECORDS
from deepnet_edu.data import BytePairs, PackedText, python_topics
from deepnet_edu.messages import unknown
from deepnet_edu.planning import flops_per_token
from deepnet_edu.training import TrainingDiverged

RESULTS = RECORDS / "lesson_12.json"
RULES = ("deepnorm", "pre_ln", "post_ln")
STEP = 4  # widths are its multiples


@dataclass(frozen=True)
class Size:
    """What is run: depths, the one that gives the number of parameters, FLOPs a byte, rates at first and those beside
    them, seeds, updates, bytes in a sequence, sequences."""

    depths: tuple[int, ...] = (2, 6, 24, 100)
    reference: int = 6
    budget: float = 3.7e6
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    more: tuple[float, ...] = (1e-4, 3e-4, 3e-2, 1e-1)
    seeds: tuple[int, ...] = (1, 2)
    steps: int = 300
    length: int = 128
    batch_size: int = 8


SMOKE = Size((1, 2), 1, 1e5, (3e-3, 1e-2), (1e-3, 3e-2), (1,), 3, 8, 2)


def shape(rule: str, layers: int, width: int, size: Size) -> ModelConfig:
    """A decoder that reads bytes."""
    sizes: dict[str, Any] = {"d_model": width, "n_heads": 2, "d_ff": 4 * width, "vocab_size": BytePairs().vocab_size}
    return ModelConfig("decoder", "lm", layers, residual=rule, position="sinusoidal", max_length=size.length, **sizes)


def parameters(layers: int, width: int, size: Size) -> int:
    """Of such a model."""
    return sum(p.numel() for p in build_model(shape("pre_ln", layers, width, size), device="meta").parameters())


def widths(size: Size) -> dict[str, dict[int, int]]:
    """The widest that each comparison allows, by depth."""

    def flops(layers: int, width: int) -> float:
        return flops_per_token(shape("pre_ln", layers, width, size), size.length) or 0.0

    def widest(cost: Any, layers: int, most: float) -> int:
        width = STEP
        while cost(layers, width + STEP) <= most:
            width += STEP
        return width

    def count(layers: int, width: int) -> int:
        return parameters(layers, width, size)

    equal = {n: widest(flops, n, size.budget) for n in size.depths}
    most = count(size.reference, equal[size.reference])
    return {"flops": equal, "parameters": {n: widest(count, n, most) for n in size.depths}}


def measure(arm: Arm, rate: float, seed: int, size: Size) -> Row:
    """One run: bits a byte on both parts of the held-out text; where it diverged the entropy of single bytes."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    topics = python_topics()
    text = PackedText(
        topics.train, validation=topics.validation, length=size.length, batch_size=size.batch_size, seed=seed
    )
    parts = {"tune": topics.validation, "test": topics.test}
    config = shape(**arm, size=size)
    model = build_model(config, seed=seed)
    recipe = TrainConfig(size.steps, learning_rate=rate, warmup=size.steps // 10, schedule="cosine", seed=seed)
    begin, outcome = time.process_time(), "trained"
    losses = dict.fromkeys(parts, text.chance)
    try:
        train(model, text, recipe, progress=False)
    except TrainingDiverged:
        outcome = "diverged"
    seconds = time.process_time() - begin
    if outcome == "trained":
        for name, documents in parts.items():
            tokens = torch.tensor(text.tokenizer.encode("\n\n".join(documents)))  # bytes, each a token
            rows = tokens[: len(tokens) // (size.length + 1) * (size.length + 1)].view(-1, size.length + 1)
            with torch.no_grad():
                losses[name] = model.loss(Batch(inputs=rows[:, :-1], targets=rows[:, 1:])).item()
    return {
        **{name: round(loss / log(2), 5) for name, loss in losses.items()},
        "outcome": outcome,
        "parameters": parameters(arm["layers"], arm["width"], size),
        "flops_a_byte": flops_per_token(config, size.length),
        "seconds": round(seconds, 1),
    }


def record(out: Path, rules: Sequence[str], size: Size, jobs: int) -> list[Row]:
    """All runs that ``out`` lacks.

    Raises:
        ValueError: there is no such rule; the sentence names the nearest.
    """
    for rule in rules:
        if rule not in RULES:
            raise ValueError(unknown("rule", rule, RULES))
    by_panel = widths(size)
    shapes = sorted({(n, width) for panel in by_panel.values() for n, width in panel.items()})
    arms = [{"rule": rule, "layers": n, "width": width} for n, width in shapes for rule in rules]
    run = partial(measure, size=size)
    return tuned.record(out, _head(size, by_panel), arms, run, size.rates, size.more, size.seeds, jobs)


def _head(size: Size, by_panel: dict[str, dict[int, int]]) -> dict[str, Any]:
    """What the record says of itself."""
    return {
        "what": "Depths at equal FLOPs and at equal parameters on Python's documentation; held-out bits a byte",
        "command": "python benchmarks/lesson_12.py",
        "rules": list(RULES),
        "widths": by_panel,
        "size": vars(size),
        "recipe": "AdamW, cosine after a tenth of warm-up, clipped to norm 1; every rate once, the best with new seeds",
    }


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description="Depths on real text at equal FLOPs and at equal parameters.")
    parser.add_argument("--only", nargs="+", metavar="RULE", default=list(RULES), help="these rules alone")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, a thread each")
    parser.add_argument("--smoke", action="store_true", help="tiny; needs --out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.smoke and given.out == RESULTS:
        parser.error("--smoke measures nothing that a record should hold: add --out FILE.")
    if given.jobs < 1:
        parser.error(f"--jobs {given.jobs}: expected 1 or more.")
    try:
        record(given.out, given.only, SMOKE if given.smoke else Size(), given.jobs)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
