"""Lesson 01: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate
from math import comb, cos, exp, fsum, lgamma, log, log1p, sin, sqrt
from typing import Any

import numpy as np
import torch

# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "variance_by_depth": lambda f, g: f(
        int(g.integers(0, 9)), edge(g, 2), g.choice([1.0, g.uniform(0.5, 2)]), g.choice([1.0, g.uniform(0, 3)])
    ),
    "input_share": lambda f, g: f(int(g.integers(0, 50)), edge(g, 2), g.choice([1.0, g.uniform(0.5, 3)])),
    "cloned_growth": lambda f, g: f(int(g.integers(0, 12)), edge(g, 0.5) or 0.3),
    "residual_variance": lambda f, g: f(g.uniform(0, 3), edge(g, 3), g.choice([-1.0, 0.0, 1.0, g.uniform(-1, 1)])),
    "damped_variance": lambda f, g: f(int(g.integers(0, 9)), edge(g, 2), g.choice([1.0, g.uniform(0, 3)])),
}


def edge(g: np.random.Generator, most: float) -> float:
    """A number from 0 to ``most``, often 0 or 1."""
    return g.choice([0.0, 1.0, g.uniform(0, most), g.uniform(0, most)])


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


def recursive(n, f, alpha=1.0, var0=1.0):
    if n == 0:
        return [var0]
    before = recursive(n - 1, f, alpha, var0)
    return [*before, alpha**2 * before[-1] + f]


def by_matrix(n, f, alpha=1.0, var0=1.0):
    """(v, 1) goes through the same matrix at each sub-layer."""
    step = np.array([[alpha**2, f], [0.0, 1.0]])
    return np.array([(np.linalg.matrix_power(step, k) @ [var0, 1.0])[0] for k in range(n + 1)])


def in_place(n, f, alpha=1.0, var0=1.0):
    v = torch.zeros(n + 1)
    v[0] = var0
    for k in range(n):
        v[k + 1] = v[k].mul(alpha).mul(alpha).add(f)
    return v


def share_in_place(n, f, alpha):
    share = 1.0
    for _ in range(n):
        share *= alpha**2 / (alpha**2 + f)
    return share


def whole_array(n, f, alpha=1.0, var0=1.0):
    v = np.full(n + 1, var0)
    for k in range(n):
        v[k + 1] = alpha**2 * v[k] + f
    return v


def whole_damped(n, f, var0=1.0):
    v = np.full(n + 1, var0)
    for k in range(1, n + 1):
        v[k] = v[k - 1] + 2 * f / k
    return v


def kept_list(n, f, alpha=1.0, var0=1.0, v=[]):  # noqa: B006
    v.append(var0)
    for _ in range(n):
        v.append(alpha**2 * v[-1] + f)
    return v


BUFFER = np.zeros(5000)


def one_buffer(n, f, alpha=1.0, var0=1.0):
    BUFFER[: n + 1] = rolled(lambda v, f, a: a**2 * v + f)(n, f, alpha, var0)
    return BUFFER[: n + 1]


def remembering(function: Callable[..., Any], *keys: int) -> Callable[..., Any]:
    """Keeps what it found by some of its arguments alone."""
    known: dict[tuple, Any] = {}

    def answer(*given, **named):
        key = tuple((*given, *named.values())[i] for i in keys)
        if key not in known:
            known[key] = function(*given, **named)
        return known[key]

    return answer


def first_only(function: Callable[..., Any], then: Callable[..., Any]) -> Callable[..., Any]:
    """Right at its first call."""
    calls: list[int] = []

    def answer(*given, **named):
        calls.append(1)
        return (function if len(calls) == 1 else then)(*given, **named)

    return answer


def at_edge(n, f, alpha=1.0, var0=1.0):
    return np.array([1.0]) if n == 0 else rolled(lambda v, f, a: a**2 * v + f)(n, f, alpha, var0)


def branch_for_one(n, f, alpha=1.0, var0=1.0):
    return 1 + f * np.arange(n + 1) if alpha == 1 else closed(n, f, alpha, var0)


def shallow(n, f, alpha=1.0, var0=1.0):
    v = rolled(lambda v, f, a: a**2 * v + f)(min(n, 100), f, alpha, var0)
    return np.append(v, np.full(n + 1 - len(v), v[-1]))


def share(n, f, alpha):
    return (alpha**2 / (alpha**2 + f)) ** n


def recursive_share(n, f, alpha):
    return 1.0 if n == 0 else recursive_share(n - 1, f, alpha) * alpha**2 / (alpha**2 + f)


def cloned(n, eps):
    return sum(comb(n, k) ** 2 * eps ** (2 * k) for k in range(n + 1))


def cloned_in_torch(n, eps):
    binomials = torch.tensor([float(comb(n, k)) for k in range(n + 1)])
    return (binomials * torch.tensor(eps) ** torch.arange(n + 1)).square().sum()


def cloned_by_gamma(n, eps):
    return fsum(exp(2 * (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(eps))) for k in range(int(n) + 1))


def cloned_recursive(n, eps, k=0, term=1.0):
    return term**2 + (cloned_recursive(n, eps, k + 1, term * eps * (n - k) / (k + 1)) if k < n else 0)


def cloned_on_the_circle(n, eps):
    """By Parseval: the mean of |1 + ε·e^{iφ}|^(2n) over the circle."""
    phi = 2 * np.pi * np.arange(4 * n + 4) / (4 * n + 4)
    return (np.abs(1 + eps * np.exp(1j * phi)) ** (2 * n)).mean()


def summed(x, f, corr):
    angle = np.arccos(corr)
    return (sqrt(x) + sqrt(f) * cos(angle)) ** 2 + (sqrt(f) * sin(angle)) ** 2


def damped_list(n, f, var0=1.0):
    return list(accumulate((2 * f / k for k in range(1, n + 1)), initial=var0))


def damped_deep(n, f, var0=1.0):
    return [var0] if n == 0 else (lambda v: [*v, v[-1] + 2 * f / n])(damped_deep(n - 1, f, var0))


RIGHT = [
    ("variance_by_depth", closed),
    ("variance_by_depth", as_list),
    ("variance_by_depth", recursive),
    ("variance_by_depth", by_matrix),
    ("variance_by_depth", in_place),
    ("variance_by_depth", lambda n, f, alpha=1.0, var0=1.0: torch.tensor(as_list(n, f, alpha, var0))),
    ("variance_by_depth", lambda n, f, alpha, var0: tuple(as_list(n, f, alpha, var0))),
    (
        "variance_by_depth",
        lambda n, f, a=1, v=1: (
            np.array([a ** (2 * k) * v for k in range(n + 1)])
            + f * np.array([sum(a ** (2 * j) for j in range(k)) for k in range(n + 1)])
        ),
    ),
    ("input_share", lambda n, f, alpha: np.prod([1 / (1 + f / alpha**2)] * n)),
    ("input_share", lambda n, f, alpha: torch.tensor(1 + f / alpha**2, dtype=torch.float64) ** -n),
    ("input_share", lambda n, f, alpha: (torch.tensor(alpha) ** 2 / (torch.tensor(alpha) ** 2 + f)) ** n),
    ("input_share", lambda n, f, alpha: Fraction(1 / (1 + f / alpha**2)) ** n),
    ("input_share", lambda n, f, alpha: exp(-n * log1p(f / alpha**2))),
    ("input_share", share_in_place),
    ("input_share", lambda n, f, alpha: (alpha / sqrt(alpha**2 + f)) ** (2 * n)),
    ("input_share", lambda n, f, alpha: np.cos(np.arctan2(sqrt(f), alpha)) ** (2 * n)),
    ("cloned_growth", lambda n, eps: float(np.sum([(comb(n, k) * eps**k) ** 2 for k in range(n + 1)]))),
    ("cloned_growth", lambda n, eps: 1 + sum(comb(n, n - k) ** 2 * (eps * eps) ** k for k in range(1, n + 1))),
    ("cloned_growth", cloned_in_torch),
    ("cloned_growth", cloned_by_gamma),
    ("cloned_growth", cloned_on_the_circle),
    ("cloned_growth", cloned_recursive),
    ("cloned_growth", lambda n, eps: np.square(np.poly1d([eps, 1]).__pow__(int(n)).coeffs).sum()),
    ("cloned_growth", lambda n, eps: sum((comb(n, k) * eps**k) ** 2 for k in range(40))),
    ("residual_variance", lambda x, f, corr: (1 - corr) * (x + f) + corr * (sqrt(x) + sqrt(f)) ** 2),
    ("residual_variance", by_covariance),
    ("residual_variance", summed),
    ("residual_variance", lambda x, f, corr: abs(sqrt(x) + sqrt(f) * (corr + 1j * sqrt(1 - corr**2))) ** 2),
    ("residual_variance", lambda x, f, corr: torch.tensor([x, f, 2 * corr * (x * f) ** 0.5]).sum()),
    ("damped_variance", lambda n, f, v: v + 2 * f * np.cumsum([0.0, *(1 / np.arange(1, n + 1))])),
    ("damped_variance", lambda n, f, v: [v + f * sum(2 / k for k in range(1, m)) for m in range(1, n + 2)]),
    ("damped_variance", damped_list),
    ("damped_variance", lambda n, f, v=1.0: torch.tensor(damped_list(n, f, v))),
    ("damped_variance", lambda n, f, v=1: v + 2 * f * np.r_[0, np.cumsum(1 / np.r_[1 : n + 1])]),
]

OTHER = "For these arguments the value is wrong."

WRONG = [
    ("variance_by_depth", rolled(lambda v, f, a: (a * sqrt(v) + sqrt(f)) ** 2), "not their standard deviations"),
    ("variance_by_depth", rolled(lambda v, f, a: a * v + f), "scales its variance by α²"),
    ("variance_by_depth", rolled(lambda v, f, a: v * (a**2 + f)), "growth is exponential"),
    ("variance_by_depth", rolled(lambda v, f, a: v + f), "do not forget α"),
    ("variance_by_depth", rolled(lambda v, f, a: a**2 * (v + f)), "the branch is not"),
    ("variance_by_depth", rolled(lambda v, f, a: a**2 * v + f**2), "do not square it"),
    ("variance_by_depth", rolled(lambda v, f, a: a**2 * v + sqrt(f)), "do not take its root"),
    ("variance_by_depth", lambda n, f, alpha=1, var0=1: closed(n, f, alpha, 1.0), "begins with the input's variance"),
    (
        "variance_by_depth",
        lambda n, f, alpha=1, var0=1: [*as_list(n, f, alpha, 1.0)[:-1], 0.0],
        "var0 is left out",
    ),
    (
        "variance_by_depth",
        lambda *a, **k: rolled(lambda v, f, a: a**2 * v + f)(*a, **k)[1:],
        "Depth 0, the input itself",
    ),
    ("variance_by_depth", lambda n, *a, **k: closed(n + 1, *a, **k), "That is too long"),
    ("variance_by_depth", lambda *a, **k: closed(*a, **k)[-1], "The answer is one row"),
    ("variance_by_depth", lambda *a, **k: np.array(as_list(*a, **k))[:, None], "The answer is one row"),
    ("variance_by_depth", lambda n, f, alpha=1.2, var0=2.0: closed(n, f, alpha, var0), "Without arguments"),
    ("variance_by_depth", lambda n, f, alpha=1.0, var0=0.0: closed(n, f, alpha, var0), "Without arguments"),
    ("variance_by_depth", branch_for_one, "With α = 1"),
    ("variance_by_depth", at_edge, "With α = 1 and no sub-layers"),
    ("variance_by_depth", whole_array, "holds whole numbers only"),
    ("variance_by_depth", shallow, OTHER),
    ("variance_by_depth", lambda *a, **k: np.round(as_list(*a, **k), 2), "Nearly: something is rounded"),
    ("variance_by_depth", lambda *a, **k: np.int64(as_list(*a, **k)), "begins with the input's variance"),
    ("variance_by_depth", lambda *a, **k: sorted(as_list(*a, **k)), "begins with the input's variance"),
    ("variance_by_depth", kept_list, "make a new array in each call"),
    ("variance_by_depth", one_buffer, "make a new array in each call"),
    ("variance_by_depth", remembering(closed, 0), "The answer is the same for alpha = 1.2 and 1.5"),
    ("variance_by_depth", remembering(closed, 0, 1), "The answer is the same for alpha = 1.2 and 1.5"),
    ("variance_by_depth", remembering(closed, 0, 1, 2), "The answer is the same for var0 = 2 and 0.5"),
    ("variance_by_depth", first_only(closed, rolled(lambda v, f, a: a**2 * v - f)), "kept from one call"),
    ("input_share", lambda n, f, a: (a / (a + sqrt(f))) ** n, "a ratio of variances"),
    ("input_share", lambda n, f, a: a**2 / (a**2 + n * f), "so shares multiply"),
    ("input_share", lambda n, f, a: 1 - n * f / a**2, "it gives -23"),
    ("input_share", lambda n, f, a: (a**2 / (a**2 + f)) ** (n / 2), "has its own norm"),
    ("input_share", lambda n, f, a: share(2 * n, f, a), "not layers"),
    ("input_share", lambda n, f, a: (a / (a + f)) ** n, "scales its variance by α²"),
    ("input_share", lambda n, f, a: (1 / (1 + f)) ** n, "do not forget α"),
    ("input_share", lambda n, f, a: share(n, f**2, a), "do not square it"),
    ("input_share", lambda n, f, a: share(1, f, a), "after one sub-layer"),
    ("input_share", lambda n, f, a: 1 - (a**2 / (a**2 + f)) ** n, "not of the input"),
    ("input_share", lambda n, f, a: a ** (2 * n) / (a ** (2 * n) + n * f), "Each norm shrinks everything before it"),
    ("input_share", lambda n, f, a: a ** (2 * n) / (a**2 + f) ** n, "raised OverflowError: a number on the way"),
    ("input_share", lambda n, f, a: np.float64(a) ** (2 * n) / np.float64(a**2 + f) ** n, "form the ratio first"),
    ("input_share", lambda n, f, a: share(n - 1, f, a), "their shares do not multiply"),
    ("input_share", lambda n, f, a: round(share(n, f, a), 3), "Nearly: something is rounded"),
    ("input_share", lambda n, f, a: 0.0 if n == 0 else share(n, f, a), OTHER),
    ("input_share", lambda n, f, a: share(max(n, 2), f, a), OTHER),
    ("input_share", lambda n, f, a: share(min(n, 50), f, a), OTHER),
    ("input_share", lambda n, f, a: 100 * share(n, f, a), "all of the output is the input's"),
    ("input_share", lambda n, f, a: [share(n, f, a)], "The answer is one number"),
    ("input_share", lambda n, f, a: a**2 // (a**2 + f) ** n, OTHER),
    ("input_share", recursive_share, "The lesson goes to 2,000 sub-layers"),
    ("input_share", lambda n, f, a: exp(-n * f / a**2), OTHER),
    ("input_share", lambda n, f, a: 1.0 if f < 1e-3 else share(n, f, a), OTHER),
    ("input_share", remembering(share, 0), "The answer is the same for alpha"),
    ("input_share", remembering(share, 0, 1), "The answer is the same for alpha"),
    ("input_share", first_only(share, lambda n, f, a: share(n, f, a) / 2), "kept from one call"),
    ("cloned_growth", lambda n, e: (1 + e**2) ** n, "for independent layers"),
    ("cloned_growth", lambda n, e: (1 + e) ** (2 * n), "all point along x"),
    ("cloned_growth", lambda n, e: 1 + n**2 * e**2, "Only the k = 1 term"),
    ("cloned_growth", lambda n, e: (1 + n * e) ** 2, "as if Ax pointed along x"),
    ("cloned_growth", lambda n, e: sum(comb(n, k) ** 2 * e ** (2 * k) for k in range(n)), "both included"),
    ("cloned_growth", lambda n, e: cloned(n, e) - 1, "the term of k = 0"),
    ("cloned_growth", lambda n, e: sum(comb(n, k) * e ** (2 * k) for k in range(n + 1)), "for independent layers"),
    ("cloned_growth", lambda n, e: sum(comb(n, k) ** 2 * e**k for k in range(n + 1)), "so is ε^k"),
    ("cloned_growth", lambda n, e: (1 + e) ** n, "their squares do"),
    ("cloned_growth", lambda n, e: sqrt(cloned(n, e)), "growth of its square"),
    ("cloned_growth", lambda n, e: cloned(n - 1, e) if n else 1.0, "equal branches add in amplitude"),
    ("cloned_growth", lambda n, e: sum((comb(n, k) * e**k) ** 2 for k in range(20)), OTHER),
    ("cloned_growth", lambda n, e: 0.0 if n == 0 else cloned(n, e), OTHER),
    ("cloned_growth", lambda n, e: 1.0 if n < 2 else cloned(n, e), OTHER),
    ("cloned_growth", lambda n, e: round(cloned(n, e), 2), "Nearly: something is rounded"),
    ("cloned_growth", lambda n, e: 1 / cloned(n, e), "the squared length grows"),
    ("cloned_growth", lambda n, e: 1 + n**3 * e**2, "equal branches add in amplitude"),
    ("cloned_growth", lambda n, e: cloned(n, e) if isinstance(n, int) else 1.0, "NumPy's whole numbers"),
    ("cloned_growth", lambda n, e: [cloned(k, e) for k in range(n + 1)], "The answer is one number"),
    ("cloned_growth", remembering(cloned, 0), "The answer is the same for eps"),
    ("cloned_growth", first_only(cloned, lambda n, e: 2.0), "kept from one call"),
    ("residual_variance", lambda x, f, c: x + f, "there is a cross term"),
    ("residual_variance", lambda x, f, c: x + f + c * sqrt(x * f), "comes twice"),
    ("residual_variance", lambda x, f, c: x + f + 2 * c * x * f, "both standard deviations"),
    ("residual_variance", lambda x, f, c: x + f + 2 * c, "A correlation has no size"),
    ("residual_variance", lambda x, f, c: x + f - 2 * c * sqrt(x * f), "so the cross term is too"),
    ("residual_variance", lambda x, f, c: x + f + 2 * abs(c) * sqrt(x * f), "keep its sign"),
    ("residual_variance", lambda x, f, c: sqrt(x + f + 2 * c * sqrt(x * f)), "its variance is asked for"),
    ("residual_variance", lambda x, f, c: x + f + 2 * max(c, 0) * sqrt(x * f), "leaves nothing"),
    ("residual_variance", lambda x, f, c: x + f + 2 * c * x, "x + F is F + x"),
    ("residual_variance", lambda x, f, c: x + c * f, "x + F is F + x"),
    ("residual_variance", lambda x, f, c: round(x + f + 2 * c * sqrt(x * f), 2), "Nearly: something is rounded"),
    ("residual_variance", remembering(summed, 0, 1), "The answer is the same for corr"),
    ("residual_variance", lambda x, f, c: np.array([summed(x, f, c)]), "The answer is one number"),
    ("damped_variance", damped(lambda f, k, n: 2 * f / sqrt(k)), "variances scale with the square"),
    ("damped_variance", damped(lambda f, k, n: f / k), "two sub-layers"),
    ("damped_variance", damped(lambda f, k, n: f / (2 * k - 1) + f / (2 * k)), "l counts layers"),
    ("damped_variance", damped(lambda f, k, n: 2 * f / (k + 1)), "its branches are not damped"),
    ("damped_variance", damped(lambda f, k, n: 2 * f / k**2), "not by l²"),
    ("damped_variance", damped(lambda f, k, n: 2 * f), "Pre-LN without damping"),
    ("damped_variance", damped(lambda f, k, n: 2 * f / n), "damps all layers equally"),
    ("damped_variance", damped(lambda f, k, n: 4 * f / k), "not their lengths"),
    ("damped_variance", lambda n, f, v: damped(lambda f, k, n: 2 * f / k)(n, f, v)[1:], "Depth 0, the input itself"),
    ("damped_variance", lambda n, f, v=1.0: damped_list(n, f, 1.0), "begins with the input's variance"),
    ("damped_variance", lambda n, f, v=1.0: damped_list(n + 1, f, v), "That is too long"),
    ("damped_variance", lambda n, f, v=1.0: [v] * (2 * n + 1), "not per sub-layer"),
    ("damped_variance", lambda n, f, v=1.0: damped_list(n, f, v)[-1], "The answer is an array"),
    ("damped_variance", lambda n, f, v=0.0: damped_list(n, f, v), "Without var0"),
    ("damped_variance", lambda n, f, v=1.0: damped_list(n, f, v) if n else [0.0], OTHER),
    ("damped_variance", lambda n, f, v=1.0: v + 2 * f * np.log(np.arange(1, n + 2)), OTHER),
    ("damped_variance", whole_damped, "holds whole numbers only"),
    ("damped_variance", damped_deep, "The lesson goes to 1,000 layers"),
    ("damped_variance", lambda n, f, v=1.0: np.round(damped_list(n, f, v), 2), "Nearly: something is rounded"),
    ("damped_variance", lambda n, f, v=1.0: v + f * np.arange(n + 1) ** 2, "each less than the one before it"),
    ("damped_variance", lambda n, f, v=1.0: [*damped_list(min(n, 99), f, v), *[v] * (n - 99)], OTHER),
    ("damped_variance", remembering(damped_list, 0, 1), "The answer is the same for var0"),
    ("damped_variance", first_only(damped_list, lambda n, f, v=1.0: [v] * (n + 1)), "kept from one call"),
]
