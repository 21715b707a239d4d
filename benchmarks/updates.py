"""Signals at initialisation and the first update by depth, rule and group of parameters; writes updates.json.

What facts about DeepNorm rest on: token similarity, gradient ratio and variance by rule with Xavier-normal weights (our
own) and with PyTorch's default Linear initialisation times β (TorchScale's), and how ‖ΔF‖ grows with depth. Updates
and ratios of gradients differ from seed to seed by factors: their means are geometric, and their spread is the factor
exp(sd of ln). It is 1.02 for DeepNorm, and 2 to 7 for a deep Post-LN: such a mean is not to be quoted without it.

Run with: python benchmarks/updates.py (about two minutes)
"""

import json
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import nn

from deepnet_edu import ModelConfig, build_model, probe
from deepnet_edu.course.places import RECORDS
from deepnet_edu.files import write_atomic
from deepnet_edu.model import Model, random_batch
from deepnet_edu.probing import model_update, slope

RESULTS = RECORDS / "updates.json"
SHAPE = {"d_model": 64, "n_heads": 4, "d_ff": 256, "vocab_size": 64, "max_length": 64}
TOKENS, SEQUENCES, SEEDS = 64, 4, (0, 1, 2)
UPDATE_DEPTHS = (6, 12, 24, 48, 96)
PROFILE_DEPTHS = (6, 12, 24, 48, 100, 1000)
#: Small enough for the first order in float64; Post-LN needs far less.
LEARNING_RATE = {"deepnorm": 1e-6, "deepnorm_glm": 1e-6, "post_ln": 1e-8}


def config(rule: str, layers: int) -> ModelConfig:
    """A small decoder, the same at every depth but in layers."""
    return ModelConfig("decoder", "lm", layers, residual=rule, **SHAPE)


@torch.no_grad()
def draw_as_torchscale(model: Model, seed: int) -> Model:
    """TorchScale's init: nn.Linear's own uniform one, weights and biases, times β on value, output and FFN."""
    torch.manual_seed(seed)
    for sublayer in model.sublayers():
        rule = sublayer.residual
        for module in sublayer.branch.children():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
                beta = rule.gain("value")
                if module.out_features == 3 * module.in_features:
                    for part in (module.weight, module.bias):
                        part.chunk(3)[2].mul_(beta)
                else:
                    module.weight.mul_(beta)
                    module.bias.mul_(beta)
    return model


def geometric(values: Sequence[float]) -> tuple[float, float]:
    """The geometric mean, and the factor of its spread: one standard deviation is from mean/factor to mean·factor."""
    logs = np.log(values)
    return float(np.exp(logs.mean())), float(np.exp(logs.std(ddof=1)))


def updates() -> Iterator[dict[str, Any]]:
    """A row per rule, step and group: the update by depth, geometric mean over seeds, its factor, and its slope."""
    for rule, rate in LEARNING_RATE.items():
        for step in ("sgd", "sign"):
            for group in ("matrices", "biases", "norms", "all"):
                by_depth = []
                for layers in UPDATE_DEPTHS:
                    found = [
                        model_update(
                            build_model(config(rule, layers), seed).double(),
                            random_batch(config(rule, layers), SEQUENCES, TOKENS, seed),
                            step,  # type: ignore[arg-type]
                            group,  # type: ignore[arg-type]
                            rate,
                        )
                        for seed in SEEDS
                    ]
                    by_depth.append(found)
                means, factors = zip(*map(geometric, by_depth), strict=True)
                slopes = [slope(UPDATE_DEPTHS, values) for values in zip(*by_depth, strict=True)]
                yield {
                    "residual": rule,
                    "step": step,
                    "parameters": group,
                    "update": [float(f"{mean:.4g}") for mean in means],
                    "factor": [float(f"{factor:.3g}") for factor in factors],
                    "slope": round(slope(UPDATE_DEPTHS, means), 3),
                    "slope by seed": [round(value, 3) for value in slopes],
                }


def profiles() -> Iterator[dict[str, Any]]:
    """A row per rule, init and depth: what a probe sees, mean and standard deviation over seeds, of ratios as above."""
    for init in ("xavier", "torchscale"):
        for rule in ("deepnorm", "post_ln", "pre_ln", "sub_ln"):
            for layers in PROFILE_DEPTHS:
                rows = []
                for seed in SEEDS if layers < 1000 else SEEDS[:2]:
                    model = build_model(config(rule, layers), seed)
                    if init == "torchscale":
                        draw_as_torchscale(model, seed)
                    profile = probe(model, random_batch(config(rule, layers), SEQUENCES, TOKENS, seed))
                    assert profile.token_similarity is not None
                    assert profile.gradient_norm is not None
                    assert profile.variance is not None
                    ffn = profile.gradient_by_role["ffn_out"][1::2]
                    rows.append(
                        (
                            profile.token_similarity[-1],
                            profile.gradient_norm[:2].mean() / profile.gradient_norm[-2:].mean(),
                            ffn[0] / ffn[-1],
                            profile.variance[-1],
                            ffn[-1] * sqrt(layers),
                        )
                    )
                names = ("token similarity", "gradient ratio", "FFN gradient ratio", "variance", "W2 gradient · √N")
                columns = dict(zip(names, np.array(rows).T, strict=True))
                found = {name: geometric(column) for name, column in columns.items() if "gradient" in name}
                linear = {name: column for name, column in columns.items() if name not in found}
                yield {
                    "init": init,
                    "residual": rule,
                    "layers": layers,
                    "seeds": len(rows),
                    **{name: float(f"{column.mean():.4g}") for name, column in linear.items()},
                    **{name: float(f"{mean:.4g}") for name, (mean, _) in found.items()},
                    "spread": {name: float(f"{column.std(ddof=1):.2g}") for name, column in linear.items()},
                    "factor": {name: float(f"{factor:.3g}") for name, (_, factor) in found.items()},
                }


def main() -> None:
    """Measure, print and keep everything."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    record: dict[str, Any] = {
        "what": "Root mean square change of the logits per unit of learning rate for one step, and signals at init",
        "command": "python benchmarks/updates.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": "CPU, one thread",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "deepnet-edu": version("deepnet-edu"),
        },
        "shape": {**SHAPE, "sequences": SEQUENCES, "tokens": TOKENS},
        "seeds": SEEDS,
        "depths": UPDATE_DEPTHS,
        "learning rates": LEARNING_RATE,
        "updates": [],
        "profiles": [],
    }
    for name, rows in (("updates", updates()), ("profiles", profiles())):
        for row in rows:
            record[name].append(row)
            print(row, flush=True)
    write_atomic(RESULTS, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
