"""Processes: those of a run, found by a mark in their environment, and whether one that a file names still lives.

A run's kernel stands in a session of its own, and what it starts may stand in others: neither process groups nor
parents find them all, least of all once the parent was killed. All of them inherit the environment.
"""

import os
import socket
import time

import psutil

#: Environment variable that names the run's folder to every process of the run.
MARK = "DEEPNET_EDU_BATCH_RUN"
HOST = socket.gethostname()


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


def born(pid: int) -> float | None:
    """When a process of this machine began, seconds since 1970; None if there is none."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None
