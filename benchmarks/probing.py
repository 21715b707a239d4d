"""What probing costs: probe against a plain forward and backward pass, in turns; writes results/probing.json.

Run with: python benchmarks/probing.py (about a minute)
"""

import json
import platform
import statistics
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from deepnet_edu import ModelConfig, build_model, probe
from deepnet_edu.files import write_atomic
from deepnet_edu.models import Model, random_batch

RESULTS = Path(__file__).parent / "results" / "probing.json"
ROUNDS, TOKENS, SEQUENCES = 5, 64, 4
SHAPE = {"d_model": 64, "n_heads": 4, "d_ff": 256, "vocab_size": 128}


def plain(model: Model, batch: object) -> None:
    """Forward and backward, with the same gradients that a probe needs."""
    weights = [weight for sublayer in model.sublayers() for weight in sublayer.matrices()]
    torch.autograd.grad(model.loss(batch), weights)  # type: ignore[arg-type]


def main() -> None:
    """Measure at two depths, print and keep."""
    torch.set_num_threads(1)
    rows = []
    for layers in (100, 1000):
        config = ModelConfig("decoder", "lm", layers, max_length=TOKENS, **SHAPE)
        model, batch = build_model(config), random_batch(config, SEQUENCES, TOKENS)
        seconds: dict[str, list[float]] = {"plain": [], "probe": []}
        for turn in range(ROUNDS + 1):  # the first warms up
            for name, call in (("plain", plain), ("probe", probe)):
                begin = time.perf_counter()
                call(model, batch)
                if turn:
                    seconds[name].append(time.perf_counter() - begin)
        median = {name: statistics.median(values) for name, values in seconds.items()}
        rows.append(
            {
                "layers": layers,
                "plain, seconds": round(median["plain"], 4),
                "probe, seconds": round(median["probe"], 4),
                "ratio": round(median["probe"] / median["plain"], 3),
                "ratio by round": [round(b / a, 3) for a, b in zip(seconds["plain"], seconds["probe"], strict=True)],
            }
        )
        print(rows[-1], flush=True)
    record = {
        "what": "Wall time of probe(model, batch) against one forward and backward pass with the same gradients",
        "command": "python benchmarks/probing.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": "CPU, one thread",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "deepnet-edu": version("deepnet-edu"),
        },
        "shape": {**SHAPE, "sequences": SEQUENCES, "tokens": TOKENS},
        "seed": 0,
        "target": "at most 1.3",
        "rows": rows,
    }
    write_atomic(RESULTS, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
