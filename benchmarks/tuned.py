"""Arms at their own learning rates: every arm at each of some rates, and its best again with new seeds. Resumes."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.resumed import Row, read, save

Arm = dict[str, Any]
Job = tuple[Arm, float, int]  # with the learning rate and the seed
#: Gives, for an arm, a rate and a seed, at least ``tune``, which chooses the rate: lower is better.
Measure = Callable[[Arm, float, int], Row]


def record(
    out: Path,
    head: Row,
    arms: Sequence[Arm],
    measure: Measure,
    rates: Sequence[float],
    more: Sequence[float],
    seeds: Sequence[int],
    jobs: int,
) -> list[Row]:
    """All runs that ``out`` lacks, written after each.

    Args:
        out: the record.
        head: what it says of itself; device, versions and date are added.
        arms: their settings.
        measure: one run. With several jobs a function that other processes can import, or a partial of one.
        rates: that every arm tries with the seed 0.
        more: rates beside them: the next one is tried, twice at most, where an arm's best is the last that was tried.
        seeds: with which the best rate runs again.
        jobs: runs at a time.
    """
    rows = read(out)

    def known(arm: Arm) -> list[Row]:
        return [row for row in rows if arm.items() <= row.items()]

    def run_all(wanted: Iterable[Job]) -> None:
        missing = [
            (arm, rate, seed)
            for arm, rate, seed in wanted
            if not any((row["rate"], row["seed"]) == (rate, seed) for row in known(arm))
        ]
        for (arm, rate, seed), found in _measured(missing, measure, jobs):
            rows.append({**arm, "rate": rate, "seed": seed, **found})
            print(rows[-1], flush=True)
            save(out, head, rows)

    run_all((arm, rate, 0) for arm in arms for rate in rates)
    for _ in range(2):
        run_all((arm, rate, 0) for arm in arms for rate in _beside(known(arm), more))
    run_all((arm, _best(known(arm))["rate"], seed) for arm in arms for seed in seeds)
    return rows


def _measured(missing: Sequence[Job], measure: Measure, jobs: int) -> Iterator[tuple[Job, Row]]:
    """Each run with what it gave, as soon as it is done."""
    if jobs == 1:
        yield from ((job, measure(*job)) for job in missing)
        return
    # Not by fork: a process that has computed with threads cannot be copied.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        started = {pool.submit(measure, *job): job for job in missing}
        for done in as_completed(started):
            yield started[done], done.result()


def _best(rows: Sequence[Row]) -> Row:
    return min((row for row in rows if row["seed"] == 0), key=lambda row: float(row["tune"]))


def _beside(rows: Sequence[Row], more: Sequence[float]) -> list[float]:
    """The next rate on the side where the best one is the last that was tried; none where it is inside."""
    tried, best = sorted({row["rate"] for row in rows if row["seed"] == 0}), _best(rows)["rate"]
    lower = [rate for rate in sorted(more) if rate < tried[0]][-1:] if best == tried[0] else []
    higher = [rate for rate in sorted(more) if rate > tried[-1]][:1] if best == tried[-1] else []
    return lower + higher
