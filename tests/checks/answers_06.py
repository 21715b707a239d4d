"""Lesson 06: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from math import exp, log, log2, prod, sqrt
from statistics import linear_regression
from typing import Any

import numpy as np
import torch

GROUPS, STEPS = ("matrices", "biases", "norms"), ("sgd", "fixed")


def _points(g: np.random.Generator) -> tuple[list[int], list[float]]:
    depths = g.choice(np.arange(2, 200), g.integers(2, 7), replace=False).tolist()
    updates = g.uniform(0.1, 9, len(depths)) if g.random() < 0.9 else np.full(len(depths), 3.0)
    return depths, updates.tolist()


def _layers(g: np.random.Generator, most: int) -> int:
    """One, a power of two, or any."""
    return int(g.choice([1, 2 ** int(g.integers(1, 9)), g.integers(1, most)]))


def _exponent(g: np.random.Generator) -> float:
    """As in the lesson, or any."""
    return float(g.choice([0.0, 0.25, 0.5, g.uniform(0, 1)]))


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "depth_slope": lambda f, g: f(*_points(g)),
    "solve_deepnorm": lambda f, g: f(_layers(g, 900), _exponent(g)),
    "branch_over_skip": lambda f, g: f(g.uniform(0.5, 4), g.uniform(0.1, 2)),
    "update_sum": lambda f, g: f(_layers(g, 99), g.uniform(1, 4), g.uniform(0.1, 1), STEPS[g.integers(2)]),
    "predicted_slope": lambda f, g: f(GROUPS[g.integers(3)], STEPS[g.integers(2)], _exponent(g), _exponent(g)),
    "encoder_condition": lambda f, g: f(_layers(g, 50), _layers(g, 50), *g.uniform(0.5, 3, 4)),
    "solve_encoder": lambda f, g: f(_layers(g, 200), _layers(g, 200)),
}


def by_lstsq(depths, updates):
    x = np.stack([np.log(depths), np.ones(len(depths))], axis=1)
    return np.linalg.lstsq(x, np.log(updates), rcond=None)[0][0]


def by_torch(depths, updates):
    x, y = (torch.tensor(values, dtype=torch.float64).log2() for values in (depths, updates))
    return torch.dot(x - x.mean(), y) / (x - x.mean()).square().sum()


def by_single_tensors(depths, updates):
    x, y = torch.tensor(depths).float().log(), torch.tensor(updates).float().log()
    return (((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()).item()


def by_normal_equations(depths, updates):
    x, y = (np.log(np.asarray(values, dtype=np.float32)) for values in (depths, updates))
    n = np.float32(len(x))
    return (n * (x * y).sum() - x.sum() * y.sum()) / (n * (x * x).sum() - x.sum() ** 2)


def by_pairs(depths, updates):
    """Each pair's slope, weighted by its squared distance."""
    above = below = 0.0
    for (d, u), (other, theirs) in combinations(zip(depths, updates, strict=True), 2):
        above += log(d / other) * log(u / theirs)
        below += log(d / other) ** 2
    return above / below


def sorted_first(depths, updates):
    pairs = sorted(zip(depths, updates, strict=True))
    return np.polynomial.Polynomial.fit([log2(d) for d, _ in pairs], [log2(u) for _, u in pairs], 1).convert().coef[1]


def by_descent(depths, updates):
    """Newton's step on the squared errors, with gradients by autograd."""
    x, y = (torch.as_tensor(values, dtype=torch.float64).log() for values in (depths, updates))

    def errors(line):
        return (line[0] * x + line[1] - y).square().sum()

    line = torch.zeros(2, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(errors, line)
    return -torch.linalg.solve(torch.autograd.functional.hessian(errors, line), gradient)[0]


def fitted_line(x: Callable = np.log, y: Callable = np.log, which: int = 0, degree: int = 1) -> Callable[..., Any]:
    return lambda depths, updates: np.polyfit(x(depths), y(updates), degree)[which]


def robust(depths, updates):
    """Theil and Sen's line: the median of all slopes."""
    points = list(zip(np.log(depths), np.log(updates), strict=True))
    return np.median([(v - u) / (b - a) for (a, u), (b, v) in combinations(points, 2) if a != b])


def one_a_depth(depths, updates):
    table = dict(zip(depths, updates, strict=True))
    return fitted_line()(list(table), list(table.values()))


def by_depths_alone() -> Callable[..., Any]:
    """Keeps a slope for each list of depths."""
    kept: dict[tuple[int, ...], Any] = {}

    def answer(depths, updates):
        key = tuple(depths)
        kept[key] = kept[key] if key in kept else fitted_line()(depths, updates)
        return kept[key]

    return answer


def sorts_the_depths(depths, updates):
    return fitted_line()(sorted(depths), updates)


def solved_by_steps(n_layers, a):
    alpha = 1.0
    for _ in range(1000):
        alpha *= (2 * n_layers) ** (a / 1000)
    return [alpha, alpha * sqrt(1 / (4 * n_layers))]


def split(K: Callable[..., float], half: float = 2) -> Callable[..., Any]:
    """The even split of the condition K·half·β²/α² = 1."""
    return lambda *layers: (K(*layers) ** 0.25, K(*layers) ** -0.25 / sqrt(half))


def solved_by_bisection(n_layers, a):
    alpha, low, high = (2 * n_layers) ** a, 0.0, 1e6
    for _ in range(200):
        beta = (low + high) / 2
        low, high = (low, beta) if 2 * n_layers * 2 * beta**2 > alpha**2 else (beta, high)
    return np.array([alpha, beta])


def other(
    n: Callable[[int], float] = lambda N: 2 * N, matrices: float = 2, a: Callable[[float], float] = lambda a: a
) -> Callable[..., Any]:
    """The condition n·matrices·β²/α² = 1 with α = n^a, where any of the three may be another one."""
    return lambda N, b: (n(N) ** a(b), n(N) ** (a(b) - 0.5) / sqrt(matrices))


def only_the_first(right: Callable[..., Any], then: Callable[..., Any]) -> Callable[..., Any]:
    """Right at its first call alone."""
    calls: list[Any] = []

    def answer(*arguments):
        calls.append(arguments)
        return (right if len(calls) == 1 else then)(*arguments)

    return answer


def rounded(f: Callable[..., Any], digits: int) -> Callable[..., Any]:
    return lambda *arguments: np.round(f(*arguments), digits).tolist()


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


def condition(
    factor: float = 4, N: int = 1, M: int = 1, alpha_e: int = -2, beta_e: int = 2, alpha_d: int = -1, beta_d: int = 2
) -> Callable[..., Any]:
    """The encoder's condition, with other powers."""
    powers = (N, M, alpha_e, beta_e, alpha_d, beta_d)
    return lambda *given: factor * prod(x**power for x, power in zip(given, powers, strict=True))


RIGHT = [
    ("depth_slope", by_lstsq),
    ("depth_slope", by_torch),
    ("depth_slope", by_single_tensors),
    ("depth_slope", by_normal_equations),
    ("depth_slope", by_pairs),
    ("depth_slope", sorted_first),
    ("depth_slope", by_descent),
    ("depth_slope", lambda d, u: linear_regression([*map(log, d)], [*map(log, u)]).slope),
    ("depth_slope", lambda d, u: Fraction(float(fitted_line()(d, u)))),
    ("depth_slope", lambda d, u: np.cov(np.log(d), np.log(u))[0, 1] / np.var(np.log(d), ddof=1)),
    ("solve_deepnorm", other()),
    ("solve_deepnorm", solved_by_steps),
    ("solve_deepnorm", solved_by_bisection),
    ("solve_deepnorm", lambda n, a: np.array([(2 * n) ** a, (2 * n) ** a / (4 * n) ** 0.5])),
    ("solve_deepnorm", lambda n, a: torch.tensor([1, 0.5 / sqrt(n)]) * torch.tensor(2.0 * n) ** a),
    (
        "solve_deepnorm",
        lambda n, a: (np.float32(2 * n) ** np.float32(a), Decimal((2 * n) ** a) / Decimal(4 * n).sqrt()),
    ),
    ("solve_deepnorm", lambda n, a: tuple(exp(a * log(2 * n) - x) for x in (0, log(4 * n) / 2))),
    ("branch_over_skip", lambda alpha, beta: (beta * beta / alpha) ** 2),
    ("branch_over_skip", lambda alpha, beta: torch.tensor(beta, dtype=torch.float64) ** 4 / (alpha * alpha)),
    ("branch_over_skip", lambda alpha, beta: torch.tensor(beta).pow(4).div(torch.tensor(alpha).square())),
    ("branch_over_skip", lambda alpha, beta: Fraction(beta) ** 4 / Fraction(alpha) ** 2),
    ("branch_over_skip", lambda alpha, beta: exp(4 * log(beta) - 2 * log(alpha))),
    ("branch_over_skip", lambda alpha, beta: prod([beta] * 4) / prod([alpha] * 2)),
    ("update_sum", term_by_term),
    ("update_sum", lambda n, a, b, step: 4 * n * b**2 / a**2 if step == "sgd" else 8**0.5 * n * b / a),
    ("update_sum", lambda n, a, b, step: np.float32(2 * n * (sqrt(2) * b / a) ** {"sgd": 2, "fixed": 1}[step])),
    ("update_sum", lambda n, a, b, step: 2 * n * (abs(complex(b, b)) / a) ** (1 + (step != "fixed"))),
    (
        "update_sum",
        lambda n, a, b, step: torch.full((2 * n,), 2 * b * b / a**2).pow(1.0 if step == "sgd" else 0.5).sum(),
    ),
    ("predicted_slope", slope_table),
    ("predicted_slope", slope_of_a_sum),
    ("predicted_slope", slope((-1, -1), (-1, 0))),
    ("predicted_slope", lambda group, step, a, b: np.float32(slope_table(group, step, a, b))),
    ("predicted_slope", lambda group, step, a, b: Fraction(slope_table(group, step, Fraction(a), Fraction(b)))),
    (
        "predicted_slope",
        lambda group, step, a, b: 1 - (1 + (step == "sgd")) * np.dot([a, b], [group != "norms", group == "matrices"]),
    ),
    ("encoder_condition", condition_by_theorem),
    ("encoder_condition", lambda N, M, ae, be, ad, bd: 4 * N * M * (bd * be / ae) ** 2 / ad),
    ("encoder_condition", lambda *c: torch.tensor(4 * prod([*c, c[3], c[5]]) / (c[2] ** 3 * c[4] ** 2)).float()),
    ("encoder_condition", lambda N, M, ae, be, ad, bd: np.outer([bd**2 / ad] * M, [2 * be**2 / ae**2] * 2 * N).sum()),
    ("encoder_condition", lambda N, M, ae, be, ad, bd: 4 * N * M * Fraction(bd * be / ae) ** 2 / Fraction(ad)),
    ("solve_encoder", encoder_by_roots),
    ("solve_encoder", encoder_as_tensor),
    ("solve_encoder", split(lambda N, M: (N**4 * M / 27) ** 0.25)),
    ("solve_encoder", lambda N, M: [N ** (1 / 4) * (M / 27) ** (1 / 16), (N**4 * M / 27) ** (-1 / 16) * 2**-0.5]),
    ("solve_encoder", lambda N, M: torch.tensor([1, 0.5**0.5]) * (N * (M / 27) ** 0.25) ** torch.tensor([0.25, -0.25])),
]

WRONG = [
    ("depth_slope", lambda d, u: log(u[-1] / u[0]) / log(d[-1] / d[0]), "the first and last point alone"),
    ("depth_slope", lambda d, u: np.mean(np.diff(np.log(u)) / np.diff(np.log(d))), "slopes between neighbours"),
    ("depth_slope", fitted_line(np.array, np.array), "A power is a slope between logarithms"),
    ("depth_slope", fitted_line(x=np.array), "The depths need a logarithm too"),
    ("depth_slope", fitted_line(y=np.array), "The updates need a logarithm too"),
    ("depth_slope", fitted_line(which=1), "That is the intercept"),
    ("depth_slope", fitted_line(np.log10, np.log10, 1), "That is the intercept"),
    ("depth_slope", lambda d, u: exp(fitted_line(which=1)(d, u)), "That is the factor"),
    ("depth_slope", fitted_line(x=np.log10), "The same logarithm on both axes"),
    ("depth_slope", fitted_line(y=np.log10), "The same logarithm on both axes"),
    ("depth_slope", lambda d, u: u[-1] / u[0], "not a power"),
    ("depth_slope", lambda d, u: np.polyfit(np.log(u), np.log(d), 1)[0], "The axes are exchanged"),
    ("depth_slope", lambda d, u: 1 / fitted_line()(d, u), "The axes are exchanged"),
    ("depth_slope", lambda d, u: np.polyfit(np.log(d), np.log(u), 1), "The answer is one number"),
    ("depth_slope", lambda d, u: np.corrcoef(np.log(d), np.log(u))[0, 1], "That is the correlation"),
    ("depth_slope", lambda d, u: np.log(d) @ np.log(u) / (np.log(d) @ np.log(d)), "a line through the origin"),
    ("depth_slope", lambda d, u: np.mean(np.log(u) / np.log(d)), "a line through the origin"),
    ("depth_slope", lambda d, u: np.cov(np.log(d), np.log(u))[0, 1] / np.var(np.log(d)), "give both the same ddof"),
    ("depth_slope", lambda d, u: -fitted_line()(d, u), "The sign is the other way round"),
    ("depth_slope", lambda d, u: abs(fitted_line()(d, u)), "the value is wrong"),
    ("depth_slope", rounded(fitted_line(), 4), "something is rounded on the way"),
    ("depth_slope", robust, "the value is wrong"),
    ("depth_slope", one_a_depth, "the value is wrong"),
    ("depth_slope", sorts_the_depths, "the value is wrong"),
    ("depth_slope", fitted_line(degree=2), "Where the updates are the same"),
    ("depth_slope", fitted_line(np.log1p, np.log1p), "Four times the depth and twice the value"),
    ("depth_slope", lambda d, u: fitted_line()(d, u) if u else 0.0, "raised ValueError: The truth value of an array"),
    ("depth_slope", by_depths_alone(), "Four times the depth and twice the value"),
    ("depth_slope", only_the_first(fitted_line(), lambda *_: 0.5), "Where the updates are the same"),
    ("solve_deepnorm", other(n=lambda N: N), "N layers are 2N sub-layers: the sum has 2N terms"),
    ("solve_deepnorm", lambda n, a: (n**a, n**a / (2 * sqrt(n))), "α is (2N)^a, of 2N sub-layers"),
    ("solve_deepnorm", other(matrices=1), "Two matrices share the budget, v² + w² is 2β²"),
    ("solve_deepnorm", lambda n, a: ((2 * n) ** a, (2 * n) ** a / sqrt(n)), "and N layers are 2N sub-layers"),
    ("solve_deepnorm", other(matrices=4), "the 2 of v² + w² is under the root"),
    ("solve_deepnorm", lambda n, a: ((2 * n) ** a, (2 * n) ** a / (2 * n)), "That is N, not √N"),
    ("solve_deepnorm", lambda n, a: ((2 * n) ** a, (2 * n) ** (2 * a) / (4 * n)), "That is β²"),
    ("solve_deepnorm", other(a=lambda a: 2 * a), "That is α². One more root gives α, and the same for β"),
    ("solve_deepnorm", lambda n, a: ((2 * n) ** (2 * a), other()(n, a)[1]), "That is α². One more root gives α."),
    ("solve_deepnorm", lambda n, a: ((2 * n) ** a, 1 / other()(n, a)[1]), "β/α falls with depth"),
    ("solve_deepnorm", lambda n, a: ((2 * n) ** a, (2 * n) ** a * 2 * sqrt(n)), "it is turned over"),
    ("solve_deepnorm", lambda n, a: other()(n, a)[::-1], "are exchanged"),
    ("solve_deepnorm", lambda n, a: (2 * n**a, n**a / sqrt(n)), "has its parentheses"),
    ("solve_deepnorm", lambda n, a: (2 * n**a, other()(n, a)[1]), "has its parentheses"),
    ("solve_deepnorm", other(n=lambda N: 3 * N), "two sub-layers a layer, not three"),
    ("solve_deepnorm", lambda n, a: ((2 * n) ** 0.5, (2 * n) ** -0.5), "GLM-130B's constants"),
    ("solve_deepnorm", other(a=lambda a: 0.25), "that is the even split, a = ¼, whatever a is"),
    ("solve_deepnorm", lambda n, a: ((2 * n) ** a, (2 * n) ** -a / sqrt(2)), "belongs to the even split"),
    ("solve_deepnorm", lambda n, a: ((2 * n) ** a, (8 * n) ** -a), "is β for a = ¼ alone"),
    ("solve_deepnorm", lambda n, a: ((2 * n) ** a, (8 * n) ** -0.25), "is β for a = ¼ alone"),
    ("solve_deepnorm", other(a=lambda a: 0.0), "with α = 1 the weights do all the work"),
    ("solve_deepnorm", other(a=lambda a: a / 2), "α is given: (2N)^a"),
    ("solve_deepnorm", lambda n, a: (3.0, 0.1), "The condition does not hold: 2N·2β²/α² is 4.444 here, not 1."),
    ("solve_deepnorm", lambda n, a: (-((2 * n) ** a), other()(n, a)[1]), "α and β are positive"),
    ("solve_deepnorm", lambda n, a: (2 * n) ** a, "The answer is a pair"),
    ("solve_deepnorm", lambda n, a: dict(zip("αβ", other()(n, a), strict=True)), "The answer is a pair"),
    ("solve_deepnorm", lambda n, a: [other()(n, a)], "The answer is a pair"),
    ("solve_deepnorm", lambda n, a: ("α", "β"), "a pair of numbers"),
    ("solve_deepnorm", lambda n: other()(n, 0.25), "takes other arguments"),
    ("solve_deepnorm", rounded(other(), 4), "something is rounded on the way"),
    ("solve_deepnorm", only_the_first(other(), other(n=lambda N: N)), "The condition does not hold"),
    ("solve_deepnorm", lambda n, a: other()(min(n, 100), a), "The condition does not hold"),
    ("solve_deepnorm", lambda n, a: other()(n, max(a, 0.1)), "α is given: (2N)^a"),
    ("branch_over_skip", lambda *given, **named: given[1] ** 4 / given[0] ** 2, "raised IndexError"),
    ("branch_over_skip", lambda alpha, beta: beta**2 / alpha, "Those are lengths"),
    ("branch_over_skip", lambda alpha, beta: beta**2 / alpha**2, "a branch has two matrices"),
    ("branch_over_skip", lambda alpha, beta: beta / alpha, "A variance is a square, and a branch has two matrices"),
    ("branch_over_skip", lambda alpha, beta: beta**4 / alpha, "what does α do to its variance"),
    ("branch_over_skip", lambda alpha, beta: beta**4 / alpha**4, "one factor α, not two"),
    ("branch_over_skip", lambda alpha, beta: beta**4, "divide by its variance"),
    ("branch_over_skip", lambda alpha, beta: alpha**2 * beta**4, "it makes the ratio smaller"),
    ("branch_over_skip", lambda alpha, beta: beta**4 / (alpha**2 + beta**4), "share in the sum"),
    ("branch_over_skip", lambda alpha, beta: 2 * beta**2 / alpha**2, "Matrices in a row multiply"),
    ("branch_over_skip", lambda alpha, beta: (2 * beta) ** 2 / alpha**2, "Matrices in a row multiply"),
    ("branch_over_skip", lambda alpha, beta: beta**4 // alpha**2, "the value is wrong"),
    ("branch_over_skip", lambda alpha, beta: beta**4 / (2 * alpha) ** 2, "have the same variance"),
    ("branch_over_skip", lambda alpha, beta: beta**4 / (alpha**2 + 0.1), "have the same variance"),
    ("branch_over_skip", lambda alpha, beta: beta**4 / (alpha**2 + 1e-5), "something is rounded on the way"),
    ("branch_over_skip", lambda alpha, beta: round(beta**4 / alpha**2, 5), "something is rounded on the way"),
    ("branch_over_skip", lambda alpha, beta: (beta**4, alpha**2), "The answer is one number"),
    ("update_sum", lambda n, a, b, step: 2 * n * 2 * b**2 / a**2, "does not lengthen a fixed step"),
    ("update_sum", lambda n, a, b, step: 2 * n * sqrt(2) * b / a, 'For "sgd" you give what belongs to "fixed"'),
    ("update_sum", lambda n, a, b, step: term_by_term(n, a, b, step.replace("sgd", "SGD")), "in small letters"),
    ("update_sum", lambda n, a, b, step: term_by_term(n, a, b, step) / (2 * n), "one term a sub-layer"),
    ("update_sum", lambda n, a, b, step: term_by_term(n, a, b, step) / 2, "N layers are 2N sub-layers"),
    ("update_sum", lambda n, a, b, step: term_by_term(n, a, b / sqrt(2), step), "A factor of 2 is missing"),
    (
        "update_sum",
        lambda n, a, b, step: term_by_term(n, a, b, step) if step == "sgd" else 4 * n * b / a,
        "For fixed steps yours is √2 too large",
    ),
    ("update_sum", lambda n, a, b, step: term_by_term(n, a, sqrt(2) * b, step), "v and w add as squares"),
    ("update_sum", lambda n, a, b, step: term_by_term(n, a, b, step) / sqrt(2 * n), "The theorem adds lengths"),
    (
        "update_sum",
        lambda n, a, b, step: term_by_term(n, a, b, step) if step == "sgd" else 2 * n * sqrt(2 * b) / a,
        "v² + w² is 2β², not 2β",
    ),
    (
        "update_sum",
        lambda n, a, b, step: 4 * n * b**2 / a if step == "sgd" else term_by_term(n, a, b, step),
        "Each factor has its α",
    ),
    (
        "update_sum",
        lambda n, a, b, step: term_by_term(n, a, b, step) / (1 if step == "sgd" else a),
        "One α only",
    ),
    ("update_sum", lambda n, a, b, step: term_by_term(n, a, b, "fixed" if step == "sgd" else "sgd"), 'For "sgd" you'),
    ("update_sum", lambda n, a, b, step: term_by_term(max(n, 2), a, b, step), "the value is wrong"),
    ("update_sum", lambda n, a, b, step: term_by_term(min(n, 100), a, b, step), "make SGD's sum 1"),
    ("update_sum", lambda n, a, b, step: term_by_term(n, a, b, step) / 3, "make SGD's sum 1"),
    ("update_sum", lambda n, a, b, step: round(term_by_term(n, a, b, step), 3), "something is rounded on the way"),
    ("update_sum", lambda n, a, b, step: [term_by_term(1, a, b, step) / 2] * 2 * n, "The answer is one number"),
    ("predicted_slope", slope((-1, -1), (-1, 0), number=0), "alone gives a slope of 1"),
    ("predicted_slope", slope((-1, -1), (-1, 0), number=2), "a power of 1"),
    ("predicted_slope", slope((-1, -1), (-1, 0), sgd=1), "counts twice"),
    ("predicted_slope", slope((-1, -1), (-1, 0), fixed=2), "counts once"),
    ("predicted_slope", slope((-1, -1), (-1, -1)), "added after both matrices"),
    ("predicted_slope", slope((-1, 0), (-1, -1)), "no β, but α"),
    ("predicted_slope", slope((-1, 0), (-1, 0)), "A bias is added before the norm"),
    ("predicted_slope", slope((-1, -1), (-1, 0), of_norm=-1), "after the division"),
    ("predicted_slope", slope((-1, -1), (-1, 0), of_norm=1), "arrives unchanged"),
    ("predicted_slope", slope((-1, -1), (1, 0)), "β = N^(-b) shrinks with depth"),
    ("predicted_slope", slope((1, 1), (-1, 0)), "α is in the denominator"),
    ("predicted_slope", slope((1, 1), (1, 0)), "both make the slope smaller"),
    ("predicted_slope", slope((-1, -1), (-2, 0)), "by the other one only"),
    ("predicted_slope", slope((-1, -1), (0, 0)), "β counts too"),
    ("predicted_slope", slope((0, -1), (-1, 0)), "The norm after the sum divides"),
    ("predicted_slope", lambda *given: abs(slope_table(*given)), "A slope may be negative"),
    ("predicted_slope", lambda *given: max(slope_table(*given), 0), "the value is wrong"),
    ("predicted_slope", lambda *given: round(2 * slope_table(*given)) / 2, "the value is wrong"),
    ("predicted_slope", lambda *given: round(slope_table(*given), 1), "the value is wrong"),
    ("predicted_slope", lambda group, step, a, b: slope_table(group, step, a, a), "the value is wrong"),
    ("predicted_slope", lambda group, step, a, b: slope_table(group, step.upper(), a, b), "small letters"),
    ("predicted_slope", lambda *given: slope_table(*given) + 0.1, "only the number of sub-layers grows"),
    ("predicted_slope", lambda *given: None if given[0] == "norms" else slope_table(*given), "returns nothing"),
    ("encoder_condition", condition(M=0), "Each of M cross-attentions injects the encoder's change: M times"),
    ("encoder_condition", condition(M=2), "M times, not M²"),
    ("encoder_condition", condition(factor=12), "only one of them looks at the encoder"),
    ("encoder_condition", condition(factor=8), "not 2β_d²"),
    ("encoder_condition", condition(factor=2), "A factor of 2 is missing"),
    ("encoder_condition", condition(alpha_d=-2), "one division by α_d"),
    ("encoder_condition", condition(alpha_d=0), "a division by α_d is missing"),
    ("encoder_condition", condition(N=0, M=2), "N is its depth, M the decoder's"),
    ("encoder_condition", condition(N=2, M=0), "M of them, not N"),
    ("encoder_condition", condition(M=0, alpha_d=0, beta_d=0), "That is the encoder alone"),
    ("encoder_condition", condition(factor=1, N=0, alpha_e=0, beta_e=0), "That is the entrance alone"),
    ("encoder_condition", condition(alpha_e=-1), "The encoder's factor is squared, α too"),
    ("encoder_condition", condition(beta_e=1), "The encoder's factor is squared, β too"),
    ("encoder_condition", condition(beta_d=1), "two matrices, two β_d"),
    (
        "encoder_condition",
        lambda N, M, ae, be, ad, bd: condition()(N, M, ad, bd, ae, be),
        "cross-attention belongs to the decoder",
    ),
    (
        "encoder_condition",
        lambda N, M, ae, be, ad, bd: M * bd**2 / ad + 4 * N * be**2 / ae**2,
        "multiplied on its way: a product",
    ),
    ("encoder_condition", condition(factor=5), "With DeepNorm's constants, not rounded, it is 1"),
    ("encoder_condition", lambda N, M, *more: condition()(max(N, 2), M, *more), "the value is wrong"),
    ("encoder_condition", lambda *given: condition()(*given) - 1, "With DeepNorm's constants"),
    ("encoder_condition", lambda *given: round(condition()(*given), 3), "something is rounded on the way"),
    ("solve_encoder", lambda N, M: (0.81 * (N**4 * M) ** 0.0625, 0.87 * (N**4 * M) ** -0.0625), "1.012"),
    ("solve_encoder", lambda N, M: (0.81 * (N**4 * M) ** 0.0625, 1.15 * (N**4 * M) ** -0.0625), "A published bug"),
    ("solve_encoder", lambda N, M: (encoder_by_roots(N, M)[0], 1.15 * (N**4 * M) ** -0.0625), "A published bug"),
    ("solve_encoder", lambda N, M: encoder_by_roots(M, N), "N and M are exchanged"),
    ("solve_encoder", lambda N, M: ((2 * N) ** 0.25, (8 * N) ** -0.25), "That is an encoder alone"),
    ("solve_encoder", lambda N, M: ((3 * M) ** 0.25, (12 * M) ** -0.25), "the decoder's constants"),
    ("solve_encoder", lambda N, M: (1.0, (2 * (N**4 * M / 27) ** 0.25) ** -0.5), "with α = 1 the weights do all"),
    ("solve_encoder", lambda N, M: ((N**4 * M) ** 0.0625, (N**4 * M) ** -0.0625), "are missing"),
    ("solve_encoder", split(lambda N, M: (N**4 * M) ** 0.25), "The 27 is missing"),
    ("solve_encoder", split(lambda N, M: (N * M / 27) ** 0.25), "N comes in its fourth power"),
    ("solve_encoder", split(lambda N, M: (N**4 * M / 27) ** 0.25, half=1), "Two matrices share the budget"),
    ("solve_encoder", split(lambda N, M: N**4 * M / 27), "The condition does not hold"),
    ("solve_encoder", lambda N, M: split(lambda N, M: (N**4 * M / 27) ** 0.25)(N, M)[::-1], "are exchanged"),
    ("solve_encoder", lambda N, M: (0.81 * (N**4 * M) ** 1 / 16, 0.87 * (N**4 * M) ** -1 / 16), "Python reads x**1/16"),
    ("solve_encoder", lambda N, M: (1.0, 1.0), "The condition does not hold"),
    ("solve_encoder", lambda N, M: (encoder_by_roots(N, M)[0] ** 2, 0.5**0.5), "But the split is not even"),
    ("solve_encoder", rounded(encoder_by_roots, 4), "something is rounded on the way"),
    ("solve_encoder", lambda N, M: encoder_by_roots(max(N, 2), M), "the value is wrong"),
]
