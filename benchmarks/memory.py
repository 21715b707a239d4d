"""Measured peak memory beside planning's formula: constants fitted to seven runs, judged on others.

Writes results/memory.json. Run with: python benchmarks/memory.py (about 20 minutes; it resumes)
"""

import json
import platform
import re
import resource
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from deepnet_edu.files import write_atomic
from deepnet_edu.model import ModelConfig
from deepnet_edu.planning import training_memory

RESULTS = Path(__file__).parent / "results" / "memory.json"
#: Peaks of a measurement that was interrupted, which the next one resumes.
BEGUN = RESULTS.with_name("memory.begun")
LM = {"vocab_size": 128, "max_length": 256}
GATED: dict[str, Any] = {"activation": "swiglu"}


def decoder(layers: int, width: int, **more: Any) -> dict[str, Any]:
    """A language model."""
    return asdict(
        ModelConfig("decoder", "lm", layers, d_model=width, n_heads=width // 16, d_ff=4 * width, **LM, **more)
    )


def translator(layers: int, width: int, **more: Any) -> dict[str, Any]:
    """Two stacks of this many layers."""
    sizes = {"d_model": width, "n_heads": width // 16, "d_ff": 4 * width, "vocab_size": 2000, "max_length": 256}
    return asdict(ModelConfig("encoder_decoder", "translation", layers, layers, **sizes, **more))


#: config, and how it runs. The first are for the fit.
FITTED = 7
#: By the plain path it is luck where gaps between tensors lie: a run is measured so often, and the median counts.
TIMES = {"fast": 1, "plain": 3}
RUNS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (decoder(1000, 64), {"sequences": 4, "tokens": 64}),
    (decoder(400, 128), {"sequences": 4, "tokens": 64, "path": "plain"}),
    (decoder(1000, 32, residual="pre_ln"), {"sequences": 8, "tokens": 64, "checkpoint_every": 8, "path": "plain"}),
    (decoder(600, 64, residual="rezero"), {"sequences": 4, "tokens": 64}),
    (translator(100, 64), {"sequences": 8, "tokens": 64}),
    (decoder(24, 512), {"sequences": 2, "tokens": 200}),
    (decoder(150, 96, position="rotary"), {"sequences": 8, "tokens": 64}),
    (decoder(300, 128, activation="relu"), {"sequences": 8, "tokens": 32, "checkpoint_every": 1}),
    (decoder(500, 64, residual="peri_ln", norm="rms"), {"sequences": 4, "tokens": 64}),
    (translator(150, 64, residual="sub_ln"), {"sequences": 4, "tokens": 64}),
    (decoder(1000, 64, activation="swiglu"), {"sequences": 4, "tokens": 32, "checkpoint_every": 32}),
    (decoder(200, 64), {"sequences": 8, "tokens": 64, "precision": "float64"}),
    (decoder(48, 256, residual="resi_dual", position="rotary", dropout=0.1), {"sequences": 8, "tokens": 128}),
    (decoder(24, 256, position="rotary", dropout=0.1), {"sequences": 8, "tokens": 128}),
    (decoder(120, 64, position="rotary", dropout=0.1), {"sequences": 16, "tokens": 64}),
    (decoder(100, 128, position="rotary"), {"sequences": 8, "tokens": 64}),
    (decoder(100, 128, dropout=0.1), {"sequences": 8, "tokens": 64}),
    (
        decoder(16, 256, residual="pre_ln", position="rotary", norm="rms", n_kv_heads=4, bias=False, **GATED),
        {"sequences": 8, "tokens": 128},
    ),
    (translator(60, 64, position="rotary", dropout=0.1), {"sequences": 8, "tokens": 64}),
    (translator(40, 128, dropout=0.1), {"sequences": 16, "tokens": 32}),
    (decoder(300, 64, residual="keel"), {"sequences": 4, "tokens": 64}),
    (decoder(12, 512, position="rotary", dropout=0.1), {"sequences": 4, "tokens": 128}),
    (decoder(100, 128, position="rotary", dropout=0.1), {"sequences": 8, "tokens": 64, "checkpoint_every": 10}),
]


def work(index: int) -> None:
    """In a process of its own: two training steps; prints the peak, bytes."""
    import torch

    from deepnet_edu import build_model
    from deepnet_edu.model import random_batch
    from deepnet_edu.training import TrainConfig, TrainStep

    torch.set_num_threads(1)
    fields, how = RUNS[index]
    config = ModelConfig(**fields)
    model = build_model(config).to(getattr(torch, how.get("precision", "float32")))
    model.use_path(how.get("path", "auto"))
    model.checkpoint_every(how.get("checkpoint_every", 0))
    batch = random_batch(config, how["sequences"], how["tokens"])
    with TrainStep(model, TrainConfig(steps=2, learning_rate=1e-5, warmup=0, weight_decay=0.01)) as step:
        for _ in range(2):
            step(batch)
        taken = {stack.path_taken.split(",")[0] for stack in model.stacks().values()}
    assert taken == {training_memory(config, **how).path}, taken
    print(json.dumps({"peak": peak(), "path": taken.pop()}))


#: Starts a run from a small process. Linux's getrusage begins with the peak of the process that started it, and this
#: one may be larger than the run.
BETWEEN = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"


def measure(index: int) -> dict[str, Any]:
    """``peak``, bytes, and ``path`` of a run in a fresh process."""
    command = [sys.executable, "-c", BETWEEN, sys.executable, __file__, str(index)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def peak() -> int:
    """The largest memory of this process, bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return 1024 * int(found[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Measure, fit, judge, print and keep."""
    if len(sys.argv) > 1:
        return work(int(sys.argv[1]))
    measured: dict[str, list[int]] = json.loads(BEGUN.read_text(encoding="utf-8")) if BEGUN.exists() else {}
    rows = []
    for index, (fields, how) in enumerate(RUNS):
        plan = training_memory(ModelConfig(**fields), **how)
        if str(index) not in measured:
            measured[str(index)] = sorted(measure(index)["peak"] for _ in range(TIMES[plan.path]))
            write_atomic(BEGUN, json.dumps(measured))
        peaks = measured[str(index)]
        peak = peaks[len(peaks) // 2]
        rows.append(
            {
                "used for": "fit" if index < FITTED else "judgement",
                "config": fields,
                "how": how,
                **plan.to_dict(),
                "measured": peak,
                "least": peaks[0],
                "most": peaks[-1],
                "off by": round(plan.total / peak - 1, 3),
            }
        )
        parts = {name: round(value / 1e6) for name, value in plan.to_dict().items() if isinstance(value, int)}
        print(peak // 10**6, rows[-1]["off by"], plan.path, parts, flush=True)
    print("fitted: process, a sub-layer, gaps of the plain path, its checkpoints, rotary:", fit(rows[:FITTED]))
    record = {
        "what": "Peak memory of two training steps in a fresh process, beside planning.training_memory; bytes",
        "command": "python benchmarks/memory.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": "CPU, one thread",
        "versions": {
            "python": platform.python_version(),
            "torch": version("torch"),
            "deepnet-edu": version("deepnet-edu"),
        },
        "seed": 0,
        "worst judged": max(abs(row["off by"]) for row in rows[FITTED:]),
        "rows": rows,
    }
    write_atomic(RESULTS, json.dumps(record, indent=1) + "\n")
    BEGUN.unlink()
    return None


def fit(rows: list[dict[str, Any]]) -> list[float]:
    """Least squares, relative to the peak, of what the counted parts leave."""
    depths = [(r["config"]["encoder_layers"], r["config"]["decoder_layers"]) for r in rows]
    sublayers = [2 * n + (3 if n else 2) * m for n, m in depths]
    left = [r["measured"] - (r["total"] - r["process"] - r["objects"]) for r in rows]
    plain = [r["path"] == "plain" for r in rows]
    a = [
        [
            1,
            n,
            p * r["activations"],
            n * p * ("checkpoint_every" in r["how"]),
            p * r["activations"] * (r["config"]["position"] == "rotary"),
        ]
        for n, p, r in zip(sublayers, plain, rows, strict=True)
    ]
    weight = 1 / np.array([r["measured"] for r in rows], float)
    found = np.linalg.lstsq(np.array(a, float) * weight[:, None], np.array(left, float) * weight, rcond=None)[0]
    return [float(f"{x:.3g}") for x in found]


if __name__ == "__main__":
    main()
