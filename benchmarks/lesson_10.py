"""What lesson 10 says of warm-up and of clipping, with three seeds of the data and the rate tuned per arm.

    python benchmarks/lesson_10.py [--only warm-up clipping] [--minutes M] [--smoke --out FILE]

``warm-up``: DeepNorm, 1,000 decoder layers, the stack alone, 16 updates: three schedules at several rates.
``clipping``: 48 layers, 40 updates, with and without a clip, with and without one gradient that is 256 times too long.
Writes deepnet_edu/course/records/lesson_10.json after every run, and resumes where it was. The loops are the lesson's.
"""

import os
import sys
from collections.abc import Iterator
from math import inf, sqrt
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is not part of the package

import torch
from torch import nn

from benchmarks.resumed import Row, complete, options, rounded
from deepnet_edu import ModelConfig, build_model
from deepnet_edu.course.places import RECORDS
from deepnet_edu.data import TokenMap

SEEDS = (0, 1, 2)
#: Peaks tried, by schedule.
RATES = {
    "warm-up": (5e-4, 7e-4, 1e-3, 2e-3),
    "constant": (2e-4, 3e-4, 5e-4, 1e-3),
    "warm-up, then constant": (5e-4, 1e-3),
}
SHAPE = {"d_model": 32, "n_heads": 2, "d_ff": 128, "vocab_size": 16, "max_length": 32}
HEAD: dict[str, Any] = {
    "what": "Runs of lesson 10; loss in nats per token before each update, norm of the gradient before clipping",
    "command": "python benchmarks/lesson_10.py",
    "shape": SHAPE,
    "optimizer": "AdamW, weight decay 0, betas 0.9 and 0.98; linear warm-up from 1e-7, then inverse square root",
}


def plan(smoke: bool) -> Iterator[Row]:
    """All runs: the arms that the lesson compares first, seed by seed."""
    for seed in SEEDS:
        for schedule, rates in RATES.items():
            for rate in rates:
                yield {
                    "part": "warm-up",
                    "layers": 4 if smoke else 1000,
                    "schedule": schedule,
                    "rate": rate,
                    "warmup": 0 if schedule == "constant" else 8,
                    "clip": 1.0,
                    "bad": None,
                    "steps": 3 if smoke else 16,
                    "seed": seed,
                }
        for clip in (1.0, None):
            for bad in (13, None):
                yield {
                    "part": "clipping",
                    "layers": 4 if smoke else 48,
                    "schedule": "warm-up",
                    "rate": 1e-3,
                    "warmup": 10,
                    "clip": clip,
                    "bad": bad,
                    "steps": 3 if smoke else 40,
                    "seed": seed,
                }


def rate_of(n: int, run: Row) -> float:
    """Learning rate of update ``n``, counted from 1."""
    peak, warmup = run["rate"], run["warmup"]
    if n < warmup:
        return 1e-7 + (peak - 1e-7) * n / warmup
    return peak if "constant" in run["schedule"] else peak * sqrt(warmup / n)


def perform(run: Row) -> Row:
    """Train one run; ``bad`` is the update whose loss is a sum over the batch's 256 tokens."""
    task, data = TokenMap(vocab_size=16, length=16, batch_size=16), torch.Generator().manual_seed(run["seed"])
    model = build_model(ModelConfig("decoder", "lm", run["layers"], residual="deepnorm", **SHAPE), seed=0)
    model.requires_grad_(False)
    model.stack.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.stack.parameters(), betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    losses, norms = [], []
    for n in range(1, run["steps"] + 1):
        optimizer.zero_grad()
        loss = model.loss(task.batch(data))
        (loss * (256 if n == run["bad"] else 1)).backward()
        norms.append(nn.utils.clip_grad_norm_(model.stack.parameters(), run["clip"] or inf).item())
        optimizer.param_groups[0]["lr"] = rate_of(n, run)
        optimizer.step()
        losses.append(loss.item())
    return {"loss": rounded(losses), "norm": rounded(norms)}


def main() -> None:
    """Record what is missing."""
    asked = options(str(__doc__), RECORDS / "lesson_10.json", ("warm-up", "clipping"))
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    wanted = [run for run in plan(asked.smoke) if run["part"] in asked.only]
    complete(asked.out, HEAD, wanted, perform, asked.minutes)


if __name__ == "__main__":
    main()
