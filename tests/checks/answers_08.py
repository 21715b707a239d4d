"""Lesson 08: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from math import inf, isfinite, log, sqrt
from statistics import fmean, linear_regression
from typing import Any

import numpy as np
import torch

WORDS = {"diverged": 0, "learned": 1, "lost": 2, "slow": 3}


def see_outcome(f: Callable, g: np.random.Generator) -> int:
    """As a number: the word's, or -1 for anything else."""
    chance = g.uniform(1.5, 5)
    # Near what decides, or anywhere.
    end = g.choice([1.0, chance - 0.25, chance, g.uniform(0, 5)]) + g.normal(0, 0.1)
    loss = np.append(g.uniform(0, 5, 12), end + g.normal(0, 0.3, 5))
    if g.random() < 0.2:
        loss[g.integers(0, len(loss))] = g.choice([np.nan, np.inf])
    word = f(loss, g.choice([0.9 + g.normal(0, 0.05), g.uniform(0, 1)]), chance)
    return WORDS.get(word, -1) if isinstance(word, str) else -1


def see_edge(f: Callable, g: np.random.Generator) -> Any:
    n, seeds = g.integers(1, 7), g.integers(1, 4)
    return f(g.permutation(g.uniform(1, 9, n)), g.random((n, seeds)) < 0.7)


def see_power(f: Callable, g: np.random.Generator) -> Any:
    n = g.integers(3, 7)
    return f(np.sort(g.uniform(2, 500, n)), g.uniform(0.1, 9, n))


def see_rate(f: Callable, g: np.random.Generator) -> Any:
    shallow, deep = ((int(g.integers(1, 99)), g.uniform(1, 5), g.uniform(0.1, 1)) for _ in range(2))
    return f(g.uniform(0.1, 2), shallow, deep)


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "edge_alpha": lambda f, g: f(int(g.integers(1, 50)), g.uniform(0.05, 0.95), g.uniform(0.1, 3)),
    "outcome": see_outcome,
    "trainable_edge": see_edge,
    "depth_power": see_power,
    "matching_rate": see_rate,
}


def by_bisection(layers, share, s):
    low, high = 1e-3, 1e3
    for _ in range(200):
        alpha = sqrt(low * high)
        beta = 1 / (sqrt(2) * alpha)
        left = (alpha**2 / (alpha**2 + s * beta**4)) ** (2 * layers)
        low, high = (alpha, high) if left < share else (low, alpha)
    return alpha


def by_logarithms(layers, share, s):
    ratio = torch.expm1(-torch.tensor(share, dtype=torch.float64).log() / (2 * layers))
    return (s / 4 / ratio) ** (1 / 6)


def edge(
    layers: Callable[[int], int] = lambda N: 2 * N,
    share: Callable[[float], float] = lambda share: share,
    ratio: Callable[[float], float] = lambda kept: 1 / kept - 1,
    alpha: Callable[[float, float], float] = lambda ratio, s: (s / (4 * ratio)) ** (1 / 6),
) -> Callable[..., Any]:
    return lambda N, left, s: alpha(ratio(share(left) ** (1 / layers(N))), s)


def verdict(
    final: Callable[[Any], float] = lambda loss: sum(loss[-5:]) / 5,
    finite: Callable[[Any], bool] = lambda loss: all(map(isfinite, loss)),
    lost: Callable[[float, float, float], bool] = lambda end, alike, chance: alike > 0.9 and end > chance - 0.25,
) -> Callable[..., str]:
    def answer(loss, similarity, chance):
        if not finite(loss):
            return "diverged"
        end = final(loss)
        return "learned" if end < 1 else "lost" if lost(end, similarity, chance) else "slow"

    return answer


def by_nested_questions(loss, similarity, chance):
    final = np.average(np.array(loss)[::-1][:5])
    if np.isnan(loss).any() or np.isinf(loss).any():
        word = "diverged"
    elif final >= 1.0:
        word = "slow" if similarity <= 0.9 or chance - final >= 0.25 else "lost"
    else:
        word = "learned"
    return np.str_(word)


def sorts(loss, similarity, chance):
    word = verdict()(loss, similarity, chance)
    loss.sort()
    return word


def edge_by_loop(alphas, learned):
    best = inf
    for alpha, row in zip(alphas, learned, strict=True):
        if all(row) and alpha < best:
            best = alpha
    return best


def edge_sorted(alphas, learned):
    order = np.argsort(alphas)
    good = learned.mean(1)[order] == 1
    return alphas[order][np.argmax(good)] if good.any() else np.inf


def chosen(
    rows: Callable[[Any], Any], pick: Callable[[Any], Any] = lambda alphas: min(alphas, default=inf)
) -> Callable[..., Any]:
    return lambda alphas, learned: pick(alphas[rows(learned)])


def above_the_last_failure(alphas, learned):
    failed = alphas[~learned.all(1)].max()
    return alphas[alphas > failed].min() if (alphas > failed).any() else inf


def by_lstsq(depths, values):
    columns = np.stack([np.ones(len(depths)), np.log2(depths)], axis=1)
    return np.linalg.lstsq(columns, np.log2(values), rcond=None)[0][1]


def through_the_origin(depths, values):
    x, y = np.log(depths), np.log(values)
    return x @ y / (x @ x)


def by_neighbours(depths, values):
    return np.mean(np.diff(np.log(values)) / np.diff(np.log(depths)))


def fit(x: Callable = np.log, y: Callable = np.log, which: int = 0) -> Callable[..., Any]:
    return lambda depths, values: np.polyfit(x(depths), y(values), 1)[which]


def rate_of(sum_: Callable[[float, float, float], float]) -> Callable[..., float]:
    return lambda rate, shallow, deep: rate * sum_(*shallow) / sum_(*deep)


def by_vectors(rate, shallow, deep):
    def total(layers, alpha, beta):
        return np.sum(np.hypot(np.full(2 * layers, beta), beta) / alpha)

    return np.float64(rate) / (total(*deep) / total(*shallow))


RIGHT = [
    ("edge_alpha", by_bisection),
    ("edge_alpha", by_logarithms),
    ("edge_alpha", edge()),
    ("outcome", verdict()),
    ("outcome", by_nested_questions),
    ("outcome", verdict(lambda loss: fmean(loss[-5:]), lambda loss: loss.max() < inf)),
    ("trainable_edge", edge_by_loop),
    ("trainable_edge", edge_sorted),
    ("trainable_edge", lambda alphas, learned: torch.tensor(np.where(learned.all(-1), alphas, inf)).min()),
    ("depth_power", by_lstsq),
    ("depth_power", lambda depths, values: linear_regression(np.log10(depths), np.log10(values)).slope),
    ("depth_power", lambda N, v: np.cov(np.log(N), np.log(v))[0, 1] / np.var(np.log(N), ddof=1)),
    ("matching_rate", rate_of(lambda N, a, b: 2 * N * sqrt(2) * b / a)),
    ("matching_rate", by_vectors),
]

WRONG = [
    ("edge_alpha", edge(layers=lambda N: N), "N layers are 2N sub-layers"),
    ("edge_alpha", edge(share=sqrt), "no square root to take"),
    ("edge_alpha", edge(alpha=lambda r, s: (s / (2 * r)) ** (1 / 4)), "two matrices of gain β"),
    ("edge_alpha", edge(alpha=lambda r, s: (s / (4 * r)) ** (1 / 4)), "the root is the sixth"),
    ("edge_alpha", edge(alpha=lambda r, s: sqrt(s / (4 * r))), "the root is the sixth"),
    ("edge_alpha", edge(alpha=lambda r, s: sqrt(s / r)), "That is for β = 1"),
    ("edge_alpha", edge(alpha=lambda r, s: (s / (2 * r)) ** (1 / 6)), "the fourth power of √2 is 4"),
    ("edge_alpha", edge(alpha=lambda r, s: (s / r) ** (1 / 6)), "the fourth power of √2 is 4"),
    ("edge_alpha", edge(alpha=lambda r, s: (s / (4 * r)) ** (1 / 5)), "scales its variance by α²"),
    ("edge_alpha", edge(alpha=lambda r, s: (1 / (4 * r)) ** (1 / 6)), "s is forgotten"),
    ("edge_alpha", edge(share=lambda share: 1 - share), "not what is lost"),
    ("edge_alpha", lambda N, share, s: (s * 2 * N / (4 * (1 - share))) ** (1 / 6), "if losses added"),
    ("edge_alpha", lambda N, share, s: (s * 2 * N / (4 * (1 / share - 1))) ** (1 / 6), "each norm shrinks"),
    ("edge_alpha", lambda N, share, s: (-s * N / (2 * log(share))) ** (1 / 6), "the 2N-th root of share itself"),
    ("edge_alpha", edge(ratio=lambda kept: 1 - kept), "take 1/kept - 1"),
    ("edge_alpha", edge(ratio=lambda kept: kept - 1), "A root of a negative number"),
    ("edge_alpha", lambda *_: np.float64("nan"), "A root of a negative number"),
    ("edge_alpha", lambda N, share, s: (2 * N) ** 0.25, "2N of them multiply"),
    ("outcome", verdict(lambda loss: loss[-1]), "The last loss alone"),
    ("outcome", verdict(lambda loss: loss[-1], lambda loss: True), "The last loss alone"),
    ("outcome", verdict(min), "The lowest loss of all is luck"),
    ("outcome", verdict(np.mean), "The mean over all steps"),
    ("outcome", verdict(lambda loss: loss[:5].mean()), "the first five losses"),
    ("outcome", verdict(lambda loss: loss[5:].mean()), "leaves five out"),
    ("outcome", verdict(lambda loss: sum(loss[-5:])), "five times as large"),
    ("outcome", verdict(finite=lambda loss: True), "NaN compares false with everything"),
    ("outcome", verdict(finite=lambda loss: np.nan not in list(loss + 0)), "NaN compares false with everything"),
    ("outcome", verdict(finite=lambda loss: isfinite(loss[-1])), "not finite at every step"),
    ("outcome", verdict(finite=lambda loss: isfinite(sum(loss[-5:]))), "not finite at every step"),
    ("outcome", verdict(finite=lambda loss: not np.isnan(loss).any()), "Infinity is not finite either"),
    ("outcome", verdict(finite=lambda loss: np.isfinite(loss).any()), "all of them, not any"),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.9), "may be told apart in training"),
    ("outcome", verdict(lost=lambda end, alike, chance: end > chance - 0.25), "whose tokens differ"),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.9 or end > chance - 0.25), "and, not or"),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.9 and end > chance), "hovers around chance"),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.9 and end > log(16) - 0.25), "an argument"),
    ("outcome", verdict(lost=lambda end, alike, chance: False), "Nothing is ever lost"),
    ("outcome", verdict(lambda loss: loss[-6:].mean()), "The mean of the last five losses is below 1.0"),
    ("outcome", lambda *a: verdict()(*a).upper(), "in small letters"),
    ("outcome", lambda *a: WORDS[verdict()(*a)], "The answer is a word"),
    ("outcome", sorts, "changed its input in place"),
    ("trainable_edge", chosen(lambda learned: learned.any(1)), "not for any"),
    ("trainable_edge", chosen(lambda learned: learned.mean(1) > 0.5), "Most seeds are not all"),
    ("trainable_edge", chosen(lambda learned: learned.all(0)), "go along axis 1"),
    ("trainable_edge", lambda alphas, learned: learned.all(1).argmax(), "a place in the array"),
    ("trainable_edge", lambda alphas, learned: learned[alphas.argsort()].all(1).argmax(), "a place in the array"),
    ("trainable_edge", chosen(lambda learned: learned.all(1), max), "That is the largest α at which all learned"),
    ("trainable_edge", chosen(lambda learned: learned.all(1), lambda a: a[0]), "The αs come in any order"),
    ("trainable_edge", chosen(lambda learned: ~learned.all(1), max), "the largest α that failed"),
    ("trainable_edge", lambda alphas, learned: alphas.min(), "Not every seed learned there"),
    ("trainable_edge", above_the_last_failure, "even if a larger one failed"),
    ("trainable_edge", lambda a, learned: a[learned.all(1)].min() if learned.all(1).any() else 0.0, "infinity"),
    ("depth_power", lambda N, v: log(v[-1] / v[0]) / log(N[-1] / N[0]), "the first and last point alone"),
    ("depth_power", by_neighbours, "Slopes between neighbours"),
    ("depth_power", fit(np.array, np.array), "A power is a slope between logarithms"),
    ("depth_power", fit(x=np.array), "The depths need their logarithm too"),
    ("depth_power", fit(y=np.array), "The values need their logarithm too"),
    ("depth_power", lambda depths, values: fit()(values, depths), "The axes are exchanged"),
    ("depth_power", fit(x=np.log10), "The same logarithm on both axes"),
    ("depth_power", fit(y=np.log10), "The same logarithm on both axes"),
    ("depth_power", through_the_origin, "it needs an intercept"),
    ("depth_power", fit(which=1), "That is the intercept"),
    ("depth_power", lambda N, v: np.corrcoef(np.log(N), np.log(v))[0, 1], "how straight the line is"),
    ("depth_power", lambda N, v: np.polyfit(np.log(N), np.log(v), 1), "one number"),
    ("matching_rate", lambda rate, shallow, deep: rate_of(lambda N, a, b: N * b / a)(rate, deep, shallow), "Upside"),
    ("matching_rate", rate_of(lambda N, a, b: N * (b / a) ** 2), "That is SGD's sum"),
    ("matching_rate", rate_of(lambda N, a, b: N * b**2 / a), "β comes once"),
    ("matching_rate", rate_of(lambda N, a, b: N), "Depth alone is not all"),
    ("matching_rate", rate_of(lambda N, a, b: N * b), "α is forgotten"),
    ("matching_rate", rate_of(lambda N, a, b: N / a), "β is forgotten"),
    ("matching_rate", rate_of(lambda N, a, b: b / a), "Depth is forgotten"),
    ("matching_rate", rate_of(lambda N, a, b: N * a / b), "β/α, not α/β"),
    ("matching_rate", rate_of(lambda N, a, b: sqrt(N) * b / a), "N of them, not √N"),
    ("matching_rate", rate_of(lambda N, a, b: sqrt(N)), "with the paper's α and β alone"),
    ("matching_rate", lambda rate, s, deep: rate * 2 * s[0] * sqrt(2) * s[2] / s[1], "divide by the deep stack's sum"),
    ("matching_rate", lambda rate, *stacks: rate_of(lambda N, a, b: N * b / a)(1, *stacks), "the ratio of both sums"),
]  # fmt: skip
