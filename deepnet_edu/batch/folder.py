"""A batch's folder: made, taken up again, and never mixed with anything else.

batch.json            what was asked for
lock.json             who runs it, while somebody does
sources/              the notebooks as they were when the batch was planned
RUN/status.json       one run: its state; beside it notebook.ipynb, log.txt, and what the notebook wrote
earlier/              runs of an earlier notebook or package
"""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deepnet_edu import __version__
from deepnet_edu.batch.plan import Notebook, Plan, Request
from deepnet_edu.batch.state import BATCH, CLAIM, LOCK, STATUS, VERSION, Status, read_batch
from deepnet_edu.files import write_atomic
from deepnet_edu.lock import holder, now, take
from deepnet_edu.messages import UserError

SOURCES = "sources"
EARLIER = "earlier"


def read_request(folder: Path) -> Request:
    """What the batch in a folder was asked for.

    Raises:
        UserError: there is no batch in it.
    """
    try:
        return Request.from_dict(json.loads((folder / BATCH).read_text(encoding="utf-8"))["request"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} holds no batch: begin one without --resume, with the names of notebooks.") from None


def take_folder(folder: Path, *, resume: bool, join: bool) -> None:
    """Make the folder of a batch this process's own.

    Args:
        folder: need not exist.
        resume: it may hold a batch already.
        join: another process may be at work in it.

    Raises:
        UserError: it holds something else, somebody is at work in it, or it cannot be written.
    """
    begun = (folder / BATCH).exists()
    if begun and not (resume or join):
        raise UserError(f"{folder} holds a batch already: go on with --resume, or begin another one with --out.")
    if not begun and folder.exists() and (not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir())):
        raise UserError(f"{folder} is no empty folder: choose another --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        other = take(folder / LOCK)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): choose another --out.") from None
    if other is not None and not join:
        raise UserError(
            f"{folder} is in work since {other.started} by process {other.pid} on {other.host}: help it with --join, "
            f"or remove {LOCK} there if that process is gone."
        )


def fill_folder(folder: Path, plan: Plan, command: list[str]) -> None:
    """Write what is planned: queued are all runs that are not done and that nobody else is at work on.

    Args:
        folder: this process's own.
        plan: what shall be run.
        command: as it was typed.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    distinct = {notebook.sha256: notebook for notebook in plan.notebooks.values()}.values()
    batch = {
        "version": VERSION,
        "created": now(),
        "command": command,
        "profile": plan.request.profile,
        "request": asdict(plan.request),
        "notebooks": [{"name": one.name, "path": str(one.path), "sha256": one.sha256} for one in distinct],
        "package": {"version": __version__, "sha256": plan.package},
    }
    write_atomic(folder / BATCH, json.dumps(batch, indent=1) + "\n")
    (folder / SOURCES).mkdir(exist_ok=True)
    for left in [*folder.glob(".*.part"), *(folder / SOURCES).glob(".*.part")]:  # of a killed runner
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    for notebook in distinct:
        if not (copy := source_of(folder, notebook)).exists():
            write_atomic(copy, notebook.data)
    known = {path.parent.name for path in folder.glob(f"*/{STATUS}")}
    planned = {run.id for run in plan.runs}
    _put_aside(folder, plan, known - planned)
    for run in plan.runs:
        place = folder / run.id
        if run.id in known:
            found = _found(place)
            if _in_work(place):
                continue
            (place / CLAIM).unlink(missing_ok=True)
            if found is not None and (_finished(found) or found.state == "queued"):
                continue
            if found is not None:
                run.attempts = found.attempts
        place.mkdir(exist_ok=True)
        run.write(place)


def source_of(folder: Path, notebook: Notebook) -> Path:
    """Where a notebook stands in the batch's folder, as it was when the batch was planned."""
    return folder / SOURCES / f"{notebook.name}.{notebook.sha256[:12]}.ipynb"


def runs_of(folder: Path, plan: Plan) -> list[Status]:
    """The runs of a plan as the folder has them, in the plan's order.

    Raises:
        UserError: a status cannot be read, or is missing: the batch was begun with another package or notebook.
    """
    found = {run.id: run for run in read_batch(folder)}
    missing = [run.id for run in plan.runs if run.id not in found]
    if missing:
        raise UserError(
            f"{folder} was begun with another version of a notebook or of deepnet_edu, and has no run {missing[0]}: "
            "join it with the same ones."
        )
    return [found[run.id] for run in plan.runs]


def runs_as_they_are(folder: Path) -> list[Status]:
    """All runs of a batch, by name. One that nobody is at work on does not run, whatever was written last.

    Raises:
        UserError: a status cannot be read.
    """
    runs = read_batch(folder)
    for run in runs:
        if run.state == "running" and not _in_work(folder / run.id):
            run.state, run.problems = "killed", ["its runner was ended before it: go on with --resume"]
    return runs


def _finished(run: Status) -> bool:
    return run.state == "done" and run.audited


def _found(place: Path) -> Status | None:
    try:
        return Status.read(place)
    except UserError:  # damaged: planned again
        return None


def _in_work(place: Path) -> bool:
    other = holder(place / CLAIM)
    return other is not None and other.alive


def _put_aside(folder: Path, plan: Plan, others: set[str]) -> None:
    """Runs that are not planned now: those that did not end, and those that an edited notebook or package replaces."""
    planned = {_question(run) for run in plan.runs}
    for name in sorted(others):
        found = _found(folder / name)
        if _in_work(folder / name) or (found and _finished(found) and _question(found) not in planned):
            continue
        (folder / EARLIER).mkdir(exist_ok=True)
        shutil.rmtree(folder / EARLIER / name, ignore_errors=True)
        os.replace(folder / name, folder / EARLIER / name)


def _question(run: Status) -> tuple[Any, ...]:
    """What a run asks, whatever the notebook and the package are by now."""
    return run.notebook, run.profile, json.dumps(run.parameters, sort_keys=True)
