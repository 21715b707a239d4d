"""Lesson 08, the edge of trainability: its α by formula, verdicts on runs, the edge of a map, how sure its power is."""

from math import exp, expm1, isnan, log, sqrt

import numpy as np

from deepnet_edu.checks.base import Judge, Misconception, NotRight, Trial
from deepnet_edu.checks.lesson_08.intervals import interval
from deepnet_edu.checks.lesson_08.verdicts import outcome
from deepnet_edu.checks.trial import Array
from deepnet_edu.checks.values import is_number

#: An answer that is right to this precision is right, or rounded: then another sentence says so.
_NEARLY = 1e-3


def edge_alpha(trial: Trial) -> None:
    """(s/(4·(share^(-1/(2N)) - 1)))^(1/6): each of 2N sub-layers keeps share^(1/(2N)), which is 1/(1 + s/(4α⁶))."""
    # Few layers first: with many of them the sum of first order is nearly right.
    for N, share, s in [(1, 0.3, 0.6), (3, 0.83, 0.23), (4, 0.07, 1.7), (500, 0.4, 0.21), (16, 0.97, 1.3)]:
        got = trial.call(N, share, s)
        real = not isinstance(got, complex | np.complexfloating) and not (is_number(got) and isnan(float(got)))
        trial.require(
            real,
            "There is no real α. Look at the sign under the root: one sub-layer keeps less than 1.",
            got=str(got),
        )

        def ratio(n: float, share: float = share) -> float:
            """f/α² of each of n sub-layers that together keep this share: 1/kept - 1, in logarithms."""
            return expm1(-log(share) / n)

        def alpha(ratio: float, s: float = s, four: float = 4, root: float = 6) -> float:
            return exp(log(s / four / ratio) / root)

        one = ratio(2 * N)
        tied = "β = 1/(√2·α) falls as α grows. Count the powers of α again: the skip has some, and β has some."
        fourth = "β comes in its fourth power, and so does the √2 in it."
        first = "Right to first order, but shares multiply: "
        sixth = "Python reads x**1/6 as (x**1)/6: put the exponent in parentheses."
        known = [
            (alpha(ratio(N)), "N layers are 2N sub-layers, and each keeps its own share of the variance."),
            (alpha(ratio(4 * N)), "share is one of variance already: there is no square root to take."),
            (alpha(one, four=2, root=4), "A branch is two matrices of gain β: its variance has β⁴, not β²."),
            (alpha(one, root=4), tied),
            (alpha(one, root=2), tied),
            (alpha(one, root=3), "That is α². One more root gives α."),
            (alpha(one, four=1, root=2), "That is for β = 1. Here β is tied to α: 1/(√2·α)."),
            (alpha(one, four=1), fourth),
            (alpha(one, four=2), fourth),
            (alpha(one, four=16), fourth),
            (alpha(one, four=0.25), "β = 1/(√2·α) makes the branch smaller: the 4 divides."),
            (alpha(one, root=5), "Scaling x by α scales its variance by α²."),
            (alpha(one, s=1.0), "s is missing: with gain 1 a branch passes the part s of the variance."),
            (alpha(ratio(2 * N, 1 - share)), "share is what is left of the input, not what is lost."),
            (alpha((1 - share) / (2 * N)), f"{first}if losses added, enough layers would lose it all."),
            (alpha((1 / share - 1) / (2 * N)), f"{first}each norm shrinks everything that came before."),
            (alpha(-log(share) / (2 * N)), f"{first}for few layers take the root of share itself."),
            (alpha(one / (1 + one)), "1 - kept is f over the sum α² + f. What you need first is f over α² alone."),
            (1 / alpha(one), "Upside down: what is kept grows with α."),
            (s / 4 / one / 6, sixth),
        ]
        if N > 1:
            kept = "Python reads 1 / 2 * N as (1 / 2) · N: put the product in parentheses."
            known += [
                (alpha(1 / share - 1), "That is for one sub-layer: the 2N shares multiply."),
                (alpha(ratio(2 / N)), kept),
                ((2 * N) ** 0.25, "That is the paper's α. The question here is a different one: how much is left."),
            ]
        wrong = [Misconception(value, sentence) for value, sentence in known]
        # 1/kept - 1 loses digits: in float32 four of seven are left at 500 layers, and the root brings one back.
        trial.equal(got, alpha(one), wrong, tolerance=1e-5 if N < 100 else 3e-4)
    found = float(trial.call(16, 0.6, 0.2))
    left = (1 + 0.2 / (4 * found**6)) ** -32 if found > 0 else 0.0
    trial.require(
        abs(left - 0.6) < 10 * _NEARLY,
        "Put your α into the rule: after 16 layers a different share is left.",
        "0.6 is left",
        f"{left:.4g} is left, at α = {found:.4g}",
    )


# --- the edge of a map

#: Rows of a map: an α, and whether each seed learned. As many seeds as αs, so that the wrong axis gives a result.
_SQUARE = [
    (2.9, ".########"),
    (2.7, "#########"),
    (3.8, "#########"),
    (1.7, "...#....#"),
    (2.1, "..#######"),
    (2.6, "#########"),
    (1.2, "...#....."),
    (3.3, "#########"),
    (1.4, "...#.#..."),
]
#: As in the lesson, three seeds.
_THREE = [
    (1.9, ".#."),
    (5.3, "###"),
    (3.1, "###"),
    (6.2, "###"),
    (1.4, "..."),
    (3.7, "#.#"),
    (2.2, "##."),
    (4.5, "###"),
    (1.6, "..."),
]
#: One of very many seeds failed.
_MANY = [(3.4, 2000 * "#"), (2.3, 900 * "#" + "." + 1099 * "#"), (5.2, 1999 * "#" + ".")]
_NEVER = [(1.5, "#."), (0.9, ".."), (2.4, ".#")]

Rows = list[tuple[float, str]]


def trainable_edge(trial: Trial) -> None:
    """The smallest of the αs whose row is all True, np.inf where there is none: in NumPy
    np.min(alphas[learned.all(axis=1)], initial=np.inf).
    """
    for rows in (_SQUARE, _THREE, _MANY):
        got = trial.call(*_arrays(rows))
        most = min(alpha for alpha, row in rows if 2 * row.count("#") > len(row))
        wrong = [Misconception(most, "Most seeds are not enough: the edge is where every seed learns.")]
        if rows is _MANY:
            wrong = [Misconception(most, "One of 2,000 seeds failed there: the edge asks for every one of them.")]
        else:
            wrong += [Misconception(value, sentence) for value, sentence in _wrong_edges(rows)]
        trial.equal(got, min(_passing(rows)), wrong)
    none = "No α trained every seed in this map: then the edge is infinity, np.inf."
    try:
        got = trial.call(*_arrays(_NEVER))
    except NotRight as error:
        trial.fail(f"{none} {error.sentence}")
    trial.equal(got, np.inf, sentence=none)
    got = float(trial.call(*_arrays([(2.5, "#")])))
    trial.require(got == 2.5, "One α and one seed, and it learned: that α is the edge.", "2.5", f"{got:g}")
    got = float(trial.call(*_arrays([(3.5, "##"), (2.5, "##"), (4.5, "##")])))
    trial.require(got == 2.5, "Every α trained every seed here: the smallest of them is the edge.", "2.5", f"{got:g}")
    got = float(trial.call(*_arrays([(3.5, "##"), (1.5, "##"), (4.5, "##")])))
    trial.require(got == 1.5, "The same marks at other αs: the edge is one of these αs.", "1.5", f"{got:g}")
    got = float(trial.call(*_arrays([(3.5, "##"), (2.5, "#."), (4.5, "##")])))
    trial.require(got == 3.5, "At α = 2.5 one seed failed: the edge is the next α above.", "3.5", f"{got:g}")


def _arrays(rows: Rows) -> tuple[Array, Array]:
    return np.array([alpha for alpha, _ in rows]), np.array([[seed == "#" for seed in row] for _, row in rows])


def _passing(rows: Rows) -> list[float]:
    return [alpha for alpha, row in rows if "." not in row]


def _wrong_edges(rows: Rows) -> list[tuple[float, str]]:
    alphas, passing, in_order = [alpha for alpha, _ in rows], _passing(rows), sorted(alpha for alpha, _ in rows)
    edge, failed = min(passing), max(alpha for alpha, row in rows if "." in row)
    index = "That is a place in the array: return the α at this place."
    known = [
        (float(alphas.index(edge)), index),
        (float(in_order.index(edge)), index),
        (float(alphas.index(passing[0])), index),
        (max(passing), "That is the largest α at which all learned. The edge is the smallest."),
        (passing[0], "The αs come in any order: the first row that passes need not hold the smallest."),
        (failed, "That is the largest α that failed: the edge is the smallest that trains."),
        (
            min(alpha for alpha in passing if alpha > failed),
            "Beyond that α nothing fails. The edge is the smallest that trains, even if a larger one failed.",
        ),
        (
            min(alpha for alpha, (_, row) in zip(in_order, rows, strict=True) if "." not in row),
            "The αs were sorted, but not their rows: they no longer belong together.",
        ),
    ]
    lucky = min(alpha for alpha, row in rows if "#" in row)
    if lucky > min(alphas):
        known += [
            (lucky, "Not every seed learned there: one may be luck, the edge asks for all of them, not for any."),
            (min(alphas), "That is the smallest α tried: look at which of them learned."),
        ]
    seeds = zip(*(row for _, row in rows), strict=True)
    if len(alphas) == len(rows[0][1]):
        edge = min(alpha for alpha, seed in zip(alphas, seeds, strict=True) if "." not in seed)
        known.append((edge, "That asks every α of one seed. A row is an α: go along axis 1."))
    return known


def matching_rate(trial: Trial) -> None:
    """rate·(N·β/α of the shallow stack)/(N·β/α of the deep one)."""
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
            Misconception(rate * (n * b) / (N * B), "α is missing: the skip makes every branch weaker by 1/α."),
            Misconception(rate * (n / a) / (N / A), "β is missing: it says how strong a branch's matrices are."),
            Misconception(rate * (b / a) / (B / A), "The depth is missing: the sum runs over 2N sub-layers."),
            Misconception(rate * (n * a / b) / (N * A / B), "β/α, not α/β: a strong skip holds the output still."),
            Misconception(rate * (n * a * b) / (N * A * B), "α makes the bound smaller: divide by it."),
            Misconception(rate * sqrt(n / N) * (b / a) / (B / A), "Theorem 4.2 adds bounds: N of them, not √N."),
            Misconception(rate * sqrt(n / N), "√N holds with the paper's α and β alone: here they are given."),
            Misconception(rate * 2 * sqrt(2) * n * b / a, "That is the shallow bound: divide by the deep stack's sum."),
            Misconception(rate * n * b / a, "That is the shallow bound: divide by the deep stack's sum."),
            Misconception((n * b / a) / (N * B / A), "That is the ratio of both sums: it multiplies the shallow rate."),
        ]
        expected = exp(log(rate) + log(n / N) + log(b / B) - log(a / A))
        trial.equal(got, expected, wrong)
    same = (30, 2.7, 0.4)
    got = float(trial.call(0.5, same, same))
    trial.require(abs(got - 0.5) < _NEARLY, "Two equal stacks take the same rate.", "0.5", f"{got:.4g}")
    there = trial.call(0.5, same, (7, 1.9, 0.8))
    back = float(trial.call(float(there), (7, 1.9, 0.8), same))
    trial.require(
        abs(back - 0.5) < _NEARLY, "Carried to another stack and back it is the same rate.", "0.5", f"{back:.4g}"
    )
    got = float(trial.call(1.0, (25, 2.0, 0.4), (100, 2.0, 0.4)))
    trial.require(
        abs(got - 0.25) < _NEARLY,
        "Four times the layers, the same α and β: a quarter of the rate.",
        "0.25",
        f"{got:.4g}",
    )


JUDGES: dict[str, Judge] = {
    "edge_alpha": edge_alpha,
    "outcome": outcome,
    "trainable_edge": trainable_edge,
    "interval": interval,
    "matching_rate": matching_rate,
}
