"""A power of depth, read off measurements: the judge of ``depth_slope`` (lesson 06)."""

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.trial import Array

Depths = list[int]
Kind = Callable[[Any], Any]

#: Relative precision of fits in float32.
_FITTED = 1e-5
#: Depths, the power, the factor, and what is off the line: else two points are as good as all of them. Some depths
#: come twice, as with two seeds, and some not in order.
_MEASURED: list[tuple[Depths, float, float, list[float]]] = [
    ([6, 12, 24, 48, 100], 0.5, 1.7, [1.25, 0.9, 0.95, 1.05, 0.85]),
    ([3, 7, 40, 100], 1.8, 0.6, [0.8, 1.15, 1.2, 0.9]),
    ([48, 6, 24, 96, 12, 24, 6], -0.7, 2.5, [1.1, 0.8, 1.3, 0.95, 0.9, 1.2, 1.05]),
    ([2, 9, 450], 0.3, 0.4, [1.1, 0.8, 1.15]),
]


def depth_slope(trial: Trial) -> None:
    """The least-squares slope of ln(updates) on ln(depths): np.polyfit(np.log(depths), np.log(updates), 1)[0]."""
    kinds: list[tuple[Kind, Kind]] = [(list, list), (tuple, np.array), (np.array, np.array), (list, np.array)]
    for (depths, power, factor, noise), (depths_as, updates_as) in zip(_MEASURED, kinds, strict=True):
        d = np.array(depths, dtype=float)
        values = factor * d**power * np.array(noise)
        got = trial.call(depths_as(depths), updates_as(values.tolist()))
        slope, wrong = _slopes(d, values)
        trial.equal(got, slope, wrong, tolerance=_FITTED)
    depths_as, updates_as = kinds[-1]

    def power_of(depths: Depths, values: list[float]) -> float:
        got = trial.call(depths_as(depths), updates_as(values))
        trial.like(got, 1.0)
        return float(got)

    # Not exactly 0: NumPy's polynomials leave out a coefficient that is, as it comes out on some processors.
    flat = power_of([6, 24], [3.0, 3.000003])  # and then other values at the same depths
    trial.require(
        abs(flat) < _FITTED, "Where the updates are the same at all depths, the power is 0.", "0", f"{flat:.4g}"
    )
    root = power_of([6, 24], [5.0, 10.0])
    trial.require(
        abs(root - 0.5) < _FITTED,
        "Four times the depth and twice the value: the power is a half.",
        "0.5",
        f"{root:.4g}",
    )
    same, scaled = (power_of([6, 12, 48], [c, 4 * c, 9 * c]) for c in (1.0, 1000.0))
    trial.require(
        abs(scaled - same) < 10 * _FITTED,
        "In other units all updates are 1,000 times as large, but the power is the same.",
        f"{same:.4g}",
        f"{scaled:.4g}",
    )


def _slopes(d: Array, values: Array) -> tuple[float, list[Misconception]]:
    """The power, and what other readings of the same points give."""
    x, y, n = np.log(d), np.log(values), len(d)

    def fitted(a: Array, b: Array) -> float:
        """Least squares as a mean over pairs, a form that an answer is unlikely to have."""
        da, db = a[:, None] - a, b[:, None] - b
        return float((da * db).sum() / (da * da).sum())

    slope = fitted(x, y)
    intercept = float(y.mean() - slope * x.mean())
    exchanged = "The axes are exchanged: depth is to the right, the updates are upward."
    units = "The same logarithm on both axes: ln here and log10 there multiplies the slope by a constant."
    origin = "That is a line through the origin, with a factor of 1: it needs an intercept."
    degrees = "np.cov divides by n - 1 and np.var by n: give both the same ddof."
    first = "That is the intercept. np.polyfit gives the slope first."
    known = [
        (float((y[-1] - y[0]) / (x[-1] - x[0])), "Those are the first and last point alone. Use all points."),
        (float(np.mean(np.diff(y) / np.diff(x))), "A mean of slopes between neighbours is noisy: fit one line to all."),
        (fitted(d, values), "A power is a slope between logarithms: take them of the depths and of the updates."),
        (fitted(d, y), "The depths need a logarithm too. On a linear axis it would be exponential growth."),
        (fitted(x, values), "The updates need a logarithm too: only then a power is a straight line."),
        (fitted(y, x), exchanged),
        (1 / slope, exchanged),
        (intercept, first),
        (intercept / log(10), first),
        (float(np.exp(intercept)), "That is the factor before the power, not the power."),
        (float(values[-1] / values[0]), "A factor between the ends is not a power: compare logarithms."),
        (float(np.corrcoef(x, y)[0, 1]), "That is the correlation, how straight the line is, not how steep."),
        (float((x @ y) / (x @ x)), origin),
        (float(np.mean(y / x)), origin),
        (float(y.mean() / x.mean()), origin),
        (slope / log(10), units),
        (slope * log(10), units),
        (slope * n / (n - 1), degrees),
        (slope * (n - 1) / n, degrees),
        (-slope, "The sign is the other way round: what grows with depth has a positive power."),
    ]
    return slope, [Misconception(value, sentence) for value, sentence in known]
