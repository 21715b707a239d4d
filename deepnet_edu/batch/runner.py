"""Runs in the slots of one machine, a process each.

Only the runner writes a run's status; it believes the process's exit status and the audit, never the notebook's
metadata. Whatever is killed, the status files say which runs must be repeated.
"""

import errno
import importlib.metadata
import os
import platform
import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deepnet_edu import __version__
from deepnet_edu.batch import active as at_work
from deepnet_edu.batch import worker
from deepnet_edu.batch.active import LOG, Active, environment
from deepnet_edu.batch.beside import lend, take_back
from deepnet_edu.batch.claims import Claims
from deepnet_edu.batch.folder import read_run, source_of
from deepnet_edu.batch.judge import NOTEBOOK, hinted, judge
from deepnet_edu.batch.notebook import Notebook
from deepnet_edu.batch.processes import end_all, families
from deepnet_edu.batch.signals import hearing
from deepnet_edu.batch.slots import DeviceSlot
from deepnet_edu.batch.state import STOPPED, Status, make_way, nested
from deepnet_edu.course import places
from deepnet_edu.lock import HOST, Holder, beating, now
from deepnet_edu.messages import UserError

LOOK_S = 0.05
#: Between two looks at the memory of the runs.
MEMORY_S = 1.0
#: Between two looks at the runs of other runners.
ELSEWHERE_S = 1.0
#: What no run is to blame for, and the next one would meet as well.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


@dataclass(frozen=True)
class Limits:
    """How long, how often, how much.

    Attributes:
        timeout: seconds for a run; None for no limit.
        cell_timeout: seconds for a cell.
        memory_gb: for the processes of a run together.
        retries: how often a run that did not end well is started again.
        fail_fast: start nothing more after a run that did not end well.
    """

    timeout: float | None = None
    cell_timeout: float | None = None
    memory_gb: float | None = None
    retries: int = 0
    fail_fast: bool = False


class Reporter(Protocol):
    """An observer that is told how the batch goes."""

    def started(self, active: Active) -> None:
        """A run has begun."""

    def ended(self, run: Status, again: str) -> None:
        """A run has ended; ``again`` says how it is tried again, if it is."""

    def look(self, active: Sequence[Active], waiting: int) -> None:
        """Many times a second."""

    def say(self, sentence: str) -> None:
        """Something that the user should know."""


class Runner:
    """Runs what is queued, in slots.

    Args:
        folder: of the batch.
        runs: what it has to do; what has ended is not run again, and each status follows its run. What another runner
            has claimed is waited for.
        notebooks: by the id of the run.
        slots: where.
        limits: how long, how often, how much.
        watch: who is told.
    """

    def __init__(
        self,
        folder: Path,
        runs: Sequence[Status],
        notebooks: Mapping[str, Notebook],
        slots: Sequence[DeviceSlot],
        limits: Limits,
        watch: Reporter,
    ) -> None:
        self.folder, self.notebooks, self.slots = folder, notebooks, slots
        self.limits, self.watch = limits, watch
        self.queue = deque(run for run in runs if run.state in ("queued", "running"))
        self.active: list[Active] = []
        self.elsewhere: list[Status] = []
        self.alone: set[str] = set()
        self.tries: dict[str, int] = {}
        self.claims = Claims(folder, watch.say)
        self.stops = 0
        self._failed = False
        self._looked = self._memory_looked = 0.0
        torch = importlib.metadata.version("torch").partition("+")[0]
        self._versions = {"python": platform.python_version(), "torch": torch, "deepnet_edu": __version__}

    def run(self) -> None:
        """Run until all have ended. Ctrl-C once, a terminal that closes, or SIGUSR1 lets what runs finish; Ctrl-C
        twice, or SIGTERM, ends it now.

        Raises:
            UserError: a status cannot be written, because the disk is full for example; nothing runs any more.
        """
        with hearing(self._ask), beating(self.claims.mine):
            try:
                while self._go_on():
                    self.watch.look(self.active, len(self.queue))
                    time.sleep(LOOK_S)
            except OSError as error:
                raise UserError(
                    f"{error.filename or self.folder}: {error.strerror}. What is done stays: fix that, then continue "
                    "with --resume."
                ) from error
            finally:
                for active in self.active:  # there are none, unless something went wrong here
                    self._abandon(active)
                    active.run.state = "queued"
                    with suppress(OSError):
                        active.run.write(active.folder)

    def _go_on(self) -> bool:
        if self.active and time.monotonic() - self._memory_looked > MEMORY_S:
            self._memory_looked = time.monotonic()
            self._look_at_memory()
        for active in list(self.active):
            if self.stops > 1 and active.verdict is None:
                self._end(active, "killed", STOPPED)
            self._look_at(active)
        if not (self.stops or (self._failed and self.limits.fail_fast)):
            self._look_elsewhere()
            self._fill()
            return bool(self.active or self.queue or self.elsewhere)
        return bool(self.active)

    def _look_elsewhere(self) -> None:
        """Runs of other runners: those whose runner has gone are queued here, and what another has taken is let go."""
        if time.monotonic() - self._looked < ELSEWHERE_S:
            return
        self._looked = time.monotonic()
        for active in list(self.active):
            if (taker := self.claims.taker(active.run.id)) is not None:
                self._let_go(active, taker)
        for run in list(self.elsewhere):
            found = read_run(self.folder / run.id)
            if found is not None and found.state not in ("queued", "running"):
                self.elsewhere.remove(run)
            elif self.claims.is_free(run.id):
                self.elsewhere.remove(run)
                self.queue.append(run)
        self.claims.wait([] if self.active or self.queue else [run.id for run in self.elsewhere])

    def _let_go(self, active: Active, taker: Holder) -> None:
        self.watch.say(f"{active.run.id} was taken over by {taker}, which heard nothing of this runner for a while.")
        self._abandon(active)
        self.active.remove(active)
        self.claims.release(active.run.id)
        self.elsewhere.append(active.run)

    def _fill(self) -> None:
        """Start what is next wherever there is room."""
        taken = {active.slot.number for active in self.active}
        for slot in self.slots:
            while slot.number not in taken and self.queue and self._fits(self.queue[0], slot):
                if self._start(self.queue.popleft(), slot):
                    break

    def _fits(self, run: Status, slot: DeviceSlot) -> bool:
        """Whether a run, and what runs beside it on the same GPU, may share it."""
        beside = [active.run.id for active in self.active if active.slot.gpu == slot.gpu]
        return not beside or not self.alone & {run.id, *beside}

    def _start(self, run: Status, slot: DeviceSlot) -> bool:
        """False if another runner has it."""
        folder, notebook = self.folder / run.id, self.notebooks[run.id]
        changed = "deepnet_edu" if places.package_digest() != run.hashes["package"] else notebook.changed()
        if changed:
            self.queue.clear()
            self.watch.say(
                f"{changed} has changed since the batch began: nothing more is started. Continue with --resume."
            )
            return False
        folder.mkdir(exist_ok=True)  # another notebook may have removed it
        if not self.claims.take(run.id):
            self.elsewhere.append(run)
            return False
        found = read_run(folder) or run  # a damaged one is run again
        if found.state not in ("queued", "running"):  # running, without a claim: its runner was killed
            self.claims.release(run.id)
            return False
        run.attempts = found.attempts
        if run.attempts:  # a killed runner may have left something behind
            end_all(str(folder))
        folders = [folder / NOTEBOOK] if (folder / NOTEBOOK).is_dir() else []  # some cells make the oddest things
        for left in [folder / worker.PARTIAL, *folder.glob(".*.part"), *_sockets(folder), *folders]:
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink(missing_ok=True)
        for name in (LOG, NOTEBOOK):
            make_way(folder / name)
        self.tries[run.id] = self.tries.get(run.id, 0) + 1
        run.state, run.attempts, run.started, run.ended = "running", run.attempts + 1, now(), None
        run.host, run.pid, run.device, run.gpu = HOST, os.getpid(), slot.device, slot.gpu
        run.versions, run.exit, run.audited = self._versions, None, False
        run.problems, run.notes, run.metrics = [], [], {}
        try:
            run.write(folder)
            lend(notebook.files, folder)
            self.active.append(self._launch(run, slot, folder, notebook))
        except OSError:
            run.state = "queued"
            with suppress(OSError):
                run.write(folder)
            raise
        self.watch.started(self.active[-1])
        return True

    def _launch(self, run: Status, slot: DeviceSlot, folder: Path, notebook: Notebook) -> Active:
        with (folder / LOG).open("ab") as log:
            process = at_work.start_worker(
                {
                    "notebook": str(source_of(self.folder, notebook)),
                    "parameters": run.parameters,
                    "kernel": notebook.kernel,
                    "cell_timeout": self.limits.cell_timeout,
                },
                folder,
                environment(run, slot, notebook, str(folder)),
                log.fileno(),
            )
        return Active(run, slot, folder, process, notebook.cells + bool(run.parameters), time.monotonic())

    def _abandon(self, active: Active) -> None:
        end_all(active.mark, active.processes)
        active.process.wait()

    def _look_at(self, active: Active) -> None:
        """End a run that has taken too much, and see to one that has ended."""
        if active.process.poll() is not None:
            self._finish(active)
        elif active.verdict is None and self.limits.timeout and time.monotonic() - active.begin > self.limits.timeout:
            self._end(active, "timed out", f"it took longer than {self.limits.timeout:g} s")

    def _look_at_memory(self) -> None:
        """End runs that hold too much."""
        found = families({active.process.pid for active in self.active})
        for active in self.active:
            together, most = active.look(found[active.process.pid]), self.limits.memory_gb
            if most and together > most and active.verdict is None:
                self._end(active, "killed", f"it needed more than {most:g} GB of memory")

    def _end(self, active: Active, state: str, sentence: str) -> None:
        active.verdict = (state, sentence)
        end_all(active.mark, active.processes)

    def _finish(self, active: Active) -> None:
        """Audit what a run has left, and write what became of it."""
        run = active.run
        end_all(active.mark, active.processes)
        active.process.stdin.close()
        take_back(self.notebooks[run.id].files, active.folder)
        for left in _sockets(active.folder):
            left.unlink(missing_ok=True)
        run.exit = active.process.returncode
        run.seconds = round(time.monotonic() - active.begin, 2)
        run.ended = now()
        full = self._judge(active)
        run.memory_gb = round(active.peak, 3) or None
        self._settle(active, full)

    def _judge(self, active: Active) -> bool:
        """What ``judge`` says; a run that it cannot look at has failed, and the others continue."""
        try:
            full = judge(active, self.limits.cell_timeout)
            if not nested(active.run.metrics):
                return full
            active.run.metrics, said = {}, "what it recorded is nested too deeply"
        except OSError as error:
            if error.errno in FULL:
                raise
            name = error.filename2 or error.filename  # the second one is where a file was to be moved
            said = f"{Path(str(name)).name}: {error.strerror}" if name else str(error)
        except Exception as error:  # a notebook can leave anything
            said = f"{type(error).__name__}: {error}"
        active.run.state, active.run.problems = "failed", [f"what it left cannot be audited ({said[:200]})"]
        return False

    def _settle(self, active: Active, full: bool) -> None:
        """Write what became of a run; it is queued again where it shall be tried again."""
        run, folder = active.run, active.folder
        run.problems = [hinted(problem, run.source) for problem in run.problems]
        again = self._again(run, full) if run.state != "done" else ""
        self._failed |= run.state != "done" and not again
        self.watch.ended(run, again)
        if again:
            run.state = "queued"
            self.queue.appendleft(run) if full else self.queue.append(run)
        folder.mkdir(exist_ok=True)  # a notebook may have removed its own
        run.write(folder)
        self.active.remove(active)
        self.claims.release(run.id)

    def _again(self, run: Status, full: bool) -> str:
        """How a run that did not end well is tried again; empty if it is not."""
        if self.stops:
            return ""
        if full and run.id not in self.alone:  # the GPU's memory was: this one is a gift
            self.alone.add(run.id)
            return "alone on its GPU"
        tried = self.tries[run.id] - (run.id in self.alone)
        return "once more" if tried <= self.limits.retries else ""

    def _ask(self, weight: int) -> None:
        """Count the user's wishes to stop: 1 or 2 of them, or 0 for one that counts only once."""
        before = self.stops
        self.stops = self.stops + weight if weight else max(1, self.stops)
        if (before, self.stops) == (0, 1):
            self.watch.say(f"Finishing what runs ({len(self.active)}); Ctrl-C once more ends it now.")


def _sockets(folder: Path) -> list[Path]:
    """What a kernel that was killed has left."""
    return [path for path in folder.glob(f"{worker.SOCKETS}-*") if path.is_socket()]
