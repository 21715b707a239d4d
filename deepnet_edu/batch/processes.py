"""The processes of a run, found by a mark in their environment.

A run's kernel stands in a session of its own, and what it starts may stand in others: neither process groups nor
parents find them all, least of all once the parent was killed. All of them inherit the environment.
"""

import os
import time

import psutil

#: Environment variable that names the run's folder to every process of the run.
MARK = "DEEPNET_EDU_BATCH_RUN"


def marked(mark: str) -> list[psutil.Process]:
    """The processes of a run, without this one.

    Args:
        mark: value of ``MARK``.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):  # ended meanwhile, or somebody else's
            continue
    return found


def end_all(mark: str) -> None:
    """Kill all processes of a run, without this one, and wait until they are gone.

    Args:
        mark: value of ``MARK``.
    """
    deadline = time.monotonic() + 10
    while (found := marked(mark)) and time.monotonic() < deadline:  # one may be starting another
        for process in found:
            try:
                process.kill()
            except psutil.Error:
                continue
        time.sleep(0.02)  # not psutil's waiting: it would take a child's exit status away from who waits for it


def memory_gb(mark: str) -> float:
    """What the processes of a run hold in memory now, in GB."""
    total = 0
    for process in marked(mark):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total / 1e9
