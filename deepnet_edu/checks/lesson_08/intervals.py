"""The interval for a mean of a few seeds: the judge of ``interval`` (lesson 08)."""

from math import sqrt
from typing import Any

import numpy as np
import torch

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.values import as_array, describe, is_number

#: Powers, one from each seed, and t. Of two seeds several wrong answers are equal, and none is named.
_SEEDS: list[tuple[list[float], float]] = [
    ([0.195, 0.188, 0.204], 4.3),
    ([1.76, 2.26, 1.21, 1.5, 0.94, 1.65], 2.57),
    ([-0.31, 0.47], 12.7),
    ([0.4, 0.7, 0.1, 0.9, 1.3, 0.2, 0.8], 1.6),
]


def interval(trial: Trial) -> None:
    """The mean of the k powers, minus and plus t·s/√k, where s is their standard deviation with k - 1 below the sum:
    np.std(powers, ddof=1).
    """
    for powers, t in _SEEDS:
        got = trial.call(powers, t)
        _pair(trial, got)
        k, mean = len(powers), sum(powers) / len(powers)
        squares = sum((p - mean) ** 2 for p in powers)
        error = sqrt(squares / (k - 1) / k)
        known = [
            (t * sqrt(squares) / k, "The squares are divided by k: np.std does that, unless it is given ddof=1."),
            (t * error * sqrt(k), "That is the spread of single seeds. The mean of k is surer: divide by √k."),
            (t * error / sqrt(k), "A standard error is the standard deviation over √k, not over k."),
            (t * sqrt(squares / k), "That is the spread of single seeds, and with k for k - 1: divide by √k."),
            (t * squares / (k - 1) / sqrt(k), "That is the variance. The standard deviation is its root."),
            (error, "That is one standard error to either side: t of them are asked for."),
            (1.96 * error, "1.96 is for very many seeds. Use the t that is given."),
            (2 * error, "2 is for very many seeds. Use the t that is given."),
            (t * error / 2, "t standard errors go to either side, not t in all."),
            (2 * t * error, "t standard errors go to either side, not 2t."),
        ]
        wrong = [Misconception(np.array([mean - reach, mean + reach]), said) for reach, said in known]
        median = float(np.median(powers))
        if abs(median - mean) > 1e-6:
            said = "That is around the median: the standard error is the mean's."
            wrong.append(Misconception(np.array([median - t * error, median + t * error]), said))
        wrong += [
            Misconception(np.array([min(powers), max(powers)]), "Those are the smallest and the largest power."),
            Misconception(np.array([mean, t * error]), "That is the centre and how far it reaches. Give both ends."),
            Misconception(np.array([mean + t * error, mean - t * error]), "The lower end comes first."),
            Misconception(np.array([-t * error, t * error]), "Around the mean, not around 0."),
        ]
        trial.equal(got, np.array([mean - t * error, mean + t * error]), wrong if k > 2 else [])
    low, high = _pair(trial, trial.call([0.25, 0.25, 0.25], 4.3))
    trial.require(
        abs(low - 0.25) + abs(high - 0.25) < 1e-6,
        "Where all seeds agree the interval has no width.",
        "(0.25, 0.25)",
        f"({low:.4g}, {high:.4g})",
    )


def _pair(trial: Trial, got: Any) -> tuple[float, float]:
    holds = isinstance(got, tuple | list | np.ndarray | torch.Tensor) and np.ndim(got) and len(got) == 2
    trial.require(bool(holds), "The answer is a pair: (low, high).", "(low, high)", describe(got))
    trial.require(all(map(is_number, got)), "The answer is a pair of numbers.", "(low, high)", describe(got))
    low, high = as_array(got)
    return float(low), float(high)
