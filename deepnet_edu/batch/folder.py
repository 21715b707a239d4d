"""A batch's folder: made, taken up again, and never mixed with anything else.

batch.json            what was asked for
lock.json             who runs it, while it is run
sources/              the notebooks as they were when the batch was planned
RUN/status.json       one run: its state; beside it notebook.ipynb, log.txt, and what the notebook wrote
earlier/              runs of an earlier notebook or package, and what was damaged
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from deepnet_edu import __version__, lock
from deepnet_edu.batch.notebook import Notebook
from deepnet_edu.batch.plan import BatchPlan, Request
from deepnet_edu.batch.state import BATCH, CLAIM, LOCK, STATUS, VERSION, Status, make_way, read_batch
from deepnet_edu.files import read_bytes, read_json, write_atomic
from deepnet_edu.lock import Holder, holder, now, take
from deepnet_edu.messages import UserError

SOURCES = "sources"
EARLIER = "earlier"
_PART = re.compile(r"\.\w+\.part$")
#: What a batch's folder may hold besides the runs.
OWN = (BATCH, LOCK, SOURCES, EARLIER, "report.html")


def read_request(folder: Path) -> Request:
    """What the batch in a folder was asked for.

    Raises:
        UserError: there is no batch in it, or what was asked for cannot be read.
    """
    try:
        found = read_json(folder / BATCH, links=False)
        return Request.from_dict(found["request"] if isinstance(found, dict) else found)
    except FileNotFoundError:
        raise UserError(f"{folder} holds no batch: begin one without --resume, with the names of notebooks.") from None
    except (OSError, ValueError, KeyError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"{folder / BATCH} cannot be read ({why}): give --resume the notebooks and parameters again."
        ) from None


def kept_notebooks(folder: Path, request: Request) -> dict[str, tuple[Path, Path]]:
    """Notebooks of a batch that are gone from their places, by what was given: where each was, and the batch's copy.

    Args:
        folder: of the batch.
        request: what it was asked for.
    """
    kept = {}
    try:
        known = {str(one["path"]): str(one["sha256"]) for one in read_json(folder / BATCH, links=False)["notebooks"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    for given in request.notebooks:
        path = Path(os.path.realpath(Path(request.working) / given))
        if not os.path.lexists(path) and str(path) in known:
            notebook = Notebook(path.stem, path, b"", known[str(path)])
            if _is_copy(copy := source_of(folder, notebook), notebook):
                kept[given] = path, copy
    return kept


def take_folder(
    folder: Path, *, resume: bool, join: bool, take_over: bool = False, say: Callable[[str], None] = print
) -> None:
    """Make the folder of a batch this process's own.

    Args:
        folder: need not exist.
        resume: it may hold a batch already.
        join: another process may be at work in it.
        take_over: a process of another machine that gives no sign of life does not count.
        say: is told for whom this waits.

    Raises:
        UserError: it holds something else, another process works in it, or it cannot be written.
    """
    try:
        begun = os.path.lexists(folder / BATCH)
        if begun and not (resume or join):
            raise UserError(f"{folder} holds a batch already: continue it with --resume, or begin another with --out.")
        if not begun and os.path.lexists(folder) and not _is_empty(folder):
            raise UserError(f"{folder} is not an empty folder: choose another --out.")
        folder.mkdir(parents=True, exist_ok=True)
        make_way(folder / LOCK)
        other = take(folder / LOCK)
        if other is not None and take_over and other.elsewhere and _is_silent(folder / LOCK, other, say):
            for path in folder.glob(f"*/{CLAIM}"):
                if (claim := holder(path)) is not None and replace(claim, started=other.started) == other:
                    path.unlink(missing_ok=True)
            other = take(folder / LOCK, over=other)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{folder} cannot be written ({why}): choose another --out.") from None
    if other is None or join:
        return
    work = f"{folder} is in work since {other.started} by process {other.pid} on {other.host}"
    if not other.elsewhere:
        raise UserError(f"{work}: help it with --join, or end that process first.")
    if not take_over:
        raise UserError(
            f"{work}: help it with --join; if that machine or process is gone, resume with --resume --take-over."
        )
    raise UserError(f"{work}, and it has just given a sign of life: help it with --join, or end that process first.")


def _is_empty(folder: Path) -> bool:
    """Whether it is a folder with nothing in it but what a runner leaves that was killed before it had begun."""
    own = {LOCK, *(f".{name}." for name in (LOCK, BATCH))}
    return folder.is_dir() and all(name in own or _PART.sub(".", name) in own for name in os.listdir(folder))


def _is_silent(path: Path, other: Holder, say: Callable[[str], None]) -> bool:
    say(f"Waiting {lock.SILENCE:g} s for a sign of life of process {other.pid} on {other.host}.")
    return lock.silent(path, other)


def fill_folder(folder: Path, plan: BatchPlan, command: list[str]) -> None:
    """Write what is planned: queued are all runs that are not done and that no other process works on.

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
    make_way(folder / BATCH)
    write_atomic(folder / BATCH, json.dumps(batch, indent=1) + "\n")
    (folder / SOURCES).mkdir(exist_ok=True)
    for left in [*folder.glob(".*.part"), *(folder / SOURCES).glob(".*.part")]:  # of a killed runner
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    for notebook in distinct:
        if not _is_copy(copy := source_of(folder, notebook), notebook):
            make_way(copy)
            write_atomic(copy, notebook.data)
    known = {name for name in os.listdir(folder) if os.path.lexists(folder / name / STATUS)}
    planned = {run.id for run in plan.runs}
    _put_aside(folder, plan, known - planned)
    for run in plan.runs:
        place = folder / run.id
        found = read_run(place)
        if os.path.lexists(place) and _in_work(place):
            continue
        if found is not None:
            make_way(place / CLAIM)
            (place / CLAIM).unlink(missing_ok=True)
            if _finished(found) or found.state == "queued":
                continue
            run.attempts = found.attempts
        elif os.path.lexists(place / STATUS) or (os.path.lexists(place) and (place.is_symlink() or not place.is_dir())):
            _move_aside(folder, run.id)
        place.mkdir(exist_ok=True)
        run.write(place)


def _is_copy(copy: Path, notebook: Notebook) -> bool:
    try:
        return sha256(read_bytes(copy, links=False)).hexdigest() == notebook.sha256
    except (OSError, ValueError):
        return False


def source_of(folder: Path, notebook: Notebook) -> Path:
    """Where a notebook is kept in the batch's folder, as it was when the batch was planned."""
    # A file's name has 255 bytes at most, of which a temporary name needs some.
    stem = notebook.name.encode(errors="replace")[:180].decode(errors="ignore")
    return folder / SOURCES / f"{stem}.{notebook.sha256[:12]}.ipynb"


def runs_of(folder: Path, plan: BatchPlan) -> list[Status]:
    """The runs of a plan as the folder has them, in the plan's order; one whose status is damaged is queued again.

    Raises:
        UserError: one is missing: the batch was begun with another package or notebook.
    """
    found = {run.id: run for run in read_batch(folder)}
    found |= {run.id: run for run in plan.runs if run.id in found and read_run(folder / run.id) is None}
    missing = [run.id for run in plan.runs if run.id not in found]
    if missing:
        raise UserError(
            f"{folder} was begun with another version of a notebook or of deepnet_edu, and has no run {missing[0]}: "
            "join it with the same ones."
        )
    return [found[run.id] for run in plan.runs]


def what_became(folder: Path, plan: BatchPlan) -> list[Status]:
    """The runs of a plan once they have ended, in the plan's order; a notebook can have removed another's folder."""
    found = {run.id: run for run in read_batch(folder)}
    gone = "its folder is gone: run the batch again with --resume"
    return [found.get(run.id) or replace(run, state="failed", problems=[gone]) for run in plan.runs]


def runs_as_they_are(folder: Path) -> list[Status]:
    """All runs of a batch, by name. One that no process works on does not run, whatever was written last.

    Raises:
        UserError: the folder cannot be read.
    """
    runs = read_batch(folder)
    for run in runs:
        if run.state == "running" and not _in_work(folder / run.id):
            run.state, run.problems = "killed", ["its runner was ended before it: continue with --resume"]
    return runs


def _finished(run: Status) -> bool:
    return run.state == "done" and run.audited


def read_run(place: Path) -> Status | None:
    """The status of a run; None if it has none, or a damaged one."""
    try:
        found = Status.read(place)
    except UserError:
        return None
    return None if place.is_symlink() or found.id != place.name else found


def _in_work(place: Path) -> bool:
    other = holder(place / CLAIM)
    return other is not None and other.alive


def _put_aside(folder: Path, plan: BatchPlan, others: set[str]) -> None:
    """Runs that are not planned now: those that did not end, and those that an edited notebook or package replaces."""
    planned = {_question(run) for run in plan.runs}
    for name in sorted(others):
        found = read_run(folder / name)
        if _in_work(folder / name) or (found and _finished(found) and _question(found) not in planned):
            continue
        _move_aside(folder, name)


def _move_aside(folder: Path, name: str) -> None:
    """Move a run to earlier/, where the last one of a name is kept."""
    aside = folder / EARLIER / name
    aside.parent.mkdir(exist_ok=True)
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)
    os.replace(folder / name, aside)


def _question(run: Status) -> tuple[Any, ...]:
    """What a run asks, whatever the notebook and the package are by now."""
    return run.notebook, run.profile, json.dumps(run.parameters, sort_keys=True)
