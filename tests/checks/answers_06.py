"""Lesson 06: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from math import exp, log, prod, sqrt
from typing import Any

import numpy as np
import torch

GROUPS, STEPS = ("matrices", "biases", "norms"), ("sgd", "fixed")


def _points(g: np.random.Generator) -> tuple[list[int], list[float]]:
    return sorted(g.choice(np.arange(2, 200), 5, replace=False).tolist()), g.uniform(0.1, 9, 5).tolist()


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "depth_slope": lambda f, g: f(*_points(g)),
    "solve_deepnorm": lambda f, g: f(int(g.integers(1, 900))),
    "branch_over_skip": lambda f, g: f(g.uniform(0.5, 4), g.uniform(0.1, 2)),
    "update_sum": lambda f, g: f(int(g.integers(1, 99)), g.uniform(1, 4), g.uniform(0.1, 1), STEPS[g.integers(2)]),
    "predicted_slope": lambda f, g: f(GROUPS[g.integers(3)], STEPS[g.integers(2)], g.uniform(0, 1), g.uniform(0, 1)),
    "encoder_condition": lambda f, g: f(*map(int, g.integers(1, 50, 2)), *g.uniform(0.5, 3, 4)),
    "solve_encoder": lambda f, g: f(*map(int, g.integers(1, 200, 2))),
}


def by_lstsq(depths, updates):
    x = np.stack([np.log(depths), np.ones(len(depths))], axis=1)
    return np.linalg.lstsq(x, np.log(updates), rcond=None)[0][0]


def by_torch(depths, updates):
    x, y = (torch.tensor(values, dtype=torch.float64).log2() for values in (depths, updates))
    return torch.dot(x - x.mean(), y) / (x - x.mean()).square().sum()


def solved_by_steps(n_layers):
    alpha = sqrt(sqrt(2 * n_layers))
    return [alpha, alpha / (2 * sqrt(n_layers))]


def term_by_term(n_layers, alpha, beta, step):
    total = 0.0
    for _ in range(2 * n_layers):
        gradient = sqrt(beta**2 + beta**2) / alpha
        total += gradient * (gradient if step == "sgd" else 1.0)
    return total


def slope_table(group, step, a, b):
    return {
        ("matrices", "sgd"): 1 - 2 * a - 2 * b,
        ("matrices", "fixed"): 1 - a - b,
        ("biases", "sgd"): 1 - 2 * a,
        ("biases", "fixed"): 1 - a,
    }.get((group, step), 1)


def slope_of_a_sum(group, step, a, b):
    def total(n):
        felt = {"matrices": n**-b / n**a, "biases": 1 / n**a, "norms": 1.0}[group]
        return 2 * n * felt ** (2 if step == "sgd" else 1)

    return log(total(64.0) / total(2.0)) / log(32.0)


def slope(of_a, of_b, of_norm=0.0, sgd=2, fixed=1, number=1):
    """A prediction with other weights: of α and β for (matrices, biases), of a for norms."""

    def predicted(group, step, a, b):
        felt = {"matrices": of_a[0] * a + of_b[0] * b, "biases": of_a[1] * a + of_b[1] * b, "norms": of_norm * a}[group]
        return number + (sgd if step == "sgd" else fixed) * felt

    return predicted


def condition_by_theorem(N, M, alpha_e, beta_e, alpha_d, beta_d):
    through = sum(beta_d * beta_d / alpha_d for _ in range(M))
    return through * sum((sqrt(2) * beta_e / alpha_e) ** 2 for _ in range(2 * N))


def encoder_by_roots(N, M):
    root = prod([N, N, N, N, M]) ** (1 / 16)
    return 27 ** (-1 / 16) * root, 27 ** (1 / 16) / sqrt(2) / root


def encoder_as_tensor(N, M):
    log_k = (4 * log(N) + log(M) - log(27)) / 4
    return torch.tensor([exp(log_k / 4), exp(-log_k / 4) * 0.5**0.5], dtype=torch.float64)


RIGHT = [
    ("depth_slope", by_lstsq),
    ("depth_slope", by_torch),
    ("solve_deepnorm", solved_by_steps),
    ("solve_deepnorm", lambda n: np.array([(2 * n) ** (1 / 4), 1 / (8 * n) ** (1 / 4)])),
    ("branch_over_skip", lambda alpha, beta: (beta * beta / alpha) ** 2),
    ("branch_over_skip", lambda alpha, beta: torch.tensor(beta, dtype=torch.float64) ** 4 / (alpha * alpha)),
    ("update_sum", term_by_term),
    ("update_sum", lambda n, a, b, step: 4 * n * b**2 / a**2 if step == "sgd" else 8**0.5 * n * b / a),
    ("predicted_slope", slope_table),
    ("predicted_slope", slope_of_a_sum),
    ("encoder_condition", condition_by_theorem),
    ("encoder_condition", lambda N, M, ae, be, ad, bd: 4 * N * M * (bd * be / ae) ** 2 / ad),
    ("solve_encoder", encoder_by_roots),
    ("solve_encoder", encoder_as_tensor),
]

WRONG = [
    ("depth_slope", lambda d, u: log(u[-1] / u[0]) / log(d[-1] / d[0]), "the two ends alone"),
    ("depth_slope", lambda d, u: np.polyfit(d, u, 1)[0], "Take the logarithm of both"),
    ("depth_slope", lambda d, u: np.polyfit(d, np.log(u), 1)[0], "The depths need a logarithm too"),
    ("depth_slope", lambda d, u: np.polyfit(np.log(d), u, 1)[0], "The updates need a logarithm too"),
    ("depth_slope", lambda d, u: np.polyfit(np.log(d), np.log(u), 1)[1], "That is the intercept"),
    ("depth_slope", lambda d, u: u[-1] / u[0], "not a power"),
    ("depth_slope", lambda d, u: np.polyfit(np.log(u), np.log(d), 1)[0], "The axes are exchanged"),
    ("depth_slope", lambda d, u: np.polyfit(np.log(d), np.log(u), 1), "The answer is one number"),
    ("solve_deepnorm", lambda n: (n**0.25, (4 * n) ** -0.25), "N layers are 2N sub-layers"),
    ("solve_deepnorm", lambda n: ((2 * n) ** 0.25, (2 * n) ** -0.25), "Two matrices share the budget"),
    ("solve_deepnorm", lambda n: (1.0, (4 * n) ** -0.5), "with α = 1 the weights do all the work"),
    ("solve_deepnorm", lambda n: ((2 * n) ** 0.5, 0.5**0.5), "The split is another one"),
    ("solve_deepnorm", lambda n: ((2 * n) ** 0.5, (2 * n) ** -0.5), "GLM-130B's constants"),
    ("solve_deepnorm", lambda n: ((2 * n) ** 0.25, (8 * n) ** 0.25), "the exponent is negative"),
    ("solve_deepnorm", lambda n: ((8 * n) ** -0.25, (2 * n) ** 0.25), "are exchanged"),
    ("solve_deepnorm", lambda n: ((2 * n) ** 0.5, (8 * n) ** -0.25), "One more root gives α"),
    ("solve_deepnorm", lambda n: ((2 * n) ** 1 / 4, (8 * n) ** -1 / 4), "Python reads x**1/4"),
    ("solve_deepnorm", lambda n: (3.0, 0.1), "The condition does not hold: 2N·2β²/α² is 0.05333 here, not 1."),
    ("solve_deepnorm", lambda n: (-((2 * n) ** 0.25), (8 * n) ** -0.25), "The condition"),
    ("solve_deepnorm", lambda n: (2 * n) ** 0.25, "The answer is a pair"),
    ("solve_deepnorm", lambda n: ("α", "β"), "a pair of numbers"),
    ("branch_over_skip", lambda alpha, beta: beta**2 / alpha, "Those are lengths"),
    ("branch_over_skip", lambda alpha, beta: beta**2 / alpha**2, "A branch has two matrices"),
    ("branch_over_skip", lambda alpha, beta: beta / alpha, "β enters four times"),
    ("branch_over_skip", lambda alpha, beta: beta**4 / alpha, "Scaling x by α"),
    ("branch_over_skip", lambda alpha, beta: beta**4, "divide by its variance"),
    ("branch_over_skip", lambda alpha, beta: beta**4 / (alpha**2 + beta**4), "share in the sum"),
    ("branch_over_skip", lambda alpha, beta: 2 * beta**2 / alpha**2, "Matrices in a row multiply"),
    ("update_sum", lambda n, a, b, step: 2 * n * 2 * b**2 / a**2, "the second β/α is lost"),
    ("update_sum", lambda n, a, b, step: 2 * n * sqrt(2) * b / a, "that factor comes twice"),
    ("update_sum", lambda n, a, b, step: term_by_term(n, a, b, step) / (2 * n), "one term a sub-layer"),
    ("update_sum", lambda n, a, b, step: term_by_term(n, a, b, step) / 2, "N layers are 2N sub-layers"),
    (
        "update_sum",
        lambda n, a, b, step: term_by_term(n, a, b, step) if step == "sgd" else 4 * n * b / a,
        "√(v² + w²) is √2·β, not 2β",
    ),
    ("update_sum", lambda n, a, b, step: term_by_term(n, a, b, step) / sqrt(2 * n), "The theorem adds lengths"),
    ("predicted_slope", slope((-1, -1), (-1, 0), number=0), "their number alone gives a slope of 1"),
    ("predicted_slope", slope((-1, -1), (-1, 0), sgd=1), "counts twice"),
    ("predicted_slope", slope((-1, -1), (-1, 0), fixed=2), "counts once"),
    ("predicted_slope", slope((-1, -1), (-1, -1)), "added behind both matrices"),
    ("predicted_slope", slope((-1, -1), (-1, 0), of_norm=-1), "behind the division"),
    ("predicted_slope", slope((-1, -1), (1, 0)), "β = N^(-b) shrinks with depth"),
    ("predicted_slope", slope((1, 1), (-1, 0)), "α stands in the denominator"),
    ("predicted_slope", slope((1, 1), (1, 0)), "both make the slope smaller"),
    ("predicted_slope", slope((-1, -1), (-2, 0)), "meets the other one only"),
    ("predicted_slope", slope((-1, 0), (-1, 0)), "A bias is added before the norm"),
    (
        "encoder_condition",
        lambda N, M, ae, be, ad, bd: 2 * N * bd**2 / ad * 2 * be**2 / ae**2,
        "Each of M cross-attentions",
    ),
    (
        "encoder_condition",
        lambda N, M, ae, be, ad, bd: 2 * N * 3 * M * bd**2 / ad * 2 * be**2 / ae**2,
        "only one of them looks at the encoder",
    ),
    (
        "encoder_condition",
        lambda N, M, ae, be, ad, bd: 2 * N * M * bd**2 / ad**2 * 2 * be**2 / ae**2,
        "one division by α_d",
    ),
    (
        "encoder_condition",
        lambda N, M, ae, be, ad, bd: 2 * M * M * bd**2 / ad * 2 * be**2 / ae**2,
        "N is its depth, M the decoder's",
    ),
    ("encoder_condition", lambda N, M, ae, be, ad, bd: 4 * N * be**2 / ae**2, "That is a single stack"),
    (
        "encoder_condition",
        lambda N, M, ae, be, ad, bd: 4 * N * M * be**2 / ae * bd**2 / ad**2,
        "cross-attention belongs to the decoder",
    ),
    ("solve_encoder", lambda N, M: (0.81 * (N**4 * M) ** 0.0625, 0.87 * (N**4 * M) ** -0.0625), "1.012"),
    ("solve_encoder", lambda N, M: (0.81 * (N**4 * M) ** 0.0625, 1.15 * (N**4 * M) ** -0.0625), "A published bug"),
    ("solve_encoder", lambda N, M: encoder_by_roots(M, N), "N and M are exchanged"),
    ("solve_encoder", lambda N, M: ((2 * N) ** 0.25, (8 * N) ** -0.25), "That is an encoder alone"),
    ("solve_encoder", lambda N, M: ((3 * M) ** 0.25, (12 * M) ** -0.25), "the decoder's constants"),
    ("solve_encoder", lambda N, M: (1.0, (2 * (N**4 * M / 27) ** 0.25) ** -0.5), "The condition holds"),
    ("solve_encoder", lambda N, M: ((N**4 * M) ** 0.0625, (N**4 * M) ** -0.0625), "are missing"),
    ("solve_encoder", lambda N, M: (1.0, 1.0), "The condition does not hold"),
]
