"""What depth costs: a training step at 1,000 layers, ours and others', against the matrix products alone.

Each contender runs in a process of its own, in turn, several rounds; ratios are taken within a round. Writes
results/depth.json, unless --rounds is given.

Run with: python benchmarks/depth.py (about 25 minutes), or deepnet-edu bench depth
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "depth.json"
SHAPE = {"d_model": 64, "n_heads": 4, "d_ff": 256, "vocab_size": 128}
SEQUENCES, TOKENS, WARM, STEPS, ROUNDS = 4, 64, 2, 3, 3
ADAMW = {"lr": 1e-5, "weight_decay": 0.01, "fused": True}
#: (contender, layers, threads): the first of each pair of layers and threads is the floor.
RUNS = [
    *(
        (name, 1000, 1)
        for name in ("floor", "ours", "ours, checkpoints", "ours without a compiler", "ours, plain path")
    ),
    *((name, 1000, 1) for name in ("torch.nn", "TorchScale", "TorchScale, checkpoints")),
    *((name, 1000, 2) for name in ("floor", "ours", "torch.nn", "TorchScale")),
    *((name, 100, 1) for name in ("floor", "ours", "torch.nn", "TorchScale")),
    ("ours, 500 + 500", 500, 1),
    ("probe", 1000, 1),
    ("probe", 100, 1),
]
_COMMAND = "from deepnet_edu.cli import app; app({}, standalone_mode=False)"
IMPORTS = {
    "torch": "import torch",
    "deepnet_edu": "import deepnet_edu",
    "deepnet_edu, all its first names": "from deepnet_edu import *",
    "the kit of a notebook": "from deepnet_edu.course import kit",
    "deepnet-edu plan small_1000": _COMMAND.format(["plan", "small_1000"]),
    "deepnet-edu models": _COMMAND.format(["models"]),
    "deepnet-edu progress": _COMMAND.format(["progress"]),
}


def floor(layers: int) -> Callable[[], None]:
    """The matrix products of a step, forward, of the input's gradient and of the weight's, and nothing else."""
    import torch

    d, f, rows = SHAPE["d_model"], SHAPE["d_ff"], SEQUENCES * TOKENS
    shapes = [(3 * d, d), (d, d), (f, d), (d, f)]
    weights = [[0.01 * torch.randn(shape) for shape in shapes] for _ in range(layers)]
    gradients = [[torch.zeros(shape) for shape in shapes] for _ in range(layers)]
    x = [torch.randn(rows, n_in) for _, n_in in shapes]
    y = [torch.empty(rows, n_out) for n_out, _ in shapes]
    dx = [torch.empty_like(one) for one in x]

    def step() -> None:
        for layer in weights:
            for i, w in enumerate(layer):
                torch.mm(x[i], w.t(), out=y[i])
        for layer, gradient in zip(reversed(weights), reversed(gradients), strict=True):
            for i in (3, 2, 1, 0):
                torch.mm(y[i], layer[i], out=dx[i])
                torch.mm(y[i].t(), x[i], out=gradient[i])

    return step


def ours(
    layers: int, path: str = "auto", every: int = 0, encoder: bool = False, residual: str = "deepnorm"
) -> Callable[[], None]:
    """The library's own training step: fp32, GELU, AdamW, no clipping."""
    from deepnet_edu import ModelConfig, build_model
    from deepnet_edu.model import random_batch
    from deepnet_edu.training import TrainConfig, TrainStep

    kind: tuple[Any, ...] = ("encoder_decoder", "translation", layers, layers) if encoder else ("decoder", "lm", layers)
    config = ModelConfig(*kind, max_length=TOKENS, residual=residual, **SHAPE)
    model, batch = build_model(config), random_batch(config, SEQUENCES, TOKENS)
    model.use_path(path)  # type: ignore[arg-type]
    model.checkpoint_every(every)
    recipe = TrainConfig(steps=999, learning_rate=ADAMW["lr"], warmup=0, clip=0, weight_decay=ADAMW["weight_decay"])
    step = TrainStep(model, recipe)
    return lambda: print(step(batch).loss, [stack.path_taken for stack in model.stacks().values()], file=sys.stderr)


def theirs(make: Callable[[Any], Any]) -> Callable[[], None]:
    """Another library's stack between an embedding and a head, with fused AdamW."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(SHAPE["vocab_size"], SHAPE["d_model"])
            self.position = nn.Parameter(torch.randn(TOKENS, SHAPE["d_model"]))
            self.stack, self.run = make(nn)
            self.head = nn.Linear(SHAPE["d_model"], SHAPE["vocab_size"], bias=False)

        def forward(self, tokens: Any) -> Any:
            return self.head(self.run(tokens, self.embed(tokens) + self.position))

    torch.manual_seed(0)
    model = Model()
    tokens, targets = torch.randint(SHAPE["vocab_size"], (2, SEQUENCES, TOKENS))
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)  # type: ignore[arg-type]

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def torch_nn(layers: int) -> Callable[[], None]:
    """torch.nn.TransformerEncoderLayer with a causal mask."""

    def make(nn: Any) -> Any:
        stack = nn.ModuleList(
            nn.TransformerEncoderLayer(
                SHAPE["d_model"], SHAPE["n_heads"], SHAPE["d_ff"], 0.0, activation="gelu", batch_first=True
            )
            for _ in range(layers)
        )
        mask = nn.Transformer.generate_square_subsequent_mask(TOKENS)

        def run(tokens: Any, x: Any) -> Any:
            for layer in stack:
                x = layer(x, src_mask=mask, is_causal=True)
            return x

        return stack, run

    return theirs(make)


def torchscale(layers: int, checkpoints: bool = False) -> Callable[[], None]:
    """TorchScale's decoder with DeepNorm."""
    from peers import import_torchscale

    peer = import_torchscale()

    def make(_: Any) -> Any:
        config = peer.DecoderConfig(
            decoder_embed_dim=SHAPE["d_model"],
            decoder_attention_heads=SHAPE["n_heads"],
            decoder_ffn_embed_dim=SHAPE["d_ff"],
            decoder_layers=layers,
            deepnorm=True,
            subln=False,  # their default is True, and both at once is another model
            dropout=0.0,
            no_scale_embedding=True,
            vocab_size=8,
            checkpoint_activations=checkpoints,
        )
        stack = peer.Decoder(config)
        return stack, lambda tokens, x: stack(tokens, token_embeddings=x, features_only=True)[0]

    return theirs(make)


def probe(layers: int) -> Callable[[], Iterator[float]]:
    """A plain forward and backward pass with the same gradients as a probe's, and the probe."""
    import torch

    from deepnet_edu import ModelConfig, build_model
    from deepnet_edu import probe as measure_by_layer
    from deepnet_edu.model import random_batch

    config = ModelConfig("decoder", "lm", layers, max_length=TOKENS, **SHAPE)
    model, batch = build_model(config), random_batch(config, SEQUENCES, TOKENS)
    weights = [weight for sublayer in model.sublayers() for weight in sublayer.matrices()]

    def both() -> Iterator[float]:
        for call in (lambda: torch.autograd.grad(model.loss(batch), weights), lambda: measure_by_layer(model, batch)):
            begin = time.perf_counter()
            call()
            yield time.perf_counter() - begin

    return both


CONTENDERS: dict[str, Callable[[int], Callable[[], Any]]] = {
    "floor": floor,
    "ours": ours,
    "ours, checkpoints": lambda layers: ours(layers, every=1),
    "ours without a compiler": ours,
    "ours, plain path": lambda layers: ours(layers, path="plain"),
    "ours, 500 + 500": lambda layers: ours(layers, encoder=True),
    "torch.nn": torch_nn,
    "TorchScale": torchscale,
    "TorchScale, checkpoints": lambda layers: torchscale(layers, checkpoints=True),
    "probe": probe,
}


def work(name: str, layers: int, threads: int) -> None:
    """In a process of its own: build, warm up, take steps, print seconds and peak memory as JSON."""
    import torch

    torch.set_num_threads(threads)
    step = CONTENDERS[name](layers)
    seconds: list[Any] = []
    for turn in range(WARM + STEPS):
        begin = time.perf_counter()
        found = step()
        if name == "probe":
            pair = list(found)
        if turn >= WARM:
            seconds.append(pair if name == "probe" else time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": seconds, "peak": peak}))


def measure(name: str, layers: int, threads: int) -> dict[str, Any]:
    """One process; ``missing`` says why there is nothing."""
    import os

    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    if name == "ours without a compiler":
        environment["DEEPNET_EDU_NATIVE"] = "0"
    command = [sys.executable, __file__, "--worker", name, str(layers), str(threads)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        return {"missing": result.stderr.strip().splitlines()[-1]}
    return json.loads(result.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def imports(rounds: int) -> list[dict[str, Any]]:
    """Wall time of a fresh Python that imports, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for turn in range(rounds + 1):  # the first fills the caches
        for name, statement in IMPORTS.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True, stdout=subprocess.DEVNULL)
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    base = statistics.median(seconds["torch"])
    return [
        {
            "import": name,
            "seconds": round(statistics.median(found), 3),
            "times import torch": round(statistics.median(found) / base, 3),
        }
        for name, found in seconds.items()
    ]


def row(name: str, layers: int, threads: int, found: list[dict[str, Any]], floors: list[float]) -> dict[str, Any]:
    """Medians over rounds and, against the floor of the same round, ratios."""
    base: dict[str, Any] = {"contender": name, "layers": layers, "threads": threads}
    missing = [one["missing"] for one in found if "missing" in one]
    if missing:
        return {**base, "missing": missing[0]}
    base["peak, GB"] = round(max(one["peak"] for one in found) / 1e9, 2)
    if name == "probe":
        ratios = [statistics.median(b / a for a, b in one["seconds"]) for one in found]
        return {**base, "probe over plain": spread(ratios)}
    seconds = [statistics.median(one["seconds"]) for one in found]
    base["seconds a step"] = spread(seconds)
    if floors and name != "floor":
        base["share of the floor"] = spread([low / own for low, own in zip(floors, seconds, strict=True)])
    return base


def spread(values: list[float], digits: int = 3) -> dict[str, float]:
    """Median, least and most."""
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def targets(rows: list[dict[str, Any]], imported: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was aimed at, and what came of it."""

    def get(name: str, layers: int = 1000, threads: int = 1) -> dict[str, Any]:
        return next(one for one in rows if (one["contender"], one["layers"], one["threads"]) == (name, layers, threads))

    def over(a: dict[str, Any], b: dict[str, Any]) -> float | None:
        if "missing" in a or "missing" in b:
            return None
        return round(a["seconds a step"]["median"] / b["seconds a step"]["median"], 3)

    loaded = {one["import"]: one["times import torch"] for one in imported}
    own, checkpoints = get("ours"), get("ours, checkpoints")
    checks: list[tuple[str, float | None, str, float]] = [
        ("share of the floor, one thread", own["share of the floor"]["median"], "at least", 0.5),
        ("times faster than TorchScale", over(get("TorchScale"), own), "at least", 2.3),
        ("times faster than torch.nn", over(get("torch.nn"), own), "at least", 1.8),
        ("peak memory, GB", own["peak, GB"], "at most", 2.0),
        ("peak memory with checkpoints, GB", checkpoints["peak, GB"], "at most", 1.3),
        ("time with checkpoints over without", over(checkpoints, own), "at most", 1.35),
        ("time at 1,000 layers over 100", over(own, get("ours", 100)), "at most", 12),
        ("peak memory of 500 + 500 layers, GB", get("ours, 500 + 500", 500)["peak, GB"], "at most", 3),
        ("probe over forward and backward, 1,000 layers", get("probe")["probe over plain"]["median"], "at most", 1.3),
        (
            "probe over forward and backward, 100 layers",
            get("probe", 100)["probe over plain"]["median"],
            "at most",
            1.3,
        ),
        *(
            (f"{name} over import torch", loaded[name], "at most", limit)
            for name, limit in [
                ("deepnet_edu", 1.15),
                ("the kit of a notebook", 1.2),
                ("deepnet-edu plan small_1000", 1 / 3),
                ("deepnet-edu models", 1 / 3),
                ("deepnet-edu progress", 1 / 3),
            ]
        ),
    ]
    return [
        {
            "what": what,
            "measured": value,
            "target": f"{side} {limit:g}",
            "met": None if value is None else value >= limit if side == "at least" else value <= limit,
        }
        for what, value, side, limit in checks
    ]


def versions() -> dict[str, str]:
    """Of everything that was measured."""
    found = {"python": platform.python_version()}
    for name in ("torch", "deepnet-edu", "torchscale", "fairscale"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def processor() -> str:
    """Its name, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    """Measure everything, print and keep it."""
    parser = argparse.ArgumentParser(description="What depth costs, against the matrix products alone.")
    parser.add_argument("--rounds", type=int, default=0, help=f"rounds, {ROUNDS} by default; given, nothing is kept")
    parser.add_argument("--imports", action="store_true", help="what importing takes, alone; nothing is kept")
    parser.add_argument("--only", action="append", help="a contender; may be repeated; nothing is kept")
    parser.add_argument("--worker", nargs=3, metavar=("NAME", "LAYERS", "THREADS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        name, layers, threads = arguments.worker
        return work(name, int(layers), int(threads))
    if arguments.imports:
        for one in imports(arguments.rounds or ROUNDS):
            print(one)
        return None
    runs = [run for run in RUNS if not arguments.only or run[0] in (*arguments.only, "floor")]
    found: dict[tuple[str, int, int], list[dict[str, Any]]] = {run: [] for run in runs}
    for turn in range(arguments.rounds or ROUNDS):
        for run in runs:
            found[run].append(measure(*run))
            print(f"round {turn + 1}: {run}: {found[run][-1]}", file=sys.stderr, flush=True)
    rows = []
    for name, layers, threads in runs:
        low = found.get(("floor", layers, threads), [])
        floors = [statistics.median(one["seconds"]) for one in low]
        rows.append(row(name, layers, threads, found[name, layers, threads], floors))
        print(rows[-1])
    if arguments.only:
        return None
    imported = imports(arguments.rounds or ROUNDS)
    for one in imported:
        print(one)
    for one in (goals := targets(rows, imported)):
        print(one)
    if arguments.rounds:
        return None
    from deepnet_edu.files import write_atomic

    record = {
        "what": "A training step, forward, backward and AdamW, fp32, GELU, against its matrix products alone",
        "command": "python benchmarks/depth.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": f"{processor()}, CPU",
        "versions": versions(),
        "seed": 0,
        "shape": {**SHAPE, "sequences": SEQUENCES, "tokens": TOKENS},
        "rounds": ROUNDS,
        "steps a round": STEPS,
        "rows": rows,
        "imports": imported,
        "targets": goals,
    }
    write_atomic(RESULTS, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return None


if __name__ == "__main__":
    main()
