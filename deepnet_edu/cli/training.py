"""The command that trains."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepnet_edu.cli.app import Json, app, print_table, whole
from deepnet_edu.messages import UserError

if TYPE_CHECKING:
    from deepnet_edu.experiment.config import Experiment
    from deepnet_edu.planning import Plan


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
    resume: Annotated[bool, typer.Option("--resume", help="Resume after the last checkpoint in that folder.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="With --resume: of a run whose machine is gone, after a wait.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Start a run that needs more memory than there is, or takes very long.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run needs, and load and train nothing.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    gpus: Annotated[
        int | None,
        typer.Option(
            parser=whole("--gpus", 1, 4096),
            metavar="N",
            help="How many GPUs of this machine; with --device cpu, how many processes.",
        ),
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(help="How they share the work, data=2,pipeline=2 for example, or auto; data=GPUS by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a preset, from the laptop's to the paper's, or a run of your own; Ctrl-C saves and says how to resume.

    Example: deepnet-edu train laptop-1000 --set steps=50
    """
    from deepnet_edu.experiment.config import FILE, find_run
    from deepnet_edu.experiment.execute import carry_out, find_device, folder_of, say_end, unwritten

    run, chosen = find_run(what, given or []), find_device(device)
    if dry_run and gpus is None and plan is None:
        say_forecast(what, run, chosen, as_json)
        return
    if dry_run:
        say_ranks(run, chosen, gpus, plan, as_json)
        return
    if take_over and not resume:
        raise UserError("--take-over resumes a run whose machine is gone: say --resume, too.")
    ask(what, run, chosen, gpus or 1, resume=resume, sure=yes, quiet=as_json)
    folder = folder_of(what, out)
    go_on = ["deepnet-edu", "train", str(folder / FILE), "--resume"]
    if gpus is not None or plan is not None:
        options = [f"--set={text}" for text in given or []] + ["--json"] * as_json + ["--resume"] * resume
        options += ["--take-over"] * take_over
        if chosen == "cpu" and device != "cpu":
            raise UserError("--gpus: PyTorch finds no GPU here. With --device cpu they are processes on this CPU.")
        start(what, run, folder, chosen, gpus, plan, go_on, options)
        return
    try:
        again = shlex.join(go_on)
        result = carry_out(run, folder, chosen, resume, again, progress=not as_json, take_over=take_over)
    except OSError as error:
        raise unwritten(error, folder, shlex.join(go_on)) from None
    said = json.dumps(result) if as_json else say_end(result)
    if not result["stopped"]:
        print(said)
        return
    try:
        print(said, flush=True)
    except OSError:  # the terminal was closed, which is why it stopped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(128 + result["signal"])


def ask(what: str, run: "Experiment", device: str, devices: int, *, resume: bool, sure: bool, quiet: bool) -> None:
    """Ask before anything is built: a run beyond this machine's memory, or an hour, is started only with your consent.

    How long presets take, and runs that were begun, is known; longer ones are asked about. Where it cannot ask, as
    in a job's script, a run of less than a day is started.

    Raises:
        UserError: it is not to be started.
    """
    from deepnet_edu.experiment.config import find_run
    from deepnet_edu.experiment.forecast import DAY, beyond, seconds_of
    from deepnet_edu.experiment.presets import PRESETS

    memory, time = beyond(run, device, devices)
    if not memory and not time:
        return
    said = f"This run {', and it '.join(filter(None, (memory, time)))}."
    seconds = seconds_of(run, device, devices)
    known = find_run(what) if resume or what in PRESETS else None
    expected = not memory and known is not None and seconds <= seconds_of(known, device, devices)
    if not (sure or expected) and not quiet and sys.stdin is not None and sys.stdin.isatty():
        print(said, file=sys.stderr)
        typer.confirm("Start it?", abort=True, err=True)
    elif sure or expected or (not memory and seconds < DAY):
        if not quiet:
            print(said, file=sys.stderr)
    else:
        raise UserError(f"{said} Make it smaller, or start it all the same with --yes.")


def start(
    what: str,
    run: "Experiment",
    folder: Path,
    device: str,
    gpus: int | None,
    plan: str | None,
    go_on: list[str],
    options: list[str],
) -> None:
    """Start the ranks of a plan on this machine, and wait; ends the process where one of them fails.

    Raises:
        UserError: there are no such GPUs, or the plan does not fit.
    """
    import torch

    from deepnet_edu.training.distributed.launch import launch

    chosen, why = plan_of(run, device, gpus, plan)
    ranks = chosen.ranks
    if device == "cuda" and ranks > torch.cuda.device_count():
        raise UserError(f"{ranks} GPUs were asked for, and PyTorch finds {torch.cuda.device_count()}: use --gpus less.")
    if why:
        print(f"{chosen.title}: {why}", file=sys.stderr)
    again = shlex.join([*go_on, f"--gpus={ranks}", f"--plan={chosen.title}", f"--device={device}"])
    arguments = [what, f"--plan={chosen.title}", f"--out={folder}", f"--device={device}", f"--go-on={again}", *options]
    if status := launch(ranks, "deepnet_edu.training", arguments, again=again):
        raise typer.Exit(status)


def plan_of(run: "Experiment", device: str, gpus: int | None, plan: str | None) -> "tuple[Plan, str]":
    """The plan that was asked for, which fits the run, and why it is this one where none was given."""
    from deepnet_edu.experiment.execute import check_plan, find_plan

    chosen, why = find_plan(plan, run, gpus, device)
    check_plan(chosen, run, chosen.ranks if gpus is None else gpus)
    return chosen, why


def say_ranks(run: "Experiment", device: str, gpus: int | None, plan: str | None, as_json: bool) -> None:
    """Print what each rank of a plan holds and sends."""
    from deepnet_edu.experiment.forecast import forecast_ranks

    chosen, why = plan_of(run, device, gpus, plan)
    found = forecast_ranks(run, chosen, device)
    if as_json:
        ranks = [{"memory": memory.to_dict(), "sends": sent.to_dict()} for memory, sent in found]
        print(json.dumps({"run": run.to_dict(), "plan": chosen.title, "why": why, "ranks": ranks}))
        return
    print(f"{chosen.title}: {why}" if why else chosen.title)
    held = [", ".join(map(str, range(i, chosen.stages, chosen.pipeline))) for i in range(chosen.pipeline)]
    places = ["each rank"] if len(found) == 1 else [f"stage {stages}" for stages in held]
    tables = {
        "memory, MB": [memory.to_dict() for memory, _ in found],
        "sent in a step, MB": [sent.to_dict() for _, sent in found],
    }
    for title, columns in tables.items():
        names = [name for name in columns[0] if name != "parameters"]
        print_table([title, *places], [[name, *(f"{column[name] / 1e6:,.1f}" for column in columns)] for name in names])
    most = max(memory.parameters for memory, _ in found)
    print(f"{most:,} parameters on a rank at most, {run.model.title}.")


def say_forecast(what: str, run: "Experiment", device: str, as_json: bool) -> None:
    """Print what a run needs."""
    from deepnet_edu.experiment.forecast import forecast
    from deepnet_edu.experiment.presets import PRESETS

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
    if found.recompute != "all":
        print(f"Of each stack the lowest {found.recompute:,} layers are computed again; those above keep all.")
    if found.operations is not None:
        again = f", {found.again_per_step:.3g} of them again for checkpoints" if found.again_per_step else ""
        print(
            f"{found.operations_per_step:.3g} floating point operations a step{again}; {found.operations:.3g} in all."
        )
    if found.days is not None:
        print(f"{found.days:.2g} days at the peak of {found.device}, {found.peak:.3g} a second, which no run reaches.")
