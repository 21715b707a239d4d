"""A batch in numbers: states, means over seeds with their intervals, and how two batches differ."""

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from typing import Any, TypeGuard

from deepnet_edu.batch.state import STATES, Status

#: Of the intervals.
LEVEL = 0.95
#: The parameter over which means are taken.
SEED = "SEED"


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` seeds; ``half_width`` of its 95% t-interval, None for a single seed."""

    mean: float
    half_width: float | None
    n: int

    def __str__(self) -> str:
        spread = "" if self.half_width is None else f" ± {self.half_width:.2g}"
        return f"{self.mean:.4g}{spread} (n = {self.n})"


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval: mean ± t·s/√n, with t from Student's distribution of n - 1 degrees of freedom.

    Args:
        values: one or more. Those that exploded have a mean as well, and where no float holds their interval, it is
            infinite.
    """
    n, mean = len(values), _mean(values)
    if n == 1:
        return Estimate(mean, None, n)
    deviation = math.hypot(*(value - mean for value in values))  # squares would overflow, and this does not
    return Estimate(mean, student_t(n - 1) * deviation / math.sqrt(n * (n - 1)), n)


def _mean(values: Iterable[float]) -> float:
    """The mean by exact fractions: the sum of values that exploded may be more than a float holds."""
    return float(statistics.mean(values))


@cache
def student_t(freedom: int) -> float:
    """The t that 95% of Student's distribution lie within, by bisection in θ = atan(t/√ν).

    Args:
        freedom: degrees of freedom ν, 1 or more.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < LEVEL else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _inside(theta: float, freedom: int) -> float:
    """A(t|ν), the share within ±t: Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    odd = freedom % 2
    term, total = math.cos(theta) ** odd, 0.0
    for k in range(odd, freedom - 1, 2):
        total += term
        term *= math.cos(theta) ** 2 * (k + 1) / (k + 2)
    return 2 / math.pi * (theta + math.sin(theta) * total) if odd else math.sin(theta) * total


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        notebook, profile: of all of them.
        parameters: without the seed.
        code: hashes of notebook and package.
        runs: in order of their seeds.
    """

    notebook: str
    profile: str
    parameters: dict[str, Any]
    code: str
    runs: list[Status]

    @property
    def name(self) -> str:
        """Notebook, profile and parameters in one line."""
        return ", ".join([f"{self.notebook} ({self.profile})", *(f"{k} = {v}" for k, v in self.parameters.items())])

    @property
    def good(self) -> list[Status]:
        """The runs that count."""
        return [run for run in self.runs if done_well(run)]

    def metric(self, name: str) -> Estimate | None:
        """Over the runs that count and have this number; None if none has."""
        values = [run.metrics[name] for run in self.good if is_number(run.metrics.get(name))]
        return estimate(values) if values else None


def failed(run: Status) -> bool:
    """Whether it ended badly. What is queued again after a failure has not ended."""
    return run.state in ("failed", "timed out", "killed") or (run.state == "done" and bool(run.problems))


def done_well(run: Status) -> bool:
    """Whether its metrics count: done, audited, and nothing found."""
    return run.state == "done" and run.audited and not run.problems


def is_number(value: object) -> TypeGuard[float]:
    """Whether a metric can have a mean; True and False are not numbers here, nor is what no float holds."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def group_runs(runs: Iterable[Status]) -> list[Group]:
    """Runs by notebook, profile, parameters but for the seed, and code, in the order of their first runs."""
    groups: dict[tuple[str, ...], Group] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        parameters = {name: value for name, value in run.parameters.items() if name != SEED}
        code = " ".join(run.hashes.get(name, "")[:7] for name in ("notebook", "package"))
        key = (*same(run), code)
        groups.setdefault(key, Group(run.notebook, run.profile, parameters, code, [])).runs.append(run)
    return sorted(groups.values(), key=lambda group: (group.notebook, group.profile, sort_key(group.parameters)))


def same(run: Status) -> tuple[str, str, str]:
    """Equal for runs that differ in the seed, or in the code, alone."""
    parameters = {name: value for name, value in run.parameters.items() if name != SEED}
    return run.notebook, run.profile, json.dumps(parameters, sort_keys=True)


def sort_key(parameters: dict[str, Any]) -> list[tuple[str, bool, float, str]]:
    """Numbers by size, before texts."""
    return [
        (name, not is_number(value), value if is_number(value) else 0.0, str(value))
        for name, value in sorted(parameters.items())
    ]


def names_of(runs: Iterable[Status], what: str) -> list[str]:
    """All names of ``"parameters"`` or ``"metrics"``, in the order of their first runs, the seed last."""
    names = dict.fromkeys(name for run in runs for name in getattr(run, what))
    return sorted(names, key=lambda name: name == SEED)


def numbers_of(groups: Iterable[Group]) -> list[str]:
    """Names of metrics that are numbers."""
    good = [run for group in groups for run in group.good]
    return [name for name in names_of(good, "metrics") if any(is_number(run.metrics.get(name)) for run in good)]


def summarize(runs: Sequence[Status]) -> dict[str, Any]:
    """Counts by state, times, machines, versions and seeds."""
    begun = [datetime.fromisoformat(run.started) for run in runs if run.started]
    ended = [datetime.fromisoformat(run.ended) for run in runs if run.ended]

    def different(values: Iterable[Any]) -> list[Any]:
        return sorted({value for value in values if value not in (None, "")})

    return {
        "runs": len(runs),
        "states": {state: count for state in STATES if (count := sum(run.state == state for run in runs))},
        "failed": sum(map(failed, runs)),
        "seconds_of_runs": sum(run.seconds or 0.0 for run in runs),
        "seconds_from_first_to_last": (max(ended) - min(begun)).total_seconds() if begun and ended else None,
        "hosts": different(run.host for run in runs),
        "devices": different(run.device for run in runs),
        "versions": {
            name: different(run.versions.get(name) for run in runs) for name in ("deepnet_edu", "torch", "python")
        },
        "seeds": different(run.seed for run in runs),
    }


def compare(first: Iterable[Status], second: Iterable[Status]) -> list[dict[str, Any]]:
    """How metrics of the first batch differ from the second's, by notebook, profile and parameters.

    Only seeds that both have count, each as a pair: its difference is first minus second. Where a batch has a run
    several times, of different code, the last one counts.

    Returns:
        A row per group and metric: ``first`` and ``second``, the means, and ``difference``, an ``Estimate``; all three
        None where the batches have no seed in common.
    """
    sides = [_by_seed(runs) for runs in (first, second)]
    rows = []
    for key in [key for key in sides[0] if key in sides[1]]:
        here, there = (side[key] for side in sides)
        seeds = [seed for seed in here if seed in there]
        run = next(iter(here.values()))
        for metric in numbers_of(group_runs([*here.values(), *there.values()])):
            found = [(here[seed].metrics.get(metric), there[seed].metrics.get(metric)) for seed in seeds]
            pairs = [(float(a), float(b)) for a, b in found if is_number(a) and is_number(b)]
            rows.append(
                {
                    "notebook": run.notebook,
                    "profile": run.profile,
                    "parameters": {name: value for name, value in run.parameters.items() if name != SEED},
                    "metric": metric,
                    "first": _mean(a for a, _ in pairs) if pairs else None,
                    "second": _mean(b for _, b in pairs) if pairs else None,
                    "difference": estimate([a - b for a, b in pairs]) if pairs else None,
                }
            )
    return rows


def _by_seed(runs: Iterable[Status]) -> dict[tuple[str, ...], dict[int, Status]]:
    found: dict[tuple[str, ...], dict[int, Status]] = {}
    for run in sorted(runs, key=lambda run: run.started or ""):
        if done_well(run):
            found.setdefault(same(run), {})[run.seed] = run
    return found


def as_plain(runs: Sequence[Status], differences: Iterable[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Plain JSON values: the summary, groups of runs that differ in the seed, with means of metrics, and all runs.

    Args:
        runs: of the batch.
        differences: from another batch, as :func:`compare` has them, if they are wanted.
    """
    groups = [
        {
            "notebook": group.notebook,
            "profile": group.profile,
            "parameters": group.parameters,
            "runs": [run.id for run in group.runs],
            "metrics": {name: asdict(found) for name in numbers_of([group]) if (found := group.metric(name))},
        }
        for group in group_runs(runs)
    ]
    plain: dict[str, Any] = {"summary": summarize(runs), "groups": groups, "runs": [asdict(run) for run in runs]}
    if differences is not None:
        rows = [{**row, "difference": row["difference"] and asdict(row["difference"])} for row in differences]
        plain["comparison"] = rows
    return plain


def as_table(runs: Sequence[Status]) -> str:
    """CSV, a line per run: what it was, ``parameters.NAME`` and ``metrics.NAME``; lists are written as JSON."""
    columns = [(f"{what}.{name}", what, name) for what in ("parameters", "metrics") for name in names_of(runs, what)]
    rows = [
        {"run": run.id, "notebook": run.notebook, "profile": run.profile, "state": run.state, "seed": run.seed}
        | {"attempts": run.attempts, "device": run.device, "seconds": run.seconds, "memory_gb": run.memory_gb}
        | {column: getattr(run, what).get(name) for column, what, name in columns}
        | {"problems": " ".join(run.problems), "notes": " ".join(run.notes)}
        for run in runs
    ]
    return write_csv(rows)


def as_differences(rows: Iterable[dict[str, Any]]) -> str:
    """CSV of what ``compare`` gives."""
    flat = []
    for row in rows:
        parameters = {f"parameters.{name}": value for name, value in row["parameters"].items()}
        rest = {name: value for name, value in row.items() if name not in ("parameters", "difference")}
        difference = row["difference"] and asdict(row["difference"])
        found = difference or dict.fromkeys(("mean", "half_width", "n"))
        flat.append(
            {**parameters, **rest, "difference": found["mean"], "half_width": found["half_width"], "n": found["n"]}
        )
    return write_csv(flat)


def write_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows under all their columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: json.dumps(v) if isinstance(v, list | dict | bool) else v for name, v in row.items()})
    return text.getvalue()
