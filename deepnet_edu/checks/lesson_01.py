"""Lesson 01, residual arithmetic: variance by depth, the input's share, cloned layers, correlated branches, branches
that get weaker with depth."""

from itertools import pairwise
from math import comb, log, sqrt

import numpy as np

from deepnet_edu.checks.base import Judge, Misconception, Trial

# None of these is 1 or 0: at such values wrong answers are right.
_GROWTH = [(5, 0.3, 1.2, 2.0), (12, 0.7, 0.9, 0.5), (1, 0.4, 1.5, 3.0)]


def variance_by_depth(trial: Trial) -> None:
    """v[l+1] = α²·v[l] + f, from depth 0 on: (n + 1,)."""
    for n, f, alpha, var0 in _GROWTH:
        got = trial.call(n, f, alpha=alpha, var0=var0)
        powers = alpha ** (2.0 * np.arange(n + 1))
        expected = var0 * powers + f * (powers - 1) / (alpha**2 - 1)

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
        ]
        trial.equal(
            got,
            expected,
            wrong,
            "Each sub-layer turns the variance v into α²v + f.",
            shape_sentence="Depth 0, the input itself, belongs to the curve: n sub-layers give n + 1 values.",
        )
    trial.equal(
        trial.call(3, 0.5),
        np.array([1.0, 1.5, 2.0, 2.5]),
        sentence="Without arguments α and the input's variance are 1: then the variance grows by f a sub-layer.",
    )
    trial.require(np.shape(trial.call(0, 0.5)) == (1,), "A stack of no sub-layers has one value, the input's.")


def input_share(trial: Trial) -> None:
    """(α²/(α² + f))ⁿ."""
    for n, f, alpha in [(9, 0.4, 1.3), (4, 1.5, 0.8), (2000, 1.2e-4, 6.6874)]:
        got = trial.call(n, f, alpha)
        # As a telescoping product in logarithms, the form that a solution will hardly have.
        expected = np.exp(-n * np.log1p(f / alpha**2))
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
                (alpha**2 / (alpha**2 + f)) ** (n / 2),
                "Each of the n sub-layers has its own norm, and a share of variance is the square of one of amplitude.",
            ),
            Misconception(
                (alpha**2 / (alpha**2 + f)) ** (2 * n), "n counts sub-layers, not layers: there are n norms."
            ),
            Misconception((alpha / (alpha + f)) ** n, "Scaling x by α scales its variance by α²."),
            Misconception(
                1 - np.exp(-n * np.log1p(f / alpha**2)), "That is the share of the branches, not of the input."
            ),
        ]
        if n < 50:  # α^(2n) is a number only for few sub-layers
            wrong.append(
                Misconception(alpha ** (2 * n) / (alpha ** (2 * n) + n * f), "Each norm shrinks everything before it.")
            )
        trial.equal(got, expected, wrong, "One sub-layer keeps α²/(α² + f) of the variance; n of them multiply.")
    trial.equal(trial.call(0, 0.4, 1.3), 1.0, sentence="With no sub-layer all of the variance is the input's.")


def cloned_growth(trial: Trial) -> None:
    """Σ_k C(n,k)² ε^(2k)."""
    for n, eps in [(20, 0.1), (7, 0.3), (3, 0.5)]:
        got = trial.call(n, eps)
        # As a recursion over coefficients: (1 + z)ⁿ built up one factor at a time, each squared at the end.
        coefficients = np.array([1.0])
        for _ in range(n):
            coefficients = np.append(coefficients, 0.0) + np.append(0.0, coefficients)
        expected = float((coefficients**2 * eps ** (2.0 * np.arange(n + 1))).sum())
        wrong = [
            Misconception(
                (1 + eps**2) ** n,
                "That is for independent layers. With one A, the k-th power can be reached in C(n,k) ways, and equal "
                "directions add in amplitude.",
            ),
            Misconception(
                (1 + eps) ** (2 * n),
                "That is for branches that all point along x. A^k x turns to a new direction for each k.",
            ),
            Misconception(1 + n**2 * eps**2, "Only the k = 1 term. It fails as soon as nε is near 1."),
            Misconception(
                sum(comb(n, k) ** 2 * eps ** (2 * k) for k in range(n)),
                "The sum runs over k from 0 to n, with both ends.",
            ),
            Misconception(
                sum(comb(n, k) ** 2 * eps**k for k in range(n + 1)), "A^k x comes with ε^k: squared, ε^(2k)."
            ),
        ]
        trial.equal(got, expected, wrong, "Lengths add as squares: Σ_k C(n,k)² ε^(2k).", tolerance=1e-7)
    trial.equal(trial.call(0, 0.3), 1.0, sentence="With no layer the length stays what it was.")
    small = [trial.call(n, 1e-3) for n in (10, 20, 40)]
    slopes = [log((b - 1) / (a - 1), 2) for a, b in pairwise(small)]
    trial.require(
        all(abs(slope - 2) < 0.01 for slope in slopes), "For small nε the growth is quadratic in n: 1 + n²ε² + …"
    )


def residual_variance(trial: Trial) -> None:
    """var_x + var_f + 2·corr·√(var_x·var_f)."""
    for var_x, var_f, corr in [(2.0, 0.7, 0.3), (0.4, 1.5, -0.6), (3.0, 3.0, 1.0)]:
        got = trial.call(var_x, var_f, corr)
        a, b = sqrt(var_x), sqrt(var_f)
        # |a·u + b·v|² with u, v unit vectors at the angle whose cosine is corr.
        expected = (a + b * corr) ** 2 + b**2 * (1 - corr**2)
        wrong = [
            Misconception(var_x + var_f, "That is for independent signals: with a correlation there is a cross term."),
            Misconception(var_x + var_f + corr * a * b, "The cross term comes twice: (a + b)² = a² + 2ab + b²."),
            Misconception(
                var_x + var_f + 2 * corr * var_x * var_f,
                "A covariance is the correlation times both standard deviations, not variances.",
            ),
            Misconception(var_x + var_f - 2 * corr * a * b, "The branch is added, so the cross term is too."),
        ]
        trial.equal(got, expected, wrong, "The variance of a sum is var_x + var_f + 2·covariance.")


def damped_variance(trial: Trial) -> None:
    """v[l] = v[l-1] + 2f/l, from depth 0 on: (n + 1,)."""
    for n, f, var0 in [(6, 0.7, 2.0), (11, 0.3, 0.5), (1, 1.4, 3.0)]:
        got = trial.call(n, f, var0)
        layer = np.arange(1, n + 1)

        def grown(step, v0=var0):  # type: ignore[no-untyped-def]
            return np.concatenate([[v0], v0 + np.cumsum(step)])

        wrong = [
            Misconception(
                grown(2 * f / np.sqrt(layer)),
                "The branch is divided by √l, so its variance is divided by l: variances scale with the square.",
            ),
            Misconception(grown(f / layer), "A layer has two sub-layers, and each adds f/l."),
            Misconception(
                grown((f / np.arange(1, 2 * n + 1)).reshape(n, 2).sum(1)),
                "l counts layers, not sub-layers: both branches of layer l are divided by √l.",
            ),
            Misconception(grown(2 * f / (layer + 1)), "The first layer is l = 1, and its branches are not damped."),
            Misconception(grown(2 * f / layer**2), "The variance is divided by l, not by l²."),
            Misconception(grown(2 * f * layer**0.0), "That is Pre-LN without damping: layer l adds 2f/l, not 2f."),
            Misconception(
                grown(2 * f / n * layer**0.0), "All layers are damped alike there: layer l is divided by √l, not by √n."
            ),
        ]
        trial.equal(
            got,
            grown(2 * f / layer),
            wrong,
            "Layer l adds 2f/l to the variance.",
            shape_sentence="Depth 0, the input itself, belongs to the curve: n layers give n + 1 values.",
        )
    trial.require(np.shape(trial.call(0, 0.5, 2.0)) == (1,), "A stack of no layers has one value, the input's.")


JUDGES: dict[str, Judge] = {
    "variance_by_depth": variance_by_depth,
    "input_share": input_share,
    "cloned_growth": cloned_growth,
    "residual_variance": residual_variance,
    "damped_variance": damped_variance,
}
