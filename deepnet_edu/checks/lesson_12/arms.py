"""The judge of lesson 12's tuned comparison: one part of the held-out text chooses, and the other one is reported."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.numbers import apart
from deepnet_edu.checks.trial import TYPE, Array
from deepnet_edu.checks.values import describe, is_number

Run = dict[str, Any]
_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
#: Seeds of the tables of runs: arms, seeds an arm.
_TABLES = [(0, 3, 3), (1, 3, 3), (2, 4, 2), (3, 3, 3), (4, 2, 5), (5, 4, 3)]
_FEW = [(6, 1, 1), (7, 2, 1)]


def compare_arms(trial: Trial) -> None:
    """For each arm, take the mean of tune over seeds at each of its rates; the rate with the least mean is chosen.
    Report the mean of test over seeds at this rate, and whether it is the smallest or the largest rate tried for it.
    """
    for seed, arms, seeds in (*_TABLES, *_FEW):
        runs = _table(seed, arms, seeds)
        got = trial.call(runs)
        right = _compared(runs)
        rows = _rows(trial, got, list(right))
        full = (seed, arms, seeds) in _TABLES
        known = [Misconception(_matrix(one), said) for one, said in _wrong(runs)] if full else []
        trial.equal(rows, _matrix(right), apart(known), "For some arm the rate, the loss or the edge is wrong.")
    runs = _table(0, 3, 3)
    turned = _rows(trial, trial.call(runs[::-1]), list(_compared(runs)))
    said = "The order in which runs are listed must not matter."
    trial.require(bool(np.allclose(turned, _matrix(_compared(runs)), rtol=1e-4)), said)


def _table(seed: int, arms: int, seeds: int) -> list[Run]:
    """Runs in any order. Arms differ in their best rate, one of them at an edge, and one has a rate fewer."""
    draw = np.random.default_rng([seed, arms, seeds])
    runs = []
    for a in range(arms):
        best = (1, 3, 2, 0)[(a + seed) % 4]
        for r, rate in enumerate(_RATES[: 4 - (a == 1)]):
            for s in range(seeds):
                level = 2.5 + 0.3 * a + 0.15 * abs(r - best)
                tune, test = level + draw.normal(0, 0.12), level + 0.2 + draw.normal(0, 0.12)
                runs.append({"arm": f"{2 * a + 2} layers", "rate": rate, "seed": s, "tune": tune, "test": test})
    return [runs[i] for i in draw.permutation(len(runs))]


def _rows(trial: Trial, got: Any, arms: Sequence[str]) -> Array:
    """What was returned, a row for each arm: rate, loss, edge."""
    said = "The answer is a dictionary: for each arm its rate, its loss, and whether the rate is at an edge."
    trial.require(isinstance(got, Mapping), said, got=describe(got), rung=TYPE)
    missing = [arm for arm in arms if arm not in got]
    trial.require(not missing and len(got) == len(arms), "There is one entry for each arm.", str(list(arms)), rung=TYPE)
    for arm in arms:
        three = isinstance(got[arm], Sequence | np.ndarray) and len(got[arm]) == 3
        trial.require(three, "For each arm: rate, loss, edge.", got=describe(got[arm]), rung=TYPE)
        numbers = all(map(is_number, got[arm][:2]))
        trial.require(numbers, "Rate and loss are numbers.", got=describe(got[arm]), rung=TYPE)
        edge = isinstance(got[arm][2], bool | np.bool_ | int | float)
        trial.require(edge, "Whether the rate is at an edge is True or False.", got=describe(got[arm][2]), rung=TYPE)
    return _matrix({arm: got[arm] for arm in arms})


def _matrix(compared: Mapping[str, Any]) -> Array:
    """In the order of names. Rates as their logarithms: the largest is thirty times the smallest."""
    return np.array(
        [[np.log10(float(rate)), float(loss), float(edge)] for _, (rate, loss, edge) in sorted(compared.items())]
    )


def _by_rate(runs: list[Run], part: str) -> dict[str, dict[float, list[float]]]:
    """The losses of an arm, by rate, smallest first."""
    found: dict[str, dict[float, list[float]]] = {}
    for run in sorted(runs, key=lambda run: (run["arm"], run["rate"], run["seed"])):
        found.setdefault(run["arm"], {}).setdefault(run["rate"], []).append(run[part])
    return found


def _compared(
    runs: list[Run],
    choose: str = "tune",
    report: str = "test",
    by: Any = np.mean,
    of: Any = np.mean,
    least: bool = True,
) -> dict[str, tuple[float, float, bool]]:
    found = {}
    tests = _by_rate(runs, report)
    for arm, losses in _by_rate(runs, choose).items():
        means = [by(values) for values in losses.values()]
        place = int(np.argmin(means) if least else np.argmax(means))
        rate = list(losses)[place]
        found[arm] = (rate, float(of(tests[arm][rate])), place in (0, len(losses) - 1))
    return found


def _wrong(runs: list[Run]) -> list[tuple[dict[str, Any], str]]:
    right, tests = _compared(runs), _by_rate(runs, "test")
    tune = _by_rate(runs, "tune")
    rates = sorted({run["rate"] for run in runs})
    shared = [rate for rate in rates if all(rate in losses for losses in tune.values())]
    common = min(shared, key=lambda rate: np.mean([np.mean(losses[rate]) for losses in tune.values()]))
    lucky = {}
    for arm in right:
        run = min((run for run in runs if run["arm"] == arm), key=lambda run: float(run["tune"]))
        lucky[arm] = (run["rate"], run["test"], run["rate"] in (min(tune[arm]), max(tune[arm])))
    means = "Compare means over the seeds: the luckiest run only says how lucky it was."

    def edges(at: Any) -> dict[str, Any]:
        return {arm: (rate, loss, at(arm, rate)) for arm, (rate, loss, _) in right.items()}

    edge = "A better rate may be outside those tried, at either end: that arm is not tuned, and the table must say so."
    return [
        (_compared(runs, choose="test"), "The part that is reported chose the rate: then it reports its own luck."),
        (_compared(runs, report="tune"), "That part chose the rate, so its loss flatters: report the other part."),
        (lucky, means),
        (_compared(runs, by=np.min), means),
        (_compared(runs, of=np.min), means),
        (_compared(runs, by=np.min, of=np.min), means),
        (
            {arm: (common, np.mean(tests[arm][common]), common in (min(tune[arm]), max(tune[arm]))) for arm in right},
            "Arms want different rates: with one rate for all you compare rates, and not arms.",
        ),
        (edges(lambda *_: False), edge),
        (edges(lambda arm, rate: rate == max(tune[arm])), edge),
        (edges(lambda arm, rate: rate == min(tune[arm])), edge),
        (edges(lambda *_: True), "A rate with tried ones on both sides is not at an edge."),
        (
            edges(lambda arm, rate: not right[arm][2]),
            "That is the other way round: True says that the rate is at an edge.",
        ),
        (edges(lambda arm, rate: rate in (rates[0], rates[-1])), "The edge is that of the rates tried for this arm."),
        (_compared(runs, least=False), "Lower is better."),
        (_compared(runs, by=np.median), "Means are compared here, not medians."),
        (
            {
                arm: (rate, np.mean([np.mean(one) for one in tests[arm].values()]), at)
                for arm, (rate, _, at) in right.items()
            },
            "Report the loss at the chosen rate alone.",
        ),
    ]
