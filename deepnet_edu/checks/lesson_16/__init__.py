"""Lesson 16, a thousand layers: the highest rate that survives, layers that work, noise of small batches, fair pairs.
And ``failures``."""

from collections.abc import Sequence
from itertools import combinations
from math import ceil, log, sqrt
from typing import Any

import numpy as np

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_16.failures import diagnose
from deepnet_edu.checks.numbers import grows, holds, number
from deepnet_edu.checks.trial import TYPE
from deepnet_edu.checks.values import describe

#: The edge, the rates at both ends, and the ratio: in no case is the number of halvings nearly a whole one.
_EDGES = [
    (3.7e-3, 1e-6, 1.0, 1.1),
    (0.031, 1e-4, 0.2, 1.05),
    (2.2e-5, 1e-5, 4e-3, 1.3),
    (0.61, 1e-3, 0.7, 1.02),
    (5e-3, 4e-3, 9e-3, 1.5),
    (3.0, 0.5, 700.0, 2.7),
    (1.02e-3, 1e-3, 1.05e-3, 1.1),
]
_MOST_RUNS = 3000


class _Runs:
    """In place of training: each rate up to the edge survives. It keeps the rates asked for since :meth:`begin`."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.begin(0.0)

    def begin(self, edge: float) -> None:
        """Another edge, and nothing asked yet; the learner's function gets the same ``survives`` as before."""
        self.edge, self.rates = edge, list[float]()

    def survives(self, rate: Any) -> bool:
        """Whether a run at this rate survives."""
        rate = float(rate)
        self.rates.append(rate)
        if len(self.rates) > _MOST_RUNS:
            self.trial.fail("Your search never ends: does every run bring low and high closer together?")
        return rate <= self.edge


def highest_rate(trial: Trial) -> None:
    """While high / low is above ratio: run the geometric middle, sqrt(low * high); where it survives it is the new low,
    where it fails the new high. Return low.
    """
    runs = _Runs(trial)

    def survives(rate: Any) -> bool:
        return runs.survives(rate)

    for edge, low, high, ratio in _EDGES:
        runs.begin(edge)
        got = number(trial, survives, low, high, ratio)
        rates, enough = runs.rates, max(0, ceil(log(log(high / low) / log(ratio), 2)))
        trial.require(
            not any(_same(rate, end) for rate in rates for end in (low, high)),
            "low survives and high fails: that is known, and needs no run.",
        )
        outside = next((rate for rate in rates if not low < rate < high), None)
        trial.require(outside is None, "A run outside of low … high tells nothing new.", got=describe(outside))
        _few(trial, rates, low, high, enough)
        seen = [low, *(rate for rate in rates if rate <= edge)]
        failed = [high, *(rate for rate in rates if rate > edge)]
        said = "At the rate that you return a run failed: return the last one that survived."
        trial.require(not any(_same(got, rate) for rate in failed), said, f"{max(seen):.5g}", f"{got:.5g}")
        said = "No run was made at the rate that you return: return one at which a run survived."
        trial.require(any(_same(got, rate) for rate in seen), said, f"{max(seen):.5g}", f"{got:.5g}")
        said = "At a higher rate a run survived, too."
        trial.require(_same(got, max(seen)), said, f"{max(seen):.5g}", f"{got:.5g}")
        said = "No run failed within the ratio of your answer: you stopped too early."
        near = min(failed) <= ratio * got * (1 + 1e-5)
        trial.require(near, said, f"at most {ratio:g} times", f"{min(failed) / got:.4g} times")


def _few(trial: Trial, rates: Sequence[float], low: float, high: float, enough: int) -> None:
    """No more runs than halving takes, and a sentence for the ways to make more."""
    if len(rates) <= enough:
        return
    said = "Each run can halve what is left of the range, on a logarithmic axis of rates."
    if _same(rates[0], (low + high) / 2):
        said = "On a logarithmic axis nearly all of the range is below half of high: halve the factor, not the sum."
    elif len(rates) > 2 and abs(log(rates[1] / rates[0]) - log(rates[2] / rates[1])) < 1e-6:
        said = "That is a grid, run from one end: after each run you know on which side the edge is."
    elif len({round(log(rate), 6) for rate in rates}) < len(rates):
        said = "Some rate was run twice: keep what the first run said."
    trial.require(False, said, f"{enough} runs", f"{len(rates)} runs")


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-5 * abs(b)


#: Rise of the loss without each layer.
_HARMS = [
    [2.0, 1.0, 1.0, -1.0, 0.5],
    [0.3] * 7 + [9.0],
    [0.7, 0.1, -0.2, 2.5, 0.0, 1.9, -0.8],
    np.random.default_rng(0).normal(0.4, 1, 12).tolist(),
]
_PLAIN_HARMS = [[0.4], [0.4, 0.4], [-1.0, -2.0], [0.0, 0.0, 0.0], [1.0, 0.0], [-1.0, 0.5]]


def working_layers(trial: Trial) -> None:
    """Take harm below 0 as 0; the sum of all, squared, over the sum of their squares; 0 where none does any harm."""
    for harm in (*_HARMS, *_PLAIN_HARMS):
        h = np.array(harm, float)
        got = trial.call(h)
        said = "For these harms the number of working layers is wrong."
        trial.equal(got, _working(h), _wrong_counts(h) if harm in _HARMS else [], said)
    equal = number(trial, np.full(9, 0.02))
    holds(trial, equal, 9.0, "Nine layers whose removal does the same harm are nine working layers.")
    small, large = (number(trial, scale * np.array(_HARMS[2])) for scale in (1.0, 100.0))
    grows(trial, small, large, 1, "How much harm is done in all must not matter, only how it is shared out.")


def _working(h: Any) -> float:
    """As one over the sum of squared shares."""
    h = np.where(h > 0, h, 0.0)
    return float(1 / np.square(h / h.sum()).sum()) if h.any() else 0.0


def _wrong_counts(h: Any) -> list[Misconception]:
    right, up = _working(h), np.maximum(h, 0)
    shares = up[up > 0] / up.sum()
    little = "That counts a layer for more than it does, however little it helps."
    helps = "A layer whose removal lowers the loss does no work: take its harm as 0."
    return [
        Misconception(1 / right, "Upside down: all harm in one layer is 1, the same harm in n layers is n."),
        Misconception(float((h > 0).sum()), little),
        Misconception(up.sum() / up.max(), little),
        Misconception(float(np.exp(-(shares * np.log(shares)).sum())), little),
        Misconception(h.sum() ** 2 / np.square(h).sum(), helps),
        Misconception(np.abs(h).sum() ** 2 / np.square(h).sum(), helps),
        Misconception(up.sum() ** 2 / np.square(h).sum(), helps),
        Misconception(up.sum(), "That is the harm in all, not the number of layers that share it."),
        Misconception(up.sum() / np.sqrt(np.square(up).sum()), "That is the root of the number that is asked for."),
        Misconception(right / len(h), "That is a share of the layers: their number is asked for."),
    ]


#: Squared length of the gradient, noise, batch sizes.
_NOISE = [(2.0, 50.0, 8, 128), (0.3, 7.0, 2, 32), (5.0, 0.4, 16, 24), (0.02, 1.7, 1, 512)]


def noise_scale(trial: Trial) -> None:
    """signal = (big_batch * big - small_batch * small) / (big_batch - small_batch); noise = (small - big) /
    (1 / small_batch - 1 / big_batch); return noise / signal.
    """
    for signal, noise, b, many in _NOISE:
        small, big = signal + noise / b, signal + noise / many
        # Two equations, two unknowns.
        g, s = np.linalg.solve([[1, 1 / b], [1, 1 / many]], [small, big])
        got = trial.call(small, big, b, many)
        said = "For these two means the batch at which noise equals signal is wrong."
        trial.equal(got, float(s / g), _wrong_noise(small, big, b, many, g, s), said)
    holds(trial, number(trial, 3.0, 3.0, 2, 32), 0.0, "Where both batches give the same mean there is no noise.")
    one, other = (number(trial, scale * 8.25, scale * 2.390625, 8, 128) for scale in (1.0, 1000.0))
    grows(trial, one, other, 1, "A loss that is scaled by a factor has the same noise scale.")
    near, far = (number(trial, 1 + 40 / b, 1 + 40 / many, b, many) for b, many in ((2, 10), (5, 400)))
    grows(trial, near, far, 1, "Which two batch sizes were measured must not matter.")


def _wrong_noise(small: float, big: float, b: int, many: int, g: float, s: float) -> list[Misconception]:
    squared = "What is given are squared lengths already."
    still = "The big batch still holds some noise: it is not the signal alone."
    roots = np.linalg.solve([[1, 1 / b], [1, 1 / many]], [sqrt(small), sqrt(big)])
    twice = np.linalg.solve([[1, 1 / b], [1, 1 / many]], [small**2, big**2])
    swapped = np.linalg.solve([[1, 1 / many], [1, 1 / b]], [small, big])
    return [
        Misconception(g / s, "Upside down: much noise asks for a large batch."),
        Misconception(s / big, still),
        *([Misconception((small - big) * b / big, still)] if b > 1 else []),  # at 1 it is the next one
        Misconception((small - big) / big, "There are two unknowns, signal and noise: write down both equations."),
        Misconception(small / big, "There are two unknowns, signal and noise: write down both equations."),
        Misconception(s, "That is the noise alone: divide it by the signal to get a batch size."),
        Misconception(g, "That is the signal alone."),
        Misconception(sqrt(s / g), "Squared lengths over squared lengths: there is no root to take."),
        Misconception((s / g) ** 2, squared),
        Misconception(roots[1] / roots[0], squared),
        Misconception(twice[1] / twice[0], squared),
        Misconception(swapped[1] / swapped[0], "The first mean belongs to the small batch."),
        Misconception(s / small, "The small batch holds noise, too: it is not the signal alone."),
    ]


_RECIPES = [
    ("admin", 128, 2e-3, 0, 4.10),
    ("deepnorm", 8, 5e-4, 0, 9.99),
    ("deepnorm", 128, 2e-3, 0, 4.11),
    ("admin", 8, 1e-3, 0, 4.60),
    ("deepnorm", 128, 1e-3, 1, 4.11),
    ("admin", 128, 1e-3, 2, 4.60),
    ("deepnorm", 128, 2e-3, 1, 4.13),
    ("admin", 128, 2e-3, 0, 4.12),
    ("deepnorm", 32, 1e-3, 1, 4.11),
    ("admin", 8, 5e-4, 1, 4.50),
]
_NAMES = ("rule", "batch", "rate", "seed", "result")
_TABLES: list[list[dict[str, Any]]] = [
    [dict(zip(_NAMES, row, strict=True)) for row in _RECIPES],
    [{"rule": r, "seed": s, "result": x} for r, s, x in (("a", 0, 1.0), ("b", 0, 1.0), ("b", 1, 1.0), ("a", 1, 2.0))],
    [
        {"result": None, "batch": batch, "warmup": w, "clip": c}
        for batch, w, c in ((8, 0, 1), (8, 10, 1), (32, 10, 1), (32, 10, 0), (8, 10, 0))
    ],
    [{"rule": "a", "rate": 1e-3, "result": 1.0}],
    [],
]


def clean_pairs(trial: Trial) -> None:
    """All (i, j) with i < j whose runs differ in factor, and are equal in each other name but result."""
    for runs in _TABLES:
        for factor in [name for name in (runs[0] if runs else {"rule": 0}) if name != "result"]:
            got = _pairs(trial, trial.call(runs, factor), len(runs))
            right = {(i, j) for i, j in combinations(range(len(runs)), 2) if _differ(runs[i], runs[j]) == {factor}}
            if got != right:
                _explain(trial, runs, factor, got, right)


def _pairs(trial: Trial, got: Any, n: int) -> set[tuple[int, int]]:
    """What the learner returned, each pair once and in order."""
    said = "The answer is a list of pairs (i, j)."
    pairs: list[tuple[int, ...]] = []
    try:
        pairs = [tuple(int(one) for one in pair) for pair in got if not isinstance(pair, str)]
        fine = not isinstance(got, str | dict) and len(pairs) == len(got) and all(len(pair) == 2 for pair in pairs)
    except (TypeError, ValueError):
        fine = False
    trial.require(fine, said, got=describe(got), rung=TYPE)
    inside = all(0 <= one < n for pair in pairs for one in pair)
    trial.require(inside, "i and j are places in the list of runs: they count from 0.", got=describe(pairs))
    trial.require(all(i != j for i, j in pairs), "A run is not a pair with itself.", got=describe(pairs))
    once = all(i < j for i, j in pairs) and len({*pairs}) == len(pairs)
    trial.require(once, "Each pair once, the smaller place first.", got=describe(pairs))
    return {(i, j) for i, j in pairs}


def _differ(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """The names of the settings in which two runs differ."""
    return {name for name in one if name != "result" and one[name] != other[name]}


def _explain(
    trial: Trial, runs: Sequence[dict[str, Any]], factor: str, got: set[tuple[int, int]], right: set[tuple[int, int]]
) -> None:
    """Say what the first wrong pair, or the first missing one, shows."""
    expected, shown = describe(sorted(right)), describe(sorted(got))
    late = {(i + 1, j + 1) for i, j in right}
    trial.require(not right or got != late, "Places in a list of runs: they count from 0.", expected, shown)
    for i, j in sorted(got - right):
        names = _differ(runs[i], runs[j])
        said = f"Runs {i} and {j} differ in {' and '.join(sorted(names))}: which of them made the difference?"
        if factor not in names:
            said = f"Runs {i} and {j} have the same {factor}: they tell nothing about it."
            said = f"Runs {i} and {j} differ in nothing: that is a repetition." if not names else said
        elif names == {factor, "seed"}:
            said = f"Runs {i} and {j} differ in their seeds, too: the seed is a setting like the others."
        trial.require(False, said, expected, shown)
    for i, j in sorted(right - got):
        said = f"Runs {i} and {j} are missing: they differ in {factor} and in no other setting."
        if runs[i]["result"] != runs[j]["result"]:
            said = f"Runs {i} and {j} are missing. Their results may differ: that is what is compared."
        trial.require(False, said, expected, shown)


JUDGES: dict[str, Judge] = {
    "diagnose": diagnose,
    "highest_rate": highest_rate,
    "working_layers": working_layers,
    "noise_scale": noise_scale,
    "clean_pairs": clean_pairs,
}
