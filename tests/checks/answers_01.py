"""Lesson 01: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from math import comb, sqrt
from typing import Any

import numpy as np
import torch

# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "variance_by_depth": lambda f, g: f(int(g.integers(0, 9)), g.uniform(0, 2), g.uniform(0.5, 2), g.uniform(0, 3)),
    "input_share": lambda f, g: f(int(g.integers(0, 50)), g.uniform(0, 2), g.uniform(0.5, 3)),
    "cloned_growth": lambda f, g: f(int(g.integers(0, 12)), g.uniform(0, 0.5)),
    "residual_variance": lambda f, g: f(g.uniform(0, 3), g.uniform(0, 3), g.uniform(-1, 1)),
    "damped_variance": lambda f, g: f(int(g.integers(0, 9)), g.uniform(0, 2), g.uniform(0, 3)),
}


def rolled(step: Callable[[float, float, float], float]) -> Callable[..., Any]:
    def variance(n, f, alpha=1.0, var0=1.0):
        v = [var0]
        for _ in range(n):
            v.append(step(v[-1], f, alpha))
        return np.array(v)

    return variance


def closed(n, f, alpha=1.0, var0=1.0):
    if alpha == 1:
        return var0 + f * np.arange(n + 1)
    powers = alpha ** (2.0 * np.arange(n + 1))
    return torch.tensor(var0 * powers + f * (powers - 1) / (alpha**2 - 1))


def as_list(n, f, alpha=1.0, var0=1.0):
    return rolled(lambda v, f, a: a * a * v + f)(n, f, alpha, var0).tolist()


def by_covariance(x, f, corr):
    covariance = np.array([[x, corr * sqrt(x * f)], [corr * sqrt(x * f), f]])
    return np.ones(2) @ covariance @ np.ones(2)


def damped(added: Callable[[float, int, int], float]) -> Callable[..., Any]:
    def variance(n, f, var0):
        return var0 + np.cumsum([0.0, *(added(f, k, n) for k in range(1, n + 1))])

    return variance


RIGHT = [
    ("variance_by_depth", closed),
    ("variance_by_depth", as_list),
    ("input_share", lambda n, f, alpha: np.prod([1 / (1 + f / alpha**2)] * n)),
    ("input_share", lambda n, f, alpha: torch.tensor(1 + f / alpha**2, dtype=torch.float64) ** -n),
    ("cloned_growth", lambda n, eps: float(np.sum([(comb(n, k) * eps**k) ** 2 for k in range(n + 1)]))),
    ("cloned_growth", lambda n, eps: 1 + sum(comb(n, n - k) ** 2 * (eps * eps) ** k for k in range(1, n + 1))),
    ("residual_variance", lambda x, f, corr: (1 - corr) * (x + f) + corr * (sqrt(x) + sqrt(f)) ** 2),
    ("residual_variance", by_covariance),
    ("damped_variance", lambda n, f, v: v + 2 * f * np.cumsum([0.0, *(1 / np.arange(1, n + 1))])),
    ("damped_variance", lambda n, f, v: [v + f * sum(2 / k for k in range(1, m)) for m in range(1, n + 2)]),
]

WRONG = [
    ("variance_by_depth", rolled(lambda v, f, a: (a * sqrt(v) + sqrt(f)) ** 2), "not their standard deviations"),
    ("variance_by_depth", rolled(lambda v, f, a: a * v + f), "scales its variance by α²"),
    ("variance_by_depth", rolled(lambda v, f, a: v * (a**2 + f)), "growth is exponential"),
    ("variance_by_depth", rolled(lambda v, f, a: v + f), "do not forget α"),
    ("variance_by_depth", rolled(lambda v, f, a: a**2 * (v + f)), "the branch is not"),
    (
        "variance_by_depth",
        lambda *a, **k: rolled(lambda v, f, a: a**2 * v + f)(*a, **k)[1:],
        "Depth 0, the input itself",
    ),
    ("variance_by_depth", lambda n, f, alpha=1.2, var0=2.0: closed(n, f, alpha, var0), "Without arguments"),
    ("input_share", lambda n, f, a: (a / (a + sqrt(f))) ** n, "a ratio of variances"),
    ("input_share", lambda n, f, a: a**2 / (a**2 + n * f), "so shares multiply"),
    ("input_share", lambda n, f, a: 1 - n * f / a**2, "it gives -23"),
    ("input_share", lambda n, f, a: (a**2 / (a**2 + f)) ** (n / 2), "has its own norm"),
    ("input_share", lambda n, f, a: 1 - (a**2 / (a**2 + f)) ** n, "not of the input"),
    ("cloned_growth", lambda n, e: (1 + e**2) ** n, "for independent layers"),
    ("cloned_growth", lambda n, e: (1 + e) ** (2 * n), "all point along x"),
    ("cloned_growth", lambda n, e: 1 + n**2 * e**2, "Only the k = 1 term"),
    ("cloned_growth", lambda n, e: sum(comb(n, k) ** 2 * e ** (2 * k) for k in range(n)), "with both ends"),
    ("residual_variance", lambda x, f, c: x + f, "there is a cross term"),
    ("residual_variance", lambda x, f, c: x + f + c * sqrt(x * f), "comes twice"),
    ("residual_variance", lambda x, f, c: x + f + 2 * c * x * f, "both standard deviations"),
    ("damped_variance", damped(lambda f, k, n: 2 * f / sqrt(k)), "variances scale with the square"),
    ("damped_variance", damped(lambda f, k, n: f / k), "two sub-layers"),
    ("damped_variance", damped(lambda f, k, n: f / (2 * k - 1) + f / (2 * k)), "l counts layers"),
    ("damped_variance", damped(lambda f, k, n: 2 * f / (k + 1)), "its branches are not damped"),
    ("damped_variance", damped(lambda f, k, n: 2 * f), "Pre-LN without damping"),
    ("damped_variance", damped(lambda f, k, n: 2 * f / n), "All layers are damped alike"),
    ("damped_variance", lambda n, f, v: damped(lambda f, k, n: 2 * f / k)(n, f, v)[1:], "Depth 0, the input itself"),
]
