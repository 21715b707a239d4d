"""The judges of lesson 01's two curves: the variance of a stream at each depth, with and without damped branches."""

from math import log, sqrt
from typing import Any

import numpy as np

from deepnet_edu.checks.again import deep, heeds, steady
from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.values import Array, as_array

_START = "The curve begins with the input's variance, var0."
_WHOLE = (
    "An array made of a whole number, such as np.full(n + 1, var0) with var0 = 1, holds whole numbers only and cuts "
    "what is put into it: make it of floats."
)


def variance_by_depth(trial: Trial) -> None:
    """Begin with var0 at depth 0. Each sub-layer then turns the variance v into α²·v + f: n + 1 values.

    The points differ from each other in one argument at a time. None of these is 1 or 0, at which wrong answers are
    right; the last is as deep as the lesson goes.
    """
    steady(trial, (5, 0.3, 1.2, 2.0), (5, 0.8, 1.5, 0.5))
    curves = []
    points = [
        (5, 0.3, 1.2, 2.0),
        (5, 0.3, 1.5, 2.0),
        (5, 0.3, 1.5, 0.5),
        (5, 0.8, 1.5, 0.5),
        (12, 0.3, 0.7, 2.0),
        (200, 1.3, 1.02, 2.0),
    ]
    for n, f, alpha, var0 in points:
        got = trial.call(n, f, alpha=alpha, var0=var0)
        curves.append((got, var0))
        powers = alpha ** (2.0 * np.arange(n + 1))

        def rolled(step, v0=var0, n=n):  # type: ignore[no-untyped-def]
            values = [v0]
            for _ in range(n):
                values.append(step(values[-1]))
            return np.array(values)

        wrong = [
            Misconception(
                rolled(lambda v, a=alpha, f=f: (a * sqrt(v) + sqrt(f)) ** 2),
                "Independent signals add their variances, not their standard deviations.",
            ),
            Misconception(rolled(lambda v, a=alpha, f=f: a * v + f), "Scaling x by α scales its variance by α²."),
            Misconception(
                rolled(lambda v, a=alpha, f=f: v * (a**2 + f)),
                "The branch sees a normalised input, so it adds the same f at each depth. Multiplying is what happens "
                "without a norm: then growth is exponential.",
            ),
            Misconception(rolled(lambda v, f=f: v + f), "The skip carries αx: do not forget α."),
            Misconception(
                rolled(lambda v, a=alpha, f=f: a**2 * (v + f)), "Only the skip is scaled by α, the branch is not."
            ),
            Misconception(
                rolled(lambda v, a=alpha, f=f: a**2 * v + f**2), "f is the branch's variance already: do not square it."
            ),
            Misconception(
                rolled(lambda v, a=alpha, f=f: a**2 * v + sqrt(f)),
                "f is the branch's variance, and variances add: do not take its root.",
            ),
            Misconception(rolled(lambda v, a=alpha, f=f: a**2 * v + f, v0=1.0), _START),
        ]
        trial.equal(
            got,
            var0 * powers + f * (powers - 1) / (alpha**2 - 1),
            wrong,
            tolerance=1e-4 if n > 100 else 1e-6,
            shape_sentence=_lengths(got, n, "sub-layers"),
        )
    heeds(trial, ("n", "f", "alpha", "var0"), *points[:4])
    for got, var0 in curves:
        first = as_array(got)[0]
        trial.require(abs(first - var0) < 1e-2 * var0, _START, f"{var0:.4g}", f"{first:.4g}")
    for n, f, var0 in [(4, 0.6, 2.5), (1, 0.6, 2.5), (0, 0.6, 2.5), (3, 1.0, 2.5), (3, 0.0, 2.5)]:
        got = trial.call(n, f, 1.0, var0)
        trial.equal(
            got,
            var0 + f * np.arange(n + 1),
            sentence=f"With α = 1 and {n or 'no'} sub-layer{'s' * (n != 1)} the values are wrong.",
            shape_sentence=_lengths(got, n, "sub-layers"),
        )
    flat = np.array([1.0, 1.5, 2.0, 2.5])
    trial.equal(
        trial.call(3, 0.5, 1, 1),
        flat,
        [Misconception(np.ones(4), _WHOLE)] if trial.verdict() is None else [],
        "Whole numbers for α and var0 give another curve than the same floats.",
    )
    trial.equal(
        trial.call(3, 0.5), flat, sentence="Without arguments α and the input's variance are 1: keep the first line."
    )
    still = as_array(trial.call(3, 0.0, 1.0, 2.0))
    trial.require(
        bool(np.allclose(still, 2.0, rtol=1e-2)),
        "With α = 1 and branches of variance 0 nothing happens: the variance stays var0.",
        "[2., 2., 2., 2.]",
        np.array2string(still, precision=4),
    )


def damped_variance(trial: Trial) -> None:
    """Begin with var0. Layer l then adds f/l twice, once for each branch: v[l] = v[l-1] + 2f/l, n + 1 values."""
    steady(trial, (6, 0.7, 2.0), (6, 0.3, 0.5))
    curves = []
    points = [(6, 0.7, 2.0), (6, 0.7, 0.5), (6, 0.3, 0.5), (11, 0.3, 0.5), (3, 1.4, 3.0)]
    for n, f, var0 in points:
        got = trial.call(n, f, var0)
        curves.append((got, var0))
        layer = np.arange(1, n + 1)

        def grown(step: Array, v0: float = var0) -> Array:
            return np.concatenate([[v0], v0 + np.cumsum(step)])

        wrong = [
            Misconception(
                grown(2 * f / np.sqrt(layer)),
                "The branch is divided by √l, so its variance is divided by l: variances scale with the square.",
            ),
            Misconception(grown(f / layer), "A layer has two sub-layers, and each adds its branch."),
            Misconception(
                grown((f / np.arange(1, 2 * n + 1)).reshape(n, 2).sum(1)),
                "l counts layers, not sub-layers: both branches of layer l are divided by √l.",
            ),
            Misconception(grown(2 * f / (layer + 1)), "The first layer is l = 1, and its branches are not damped."),
            Misconception(grown(2 * f / layer**2), "The variance is divided by l, not by l²."),
            Misconception(grown(2 * f * layer**0.0), "That is Pre-LN without damping: deeper layers add less."),
            Misconception(
                grown(2 * f / n * layer**0.0), "That damps all layers equally: layer l is divided by √l, not by √n."
            ),
            Misconception(
                grown(4 * f / layer), "The two branches are independent: their variances add, not their lengths."
            ),
            Misconception(grown(2 * f / layer, v0=1.0), _START),
        ]
        trial.equal(got, grown(2 * f / layer), wrong, shape_sentence=_lengths(got, n, "layers"))
    heeds(trial, ("n", "f", "var0"), *points[:3])
    for got, var0 in curves:
        first = as_array(got)[0]
        trial.require(abs(first - var0) < 1e-2 * var0, _START, f"{var0:.4g}", f"{first:.4g}")
    for n, expected in [(0, [2.0]), (1, [2.0, 3.0])]:
        got = trial.call(n, 0.5, 2.0)
        trial.equal(got, np.array(expected), shape_sentence=_lengths(got, n, "layers"))
    trial.equal(trial.call(2, 0.0, 2.0), np.full(3, 2.0), sentence="With f = 0 nothing is added: the curve is flat.")
    halved = np.array([1.0, 2.0, 2.5])
    trial.equal(
        trial.call(2, 0.5, 1),
        halved,
        [Misconception(np.array([1.0, 2.0, 2.0]), _WHOLE)] if trial.verdict() is None else [],
        "A whole number for var0 gives another curve than the same float.",
    )
    trial.equal(trial.call(2, 0.5), halved, sentence="Without var0 the input's variance is 1: keep the first line.")
    steps = np.diff(as_array(curves[0][0]))
    trial.require(
        bool((steps > 0).all() and (np.diff(steps) < 0).all()),
        "Every layer adds something, and each less than the one before it.",
        "shrinking steps",
        np.array2string(steps, precision=4),
    )
    end = as_array(deep(trial, "layers", 1000, 1.0))[-1]
    # As ln n with Euler's constant, to the second order.
    expected_end = 1 + 2 * (log(1000) + 0.5772156649 + 1 / 2000)
    trial.equal(end, expected_end, tolerance=1e-4)


def _lengths(got: Any, n: int, unit: str) -> str:
    """What to say to a curve whose length is not n + 1."""
    values = len(got) if np.ndim(got) == 1 else 0
    if values == 2 * n + 1 and unit == "layers":
        return "One value per layer, not per sub-layer: n layers give n + 1 values."
    if values > n + 1:
        return f"That is too long: n {unit} give n + 1 values, of which the first is the input's."
    if values == n and n > 0:
        return f"Depth 0, the input itself, belongs to the curve: n {unit} give n + 1 values."
    return f"The answer is one row of n + 1 values, one at each depth from 0 to n {unit}."
