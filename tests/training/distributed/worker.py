"""One rank: it does all cases for this many ranks, one after the other, and writes down what it saw."""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

import deepnet_edu
from deepnet_edu.experiment.config import find_run
from deepnet_edu.experiment.execute import carry_out
from deepnet_edu.messages import UserError
from deepnet_edu.model import build_model
from deepnet_edu.planning import Plan
from deepnet_edu.training import Interrupted, TrainingDiverged, TrainStep, train
from deepnet_edu.training.distributed.process import run_rank
from deepnet_edu.training.distributed.ranks import Ranks, init_ranks
from deepnet_edu.training.distributed.step import ParallelStep
from tests.training.distributed.cases import CASES, MODEL, RECIPE, REFUSED, STEPS, TASK, WRITTEN, Case, run_of

#: Losses and gradient norms of one process, and its weights.
Alone = tuple[list[tuple[float, float]], dict[str, Tensor]]


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def alone(case: Case) -> Alone:
    model = build_model(case.config)
    with TrainStep(model, case.recipe) as step:
        results = [step(*case.batches(i)) for i in range(STEPS)]
    return [(result.loss, result.gradient_norm) for result in results], dict(model.state_dict())


def key(case: Case) -> str:
    """Of what does not depend on the plan."""
    return f"{case.config} {case.recipe}"


def all_alone(folder: Path) -> dict[str, Alone]:
    """Of all cases by their keys; each rank computes some of them."""
    many, rank = dist.get_world_size(), dist.get_rank()
    cases = {key(case): case for case in CASES[many]}
    for i, case in enumerate(cases.values()):
        if i % many == rank:
            torch.save(alone(case), folder / f"{many}-alone-{i}.pt")
    dist.barrier()
    return {name: torch.load(folder / f"{many}-alone-{i}.pt") for i, name in enumerate(cases)}


def trained(case: Case, single: Alone, ranks: Ranks) -> dict[str, Any]:
    """How far from one process this rank came, and what it held."""
    losses, weights = single
    model = build_model(case.config)
    with ParallelStep(model, case.recipe, ranks) as step:
        results = [step(*case.batches(i)) for i in range(STEPS)]
        tensors = {name: whole(tensor) for name, tensor in step.tensors().items()}
        return {
            "loss": max(abs(a.loss - b) for a, (b, _) in zip(results, losses, strict=True)),
            "norm": max(abs(a.gradient_norm - b) for a, (_, b) in zip(results, losses, strict=True)),
            "weights": max((tensor - weights[name]).abs().max().item() for name, tensor in tensors.items()),
            "moved": results[0].loss != results[-1].loss,
            "names": sorted(tensors),
            "bytes": sum(local(parameter).nbytes for parameter in model.parameters()),
            "moments": sum(local(moment).nbytes for moment in step.moments().values()),
            "all": sum(tensor.nbytes for tensor in weights.values()),
        }


def refusal(plan: str, residual: str, asked: dict[str, Any]) -> str:
    case = Case(plan, "decoder", residual, train=asked)
    return said(lambda: train(build_model(case.config), TASK, case.recipe, plan=Plan.parse(plan), progress=False))


def said(work: Any) -> str:
    """The sentence that it ends with."""
    try:
        work()
    except (UserError, Interrupted, TrainingDiverged) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def run(folder: Path, plan: str, resume: bool = True, model: Any = MODEL, **changes: Any) -> list[float]:
    """Losses of a run in a folder, on the first rank."""
    recipe = replace(RECIPE, **changes)
    history = train(build_model(model), TASK, recipe, out=folder, resume=resume, progress=False, plan=Plan.parse(plan))
    return history.loss


def copied(folder: Path, name: str, to: str) -> Path:
    """A run once more, to be changed."""
    if dist.get_rank() == 0:
        shutil.copytree(run_of(folder, name), run_of(folder, to))
    dist.barrier()
    return run_of(folder, to)


def at_three(folder: Path, name: str, to: str) -> Path:
    """A copy that ends at step 3."""
    path = copied(folder, name, to)
    if dist.get_rank() == 0:
        shutil.rmtree(path / "checkpoints" / "step-00000006")
    dist.barrier()
    return path


def stopped(folder: Path) -> str:
    """One rank gets a signal at its second step; all end at the same one."""

    def ask(history: Any) -> None:
        if dist.get_rank() == 1 and len(history.loss) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    plan = Plan.parse("data=2")
    return said(
        lambda: train(
            build_model(MODEL), TASK, RECIPE, out=run_of(folder, "stopped"), on_step=ask, progress=False, plan=plan
        )
    )


def damaged(folder: Path, how: str) -> str:
    """What is said of a checkpoint of two ranks that is not as it was written."""
    path = copied(folder, "two", how)
    file = path / "checkpoints" / "step-00000006" / "shard-00002-model-00001-of-00001.safetensors"
    if dist.get_rank() == 0:
        if how == "missing":
            file.unlink()
        else:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    dist.barrier()
    return said(lambda: run(path, "pipeline=2", steps=8))


def different(folder: Path, what: str) -> str:
    """Ranks that have not got the same."""
    rank = dist.get_rank()
    before = deepnet_edu.__version__
    small = ["decoder_layers=2", "d_model=8", "n_heads=2", "d_ff=8", f"steps={1 + rank if what == 'steps' else 1}"]
    if what == "version":
        deepnet_edu.__version__ = f"0.{rank}.0"
    try:
        tables = find_run("laptop-1000", small)
        out = folder / "runs" / "different"
        return said(lambda: carry_out(tables, out, "cpu", False, "again", plan=Plan(data=2), progress=False))
    finally:
        deepnet_edu.__version__ = before


def diverged() -> str:
    model = build_model(MODEL)
    with torch.no_grad():
        model.head.weight[0, 0] = torch.nan
    recipe = replace(RECIPE, save_every=0)
    return said(lambda: train(model, TASK, recipe, progress=False, plan=Plan.parse("pipeline=2")))


def dropped(plan: str) -> list[float]:
    """Losses with dropout: the same each time, though no state of a generator is kept."""
    config, recipe = replace(MODEL, dropout=0.3), replace(RECIPE, save_every=0)
    return train(build_model(config), TASK, recipe, progress=False, plan=Plan.parse(plan)).loss


def profiled() -> list[int]:
    """Steps that a rank has watched."""
    recipe = replace(RECIPE, save_every=0, profile_every=2)
    return sorted(train(build_model(MODEL), TASK, recipe, progress=False, plan=Plan.parse("data=2")).profiles)


def rounded(plan: str, precision: str) -> list[float]:
    """Losses of a float32 model whose products have this precision; it begins with other weights than a float64 one."""
    torch.set_default_dtype(torch.float32)
    try:
        recipe = replace(RECIPE, save_every=0, precision=precision)
        return train(build_model(MODEL), TASK, recipe, progress=False, plan=Plan.parse(plan)).loss
    finally:
        torch.set_default_dtype(torch.float64)


def compiled(plan: str, singles: dict[str, Alone]) -> dict[str, Any]:
    """How far a plan with compiled layers is from one process without, and how many graphs it made."""
    case = Case(plan, "decoder", "deepnorm")
    losses, weights = singles[key(case)]
    model = build_model(case.config)
    model.use_compiled("layer", "eager")
    stacks = list(model.stacks().values())
    used = [stack.compiled for stack in stacks]
    with init_ranks(Plan.parse(plan)) as ranks, ParallelStep(model, case.recipe, ranks) as step:
        results = [step(*case.batches(i)) for i in range(STEPS)]
        tensors = {name: whole(tensor) for name, tensor in step.tensors().items()}
    return {
        "loss": max(abs(a.loss - b) for a, (b, _) in zip(results, losses, strict=True)),
        "weights": max((tensor - weights[name]).abs().max().item() for name, tensor in tensors.items()),
        "graphs": sum(one.graphs for one in used),
        "back": [stack.compiled for stack in stacks] == used
        and not any("forward" in vars(layer) for stack in stacks for layer in stack.layers),
    }


def runs_of_four(folder: Path) -> dict[str, Any]:
    return {"four": run(run_of(folder, "four"), WRITTEN["four"], resume=False)}  # type: ignore[arg-type]


def runs_of_two(folder: Path, singles: dict[str, Alone]) -> dict[str, Any]:
    found: dict[str, Any] = {"two": run(run_of(folder, "two"), WRITTEN["two"], resume=False)}  # type: ignore[arg-type]
    for name, plan in [("four", "data=2"), ("four", "pipeline=2"), ("single", "shard=2"), ("single", "pipeline=2")]:
        found[f"{name} under {plan}"] = run(at_three(folder, name, f"{name} {plan}"), plan)
    found["again"] = said(lambda: run(run_of(folder, "two"), "data=2", resume=False))
    found["other training"] = said(lambda: run(run_of(folder, "two"), "data=2", steps=8, learning_rate=2e-2))
    other = replace(MODEL, d_ff=16)
    found["other model"] = said(lambda: run(run_of(folder, "two"), "data=2", model=other, steps=8))
    for how in ("missing", "flipped"):
        found[how] = damaged(folder, how)
    for what in ("version", "steps"):
        found[f"different {what}"] = different(folder, what)
    found["stopped"] = stopped(folder)
    found["refused"] = [refusal(*asked[:3]) for asked in REFUSED]
    found["diverged"] = diverged()
    found["dropout"] = [dropped("pipeline=2"), dropped("pipeline=2"), dropped("data=2")]
    found["profiles"] = profiled()
    found["compiled"] = compiled("shard=2", singles)
    for plan, precision in [("data=1", "fp32"), ("data=2", "fp16"), ("shard=2", "bf16"), ("pipeline=2", "bf16")]:
        found[f"{plan} {precision}"] = rounded(plan, precision)
    return found


def main() -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    run_rank(all_cases, "cpu", "start the tests again")


def all_cases() -> int:
    many, rank, folder = dist.get_world_size(), dist.get_rank(), Path(sys.argv[1])
    singles = all_alone(folder)
    found: dict[str, Any] = {}
    for plan, cases in groupby(sorted(CASES[many], key=attrgetter("plan")), attrgetter("plan")):
        with init_ranks(Plan.parse(plan)) as ranks:  # once for all of its cases: ranks take a while to find each other
            found |= {case.name: trained(case, singles[key(case)], ranks) for case in cases}
    found |= runs_of_four(folder) if many == 4 else runs_of_two(folder, singles)
    (folder / f"{many}-{rank}.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    main()
