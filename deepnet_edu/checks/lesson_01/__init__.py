"""Lesson 01, residual arithmetic: variance by depth, the input's share, cloned layers, correlated branches, branches
that get weaker with depth."""

from itertools import pairwise
from math import comb, log, sqrt

import numpy as np

from deepnet_edu.checks.again import deep, heeds, steady
from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_01.curves import damped_variance, variance_by_depth
from deepnet_edu.checks.numbers import holds, number


def input_share(trial: Trial) -> None:
    """One sub-layer keeps the part α²/(α² + f) of the variance; n of them multiply: (α²/(α² + f))ⁿ."""
    steady(trial, (9, 0.4, 1.3), (9, 1.5, 0.8))
    points = [(9, 0.4, 1.3), (9, 0.4, 0.8), (9, 1.5, 0.8), (4, 1.5, 0.8), (2000, 0.02, 6.6874)]
    for n, f, alpha in points:
        got = deep(trial, "sub-layers", n, f, alpha)
        one = alpha**2 / (alpha**2 + f)
        wrong = [
            Misconception((alpha / (alpha + sqrt(f))) ** n, "A share of variance is a ratio of variances."),
            Misconception(
                alpha**2 / (alpha**2 + n * f), "Each norm shrinks everything that came before, so shares multiply."
            ),
            Misconception(
                1 - n * f / alpha**2,
                "Right to first order, but for Post-LN with f = 1 and 24 sub-layers it gives -23.",
            ),
            Misconception(
                one ** (n / 2),
                "Each of the n sub-layers has its own norm, and a share of variance is the square of one of amplitude.",
            ),
            Misconception(one ** (2 * n), "n counts sub-layers, not layers: there are n norms."),
            Misconception((alpha / (alpha + f)) ** n, "Scaling x by α scales its variance by α²."),
            Misconception((alpha**2 / (alpha**2 + f**2)) ** n, "f is the branch's variance already: do not square it."),
            Misconception(one, "That is the share after one sub-layer: n of them follow each other."),
            Misconception(1 - one**n, "That is the share of the branches, not of the input."),
        ]
        if n < 50:  # α^(2n) is a number only for few sub-layers
            wrong += [
                Misconception(alpha ** (2 * n) / (alpha ** (2 * n) + n * f), "Each norm shrinks everything before it."),
                Misconception(1 / (1 + f) ** n, "The skip carries αx: do not forget α."),
            ]
        elif trial.verdict() is None:
            said = "At 2,000 sub-layers α²ⁿ is too large for a float, and ∞/∞ is not a number: form the ratio first."
            wrong.append(Misconception(np.nan, said))
        # As a telescoping product in logarithms, a form that a solution is unlikely to have. In float32 a ratio that is
        # nearly 1 is rounded, and 2,000 roundings multiply.
        expected = np.exp(-n * np.log1p(f / alpha**2))
        trial.equal(got, expected, wrong, tolerance=1e-3 if n > 100 else 1e-6)
    heeds(trial, ("n", "f", "alpha"), *points[:4])
    for n, f, alpha, share in [(0, 0.4, 1.3, 1.0), (1, 1, 1, 0.5), (1, 0.4, 1.3, 1.69 / 2.09), (3, 1, 1, 0.125)]:
        trial.equal(trial.call(n, f, alpha), share)
    deepnorm = trial.call(2000, 1.25e-4, 6.6874)  # 1,000 layers, as in the lesson
    trial.equal(deepnorm, np.exp(-2000 * np.log1p(1.25e-4 / 6.6874**2)), tolerance=1e-3)
    said = "With f = 0 no branch adds anything: all of the output is the input's."
    holds(trial, number(trial, 5, 0.0, 1.3), 1.0, said)
    two, four, six = (number(trial, n, 0.4, 1.3) for n in (2, 4, 6))
    said = f"Six sub-layers are two, {two:.4g}, and then four, {four:.4g}, but their shares do not multiply."
    holds(trial, six, two * four, said)


def _cloned(n: int, eps: float) -> float:
    """As a recursion over coefficients: (1 + z)ⁿ built up one factor at a time, each squared at the end."""
    coefficients = np.array([1.0])
    for _ in range(n):
        coefficients = np.append(coefficients, 0.0) + np.append(0.0, coefficients)
    return float((coefficients**2 * eps ** (2.0 * np.arange(n + 1))).sum())


def cloned_growth(trial: Trial) -> None:
    """The terms of the binomial theorem are at right angles, so their squares add: Σ C(n,k)²·ε^(2k), k from 0 to n."""
    steady(trial, (7, 0.3), (7, 0.5))
    points = [(20, 0.1), (7, 0.3), (7, 0.5), (3, 0.5), (4, 0.7), (60, 0.3)]
    for n, eps in points:
        got = trial.call(n, eps)
        expected = _cloned(n, eps)
        ends = "The sum runs over k from 0 to n, both included."
        wrong = [
            Misconception(
                (1 + eps**2) ** n,
                "That is for independent layers. With one A, the k-th power can be reached in C(n,k) ways, and equal "
                "directions add in amplitude.",
            ),
            Misconception(
                (1 + eps) ** (2 * n),
                "That is for branches that all point along x. A^k x has a new direction for each k.",
            ),
            Misconception(1 + n**2 * eps**2, "Only the k = 1 term. It fails as soon as nε is near 1."),
            Misconception(
                (1 + n * eps) ** 2, "Only the terms of k = 0 and k = 1, and as if Ax pointed along x: it does not."
            ),
            Misconception(sum(comb(n, k) ** 2 * eps ** (2 * k) for k in range(n)), ends),
            Misconception(expected - 1, "x itself, the term of k = 0, belongs to the sum."),
            Misconception(
                sum(comb(n, k) ** 2 * eps**k for k in range(n + 1)),
                "A^k x comes with ε^k, and its length is squared: so is ε^k.",
            ),
            Misconception(
                sum(comb(n, k) * eps**k for k in range(n + 1)),
                "Lengths at right angles do not add: their squares do.",
            ),
            Misconception(sqrt(expected), "That is the growth of the length: the growth of its square is asked for."),
        ]
        trial.equal(got, expected, wrong, tolerance=1e-5)
    heeds(trial, ("n", "eps"), *points[1:4])
    for n, eps in [(0, 0.3), (1, 0.3), (2, 0.1), (2, 1.0)]:
        trial.equal(trial.call(n, eps), 1 + n**2 * eps**2 + (n == 2) * eps**4)
    counted = trial.call(np.int64(20), 0.1)  # as the lesson counts its layers
    trial.equal(counted, _cloned(20, 0.1), sentence="NumPy's whole numbers for n give another value.", tolerance=1e-5)
    small = [number(trial, n, 0.05) for n in (2, 4, 8)]
    trial.require(
        min(small) > 1,
        "Every layer adds something at a right angle: the squared length grows.",
        "more than 1",
        f"{min(small):.4g}",
    )
    slopes = [log((b - 1) / (a - 1), 2) for a, b in pairwise(small)]
    trial.require(
        all(abs(slope - 2) < 0.3 for slope in slopes),
        "Twice as many weak clones should add four times as much, since equal branches add in amplitude.",
        "4 times as much",
        f"{2 ** slopes[0]:.3g} times",
    )


def residual_variance(trial: Trial) -> None:
    """The variance of a sum has a cross term, twice the covariance: var_x + var_f + 2·corr·√(var_x·var_f)."""
    steady(trial, (2.0, 0.7, 0.3), (2.0, 0.7, -0.4))
    points = [(2.0, 1.6, 0.3), (2.0, 0.7, 0.3), (2.0, 0.7, -0.4), (0.4, 0.7, -0.4), (0.4, 1.5, -0.6), (3.0, 3.0, 1.0)]
    for var_x, var_f, corr in points:
        got = trial.call(var_x, var_f, corr)
        a, b = sqrt(var_x), sqrt(var_f)
        wrong = [
            Misconception(var_x + var_f, "That is for independent signals: with a correlation there is a cross term."),
            Misconception(var_x + var_f + corr * a * b, "The cross term comes twice: (a + b)² = a² + 2ab + b²."),
            Misconception(
                var_x + var_f + 2 * corr * var_x * var_f,
                "A covariance is the correlation times both standard deviations, not variances.",
            ),
            Misconception(
                var_x + var_f + 2 * corr,
                "A correlation has no size: to be a covariance it needs both standard deviations.",
            ),
            Misconception(
                sqrt((a + b * corr) ** 2 + b**2 * (1 - corr**2)),
                "That is the standard deviation of the sum: its variance is asked for.",
            ),
        ]
        # At a negative correlation both slips give the same.
        wrong.append(
            Misconception(var_x + var_f - 2 * corr * a * b, "The branch is added, so the cross term is too.")
            if corr > 0
            else Misconception(
                var_x + var_f - 2 * corr * a * b, "A negative correlation makes the sum smaller: keep its sign."
            )
        )
        # |a·u + b·v|² with u, v unit vectors at the angle whose cosine is corr.
        trial.equal(got, (a + b * corr) ** 2 + b**2 * (1 - corr**2), wrong)
    heeds(trial, ("var_x", "var_f", "corr"), *points[:4])
    for var_x, var_f, corr, expected in [(1, 1, 0, 2.0), (1, 1, 1, 4.0), (0, 2.0, 0.5, 2.0), (2.0, 0, 0.5, 2.0)]:
        trial.equal(trial.call(var_x, var_f, corr), expected)
    undone = number(trial, 3.0, 3.0, -1.0)
    trial.require(
        abs(undone) < 1e-2, "A branch that is the stream with a minus sign leaves nothing.", "0", f"{undone:.4g}"
    )
    here, there = number(trial, 2.0, 0.7, 0.3), number(trial, 0.7, 2.0, 0.3)
    holds(trial, there, here, "x + F is F + x: exchange both and the variance stays.")


JUDGES: dict[str, Judge] = {
    "variance_by_depth": variance_by_depth,
    "input_share": input_share,
    "cloned_growth": cloned_growth,
    "residual_variance": residual_variance,
    "damped_variance": damped_variance,
}
