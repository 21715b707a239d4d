"""The highest learning rate that a rule tolerates, by Keel's protocol (arXiv 2601.19895, Section 4) on a CPU.

One run raises the learning rate from step to step; where its loss leaves the minimum for good, the rate was too high.
The paper raises it linearly, to 5e-2 in 5,000 steps. A linear ramp of 400 steps passes 3e-4, where it says that
DeepNorm breaks, within three steps and shows nothing there, so this one is exponential: 1e-5 to 1e-1 in 300 steps, each
3% above the one before. Bytes of Python's documentation, a decoder of width 32, three seeds. DeepNorm with both β:
DeepNet's (4L)^(-1/4) for L sub-layers, and L^(-1/4), which Keel's paper states.

    python benchmarks/learning_rates.py                  # all that is missing
    python benchmarks/learning_rates.py --only keel      # this rule alone
    python benchmarks/learning_rates.py --smoke --out t.json   # the script itself, in seconds

A run broke at the first step from which on the mean loss of five steps is more than 0.25 nats above the lowest such
mean before, or at which loss or gradient are not finite. Keel's paper also counts standing still: whether a run learned
shows ``minimum`` beside the entropy of single bytes, ``unigrams``. All losses are kept, so that other limits can be
tried.

Writes the record learning_rates.json after every run, so that what was interrupted resumes; a row that was deleted is
measured again.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is not part of the package

import torch

from benchmarks.resumed import Row, complete, options, rounded
from deepnet_edu import ModelConfig, TrainConfig, build_model
from deepnet_edu.course.places import RECORDS
from deepnet_edu.data import PythonDocs
from deepnet_edu.training.step import TrainStep

RESULTS = RECORDS / "learning_rates.json"
SHAPE: dict[str, Any] = {
    "d_model": 32,
    "n_heads": 2,
    "d_ff": 128,
    "vocab_size": PythonDocs.vocab_size,
    "max_length": 32,
}
RULES = ("deepnorm", "pre_ln", "keel", "post_ln")
#: Nats above the lowest mean that count as broken, and the steps of a mean.
LIMIT, MEAN = 0.25, 5


@dataclass(frozen=True)
class Size:
    """Depths in sub-layers, seeds, and the ramp: steps, lowest and highest rate."""

    sublayers: tuple[int, ...] = (64, 512)
    seeds: tuple[int, ...] = (0, 1, 2)
    ramp: tuple[int, float, float] = (300, 1e-5, 1e-1)


SMOKE = Size(sublayers=(4,), seeds=(0,), ramp=(8, 1e-4, 1.0))


def plan(size: Size) -> Iterator[Row]:
    """The settings of all runs, the shallow ones first."""
    for sublayers, seed, rule in product(size.sublayers, size.seeds, RULES):
        betas = [(4 * sublayers) ** -0.25, sublayers**-0.25] if rule == "deepnorm" else [None]
        for beta in betas:
            yield {"rule": rule, "beta": beta, "sublayers": sublayers, "ramp": list(size.ramp), "seed": seed}


def rate_at(step: int, ramp: Sequence[float]) -> float:
    """The learning rate of a step, from 0: each as many times the one before."""
    steps, low, high = ramp
    return float(low * (high / low) ** (step / (steps - 1)))


class Ramp(TrainStep):
    """Steps whose learning rate grows without end."""

    ramp: Sequence[float]

    def set_rate(self, rate: float) -> None:
        """The ramp's rate instead of the schedule's."""
        super().set_rate(rate_at(self.count, self.ramp))


def measure(settings: Row) -> Row:
    """One ramp, up to its end or the step at which loss or gradient are not finite."""
    text, ramp = PythonDocs(length=32, batch_size=8), settings["ramp"]
    beta = settings["beta"]
    own: dict[str, Any] = {} if beta is None else {"beta": beta, "not_the_paper": True}
    config = ModelConfig("decoder", "lm", settings["sublayers"] // 2, residual=settings["rule"], **own, **SHAPE)
    model = build_model(config, seed=settings["seed"])
    generator = torch.Generator().manual_seed(settings["seed"])
    loss: list[float] = []
    with Ramp(model, TrainConfig(ramp[0], warmup=0, seed=settings["seed"])) as step:
        step.ramp = ramp
        while step.count < ramp[0]:
            result = step(text.batch(generator))
            loss.append(result.loss)
            if step.count < len(loss):  # nothing was updated
                loss.append(float("inf"))
                break
    return judged(loss, ramp) | {"unigrams": round(text.unigram_entropy, 4), "loss": rounded(loss)}


def judged(loss: Sequence[float], ramp: Sequence[float]) -> Row:
    """Where a run broke, the highest rate before, and its lowest mean of five losses."""
    means = [sum(loss[max(0, i + 1 - MEAN) : i + 1]) / min(MEAN, i + 1) for i in range(len(loss))]
    broke, lowest, minimum = None, float("inf"), min(means)
    for step, mean in enumerate(means):
        lowest = min(lowest, mean)
        fine = mean <= lowest + LIMIT
        broke = None if fine else step if broke is None else broke
    before = len(means) - 1 if broke is None else max(0, broke - 1)
    return {
        "highest_rate": rounded([rate_at(before, ramp)])[0],
        "broke_at": None if broke is None else rounded([rate_at(broke, ramp)])[0],
        "minimum": rounded([minimum])[0],
    }


HEAD: Row = {
    "what": "Ramps of the learning rate on Python's documentation: where the loss, nats a byte, leaves its minimum",
    "command": "python benchmarks/learning_rates.py",
    "shape": SHAPE,
    "recipe": "AdamW, betas 0.9 and 0.999, clipped to norm 1, all parameters, 8 sequences of 32 bytes a step; "
    "exponential ramp: steps, first and last rate",
    "broke": f"from this rate on the mean of {MEAN} losses is more than {LIMIT} above the lowest before",
}


def record(out: Path, rules: Sequence[str], size: Size, minutes: float = float("inf")) -> list[Row]:
    """All ramps of these rules that ``out`` lacks."""
    return complete(out, HEAD, [one for one in plan(size) if one["rule"] in rules], measure, minutes)


def main() -> None:
    """Make what is missing."""
    given = options("The highest learning rate that a rule tolerates.", RESULTS, RULES)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    record(given.out, given.only, SMOKE if given.smoke else Size(), given.minutes)


if __name__ == "__main__":
    main()
