"""What theory predicts of a stack beside what a probe measures: where `predict` is known to be off, and by how much.

Every rule that theory has lines for, in each architecture that it is defined for, over depths and seeds. Ratios are
averaged as logarithms. Writes deepnet_edu/theory/errors.json, from which `predict` warns.

Run with: python benchmarks/predictions.py [--only post_ln sub_ln] (about three minutes on a quiet core)
"""

import argparse
import json
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from math import exp, log, sqrt
from typing import Any

import numpy as np
import torch

from deepnet_edu import ModelConfig, build_model, probe
from deepnet_edu.files import write_atomic
from deepnet_edu.model import random_batch
from deepnet_edu.profiles import DepthProfile
from deepnet_edu.residual import RESIDUALS
from deepnet_edu.theory.errors import FILE, QUANTITIES
from deepnet_edu.theory.prediction import predicted

SHAPE = {"d_model": 64, "n_heads": 4, "d_ff": 256, "vocab_size": 1024, "max_length": 16, "position": "rotary"}
TASK = {"encoder": "mlm", "decoder": "lm", "encoder_decoder": "translation"}
TOKENS, SEQUENCES, SEEDS = 16, 8, (0, 1, 2)
DEPTHS = {"encoder": (12, 48), "decoder": (12, 48, 200), "encoder_decoder": (6, 24)}
#: Of a similarity or a share below this nothing is said: its relative error means nothing.
LEAST = 0.05


def config(rule: str, architecture: str, layers: int) -> ModelConfig:
    """A model of this depth, of each of its stacks."""
    depths = {f"{stack}_layers": layers for stack in ("encoder", "decoder") if stack in architecture}
    return ModelConfig(architecture, TASK[architecture], residual=rule, **depths, **SHAPE)  # type: ignore[arg-type]


def numbers(profile: DepthProfile) -> dict[str, float]:
    """The five that are compared: four at the ends of the model, and attention beside FFN over all layers."""
    assert profile.variance is not None
    assert profile.token_similarity is not None
    assert profile.input_share is not None
    assert profile.gradient_norm is not None
    by_layer = profile.gradient_by_layer()
    ffn = np.array(profile.sublayer) == "ffn"
    attention = np.array(profile.sublayer) == "self_attention"
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (
            profile.variance[-1],
            profile.token_similarity[-1],
            profile.input_share[-1],
            by_layer[0] / by_layer[-1],
            np.exp(np.log(profile.gradient_norm[attention] / profile.gradient_norm[ffn]).mean()),
        )
    return {name: float(value) for name, value in zip(QUANTITIES, values, strict=True)}


def rows(only: list[str]) -> Iterator[dict[str, Any]]:
    """One for each rule, architecture and depth."""
    for rule in only or RESIDUALS:
        for architecture in RESIDUALS[rule].architectures:
            for layers in DEPTHS[architecture]:
                shape = config(rule, architecture, layers)
                try:
                    expected = numbers(predicted(shape, TOKENS))
                except ValueError:  # there is no prediction for it
                    continue
                found = [
                    numbers(probe(build_model(shape, seed), random_batch(shape, SEQUENCES, TOKENS, seed)))
                    for seed in (SEEDS if layers < 200 else SEEDS[:2])
                ]
                yield {
                    "residual": rule,
                    "architecture": architecture,
                    "layers": layers,
                    **{name: _beside(name, expected[name], [one[name] for one in found]) for name in QUANTITIES},
                }


def _beside(name: str, expected: float, found: list[float]) -> list[float] | None:
    """Theory over measurement, and the factor of its standard error; None where the number is next to nothing."""
    least = LEAST if name in ("token similarity", "input share") else 0.0
    if not (expected > 0 and min(found) > 0) or max(expected, float(np.mean(found))) < least:
        return None
    logs = np.log(found)
    off, error = log(expected) - logs.mean(), logs.std(ddof=1) / sqrt(len(found))
    return [float(f"{exp(off):.3g}"), float(f"{exp(error):.3g}")]


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="rules to measure again; all others are kept")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    kept = json.loads(FILE.read_text(encoding="utf-8"))["rows"] if only and FILE.exists() else []
    found = {(row["residual"], row["architecture"], row["layers"]): row for row in kept if row["residual"] not in only}
    for row in rows(only):
        print(row, flush=True)
        found[row["residual"], row["architecture"], row["layers"]] = row
        _keep([found[key] for key in sorted(found)])


def _keep(rows: list[dict[str, Any]]) -> None:
    head = {
        "what": "Theory over measurement at initialisation, and the factor of its standard error",
        "command": "python benchmarks/predictions.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": "CPU, one thread",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "deepnet-edu": version("deepnet-edu"),
        },
        "shape": {**SHAPE, "tokens": TOKENS, "sequences": SEQUENCES},
        "seeds": SEEDS,
    }
    lines = ",\n".join(map(json.dumps, rows))
    write_atomic(FILE, json.dumps(head, indent=1).removesuffix("\n}") + f',\n "rows": [\n{lines}\n]\n}}\n')


if __name__ == "__main__":
    main()
