"""The command that trains."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepnet_edu.cli.app import Json, app, print_table
from deepnet_edu.messages import UserError

if TYPE_CHECKING:
    from deepnet_edu.training.runs import Run

#: Beside run.toml: the byte pairs that the run has learned.
TOKENIZER = "tokenizer.json"


@app.command()
def train(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|CONFIG.toml",
            help="laptop-1000, gpu-1000; the paper's wmt17-18x18, wmt17-50x50, wmt17-100x100, opus100-100x100, "
            "opus100-500x500; or a file with the tables [model], [train] and [data].",
        ),
    ],
    given: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, steps=50 for example; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last checkpoint in that folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run needs, and load and train nothing.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    as_json: Json = False,
) -> None:
    """Train a preset, from the laptop's to the paper's, or a run of your own; Ctrl-C saves and says how to go on.

    Example: deepnet-edu train laptop-1000 --set steps=50
    """
    from deepnet_edu.training.runs import FILE, find_run

    run, chosen = find_run(what, given or []), find_device(device)
    if dry_run:
        say_forecast(what, run, chosen, as_json)
        return
    # The file that a run keeps of itself stands in the run's folder.
    folder = out or (Path(what).parent if Path(what).name == FILE else Path("runs") / Path(what).stem)
    go_on = shlex.join(["deepnet-edu", "train", str(folder / FILE), "--resume"])
    try:
        result = carry_out(run, folder, chosen, resume, go_on, progress=not as_json)
    except OSError as error:
        again = f"go on with {go_on}" if (folder / FILE).exists() else "run the same again"
        raise UserError(
            f"{error.filename or folder}: {error.strerror or error}. What was saved before is as it was: "
            f"mend that, then {again}"
        ) from None
    if as_json:
        print(json.dumps(result))
    elif result["stopped"]:
        print(f"Stopped after {result['steps']} steps; they are saved. Go on with: {go_on}")
    elif result["loss"] is None:
        print(f"All {result['steps']} steps are done: {folder}")
    else:
        print(f"{result['steps']} steps, {result['tokens']:,} tokens: {folder}")
        best = result["chance"] and f", beside {result['chance']:.3f} of the best guess that sees no other token"
        print(f"Loss of the last steps: {result['loss']:.3f} nats a token{best or ''}.")


def carry_out(run: "Run", folder: Path, device: str, resume: bool, go_on: str, *, progress: bool) -> dict[str, Any]:
    """Train, and keep everything in ``folder``.

    Raises:
        UserError: the folder holds another run or something else, the data cannot be had, or the run diverged.
        OSError: the disk is full.
    """
    from deepnet_edu.models import build_model
    from deepnet_edu.training import Interrupted, TrainingDiverged
    from deepnet_edu.training import train as train_model
    from deepnet_edu.training.checkpoint import checkpoints
    from deepnet_edu.training.log import METRICS
    from deepnet_edu.training.runs import FILE, check_same, keep
    from deepnet_edu.training.sources import make_task

    begun, learned = (folder / FILE).exists(), folder / TOKENIZER
    if resume and not begun:
        raise UserError(f"{folder} holds no run to go on with: leave --resume out.")
    if resume:
        check_same(run, folder)
    elif checkpoints(folder) or (folder / METRICS).exists():
        raise UserError(f"{folder} holds a run already: go on with it, {go_on}, or begin another one with --out.")
    elif not begun and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is no empty folder: begin the run in another one with --out.")
    known = learned if resume and learned.exists() else None
    try:
        task = make_task(run.data, run.model.vocab_size, seed=run.train.seed, tokenizer=known)
    except ValueError as error:
        raise UserError(str(error)) from None
    model = build_model(run.model, seed=run.train.seed, device=device)
    keep(run, folder)
    if known is None and (tokenizer := getattr(task, "tokenizer", None)) is not None:
        tokenizer.save(learned)
    result = {"folder": str(folder), "go_on": go_on, "stopped": False, "chance": getattr(task, "chance", None)}
    try:
        history = train_model(model, task, run.train, out=folder, resume=resume, progress=progress)
    except Interrupted as stop:
        return {**result, "steps": stop.step, "loss": None, "tokens": None, "stopped": True}
    except TrainingDiverged as error:
        raise UserError(str(error)) from None
    loss, tokens = (history.final_loss(), history.tokens[-1]) if history.loss else (None, None)
    return {**result, "steps": run.train.steps, "loss": loss, "tokens": tokens}


def find_device(given: str) -> str:
    """``"cpu"`` or ``"cuda"``; ``"auto"`` is the GPU where there is one.

    Raises:
        UserError: there is no such device here.
    """
    import torch

    if given not in ("cpu", "cuda", "auto"):
        raise UserError(f"--device {given}: expected cpu, cuda or auto.")
    there = torch.cuda.is_available()
    if given == "cuda" and not there:
        raise UserError(
            "--device cuda: PyTorch finds no GPU here; use --device cpu, or see what deepnet-edu doctor says."
        )
    return "cuda" if there and given != "cpu" else "cpu"


def say_forecast(what: str, run: "Run", device: str, as_json: bool) -> None:
    """Print what a run needs."""
    from deepnet_edu.training.forecast import forecast
    from deepnet_edu.training.presets import PRESETS

    found = forecast(run, device)
    if as_json:
        print(json.dumps({"run": run.to_dict(), **found.to_dict()}))
        return
    if what in PRESETS:
        print(PRESETS[what].source)
    memory = dict(found.memory)
    path, _, entering = (memory.pop(name) for name in ("path", "parameters", "entering"))
    print_table(["memory", "MB"], [[name, f"{value / 1e6:,.1f}"] for name, value in memory.items()])
    if entering == found.memory["total"]:
        print("The peak comes before the first step, when weights move to the optimizer's buffer.")
    parts = ", ".join(f"{name} {count:,}" for name, count in found.parameters.items() if count and name != "all")
    print(f"{found.parameters['all']:,} parameters ({parts}), {run.model.title}, by the {path} path.")
    print(f"{found.steps:,} steps of {found.tokens_per_step:,} tokens, {found.tokens:,} in all.")
    if found.operations is not None:
        again = f", {found.again_per_step:.3g} of them again for checkpoints" if found.again_per_step else ""
        print(
            f"{found.operations_per_step:.3g} floating point operations a step{again}; {found.operations:.3g} in all."
        )
    if found.days is not None:
        print(f"{found.days:.2g} days at the peak of {found.device}, {found.peak:.3g} a second, which no run reaches.")
