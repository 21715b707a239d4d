"""Many ranks against what paper says of them: a pipeline's bubble, weak scaling, bytes sent in a step.

Ranks are processes on the cores of this machine (gloo, one thread each), or one on each of its GPUs (NCCL) where there
are two or more. Every figure is of the same run as the one it is compared with:

- **bubble**: a clock around each forward and backward pass of a stage; waiting over working against (p - 1)/m, and
  (p - 1)/(2m) where each rank has two stages.
- **weak scaling**: a step of p ranks on p times the batch, over a step of one process on one; before it and after it.
- **bytes**: what went over the loopback device in some steps, against `planning.rank_traffic`; gloo only. Its
  collectives are measured alone, too: its reduce-scatter is an all-reduce of which each rank keeps its part, and sends
  twice as much.

Writes results/distributed.json. Run with: python benchmarks/distributed.py (five minutes), or --smoke, which keeps
nothing.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is not part of the package

from benchmarks.depth import processor, spread
from deepnet_edu import ModelConfig, TrainConfig, build_model
from deepnet_edu.files import write_atomic
from deepnet_edu.model import Batch, random_batch
from deepnet_edu.planning import Plan, bubble, rank_traffic
from deepnet_edu.training import TrainStep

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "distributed.json"
LOOPBACK = Path("/sys/class/net/lo/statistics/tx_bytes")
SEED, WARM, STEPS = 0, 2, 8
#: Numbers of float32 that each rank has of what a collective is measured on.
BUFFER = 1 << 20
#: By device: layers, the other sizes, tokens, and sequences of one micro-batch or of one rank's share.
SIZES: dict[str, tuple[int, dict[str, Any], int, int]] = {
    "cpu": (64, {"d_model": 64, "n_heads": 4, "d_ff": 256, "vocab_size": 128}, 64, 4),
    "cuda": (256, {"d_model": 512, "n_heads": 8, "d_ff": 2048, "vocab_size": 32_000}, 512, 8),
}
SMOKE: tuple[int, dict[str, Any], int, int] = (4, {"d_model": 16, "n_heads": 2, "d_ff": 32, "vocab_size": 16}, 8, 2)


def shape(device: str, smoke: bool) -> tuple[ModelConfig, int, int]:
    """The model, tokens, and sequences of a piece."""
    layers, sizes, tokens, sequences = SMOKE if smoke else SIZES[device]
    return ModelConfig("decoder", "lm", layers, **sizes, max_length=tokens), tokens, sequences


def work(task: dict[str, Any]) -> dict[str, Any]:
    """One rank: some steps of a plan; their seconds, the actions of the last one, and bytes over loopback."""
    torch.set_num_threads(1)
    device, plan = task["device"], Plan.parse(task["plan"])
    if task["path"] == "collectives":
        return collectives(plan)
    config, tokens, sequences = shape(device, task["smoke"])
    batch = random_batch(config, sequences * plan.shares * plan.n_microbatches, tokens, SEED)
    recipe = TrainConfig(steps=WARM + STEPS, seed=SEED, precision="fp32" if device == "cpu" else "bf16")
    if plan.ranks == 1:
        model = build_model(config, seed=SEED, device=device)
        model.use_path(task["path"])
        with TrainStep(model, recipe) as step:
            return timed(step, batch.to(device), lambda: None, device)
    from deepnet_edu.training.distributed.ranks import init_ranks
    from deepnet_edu.training.distributed.step import ParallelStep

    with init_ranks(plan, device) as ranks:
        model = build_model(config, seed=SEED)
        model.use_path(task["path"])
        with ParallelStep(model, recipe, ranks) as step, clocks(device) as actions:
            found = timed(step, batch.to(ranks.device), torch.distributed.barrier, device, actions)
        return found


def collectives(plan: Plan) -> dict[str, Any]:
    """One rank: bytes over loopback of all ranks in each collective that steps are made of."""
    from deepnet_edu.training.distributed.ranks import init_ranks

    with init_ranks(plan):
        whole, part = torch.ones(plan.ranks * BUFFER), torch.ones(BUFFER)
        ways: dict[str, Callable[[], Any]] = {
            "all-reduce": lambda: torch.distributed.all_reduce(whole),
            "all-gather": lambda: torch.distributed.all_gather_single(whole, part),
            "reduce-scatter": lambda: torch.distributed.reduce_scatter_single(part, whole),
        }
        found: dict[str, Any] = {}
        for name, way in ways.items():
            torch.distributed.barrier()
            time.sleep(0.05)
            before = int(LOOPBACK.read_text())
            way()
            torch.distributed.barrier()
            found[name] = int(LOOPBACK.read_text()) - before
    return found


def timed(
    step: Callable[[Batch], Any],
    batch: Batch,
    meet: Callable[[], Any],
    device: str,
    actions: list[tuple[float, float]] | None = None,
) -> dict[str, Any]:
    """Seconds of each step after the first ones; ranks meet before each."""
    seconds, busy, sent = [], [], []
    for i in range(WARM + STEPS):
        meet()
        time.sleep(0.05)  # what a barrier itself sends has gone by
        before = int(LOOPBACK.read_text()) if LOOPBACK.exists() else 0
        if actions is not None:
            actions.clear()
        begin = now(device)
        step(batch)
        end = now(device)
        meet()
        after = int(LOOPBACK.read_text()) if LOOPBACK.exists() else 0
        if i >= WARM:
            seconds.append(end - begin)
            sent.append(after - before)
            busy.append([] if actions is None else list(actions))
    return {"seconds": seconds, "loopback": sent, "actions": busy}


def now(device: str) -> float:
    """Seconds, the same clock for all processes of a machine."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.time()


@contextmanager
def clocks(device: str) -> Iterator[list[tuple[float, float]]]:
    """While entered, each forward and backward pass of a pipeline's stage is noted with its begin and end."""
    from torch.distributed.pipelining import PipelineStage

    noted: list[tuple[float, float]] = []
    names = ("forward_one_chunk", "backward_one_chunk")
    before = {name: getattr(PipelineStage, name) for name in names}

    def clocked(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **more: Any) -> Any:
            begin = now(device)
            result = function(*arguments, **more)
            noted.append((begin, now(device)))
            return result

        return run

    for name, function in before.items():
        setattr(PipelineStage, name, clocked(function))
    yield noted
    for name, function in before.items():
        setattr(PipelineStage, name, function)


def run(plan: str, device: str, smoke: bool, path: str = "auto") -> list[dict[str, Any]]:
    """What each rank of a plan saw."""
    with tempfile.TemporaryDirectory() as folder:
        task = {"plan": plan, "device": device, "smoke": smoke, "path": path, "folder": folder}
        ranks = Plan.parse(plan).ranks
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        subprocess.run([*start, __file__, "--rank", json.dumps(task)], check=True, cwd=ROOT, env=environment)
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(ranks)]


def bubble_row(ranks: int, schedule: str, pieces: int, device: str, smoke: bool) -> dict[str, Any]:
    """Waiting over working of a pipeline, from its first action to its last."""
    found = run(f"pipeline={ranks},schedule={schedule},microbatches={pieces}", device, smoke)
    shares = []
    for step in range(STEPS):
        slots = [slot for rank in found for slot in rank["actions"][step]]
        worked = sum(end - begin for begin, end in slots)
        span = max(end for _, end in slots) - min(begin for begin, _ in slots)
        shares.append(ranks * span / worked - 1)
    formula = bubble(schedule, ranks, pieces)
    return {
        "ranks": ranks,
        "schedule": schedule,
        "microbatches": pieces,
        "measured": spread(shares),
        "formula": round(formula, 4),
        "beyond": round(statistics.median(shares) - formula, 3),
    }


def scaling_rows(ranks: int, device: str, smoke: bool) -> list[dict[str, Any]]:
    """One process before and after, copies and shards between."""
    plans = [("data=1", "auto"), (f"data={ranks}", "auto"), ("data=1", "plain"), (f"shard={ranks}", "plain")]
    seconds: dict[tuple[str, str], list[float]] = {}
    for plan, path in [*plans, *plans]:  # twice, so that the machine's moods fall on all
        found = run(plan, device, smoke, path)
        slowest = [max(times) for times in zip(*(rank["seconds"] for rank in found), strict=True)]
        seconds.setdefault((plan, path), []).extend(slowest)
    rows = []
    for plan, path in plans[1::2]:
        one, many = seconds["data=1", path], seconds[plan, path]
        rows.append(
            {
                "plan": plan,
                "path": path,
                "one_process_seconds": spread(one, 4),
                "seconds": spread(many, 4),
                "efficiency": round(statistics.median(one) / statistics.median(many), 3),
            }
        )
    return rows


def bytes_rows(ranks: int, smoke: bool) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Bytes over loopback in a step of all ranks, by formula, and by what gloo's collectives send over a ring's; which
    comes as the second."""
    rows = []
    alone = run(f"data={ranks}", "cpu", smoke, "collectives")[0]
    ring = (ranks - 1) * 4 * ranks * BUFFER  # what all ranks send to gather a buffer, or to scatter its sum
    costs = {name: sent / (ring * (1 + (name == "all-reduce"))) for name, sent in alone.items()}
    for plan in (f"data={ranks}", f"shard={ranks}", f"pipeline={ranks}"):
        found = run(plan, "cpu", smoke)
        given = Plan.parse(plan)
        config, tokens, sequences = shape("cpu", smoke)
        of_rank = rank_traffic(
            config,
            sequences * given.shares * given.n_microbatches,
            tokens,
            data=given.data,
            shard=given.shard,
            pipeline=given.pipeline,
            microbatches=given.n_microbatches if given.pipeline > 1 else 0,
        )
        formula = sum(rank.total for rank in of_rank) * given.shares
        measured = statistics.median(found[0]["loopback"])
        reduced = costs["reduce-scatter" if given.shard > 1 else "all-reduce"]
        by_gloo = given.shares * sum(
            reduced * rank.gradients + costs["all-gather"] * rank.weights + rank.stream for rank in of_rank
        )
        rows.append(
            {
                "plan": plan,
                "formula": formula,
                "by_gloo": round(by_gloo),
                "measured": measured,
                "ratio": round(measured / formula, 3),
                "of_gloo": round(measured / by_gloo, 3),
            }
        )
    return rows, {name: round(cost, 3) for name, cost in costs.items()}


def main() -> None:
    """All of it, as tables and as a record."""
    parser = argparse.ArgumentParser(description="Many ranks against what paper says of them.")
    parser.add_argument("--smoke", action="store_true", help="the script itself, tiny; keeps nothing")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rank:
        task = json.loads(given.rank)
        found = work(task)
        Path(task["folder"], f"{os.environ['RANK']}.json").write_text(json.dumps(found))
        return
    gpus = torch.cuda.device_count()
    device, ranks = ("cuda", gpus) if gpus > 1 and not given.smoke else ("cpu", 2)
    pieces = [ranks, 2 * ranks] if given.smoke else [ranks, 2 * ranks, 4 * ranks, 8 * ranks]
    bubbles = [bubble_row(ranks, "1f1b", m, device, given.smoke) for m in pieces]
    bubbles += [bubble_row(ranks, name, 2 * ranks, device, given.smoke) for name in ("gpipe", "interleaved")]
    for row in bubbles:
        print(
            f"{row['schedule']:>11}, {ranks} ranks, {row['microbatches']:>3} micro-batches: "
            f"waited {row['measured']['median']:.3f} of the work, by formula {row['formula']:.3f}"
        )
    scaling = scaling_rows(ranks, device, given.smoke)
    for row in scaling:
        print(f"{row['plan']:>11}, {row['path']} path: {row['efficiency']:.2f} of perfect weak scaling")
    sent, costs = bytes_rows(2, given.smoke) if LOOPBACK.exists() else ([], {})
    for row in sent:
        print(
            f"{row['plan']:>11}: {row['measured']:,.0f} bytes a step, {row['ratio']:.3f} of the formula, "
            f"{row['of_gloo']:.3f} of what gloo's collectives send"
        )
    if costs:
        print("gloo over a ring: " + ", ".join(f"{name} {cost:.2f}" for name, cost in costs.items()))
    if given.smoke:
        return
    config, tokens, sequences = shape(device, False)
    name = torch.cuda.get_device_name(0) if device == "cuda" else f"{processor()}, {os.cpu_count()} cores"
    record = {
        "made_by": "python benchmarks/distributed.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": f"{ranks} × {name}" if device == "cuda" else f"CPU, {name}; one thread a rank, gloo",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seed": SEED,
        "model": f"{config.title}, d_model {config.d_model}, {sequences} sequences of {tokens} tokens in a piece",
        "steps": STEPS,
        "bubble": bubbles,
        "weak_scaling": scaling,
        "bytes": sent,
        "gloo_over_a_ring": costs,
    }
    write_atomic(RESULTS, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
