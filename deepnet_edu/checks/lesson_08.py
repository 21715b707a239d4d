"""Lesson 08, the edge of trainability: its α by formula, verdicts on runs, the edge of a map, its power of depth."""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, expm1, isnan, log, sqrt
from typing import Any

import numpy as np

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.record import Array


def edge_alpha(trial: Trial) -> None:
    """(s/(4·(share^(-1/(2N)) - 1)))^(1/6)."""
    # Few layers first: with many of them the sum of first order is nearly right.
    for N, share, s in [(1, 0.3, 0.6), (3, 0.8, 0.25), (2, 0.15, 1.7), (500, 0.4, 0.2)]:
        got = trial.call(N, share, s)
        trial.require(
            not isinstance(got, complex) and not (isinstance(got, float) and isnan(got)),
            "A root of a negative number: share^(1/(2N)) is below 1, so it is its inverse minus 1 that is positive.",
            got=str(got),
        )

        def ratio(n: float, share: float = share) -> float:
            """f/α² of each of n sub-layers that together keep this share: 1/kept - 1, in logarithms."""
            return expm1(-log(share) / n)

        def alpha(ratio: float, s: float = s, four: float = 4, root: float = 6) -> float:
            return exp(log(s / four / ratio) / root)

        one = ratio(2 * N)
        tied = "β = 1/(√2·α) falls as α grows: α² of the skip and α⁴ of β⁴ make α⁶, so the root is the sixth."
        fourth = "β⁴ is 1/(4α⁴): the fourth power of √2 is 4."
        first = "Right to first order, but shares multiply: "
        wrong = [
            Misconception(alpha(ratio(N)), "N layers are 2N sub-layers, and each keeps its own share of the variance."),
            Misconception(alpha(ratio(4 * N)), "share is one of variance already: there is no square root to take."),
            Misconception(alpha(one, four=2, root=4), "A branch is two matrices of gain β: its variance is s·β⁴."),
            Misconception(alpha(one, root=4), tied),
            Misconception(alpha(one, root=2), tied),
            Misconception(alpha(one, four=1, root=2), "That is for β = 1. Here β is tied to α: 1/(√2·α)."),
            Misconception(alpha(one, four=1), fourth),
            Misconception(alpha(one, four=2), fourth),
            Misconception(alpha(one, four=16), fourth),
            Misconception(alpha(one, root=5), "Scaling x by α scales its variance by α²."),
            Misconception(alpha(one, s=1.0), "s is forgotten: with gain 1 a branch passes the part s of the variance."),
            Misconception(alpha(ratio(2 * N, 1 - share)), "share is what is left of the input, not what is lost."),
            Misconception(alpha((1 - share) / (2 * N)), f"{first}if losses added, enough layers would lose it all."),
            Misconception(alpha((1 / share - 1) / (2 * N)), f"{first}each norm shrinks everything that came before."),
            Misconception(alpha(-log(share) / (2 * N)), f"{first}for few layers take the 2N-th root of share itself."),
            Misconception(alpha(one / (1 + one)), "1 - kept is f over the sum α² + f. For f over α² take 1/kept - 1."),
        ]
        trial.equal(got, alpha(one), wrong, "One sub-layer keeps 1/(1 + s/(4α⁶)), and 2N of them multiply.")


# --- verdicts

_WORDS = {
    "diverged": "One loss that is not finite, at any step, and the run has diverged.",
    "learned": "The mean of the last five losses is below 1.0: learned, whatever its tokens were like.",
    "lost": "Lost takes both: similarity above 0.9, and the mean of the last five above chance - 0.25.",
    "slow": "What has not diverged, not learned and is not lost is slow.",
}


@dataclass(frozen=True)
class _Run:
    verdict: str
    loss: Array
    similarity: float
    chance: float


def _losses(start: float, end: float, *last: float, steps: int = 30) -> Array:
    """From start to end, then the last five."""
    return np.append(np.linspace(start, end, steps - len(last)), last)


def _with(loss: Array, step: int | slice, value: float) -> Array:
    loss = loss.copy()
    loss[step] = value
    return loss


_16, _64, _6 = log(16), log(64), log(6)
_DOWN = _losses(2.8, 0.5, 0.5, 0.4, 0.5, 0.5, 0.4)
_FLAT = _losses(2.8, 2.75, 2.81, 2.72, 2.79, 2.74, 2.7)
# Each stands for something that a wrong answer trips over; none lies on a threshold.
_RUNS = [
    _Run("learned", _DOWN, 0.2, _16),
    _Run("learned", _DOWN, 0.97, _16),
    _Run("slow", _FLAT, 0.3, _16),
    _Run("lost", _FLAT, 0.98, _16),
    _Run("lost", _FLAT + 0.1, 0.98, _16),
    _Run("diverged", _with(_DOWN, slice(12, None), np.nan), 0.2, _16),
    _Run("diverged", _with(_FLAT, slice(-1, None), np.nan), 0.98, _16),
    _Run("diverged", _with(_DOWN, 9, np.nan), 0.2, _16),
    _Run("diverged", np.full(30, np.nan), 0.98, _16),
    _Run("diverged", _with(_DOWN, 3, np.inf), 0.97, _16),
    # The last loss, the lowest, the last four, six, ten and all of them mislead.
    _Run("slow", _losses(2.8, 1.4, 1.5, 1.4, 1.4, 1.5, 0.7), 0.2, _16),
    _Run("learned", _losses(2.8, 0.8, 0.6, 0.7, 0.8, 0.8, 1.4), 0.2, _16),
    _Run("learned", _with(_losses(0.8, 0.6, 0.5, 0.4, 0.5, 0.5, 0.4), slice(5), 40.0), 0.2, _16),
    _Run("slow", _with(_losses(2.8, 1.8, 1.8, 1.9, 1.7, 1.8, 1.8), 14, 0.5), 0.2, _16),
    _Run("slow", _losses(0.3, 0.5, 1.3, 1.5, 1.4, 1.6, 1.5), 0.2, _16),
    _Run("learned", _with(_losses(2.8, 1.3, 0.7, 1.05, 1.05, 1.05, 1.05), -6, 1.3), 0.2, _16),
    _Run("slow", _with(_losses(2.8, 0.6, 1.3, 0.95, 0.95, 0.95, 0.95), -6, 0.6), 0.2, _16),
    # Tokens alike, but on its way: not far below chance - 0.25.
    _Run("slow", _losses(2.8, 2.2, 2.3, 2.1, 2.2, 2.2, 2.2), 0.98, _16),
    _Run("slow", _losses(2.8, 2.4, 2.4, 2.3, 2.5, 2.4, 2.4), 0.98, _16),
    _Run("lost", _losses(2.9, 2.6, 2.6, 2.5, 2.6, 2.6, 2.6), 0.92, _16),
    _Run("slow", _losses(2.9, 2.6, 2.6, 2.5, 2.6, 2.6, 2.6), 0.88, _16),
    # Other tasks, other chances.
    _Run("slow", _FLAT, 0.98, _64),
    _Run("lost", _FLAT + _64 - _16, 0.98, _64),
    _Run("lost", _losses(1.9, 1.8, 1.8, 1.7, 1.7, 1.8, 1.7), 0.98, _6),
]


def _verdicts(
    final: Callable[[Array], float] = lambda loss: loss[-5:].mean(),
    finite: Callable[[Array], bool] = lambda loss: bool(np.isfinite(loss).all()),
    lost: Callable[[_Run, float], bool] = lambda run, final: run.similarity > 0.9 and final > run.chance - 0.25,
    lost_first: bool = False,
) -> list[str]:
    """Verdicts on all runs, of whoever goes by these rules."""

    def verdict(run: _Run) -> str:
        if not finite(run.loss):
            return "diverged"
        end = final(run.loss)
        if end < 1 and not (lost_first and lost(run, end)):
            return "learned"
        return "lost" if lost(run, end) else "slow"

    return [verdict(run) for run in _RUNS]


def _wrong_verdicts() -> list[tuple[list[str], str]]:
    nan = "NaN compares false with everything, even with itself, and so ends as the last word: ask np.isfinite first."
    whole = "Look for losses that are not finite at every step: one is enough, even if others follow."
    noisy = "The last loss alone is one batch, and noisy: take the mean of the last five."
    alone = "Tokens that start alike may be told apart in training: lost needs a loss near chance too."
    return [
        (_verdicts(final=lambda loss: loss[-1]), noisy),
        (_verdicts(final=lambda loss: loss[-1], finite=lambda loss: True), noisy),
        (_verdicts(final=lambda loss: loss.min()), "The lowest loss of all is luck: take the mean of the last five."),
        (_verdicts(final=lambda loss: loss[-5:].min()), "The lowest of five is luck: take their mean."),
        (_verdicts(final=np.mean), "The mean over all steps is mostly the start of the run: take the last five."),
        (_verdicts(final=lambda loss: loss[:5].mean()), "Those are the first five losses: the last are loss[-5:]."),
        (_verdicts(final=lambda loss: loss[5:].mean()), "loss[5:] leaves five out: the last five are loss[-5:]."),
        (_verdicts(final=lambda loss: loss[-5:].sum()), "A sum of five losses is five times as large: take the mean."),
        (_verdicts(finite=lambda loss: True), nan),
        (_verdicts(finite=lambda loss: bool(np.isfinite(loss[-1]))), whole),
        (_verdicts(finite=lambda loss: bool(np.isfinite(loss[-5:]).all())), whole),
        (_verdicts(finite=lambda loss: not np.isnan(loss).any()), "Infinity is not finite either: use np.isfinite."),
        (_verdicts(finite=lambda loss: bool(np.isfinite(loss).any())), "One loss is enough: all of them, not any."),
        (_verdicts(lost=lambda run, final: run.similarity > 0.9), alone),
        (_verdicts(lost=lambda run, final: run.similarity > 0.9, lost_first=True), alone),
        (
            _verdicts(lost=lambda run, final: final > run.chance - 0.25),
            "A run near chance whose tokens differ can still learn: lost needs tokens that are alike too.",
        ),
        (
            _verdicts(lost=lambda run, final: run.similarity > 0.9 or final > run.chance - 0.25),
            "Lost needs both, similar tokens and a loss near chance: and, not or.",
        ),
        (
            _verdicts(lost=lambda run, final: run.similarity > 0.9 and final > run.chance),
            "Who knows nothing hovers around chance, also below: lost begins at chance - 0.25.",
        ),
        (
            _verdicts(lost=lambda run, final: run.similarity > 0.9 and final > _16 - 0.25),
            "chance is an argument: use it.",
        ),
        (_verdicts(lost=lambda run, final: False), "Nothing is ever lost: the last question is missing."),
    ]


def outcome(trial: Trial) -> None:
    """One of four words."""
    got = []
    for run in _RUNS:
        loss = run.loss.copy()
        # Not through call: it takes an array that holds NaN for a changed one.
        answer: Any = trial.change(loss, run.similarity, run.chance)
        trial.require(answer is not None, "Your function returns nothing: is there a return at its end?", got="None")
        trial.require(
            np.array_equal(loss, run.loss, equal_nan=True),
            "Your function changed its input in place: the caller still needs it, work on a copy.",
        )
        trial.require(isinstance(answer, str), "The answer is a word, in quotes.", "a text", type(answer).__name__)
        trial.require(
            answer in _WORDS,
            'The answer is one of four words, in small letters: "diverged", "learned", "lost", "slow".',
            got=f'"{answer[:40]}"',
        )
        got.append(answer)
    first = next((i for i, run in enumerate(_RUNS) if got[i] != run.verdict), None)
    if first is not None:
        right = _RUNS[first].verdict
        said = next((sentence for answers, sentence in _wrong_verdicts() if answers == got), _WORDS[right])
        trial.require(False, said, f'"{right}"', f'"{got[first]}"')


# --- the edge of a map

_T, _F = True, False
# Not in order. First as many seeds as αs, so that the wrong axis answers at all; then islands; then nothing.
_MAPS: list[tuple[list[float], list[list[bool]]]] = [
    (
        [2.6, 1.2, 3.3, 1.7, 2.1, 2.9],
        [[_T] * 6, [_F] * 5 + [_T], [_T] * 6, [_F] + [_T] * 5, [_F] * 4 + [_T] * 2, [_T] * 6],
    ),
    (
        [5.3, 1.9, 3.1, 6.2, 1.4, 3.7, 2.2, 4.5],
        [[_T] * 3, [_T, _F, _F], [_T] * 3, [_T] * 3, [_F] * 3, [_T, _F, _T], [_T, _T, _F], [_T] * 3],
    ),
    ([1.5, 0.9, 2.4], [[_T, _F], [_F, _F], [_F, _T]]),
]


def trainable_edge(trial: Trial) -> None:
    """min of alphas[learned.all(1)], or infinity."""
    for alphas, learned in _MAPS:
        got = trial.call(np.array(alphas), np.array(learned))
        rows = sorted(zip(alphas, learned, strict=True))
        seeds = len(learned[0])
        passing = [alpha for alpha, row in rows if sum(row) == seeds]
        failing = [alpha for alpha, row in rows if sum(row) < seeds]
        if passing:
            expected = passing[0]
            wrong = _wrong_edges(alphas, rows, passing, failing)
            columns = [sum(column) == seeds for column in zip(*learned, strict=True)]
            if len(alphas) == seeds and any(columns):
                edge = min(alpha for alpha, every in zip(alphas, columns, strict=True) if every)
                wrong.append(Misconception(edge, "That asks every α of one seed. A row is an α: go along axis 1."))
            sentence = "The edge is the smallest α at which every seed learned."
        else:
            expected, wrong = np.inf, []
            sentence = "No α trained every seed here: the edge is infinity, np.inf, above every α that was tried."
        trial.equal(got, expected, wrong, sentence)


def _wrong_edges(
    alphas: list[float], rows: list[tuple[float, list[bool]]], passing: list[float], failing: list[float]
) -> list[Misconception]:
    index = "That is a place in the array. Asked is the α that stands there."
    return [
        Misconception(
            next(alpha for alpha, row in rows if any(row)),
            "Not every seed learned there: one may be luck, the edge asks for all of them, not for any.",
        ),
        Misconception(
            next(alpha for alpha, row in rows if 2 * sum(row) > len(row)),
            "Most seeds are not all: the edge is where every seed learns.",
        ),
        Misconception(float(alphas.index(passing[0])), index),
        Misconception(float([alpha for alpha, _ in rows].index(passing[0])), index),
        Misconception(float(next(i for i, alpha in enumerate(alphas) if alpha in passing)), index),
        Misconception(passing[-1], "That is the largest α at which all learned. The edge is the smallest."),
        Misconception(
            next(alpha for alpha in alphas if alpha in passing),
            "The αs come in any order: the first row that passes need not hold the smallest.",
        ),
        Misconception(min(alphas), "That is the smallest α tried: look at which of them learned."),
        Misconception(max(failing), "That is the largest α that failed: the edge is the smallest that trains."),
        Misconception(
            min(alpha for alpha in passing if alpha > max(failing)),
            "Beyond that α nothing fails. The edge is the smallest that trains, even if a larger one failed.",
        ),
    ]


def depth_power(trial: Trial) -> None:
    """Slope of ln(value) on ln(depth)."""
    rng = np.random.default_rng(8)
    # Off the line, and unevenly spaced: on a straight line two points are as good as all of them.
    for depths, p, c in [([3, 10, 24, 100, 450], 0.3, 0.4), ([12, 18, 50, 200], -1.2, 90.0), ([2, 7, 9], 2.0, 5.0)]:
        N = np.array(depths)
        values = c * N ** float(p) * np.exp(rng.normal(0, 0.3, len(N)))
        got = trial.call(N, values)
        x, y = np.log(N), np.log(values)

        def slope(x: Array, y: Array) -> float:
            """Least squares as a mean over pairs: Σ(x_i - x_j)(y_i - y_j)/Σ(x_i - x_j)²."""
            dx, dy = x[:, None] - x, y[:, None] - y
            return float((dx * dy).sum() / (dx * dx).sum())

        p_hat = slope(x, y)
        units = "The same logarithm on both axes: ln here and log10 there multiplies the slope by a constant."
        wrong = [
            Misconception(
                (y[-1] - y[0]) / (x[-1] - x[0]), "Those are the first and last point alone: fit all of them."
            ),
            Misconception(
                np.mean(np.diff(y) / np.diff(x)), "Slopes between neighbours are noisy: fit one line to all."
            ),
            Misconception(slope(N, values), "A power is a slope between logarithms: take them of depth and of value."),
            Misconception(slope(N, y), "The depths need their logarithm too: this is the rate of an exponential."),
            Misconception(slope(x, values), "The values need their logarithm too."),
            Misconception(slope(y, x), "The axes are exchanged: depth lies to the right, the value upward."),
            Misconception(p_hat / log(10), units),
            Misconception(p_hat * log(10), units),
            Misconception((x @ y) / (x @ x), "A line through the origin has a factor of 1: it needs an intercept."),
            Misconception(y.mean() - p_hat * x.mean(), "That is the intercept: np.polyfit gives the slope first."),
            Misconception(float(np.corrcoef(x, y)[0, 1]), "That is the correlation, how straight the line is."),
        ]
        trial.equal(got, p_hat, wrong, "p is the least-squares slope of ln(value) on ln(depth).")


def matching_rate(trial: Trial) -> None:
    """rate·(N·β/α)_shallow/(N·β/α)_deep."""
    # Not the paper's constants: with them N·β/α is √N/2, and a wrong answer right. Rates of order 1 for the digits.
    for rate, shallow, deep in [(0.7, (6, 1.6, 0.5), (50, 2.3, 0.31)), (1.3, (40, 3.1, 0.9), (12, 1.2, 0.35))]:
        got = trial.call(rate, shallow, deep)
        (n, a, b), (N, A, B) = shallow, deep
        wrong = [
            Misconception(rate * (N * B / A) / (n * b / a), "Upside down: a larger sum takes a smaller rate."),
            Misconception(
                rate * (n * b**2 / a**2) / (N * B**2 / A**2),
                "That is SGD's sum, whose step is a gradient and carries another √2·β/α. Steps of fixed size have one.",
            ),
            Misconception(rate * (n * b**2 / a) / (N * B**2 / A), "√(β² + β²) is √2·β: β comes once, not squared."),
            Misconception(rate * n / N, "Depth alone is not all: each sub-layer counts with its β/α."),
            Misconception(rate * (n * b) / (N * B), "α is forgotten: the skip makes every branch weaker by 1/α."),
            Misconception(rate * (n / a) / (N / A), "β is forgotten: it says how strong a branch's matrices are."),
            Misconception(rate * (b / a) / (B / A), "Depth is forgotten: the sum runs over 2N sub-layers."),
            Misconception(rate * (n * a / b) / (N * A / B), "β/α, not α/β: a strong skip holds the output still."),
            Misconception(rate * sqrt(n / N) * (b / a) / (B / A), "Theorem 4.2 adds bounds: N of them, not √N."),
            Misconception(rate * sqrt(n / N), "√N holds with the paper's α and β alone: here they are given."),
            Misconception(rate * 2 * sqrt(2) * n * b / a, "That is the shallow bound: divide by the deep stack's sum."),
            Misconception((n * b / a) / (N * B / A), "That is the ratio of both sums: it multiplies the shallow rate."),
        ]
        expected = exp(log(rate) + log(n / N) + log(b / B) - log(a / A))
        trial.equal(got, expected, wrong, "Both bounds are rate·2N·√2·β/α: set them equal, solve for the deep rate.")
    same = (30, 2.7, 0.4)
    trial.equal(trial.call(0.5, same, same), 0.5, sentence="Two equal stacks take the same rate.")


JUDGES: dict[str, Judge] = {
    "edge_alpha": edge_alpha,
    "outcome": outcome,
    "trainable_edge": trainable_edge,
    "depth_power": depth_power,
    "matching_rate": matching_rate,
}
