"""A batch from its request to its end."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from deepnet_edu.batch.cluster.dask import Cluster, ClusterRunner
from deepnet_edu.batch.folder import fill_folder, runs_of, take_folder, what_became
from deepnet_edu.batch.plan import BatchPlan
from deepnet_edu.batch.runner import Limits, Runner
from deepnet_edu.batch.slots import DeviceSlot
from deepnet_edu.batch.state import LOCK, Status
from deepnet_edu.batch.watch import Lines, LiveTable
from deepnet_edu.course import places
from deepnet_edu.lock import beating, holder
from deepnet_edu.messages import UserError


def run_batch(
    plan: BatchPlan,
    folder: Path,
    slots: Sequence[DeviceSlot],
    limits: Limits,
    *,
    resume: bool = False,
    join: bool = False,
    take_over: bool = False,
    command: Sequence[str] = (),
    quiet: bool = False,
    cluster: Cluster | None = None,
) -> list[Status]:
    """Run what is planned and not done; everything about it is in ``folder`` and can be taken up again.

    Args:
        plan: what shall be run.
        folder: of the batch; need not exist.
        slots: where runs run.
        limits: how long, how often, how much.
        resume: the folder may hold a batch already; what is done and audited is not run again.
        join: help another runner that is at work in the folder.
        take_over: resume a batch whose runner was on a machine that is gone.
        command: as it was typed.
        quiet: say nothing on the way.
        cluster: where runs run instead of the slots; closed at the end.

    Returns:
        The runs of the plan, as they are now.

    Raises:
        UserError: the folder holds something else, another process works in it, the disk is full, or the profile is
            ``record`` and the tree of the clone differs from its last commit.
    """
    if plan.request.profile == "record":
        refuse_dirty_tree(resume=resume)
    folder = Path(os.path.realpath(folder))
    take_folder(folder, resume=resume, join=join, take_over=take_over, say=_say)
    first = (owner := holder(folder / LOCK)) is not None and owner.is_me
    with beating(folder / LOCK) if first else nullcontext():
        if first:
            try:
                fill_folder(folder, plan, list(command))
            except OSError as error:
                raise UserError(
                    f"{error.filename or folder}: {error.strerror}. Fix that, and run the same again with --resume."
                ) from error
        runs = runs_of(folder, plan)
        done = sum(run.state not in ("queued", "running") for run in runs)
        lively = sys.stdout is not None and sys.stdout.isatty() and not quiet
        watch = LiveTable(len(runs), done) if lively else Lines(len(runs), done, quiet=quiet)
        with watch:
            for note in plan.notes:
                watch.say(note)
            for run in runs:
                if run.id not in plan.notebooks:
                    watch.say(f"FAILED  {run.notebook} cannot run: {run.problems[0]}")
            if cluster:
                ClusterRunner(folder, runs, plan.notebooks, cluster, limits, watch).run()
            else:
                Runner(folder, runs, plan.notebooks, slots, limits, watch).run()
    return what_became(folder, plan)


def _say(sentence: str) -> None:
    """Print a line, but not on standard output, which a script may read."""
    with suppress(OSError):
        print(sentence, file=sys.stderr)


def refuse_dirty_tree(*, resume: bool = False) -> None:
    """What is recorded must be remade from a commit.

    Args:
        resume: some of it has been recorded already, so results may have changed.

    Raises:
        UserError: files of the clone differ from its last commit, or git cannot say.
    """
    command = ["git", "-C", str(places.ROOT), "status", "--porcelain"]
    if resume:
        made = [folder for folder in (places.RESULTS, places.RECORDS) if folder.is_relative_to(places.ROOT)]
        command += ["--", ".", *(f":(exclude){folder.relative_to(places.ROOT)}" for folder in made)]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise UserError(
            f"--profile record needs git, which cannot say whether {places.ROOT} is as committed."
        ) from None
    if said:
        changed = [line[3:] for line in said.splitlines()]
        raise UserError(
            f"--profile record needs a tree without changes, and {changed[0]} has some"
            f"{f', with {len(changed) - 1} more' if len(changed) > 1 else ''}: commit them first."
        )
