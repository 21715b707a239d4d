"""Residual rules on real text: rules × depths × seeds, with equal compute and equal tuning.

Bytes of Python's documentation, a decoder of width 64. Each arm at each depth has the same number of updates on as many
bytes, and the same tries to find its learning rate: every rate once, with the seed 0. Its best rate then runs with
seeds that no try has seen, and the loss on held-out text counts. ``deepnorm again`` is ``deepnorm`` with other seeds:
the distance between both is luck. Products are the same for all rules; what mixing and norms cost on top is in the
record, as seconds of a processor.

    python benchmarks/tournament.py                    # all that is missing
    python benchmarks/tournament.py --only keel mhc    # these arms alone
    python benchmarks/tournament.py --smoke --out t.json   # the script itself, in seconds

Writes the record tournament.json after every run, so that what was interrupted resumes; a row that was deleted is
measured again.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is not part of the package

import torch

from benchmarks.depth import processor
from deepnet_edu import Batch, ModelConfig, TrainConfig, build_model, train
from deepnet_edu.course.places import RECORDS
from deepnet_edu.data import PythonDocs
from deepnet_edu.files import read_json, write_atomic
from deepnet_edu.messages import unknown
from deepnet_edu.training import TrainingDiverged

RESULTS = RECORDS / "tournament.json"
#: Rule by arm. The order is that of the seeds, too: new arms come last.
ARMS = {
    "post_ln": "post_ln",
    "pre_ln": "pre_ln",
    "deepnorm": "deepnorm",
    "deepnorm again": "deepnorm",
    "layernorm_scaling": "layernorm_scaling",
    "keel": "keel",
    "resi_dual": "resi_dual",
    "x0_skips": "x0_skips",
    "mhc": "mhc",
}
SHAPE: dict[str, Any] = {
    "d_model": 64,
    "n_heads": 4,
    "d_ff": 256,
    "vocab_size": PythonDocs.vocab_size,
    "max_length": 64,
}


@dataclass(frozen=True)
class Size:
    """What is run: depths, rates of the tuning, seeds of the finals, updates, bytes in a sequence, sequences."""

    depths: tuple[int, ...] = (24, 96)
    rates: tuple[float, ...] = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
    seeds: tuple[int, ...] = (1, 2, 3)
    steps: int = 150
    length: int = 64
    batch_size: int = 8


SMOKE = Size(depths=(2,), rates=(1e-2, 1e-3), seeds=(1, 2), steps=3, length=8, batch_size=2)


def measure(arm: str, layers: int, rate: float, seed: int, size: Size) -> dict[str, Any]:
    """One run: its loss on held-out text, nats a byte; where it diverged the entropy of single bytes."""
    text = PythonDocs(size.length, size.batch_size)
    seed_of_arm = 1000 * list(ARMS).index(arm) + seed  # no two arms share weights or data
    model = build_model(ModelConfig("decoder", "lm", layers, residual=ARMS[arm], **SHAPE), seed=seed_of_arm)
    recipe = TrainConfig(size.steps, learning_rate=rate, warmup=size.steps // 10, schedule="cosine", seed=seed_of_arm)
    begin, outcome = time.process_time(), "trained"
    try:
        train(model, text, recipe, progress=False)
        rows = text.validation[: 200 * (size.length + 1)].view(200, size.length + 1)
        with torch.no_grad():
            loss = model.loss(Batch(inputs=rows[:, :-1], targets=rows[:, 1:])).item()
    except TrainingDiverged:
        loss, outcome = text.chance, "diverged"
    return {"loss": round(loss, 5), "outcome": outcome, "seconds": round(time.process_time() - begin, 2)}


def tournament(out: Path, arms: Sequence[str], size: Size) -> list[dict[str, Any]]:
    """All runs that ``out`` lacks: the tuning of an arm at a depth, then its finals.

    Raises:
        ValueError: there is no such arm; the sentence names the nearest.
    """
    for arm in arms:
        if arm not in ARMS:
            raise ValueError(unknown("arm", arm, ARMS))
    rows: list[dict[str, Any]] = read_json(out)["runs"] if out.exists() else []

    def run(phase: str, arm: str, layers: int, rate: float, seed: int) -> dict[str, Any]:
        what = {"phase": phase, "arm": arm, "rule": ARMS[arm], "layers": layers, "learning_rate": rate, "seed": seed}
        for row in rows:
            if what.items() <= row.items():
                return row
        rows.append(what | measure(arm, layers, rate, seed, size))
        print(rows[-1], flush=True)
        write_atomic(out, json.dumps(head(size) | {"runs": rows}, indent=1, ensure_ascii=False) + "\n")
        return rows[-1]

    for layers in size.depths:
        for arm in arms:
            tries = [run("tuning", arm, layers, rate, 0) for rate in size.rates]
            best = min(tries, key=lambda row: float(row["loss"]))["learning_rate"]
            for seed in size.seeds:
                run("final", arm, layers, best, seed)
    return rows


def head(size: Size) -> dict[str, Any]:
    """What the record says of itself."""
    return {
        "what": "Rules on Python's documentation, a learning rate tuned per arm; held-out loss in nats a byte",
        "command": "python benchmarks/tournament.py",
        "date": date.today().isoformat(),
        "device": f"{processor()}, CPU, one thread",
        "versions": {name: version(name) for name in ("torch", "deepnet-edu")} | {"python": platform.python_version()},
        "shape": SHAPE,
        "size": vars(size),
        "recipe": "AdamW, cosine after a tenth of warm-up, clipped to norm 1; every rate once, then new seeds",
    }


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description="Residual rules on real text, with equal compute and equal tuning.")
    parser.add_argument("--only", nargs="+", metavar="ARM", default=list(ARMS), help="these arms alone")
    parser.add_argument("--smoke", action="store_true", help="tiny; needs --out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.smoke and given.out == RESULTS:
        parser.error("--smoke measures nothing that a record should hold: add --out FILE.")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        tournament(given.out, given.only, SMOKE if given.smoke else Size())
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
