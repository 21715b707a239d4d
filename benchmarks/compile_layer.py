"""One compiled layer for a stack: graphs, seconds until the first step is done, and the step, against depth.

    python benchmarks/compile_layer.py

On one thread of a CPU, each depth in a process of its own with an empty cache, so that everything is compiled again.
Plain layers and compiled ones take turns. Writes deepnet_edu/course/records/compile_layer.json.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is not part of the package

from benchmarks.depth import processor
from deepnet_edu.course.places import RECORDS
from deepnet_edu.files import write_atomic

RESULTS = RECORDS / "compile_layer.json"
DEPTHS, STEPS, SEED = (4, 16, 64, 256), 7, 0
SHAPE: dict[str, Any] = {"d_model": 64, "n_heads": 4, "d_ff": 256, "vocab_size": 128, "max_length": 64}
SEQUENCES, TOKENS = 4, 64


def measure(layers: int, steps: int) -> dict[str, Any]:
    """Of one depth, in this process."""
    import torch

    from deepnet_edu import ModelConfig, TrainConfig, build_model
    from deepnet_edu.model import random_batch
    from deepnet_edu.training import TrainStep

    torch.set_num_threads(1)
    config = ModelConfig("decoder", "lm", layers, **SHAPE)
    batch, found, first = random_batch(config, SEQUENCES, TOKENS, SEED), {}, {}
    takes = {}
    for how in ("no", "layer"):
        model = build_model(config, SEED)
        model.use_path("plain" if how == "no" else "auto")
        takes[how] = TrainStep(model, TrainConfig(steps=steps + 1, learning_rate=1e-5, compile=how))
        begin = time.perf_counter()
        takes[how](batch)
        first[how] = time.perf_counter() - begin
        found[how] = []
    for _ in range(steps):
        for how, step in takes.items():
            begin = time.perf_counter()
            step(batch)
            found[how].append(time.perf_counter() - begin)
    (stack,) = takes["layer"].model.stacks().values()
    return {
        "layers": layers,
        "graphs": stack.graphs,
        "first step plain, s": round(first["no"], 3),
        "first step compiled, s": round(first["layer"], 1),
        "step plain, s": round(statistics.median(found["no"]), 4),
        "step compiled over plain": round(
            statistics.median(b / a for a, b in zip(found["no"], found["layer"], strict=True)), 3
        ),
    }


def main() -> None:
    """Measure all depths."""
    parser = argparse.ArgumentParser(description="One compiled layer for a whole stack.")
    parser.add_argument("--layers", type=int, help="measure this depth alone, here, and print it")
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    if given.layers:
        print(json.dumps(measure(given.layers, given.steps)))
        return
    rows = []
    for layers in DEPTHS:
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "--layers", str(layers)]
            said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        rows.append(json.loads(said.splitlines()[-1]))
        print(rows[-1], flush=True)
    record = {
        "what": "A training step by the plain path with compile='layer' against without, float32, one thread",
        "command": "python benchmarks/compile_layer.py",
        "date": date.today().isoformat(),
        "device": f"{processor()}, CPU, one thread",
        "versions": {name: version(name) for name in ("torch", "deepnet-edu")} | {"python": platform.python_version()},
        "seed": SEED,
        "shape": {**SHAPE, "sequences": SEQUENCES, "tokens": TOKENS},
        "runs": rows,
    }
    write_atomic(RESULTS, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
