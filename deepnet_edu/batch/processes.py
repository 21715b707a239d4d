"""The processes of a run, found by a mark in their environment and by their descent.

A run's kernel has a session of its own, and what it starts may have others, so process groups do not find them all.
Most inherit the environment, and with it the mark. One that is given another environment is still a descendant of the
run's worker: on Linux the worker adopts those whose parent has ended (``adopt_orphans``).
"""

import ctypes
import os
import sys
import time
from collections.abc import Collection, Iterable

import psutil

#: Environment variable that names the run's folder to every process of the run.
MARK = "DEEPNET_EDU_BATCH_RUN"
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make this process the parent of all descendants whose parent ends, where the system can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def marked(mark: str) -> list[psutil.Process]:
    """The processes of a run that bear its mark, without this one.

    Args:
        mark: value of ``MARK``.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            continue
    return found


def families(roots: Collection[int]) -> dict[int, list[psutil.Process]]:
    """Each of the processes ``roots`` with all its descendants, by its number.

    One look at the table of processes serves them all: it takes milliseconds.
    """
    if not roots:
        return {}
    parents, processes = {}, {}
    for process in psutil.process_iter():
        try:
            parents[process.pid], processes[process.pid] = process.ppid(), process
        except psutil.Error:
            continue
    found: dict[int, list[psutil.Process]] = {root: [] for root in roots}
    for pid, process in processes.items():
        ancestor, seen = pid, set[int]()
        while ancestor not in found and ancestor in parents and ancestor not in seen:
            seen.add(ancestor)  # a number that was given again could close a circle
            ancestor = parents[ancestor]
        if ancestor in found:
            found[ancestor].append(process)
    return found


def end_all(mark: str, known: Iterable[psutil.Process] = ()) -> None:
    """Kill all processes of a run, without this one, and wait until they are gone.

    Args:
        mark: value of ``MARK``.
        known: processes of the run that were seen before; they may have lost their parents and bear no mark.
    """
    deadline = time.monotonic() + 10
    known = {process for process in known if process.pid != os.getpid()}
    while time.monotonic() < deadline:
        bearers = {process.pid: process for process in marked(mark)}
        kin = {one for family in families(bearers.keys() | _worker(mark)).values() for one in family}
        living = {one for one in {*bearers.values(), *kin, *known} if one.pid != os.getpid() and _lives(one)}
        if not living:
            return
        # The worker comes last: while it lives, a process that loses its parent becomes its child and is found.
        pids = {one.pid for one in living}
        for process in [one for one in living if _parent(one) in pids] or living:
            try:
                process.kill()
            except psutil.Error:
                continue
        time.sleep(0.02)  # psutil's waiting would take a child's exit status away from the process that waits for it


def resident_gb(processes: Iterable[psutil.Process]) -> float:
    """What processes hold in memory now, together, in GB."""
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total / 1e9


def peak_gb(process: psutil.Process) -> float:
    """The most that a process has held in memory at once, in GB; where the system keeps no such number, what it holds.

    Not ``ru_maxrss``: on Linux that of a new process begins at what the process that started it has held.
    """
    try:
        with open(f"/proc/{process.pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e9
    except OSError:
        pass
    return resident_gb([process])


def _worker(mark: str) -> set[int]:
    """This process, if it is the run's worker."""
    return {os.getpid()} if os.environ.get(MARK) == mark else set()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _parent(process: psutil.Process) -> int:
    try:
        return int(process.ppid())
    except psutil.Error:
        return 0
