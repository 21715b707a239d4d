"""The command that runs notebooks."""

import os
import re
import shlex
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepnet_edu.cli.app import Json, app, print_table, whole
from deepnet_edu.files import json_text
from deepnet_edu.messages import UserError, shown

if TYPE_CHECKING:
    from deepnet_edu.batch.plan import BatchPlan
    from deepnet_edu.batch.state import Status

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_LONGEST_S = 366 * 24 * 3600


def _gigabytes(text: str) -> float:
    """What --memory says."""
    if not re.fullmatch(r"[0-9]{0,9}\.?[0-9]{1,9}", text) or not float(text):
        raise UserError(f"--memory {shown(text)}: expected GB, more than 0, for example 2.5.")
    return float(text)


@app.command()
def run(
    notebooks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LESSON|NOTEBOOK]...", help="Lessons or notebooks; all lessons by default."),
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Size: smoke, cpu, gpu or record; cpu by default.")] = None,
    given: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, a parameter of the notebook; may be repeated.")
    ] = None,
    sweeps: Annotated[
        list[str] | None, typer.Option("--sweep", help="NAME=VALUE,VALUE; several are multiplied with each other.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(parser=whole("--seeds", 0), metavar="N", help="How many values SEED takes: 0, 1, …")
    ] = None,
    gpus: Annotated[str, typer.Option(help="all, none, or numbers such as 0,1; one slot each.")] = "all",
    slots: Annotated[
        int | None,
        typer.Option(
            parser=whole("--slots", 1),
            metavar="N",
            help="Runs at a time: one per GPU by default, one on the CPU.",
        ),
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="Dask cluster to run on: tcp://HOST:PORT.")] = None,
    kernel: Annotated[
        str | None, typer.Option(help="Kernel that runs the notebooks; by default the one that each names.")
    ] = None,
    cwd: Annotated[
        str | None,
        typer.Option(help="Folder to run in: a path, or notebook for each one's own; by default the run's."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the batch; a new one in runs/ by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip what is done, repeat what is not.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="With --resume: also if it was in work on a machine that is gone.")
    ] = False,
    join: Annotated[bool, typer.Option("--join", help="Help another runner that is at work in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the table of runs, and run nothing.")] = False,
    retries: Annotated[
        int,
        typer.Option(parser=whole("--retries", 0, 100), metavar="N", help="How often a run that fails is tried again."),
    ] = 0,
    timeout: Annotated[str | None, typer.Option(help="For a run: 90s, 30m, 2h.")] = None,
    cell_timeout: Annotated[str | None, typer.Option(help="For a cell: 90s, 30m, 2h.")] = None,
    memory: Annotated[
        float | None, typer.Option(parser=_gigabytes, metavar="GB", help="GB of memory that a run may hold.")
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast/--keep-going", help="Start nothing more once a run has failed.")
    ] = False,
    timings: Annotated[bool, typer.Option("--timings", help="Keep time and memory in docs/timings.json.")] = False,
    junit: Annotated[Path | None, typer.Option(help="File for the results as JUnit XML.")] = None,
    as_json: Json = False,
) -> None:
    """Run notebooks as a batch, each in a process of its own, and check that everything in them really ran.

    Ctrl-C once: what runs comes to its end; twice: it ends now. Either way the exit status is 130, and --resume
    continues.

    Example: deepnet-edu run 01 07 --profile smoke --sweep DEPTH=50,100 --seeds 3 --out runs/depths
    """
    from deepnet_edu.batch.cluster.dask import Cluster
    from deepnet_edu.batch.plan import now
    from deepnet_edu.batch.report.junit import check_place
    from deepnet_edu.batch.run import run_batch
    from deepnet_edu.batch.runner import Limits
    from deepnet_edu.batch.slots import make_slots, usable_gpus
    from deepnet_edu.batch.state import BATCH, read_batch
    from deepnet_edu.course.places import CLONE, NEEDS_CLONE, RUNS

    if (resume or join) and out is None:
        raise UserError("Say which batch to continue: --out runs/NAME.")
    if take_over and not resume:
        raise UserError("--take-over is for a batch that was begun elsewhere: give it together with --resume.")
    folder = out or RUNS / re.sub(r"\D", "", now()[:19])
    begun = (resume or join) and (os.path.lexists(folder / BATCH) or not notebooks)
    asked = {"profile": profile or None, "given": given, "sweeps": sweeps, "seeds": seeds, "kernel": kernel, "cwd": cwd}
    plan = planned(folder, begun, notebooks, asked)
    if junit:
        check_place(junit, folder)
    if cluster:
        fits_a_cluster(plan, slots=slots, timings=timings, gpus=gpus)
    places = [] if cluster else make_slots(gpus, slots, usable_gpus(gpus, _warn))
    if timings and not CLONE:
        raise UserError(f"--timings writes into docs/ of a clone. {NEEDS_CLONE}")
    if timings and len(places) > 1:
        raise UserError("--timings measures one run after the other: say --slots 1 with it.")
    limits = Limits(seconds("--timeout", timeout), seconds("--cell-timeout", cell_timeout), memory, retries, fail_fast)
    if dry_run:
        show(plan, {one.id: one.state for one in read_batch(folder)} if begun else {}, as_json)
        raise typer.Exit(len(plan.notebooks) < len(plan.runs))
    runs = run_batch(
        plan,
        folder,
        places,
        limits,
        resume=resume,
        join=join,
        take_over=take_over,
        command=["deepnet-edu", *sys.argv[1:]],
        quiet=as_json,
        cluster=Cluster(cluster, gpus=gpus == "all") if cluster else None,
    )
    if timings:
        from deepnet_edu.batch.timings import keep_timings

        keep_timings(runs)
    if junit:
        from deepnet_edu.batch.report.junit import write_junit

        write_junit(junit, folder.name, runs)
    said = {
        "--gpus": gpus if gpus != "all" else None,
        "--slots": slots,
        "--cluster": cluster,
        "--retries": retries or None,
        "--timeout": timeout,
        "--cell-timeout": cell_timeout,
        "--memory": None if memory is None else f"{memory:g}",
    }
    again = [part for name, value in said.items() if value is not None for part in (name, str(value))]
    again += ["--fail-fast"] * fail_fast
    raise typer.Exit(ended(folder, runs, again, as_json, fail_fast))


def planned(folder: Path, begun: bool, notebooks: list[str] | None, asked: dict[str, Any]) -> "BatchPlan":
    """The runs of a batch: as they are asked for, and what is not said is as it was when the batch was begun.

    Args:
        folder: of the batch.
        begun: whether it is continued.
        notebooks: to run; by default those of before, or all lessons.
        asked: the other fields of a :class:`~deepnet_edu.batch.plan.Request`, None or empty where nothing was said.

    Raises:
        UserError: a notebook, a value or the batch is not there.
    """
    from deepnet_edu.batch.folder import kept_notebooks, read_request
    from deepnet_edu.batch.plan import Request, make_plan
    from deepnet_edu.course.places import lesson_names

    before = Request(())
    try:
        before = read_request(folder) if begun else before
    except UserError:
        if not notebooks:
            raise
    # What was asked for before was asked for from there, whatever the present folder is.
    kept = {} if notebooks or not begun else kept_notebooks(folder, before)
    there = before.working if not notebooks and (kept or Path(before.working).is_dir()) else str(Path.cwd())
    for path, _ in kept.values():
        _warn(f"{path.name} is no longer in {path.parent}: running the batch's own copy of it.")
    said: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in asked.items() if v is not None and v != []
    }
    names = tuple(notebooks or before.notebooks or lesson_names())
    return make_plan(replace(before, notebooks=names, working=there, **said), Path(there), kept)


def fits_a_cluster(plan: "BatchPlan", *, slots: int | None, timings: bool, gpus: str) -> None:
    """Refuse what is for one machine.

    Raises:
        UserError: it was asked for.
    """
    if slots or timings or gpus not in ("all", "none"):
        raise UserError(
            "--slots, --timings and numbers of --gpus are for one machine; a cluster has what deepnet-edu workers "
            "gives it."
        )
    if plan.request.cwd == "notebook":
        raise UserError(
            "--cwd notebook is for one machine: workers of a cluster do not see the notebook's folder. Leave it out, "
            "since files that the notebook names go along with it, or name a folder that all workers see."
        )


def ended(folder: Path, runs: "list[Status]", again: list[str], as_json: bool, fail_fast: bool) -> int:
    """Print what came of the runs, and what to type next. Returns the exit status: 130 for a batch that was stopped."""
    from deepnet_edu.batch.state import STOPPED
    from deepnet_edu.batch.watch import go_on

    done = sum(one.state == "done" for one in runs)
    if as_json:
        print(json_text([asdict(one) for one in runs], indent=1))
    else:
        print(f"{done} of {len(runs)} runs are done: {folder}")
        if done < len(runs):
            print(f"Continue with: {go_on(str(folder), again)}")
        print(f"All of it on one page: {shlex.join(['deepnet-edu', 'report', str(folder)])}")
    stopped = any(one.state in ("queued", "running") or one.problems == [STOPPED] for one in runs)
    return 130 if stopped and not fail_fast else int(done < len(runs))


@app.command()
def scheduler(
    host: Annotated[str, typer.Option(help="Address of this machine at which it listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(parser=whole("--port", 1, 65_535), metavar="N", help="Where it listens.")] = 8786,
) -> None:
    """Bring a Dask cluster's workers and runs together, until Ctrl-C.

    Anyone who reaches it can run programs here: keep to loopback, a tunnel, or TLS.

    Example: deepnet-edu scheduler --port 8786
    """
    from deepnet_edu.batch.cluster.scheduler import run_scheduler

    run_scheduler(host, port, partial(print, flush=True))


@app.command()
def workers(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Of the scheduler: tcp://HOST:PORT or tls://…")],
    gpus: Annotated[str, typer.Option(help="all, none, or numbers such as 0,1; a worker each.")] = "all",
    slots: Annotated[
        int | None,
        typer.Option(parser=whole("--slots", 1), metavar="N", help="Workers: one per GPU by default, one on the CPU."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="This machine's address; loopback by default.")] = None,
    port: Annotated[
        int | None,
        typer.Option(parser=whole("--port", 1, 65_535), metavar="N", help="Of the first worker; free ones by default."),
    ] = None,
) -> None:
    """Lend this machine's GPUs or cores to a Dask cluster, until Ctrl-C.

    Anyone who reaches a worker or the scheduler can run programs there: keep to loopback, a tunnel, or TLS.

    Example: deepnet-edu workers tcp://127.0.0.1:8786 --gpus all
    """
    from deepnet_edu.batch.cluster.workers import run_workers
    from deepnet_edu.batch.slots import make_slots, usable_gpus

    say = partial(print, flush=True)
    run_workers(address, make_slots(gpus, slots, usable_gpus(gpus, _warn)), host, port, say)


def show(plan: "BatchPlan", known: dict[str, str], as_json: bool) -> None:
    """Print what would be run, with the states that runs have already, and what cannot run."""
    for one in plan.runs:
        one.state = known.get(one.id, one.state)
    if as_json:
        print(json_text([asdict(one) for one in plan.runs], indent=1))
        return
    rows = [
        [one.id, one.notebook, one.profile, " ".join(f"{k}={v}" for k, v in one.parameters.items()), one.state]
        for one in plan.runs
    ]
    print_table(["run", "notebook", "profile", "parameters", "state"], rows)
    for note in plan.notes:
        print(note)
    for one in plan.runs:
        if one.id not in plan.notebooks:
            print(f"{one.notebook} cannot run: {one.problems[0]}")


def _warn(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def seconds(option: str, text: str | None) -> float | None:
    """A time such as 90s, 30m or 2h.

    Args:
        option: its name.
        text: what was typed.

    Raises:
        UserError: it is none.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh]?)", text)
    if not found or not float(found[1]):
        raise UserError(f"{option} {text}: expected a time such as 90s, 30m or 2h.")
    if float(found[1]) * _UNITS[found[2]] > _LONGEST_S:
        raise UserError(f"{option} {text}: expected a year at most.")
    return float(found[1]) * _UNITS[found[2]]
