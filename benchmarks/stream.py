"""Does a stream kept in bfloat16 do as well as one in float32? Both under autocast, by the plain path, on a CPU.

    python benchmarks/stream.py            (an hour on a busy machine; rows that are there are kept)
    python benchmarks/stream.py --smoke    (a minute; keeps nothing)

**errors**: at initialisation, what the stack hands on, its logits and all gradients beside float64's: 2-norm of the
difference over that of the right value; of the stack's output also over what the layers add, its distance from the
normalised input where the stream is normalised, from the input elsewhere. **curves**: the previous token, d = 32: means
of ten steps. Seeds change weights and data. Layers are compiled, one for all.
"""

import argparse
import copy
import json
import math
import platform
import sys
import time
from datetime import UTC, datetime
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deepnet_edu import ModelConfig, TrainConfig, build_model, train
from deepnet_edu.course.places import RESULTS
from deepnet_edu.data import PreviousToken
from deepnet_edu.files import write_atomic
from deepnet_edu.model import Model, random_batch
from deepnet_edu.residual import RESIDUALS

FILE = RESULTS / "stream.json"
STREAMS = ("float32", "half")
SHAPE: dict[str, Any] = {"d_model": 64, "n_heads": 4, "d_ff": 256, "vocab_size": 128, "max_length": 32}
SMALL: dict[str, Any] = {"d_model": 32, "n_heads": 2, "d_ff": 128, "vocab_size": 16, "max_length": 16}
DEEP, SHALLOW = 1000, 50
TASK = PreviousToken(vocab_size=16, length=8, batch_size=16)
WARMUP, MEAN = 20, 10
#: Rule, layers, stream, seed, steps, learning rate.
CURVES = [
    *(("deepnorm", SHALLOW, stream, seed, 200, 1e-3) for seed in (0, 1) for stream in STREAMS),
    *(("deepnorm", DEEP, stream, 0, 100, 5e-4) for stream in STREAMS),
    *(("deepnorm", DEEP, stream, 0, 150, 1e-3) for stream in STREAMS),
    *(("pre_ln", DEEP, stream, 0, 100, 1e-3) for stream in STREAMS),
]


def off(found: Tensor, right: Tensor) -> float:
    """The relative error."""
    return ((found.double() - right).norm() / right.norm()).item()


def gradients(model: Model) -> Tensor:
    """All of them in a row."""
    return torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])


def looked(model: Model, config: ModelConfig) -> dict[str, Tensor]:
    """What enters and leaves the layers, logits and gradients, in float64."""
    batch, seen = random_batch(config, 2, config.max_length), {}
    (stack,) = model.own_stacks().values()
    rule = stack.layers[-1].ffn.residual  # type: ignore[union-attr, operator]
    hooks = [
        stack.layers[0].register_forward_pre_hook(lambda _, given: seen.update(entered=_stream(rule, given[0]))),
        stack.layers[-1].register_forward_hook(lambda *found: seen.update(left=_stream(rule, found[2]))),
    ]
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=next(model.parameters()).dtype == torch.float32):
        logits = model.logits(batch)
        loss = model.loss_of(logits, batch)
    loss.backward()
    for hook in hooks:
        hook.remove()
    return {**seen, "logits": logits.detach().double(), "gradients": gradients(model)}


def _stream(rule: Any, state: tuple[Tensor, ...]) -> Tensor:
    """What a rule calls the stream, in float64."""
    with torch.autocast("cpu", enabled=False):
        found: Tensor = copy.deepcopy(rule).double().stream(tuple(x.double() for x in state)).detach()
    return found


def errors(residual: str, layers: int) -> dict[str, Any]:
    """The row of a rule at a depth."""
    where = "decoder" if "decoder" in RESIDUALS[residual].architectures else "encoder"
    tasks = {"decoder": "lm", "encoder": "mlm"}
    config = ModelConfig(where, tasks[where], residual=residual, **{f"{where}_layers": layers}, **SHAPE)  # type: ignore[arg-type]
    model = build_model(config)
    wide = copy.deepcopy(model).double()
    right = looked(wide, config)
    signal = model.rules()[-1].signal()
    normed = signal is not None and signal.norm_sum
    start = F.layer_norm(right["entered"], right["entered"].shape[-1:]) if normed else right["entered"]
    added = (right["left"] - start).norm()
    row: dict[str, Any] = {"residual": residual, "layers": layers}
    row["share of the output that layers add"] = _digits((added / right["left"].norm()).item())
    for stream in STREAMS:
        with model.running(stream=stream, path="plain"):
            found = looked(model, config)
        row[stream] = {name: _digits(off(found[name], right[name])) for name in ("left", "logits", "gradients")}
        row[stream]["of what layers add"] = _digits(((found["left"] - right["left"]).norm() / added).item())
    return row


def _digits(x: float) -> float | None:
    return float(f"{x:.3g}") if math.isfinite(x) else None


def curve(
    residual: str, layers: int, stream: str, seed: int, steps: int, rate: float, compiled: bool = True
) -> dict[str, Any]:
    """The row of a training."""
    config = ModelConfig("decoder", "lm", residual=residual, decoder_layers=layers, **SMALL)
    model = build_model(config, seed=seed)
    model.mode = type(model.mode)(path="plain")
    settings = TrainConfig(
        steps=steps, learning_rate=rate, warmup=WARMUP, precision="bf16", stream=stream, seed=seed,  # type: ignore[arg-type]
        compile="layer" if compiled else "no",
    )  # fmt: skip
    begin = time.perf_counter()
    loss = train(model, TASK, settings, progress=False).loss
    means = [round(sum(loss[i : i + MEAN]) / MEAN, 4) for i in range(0, steps - MEAN + 1, MEAN)]
    seconds = round((time.perf_counter() - begin) / steps, 2)
    return {"residual": residual, "layers": layers, "stream": stream, "seed": seed, "steps": steps, "rate": rate,
            "loss": means, "seconds a step": seconds}  # fmt: skip


def main() -> int:
    """Measure what is missing, print, keep. The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small sizes, to see that it runs; nothing is kept")
    smoke = parser.parse_args().smoke
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if smoke:
        print(errors("deepnorm", 4), curve("deepnorm", 2, "half", 0, 20, 1e-3, compiled=False), sep="\n")
        return 0
    record: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {"errors": [], "curves": []}
    record |= {
        "made_by": "benchmarks/stream.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": "CPU, one thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "shape": SHAPE,
        "shape of curves": {**SMALL, "warmup": WARMUP, "steps in a mean": MEAN},
        "chance": round(math.log(16), 4),
    }
    asked = [(rule, layers) for layers in (SHALLOW, DEEP) for rule in ("deepnorm", "post_ln", "pre_ln")]
    others = {rule for rule, kind in RESIDUALS.items() if kind.growing or kind.architectures == ("encoder_decoder",)}
    asked += [(rule, SHALLOW) for rule in RESIDUALS if rule not in others]
    for case in CURVES:
        keys = ("residual", "layers", "stream", "seed", "steps", "rate")
        if not any(tuple(row[key] for key in keys) == case for row in record["curves"]):
            _keep(record, "curves", curve(*case))
    for residual, layers in dict.fromkeys(asked):
        if not any((row["residual"], row["layers"]) == (residual, layers) for row in record["errors"]):
            _keep(record, "errors", errors(residual, layers))
    return 0


def _keep(record: dict[str, Any], part: str, row: dict[str, Any]) -> None:
    print(row, flush=True)
    record[part].append(row)
    write_atomic(FILE, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
