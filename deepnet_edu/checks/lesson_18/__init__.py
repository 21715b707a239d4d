"""Lesson 18, after DeepNet: rules as ways to weigh depth, streams that mix, and what a comparison can say."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_18.own_rule import LambdaSkip
from deepnet_edu.checks.numbers import apart
from deepnet_edu.checks.trial import Array

_draw = np.random.default_rng(0)
#: Factors on the skip, variances of the branches.
_STACKS = [
    ([1.5, 0.7, 1.2, 0.9], [0.5, 2.0, 0.3, 1.1]),
    ([1.3, 0.6], [0.7, 1.9]),
    (_draw.uniform(0.5, 2, 7).tolist(), _draw.uniform(0.1, 2, 7).tolist()),
]
_EDGES = [([1.4], [0.6]), ([0.0, 1.0, 2.0], [0.5, 1.0, 0.0]), ([], []), ([1.0] * 6, [1.0] * 6)]


def mixing_matrix(trial: Trial) -> None:
    """Row 0 is 1 for the input. Row l is skip[l-1]**2 times row l-1, with branch[l-1] as entry l; with a norm the row
    is divided by its sum at once, and in the end every row is divided by its sum.
    """
    for skip, branch in (*_STACKS, *_EDGES):
        for norm in (True, False):
            a, f = np.array(skip, float), np.array(branch, float)
            got = trial.call(a, f, norm)
            wrong = _wrong_matrices(a, f, norm) if len(skip) > 1 and (skip, branch) in _STACKS else []
            said = "For these factors and variances some share is wrong."
            shape = "The matrix has a row and a column for the input and for each sub-layer: (n + 1, n + 1)."
            trial.equal(got, _shares(a, f, norm), wrong, said, shape_sentence=shape)
    got = np.asarray(trial.call(np.array([1.1, 0.8, 1.7]), np.array([0.4, 0.9, 0.2]), True), float)
    trial.require(bool(np.allclose(got.sum(1), 1, atol=1e-4)), "The shares of a row sum to 1.")
    trial.require(bool(np.allclose(np.triu(got, 1), 0)), "Row l holds nothing of the sub-layers above it.")


def _shares(skip: Array, branch: Array, norm: bool, power: float = 2.0) -> Array:
    """Entry by entry, as a product: source i, then all factors above it."""
    n = len(skip)
    sources = np.array([1.0, *branch])
    sizes = np.zeros((n + 1, n + 1))
    for i in range(n + 1):
        for row in range(i, n + 1):
            passed = np.prod(np.abs(skip[i:row]) ** power)
            # A norm divides by the variance of each sum from source i on, which is 1 before it.
            sums = [abs(skip[k]) ** power + branch[k] for k in range(max(i - 1, 0), row)] if norm else []
            sizes[row, i] = sources[i] * passed / np.prod(sums)
    return np.asarray(sizes / sizes.sum(1, keepdims=True))


def _wrong_matrices(skip: Array, branch: Array, norm: bool) -> list[Misconception]:
    right = _shares(skip, branch, norm)
    other = (
        "A norm keeps the stream at 1, so each branch meets the same stream."
        if norm
        else "Without a norm the stream grows, and later branches count less."
    )
    roots = np.sqrt(right)
    raw = right * _variance(skip, branch)[:, None]
    late = _shares(np.append(1.0, skip[:-1]), branch, norm)
    flipped = _shares(skip[::-1], branch[::-1], norm)
    return [
        Misconception(_shares(skip, branch, norm, 1.0), "Scaling by a scales the variance by a²."),
        Misconception(_shares(skip, branch**2, norm), "The branches are given as variances already."),
        Misconception(_shares(skip, branch, not norm), other),
        Misconception(raw if not norm else right, "Divide each row by its sum: shares are asked for."),
        Misconception(roots, "Shares of the variance, not their roots."),
        Misconception(roots / roots.sum(1, keepdims=True), "Shares of the variance, not their roots."),
        Misconception(right.T, "Row l is the stream after sub-layer l, column i its source: yours is transposed."),
        Misconception(late, "Row l takes the skip of its own sub-layer, l - 1 in the list."),
        Misconception(flipped, "The first entry belongs to the lowest sub-layer."),
    ]


def _variance(skip: Array, branch: Array) -> Array:
    v = [1.0]
    for a, f in zip(skip, branch, strict=True):
        v.append(a * a * v[-1] + f)
    return np.array(v)


def amax_gain(trial: Trial) -> None:
    """Multiply all mixers, the first one on the right; take absolute values; sum rows and sum columns, and return the
    largest of these sums.
    """
    for count, n in ((3, 2), (4, 3), (2, 4), (5, 3), (1, 3), (2, 2), (3, 1)):
        for seed in range(3):
            mixers = np.random.default_rng([count, n, seed]).normal(0.2, 0.7, (count, n, n))
            product = np.linalg.multi_dot(mixers[::-1]) if count > 1 else mixers[0]
            wrong = apart(_wrong_gains(mixers, product)) if count > 1 and n > 1 else []
            trial.equal(trial.call(mixers), _gain(product), wrong, "For these mixers the largest sum is wrong.")
    mixers = np.array([[[0.0, 1.0], [1.0, 0.0]]] * 5)
    swapped = float(trial.call(mixers))
    trial.require(abs(swapped - 1) < 1e-3, "Streams that only trade places gain nothing.", "1", f"{swapped:.4g}")


def _gain(product: Array) -> float:
    return float(max(np.linalg.norm(product, 1), np.linalg.norm(product, np.inf)))


def _wrong_gains(mixers: Array, product: Array) -> list[Misconception]:
    rows, columns = np.linalg.norm(product, np.inf), np.linalg.norm(product, 1)
    each = [_gain(one) for one in mixers]
    forward = mixers[0]
    for one in mixers[1:]:
        forward = forward @ one
    plain = max(product.sum(0).max(), product.sum(1).max())
    both = "The answer is the larger of both, rows and columns."
    largest = "The largest single mixer says little: a signal passes through all of them, one after another."
    return [
        Misconception(_gain(forward), "The first mixer is on the right of the product."),
        Misconception(max(each), largest),
        Misconception(np.prod(each), "A product of gains is a bound. What a signal passes is the product of mixers."),
        Misconception(rows, "Rows alone: on the way down the gradient meets the columns."),
        Misconception(columns, "Columns alone: on the way up the signal meets the rows."),
        Misconception(plain, "Sum absolute values: streams can add up whatever their signs."),
        Misconception(np.abs(product).max(), "That is the largest entry: a stream reads its whole row."),
        Misconception(np.linalg.norm(product, 2), "That is the spectral norm: sums of absolute values are asked for."),
        Misconception(rows + columns, both),
    ]


_LOSSES = [
    ([2.3, 2.4, 2.5, 2.1, 2.0, 2.2], (1, 2, 3, 5, 6)),
    ([2.8, 3.0, 2.6, 2.7, 1.95, 2.9], (1, 2, 4, 6)),
    ([3.1, 2.0, 2.0, 4.7], (2, 3)),
    ([1.7, 1.2], (1, 2)),
    ([0.9], (1,)),
    ([0.5, 0.0, 1.0, -1.0], (1, 2, 3)),
]


def expected_best(trial: Trial) -> None:
    """Sort the n losses; sum x[i] * comb(n - 1 - i, k - 1) over i from 0, and divide by comb(n, k): the i-th is the
    least of all choices whose others are larger.
    """
    for losses, ks in _LOSSES:
        for k in ks:
            least = [min(some) for some in combinations(losses, k)]
            wrong = apart(_wrong_bests(losses, k)) if 1 < k < len(losses) else []
            said = f"The mean of the least loss over all choices of {k} is wrong."
            trial.equal(trial.call(list(losses), k), float(np.mean(least)), wrong, said)
    one, other = (float(trial.call(losses, 2)) for losses in ([3.0, 1.0, 2.0, 5.0], [1.0, 5.0, 3.0, 2.0]))
    trial.require(
        abs(one - other) < 1e-3, "The order in which losses were found must not matter.", f"{one:.4g}", f"{other:.4g}"
    )


def _wrong_bests(losses: Sequence[float], k: int) -> list[Misconception]:
    x, n = np.sort(losses), len(losses)
    places = np.arange(n)
    twice = x @ (((n - places) / n) ** k - ((n - places - 1) / n) ** k)
    most = np.mean([max(some) for some in combinations(losses, k)])
    return [
        Misconception(x[0], "That is the least of all tries: with k tries you may miss the best."),
        Misconception(min(losses[:k]), "The least of the first k: the order of the tries must not matter."),
        Misconception(twice, "Here a try may come twice among the k: choose k different ones."),
        Misconception(most, "That is the largest of k: lower is better."),
        Misconception(x[:k].mean(), "That is the mean of the k best, not the mean of a minimum."),
        Misconception(x.mean(), "That is the mean of all tries, the value for k = 1."),
        Misconception(np.median(x), "That is the median of all tries."),
    ]


_P = [
    [0.03, 0.001, 0.04, 0.5, 0.012],
    [0.2, 0.011, 0.013, 0.9],
    [0.021, 0.004, 0.3, 0.02, 0.0201, 0.7],
    [0.04, 0.03],
    [0.6, 0.7, 0.02],
    [0.3],
    [0.01, 0.01, 0.01],
    [1.0, 0.0, 0.5],
    [],
]


def holm(trial: Trial) -> None:
    """From the smallest p on: times m, the next times m - 1, and so on, at most 1, and never below the one before; each
    goes back to where its p was.
    """
    for p in _P:
        # Closed testing: a hypothesis falls if every set that holds it does, by |S| times its smallest p.
        sets = [some for size in range(1, len(p) + 1) for some in combinations(range(len(p)), size)]
        right = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(len(p))]
        said = "Some adjusted value is wrong."
        trial.equal(trial.call(list(p)), right, apart(_wrong_adjusted(p, right)) if len(p) > 1 else [], said)
    got = [float(one) for one in trial.call([0.02, 0.5, 0.001])]
    trial.require(all(a <= 1 for a in got), "A probability is at most 1.")


def _wrong_adjusted(p: Sequence[float], right: Sequence[float]) -> list[Misconception]:
    m, order = len(p), sorted(range(len(p)), key=lambda i: p[i])
    steps = [(m - rank) * p[i] for rank, i in enumerate(order)]
    up = [m / (rank + 1) * p[i] for rank, i in enumerate(order)]

    def back(values: Any) -> Array:
        found = np.zeros(m)
        found[order] = values
        return found

    bh = np.minimum(1, np.minimum.accumulate(up[::-1])[::-1])
    climbing = np.maximum.accumulate([min(1, (rank + 1) * p[i]) for rank, i in enumerate(order)])
    unordered = np.maximum.accumulate([min(1, (m - i) * one) for i, one in enumerate(p)])
    return [
        Misconception(p, "Those are the values as given: of 20 comparisons of equal rules one is below .05."),
        Misconception(np.minimum(1, m * np.array(p)), "Bonferroni's: right too, but stricter than needed."),
        Misconception(m * np.array(p), "Bonferroni's, and above 1: a probability is at most 1."),
        Misconception(
            back(bh), "Benjamini and Hochberg's: it bounds the share of false claims, not the chance of any."
        ),
        Misconception(back(np.minimum(1, steps)), "An adjusted value is not below that of a smaller p."),
        Misconception(back(steps), "A probability is at most 1, and not below that of a smaller p."),
        Misconception(back(np.maximum.accumulate(steps)), "A probability is at most 1."),
        Misconception(sorted(right), "In the order given: remember where each came from."),
        Misconception(back(climbing), "The smallest has the largest factor."),
        Misconception(unordered, "From the smallest to the largest, and not in the order given."),
    ]


JUDGES: dict[str, Judge] = {
    "mixing_matrix": mixing_matrix,
    "LambdaSkip": LambdaSkip,
    "amax_gain": amax_gain,
    "expected_best": expected_best,
    "holm": holm,
}
