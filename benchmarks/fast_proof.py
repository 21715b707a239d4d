"""What it costs that the fast path looks for changes, reads a stack and compares itself with the plain layer.

    python benchmarks/fast_proof.py

Processor time on one thread, as shares of a training step of 1,000 DeepNorm layers in the same process; steps that look
for changes and steps that do not take turns. Writes benchmarks/results/fast_proof.json.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from deepnet_edu import build_model
from deepnet_edu.files import write_atomic
from deepnet_edu.model import ModelConfig, random_batch
from deepnet_edu.model.fast.proof import proof
from deepnet_edu.model.fast.reading import Reading
from deepnet_edu.model.snapshot import Snapshot
from deepnet_edu.training import TrainConfig, TrainStep

RESULTS = Path(__file__).with_name("results") / "fast_proof.json"
CONFIG = ModelConfig("decoder", "lm", 1000, d_model=64, n_heads=4, d_ff=256, vocab_size=64, max_length=64)
SEQUENCES, TOKENS, ROUNDS = 4, 64, 12


def seconds(call: Callable[[], Any]) -> float:
    """Of the processor."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each, round by round."""
    torch.set_num_threads(1)
    model, batch = build_model(CONFIG), random_batch(CONFIG, SEQUENCES, TOKENS)
    stack = model.stacks()["decoder"]
    found: dict[str, list[float]] = {}
    with TrainStep(model, TrainConfig(steps=99, learning_rate=1e-5, warmup=0, clip=0)) as step:
        step(batch)
        assert stack.path_taken.startswith("fast"), stack.path_taken
        for turn in range(rounds):
            with patch.object(Snapshot, "holds", lambda self, parameters=True: True):
                blind = seconds(lambda: step(batch))
            looking = seconds(lambda: step(batch))
            reading = Reading(stack, None)
            step(batch)  # so that nothing of it is in the cache
            one = {
                "step": blind,
                "step that looks for changes": looking,
                "looking, in training": seconds(partial(reading.snapshot.holds, parameters=False)),
                "looking, outside": seconds(reading.snapshot.holds),
                "reading": seconds(lambda: Reading(stack, None)),
                "comparing": seconds(partial(proof, stack, reading, TOKENS, 0)),
            }
            print(f"round {turn + 1}: {one}", flush=True)
            for name, value in one.items():
                found.setdefault(name, []).append(value)
    return found


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0, help=f"rounds, {ROUNDS} by default; given, nothing is kept")
    rounds = parser.parse_args().rounds
    found = measure(rounds or ROUNDS)
    step = statistics.median(found["step"])
    shares = {name: round(statistics.median(values) / step, 4) for name, values in found.items() if name != "step"}
    print(json.dumps(shares, indent=1))
    if rounds:
        return
    record = {
        "what": "Shares of a training step of 1,000 layers, medians",
        "command": "python benchmarks/fast_proof.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": "CPU, one thread",
        "versions": {name: version(name) for name in ("torch", "deepnet-edu")} | {"python": platform.python_version()},
        "rounds": ROUNDS,
        "step, CPU seconds": round(step, 2),
        "shares": shares,
    }
    write_atomic(RESULTS, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
