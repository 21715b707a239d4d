"""Lesson 08: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import reduce
from math import exp, expm1, inf, isfinite, log, prod, sqrt
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import torch

WORDS = {"diverged": 0, "learned": 1, "lost": 2, "slow": 3}


def see_outcome(f: Callable, g: np.random.Generator) -> int:
    """As a number: the word's, or -1 for anything else."""
    chance = g.uniform(1.5, 5)
    # Near what decides, or anywhere.
    end = g.choice([1.0, chance - 0.25, chance, g.uniform(0, 5)]) + g.normal(0, 0.1)
    loss = np.append(g.uniform(0, 5, g.integers(1, 50)), end + g.normal(0, 0.3, 5))
    if g.random() < 0.1:  # exactly on a threshold
        chance, loss = 2.25, np.append(loss[:-5], np.full(5, g.choice([1.0, 2.0])))
    if g.random() < 0.2:
        loss[g.integers(0, len(loss))] = g.choice([np.nan, np.inf])
    word = f(loss, g.choice([0.9 + g.normal(0, 0.05), g.uniform(0, 1)]), chance)
    return WORDS.get(word, -1) if isinstance(word, str) else -1


def see_edge(f: Callable, g: np.random.Generator) -> Any:
    n, seeds = g.integers(1, 7), g.choice([1, 2, 3, 40])
    return f(g.permutation(g.uniform(1, 9, n)), g.random((n, seeds)) < g.choice([0.7, 0.98]))


def see_interval(f: Callable, g: np.random.Generator) -> Any:
    return f(g.normal(0.3, 0.5, g.integers(2, 8)).tolist(), g.uniform(0.5, 13))


def see_rate(f: Callable, g: np.random.Generator) -> Any:
    shallow, deep = ((int(g.integers(1, 99)), g.uniform(1, 5), g.uniform(0.1, 1)) for _ in range(2))
    return f(g.uniform(0.1, 2), shallow, deep)


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "edge_alpha": lambda f, g: f(int(g.choice([1, 1000, g.integers(1, 50)])), g.uniform(0.05, 0.95), g.uniform(0.1, 3)),
    "outcome": see_outcome,
    "trainable_edge": see_edge,
    "interval": see_interval,
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


def in_order(words: str, most: float = 1.0) -> Callable[..., str]:
    """The four questions in another order, or with another threshold."""

    def answer(loss, similarity, chance):
        end = np.mean(loss[-5:])
        asked = {
            "diverged": not np.isfinite(loss).all(),
            "learned": end < most,
            "lost": similarity > 0.9 and end > chance - 0.25,
        }
        return next((word for word in words.split() if asked[word]), "slow")

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


def around(
    error: Callable[[Any], float] = lambda powers: stdev(powers) / sqrt(len(powers)),
    centre: Callable[[Any], float] = fmean,
    t: Callable[[float], float] = lambda t: t,
) -> Callable[..., Any]:
    return lambda powers, given: (
        centre(powers) - t(given) * error(powers),
        centre(powers) + t(given) * error(powers),
    )


def by_squares_alone(powers, t):
    k, total, squares = len(powers), sum(powers), sum(p * p for p in powers)
    error = sqrt(max(0.0, squares - total**2 / k) / (k * (k - 1)))
    return [total / k - t * error, total / k + t * error]


def by_pairs_of_seeds(powers, t):
    """The sum of all squared differences is 2k times that of the squared deviations."""
    k = len(powers)
    squares = sum((p - q) ** 2 for p in powers for q in powers) / (2 * k)
    return np.array(fmean(powers)) + np.array([-1, 1]) * t * sqrt(squares / (k - 1) / k)


def by_tensor(powers, t):
    values = torch.tensor(powers, dtype=torch.float64)
    return values.mean() + torch.tensor([-t, t]) * values.std() / len(powers) ** 0.5


def by_single_tensor(powers, t):
    values = torch.tensor(powers)
    reach = t * values.std() * len(powers) ** -0.5
    return (values.mean() - reach).item(), (values.mean() + reach).item()


def rate_of(sum_: Callable[[float, float, float], float]) -> Callable[..., float]:
    return lambda rate, shallow, deep: rate * sum_(*shallow) / sum_(*deep)


def ratios(shallow, deep):
    (n, a, b), (N, A, B) = shallow, deep
    return (n, b, A), (N, B, a)


def by_vectors(rate, shallow, deep):
    def total(layers, alpha, beta):
        return np.sum(np.hypot(np.full(2 * layers, beta), beta) / alpha)

    return np.float64(rate) / (total(*deep) / total(*shallow))


def edge_by_newton(layers, share, s):
    """The root of what is left, in ln α, minus what is asked for."""

    def left(log_alpha):
        return -2 * layers * torch.log1p(s / 4 * torch.exp(-6 * log_alpha)) - log(share)

    x = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    for _ in range(100):
        (slope,) = torch.autograd.grad(left(x), x)
        step = (left(x) / slope).clamp(-1, 1).detach()
        x = (x - step).detach().requires_grad_()
    return x.exp().item()


def edge_by_grid(layers, share, s):
    alphas = np.exp(np.linspace(-3, 5, 400_001))
    left = (1 + s / 4 / alphas**6) ** (-2.0 * layers)
    return np.interp(share, left, alphas)


def edge_in_single(layers, share, s):
    share, s = np.float32(share), np.float32(s)
    return (s / (4 * (share ** (np.float32(-1) / (2 * layers)) - 1))) ** np.float32(1 / 6)


def edge_without_a_row(alphas, learned):
    where = [alpha for alpha, row in zip(alphas, learned, strict=True) if all(row)]
    return min(where) if where else None


def edge_with_rows_left(alphas, learned):
    return chosen(lambda learned: learned.all(1))(np.sort(alphas), learned)


def cached_by(which: Callable[..., Any], f: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps its answers by a part of the arguments."""
    kept: dict[str, Any] = {}

    def answer(*given):
        key = str(which(*given))
        kept[key] = kept[key] if key in kept else f(*given)
        return kept[key]

    return answer


def first_call_decides(f: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps its first answer."""
    kept: list[Any] = []

    def answer(*given):
        if not kept:
            kept.append(f(*given))
        return kept[0]

    return answer


class Verdict(str):
    """A text of one's own."""

    __slots__ = ()


RIGHT = [
    ("edge_alpha", by_bisection),
    ("edge_alpha", by_logarithms),
    ("edge_alpha", edge()),
    ("edge_alpha", edge_by_newton),
    ("edge_alpha", edge_by_grid),
    ("edge_alpha", edge_in_single),
    ("edge_alpha", lambda N, share, s: torch.tensor(s).div(4 * (share ** (-1 / (2 * N)) - 1)).pow(1 / 6)),
    ("edge_alpha", lambda N, share, s: Fraction(exp(log(s / 4 / expm1(-log(share) / 2 / N)) / 6))),
    ("edge_alpha", lambda N, share, s: abs((complex(s) / 4 / (complex(share) ** (-0.5 / N) - 1)) ** (1 / 6))),
    ("outcome", verdict()),
    ("outcome", by_nested_questions),
    ("outcome", verdict(lambda loss: fmean(loss[-5:]), lambda loss: loss.max() < inf)),
    ("outcome", lambda *a: Verdict(verdict()(*a))),
    (
        "outcome",
        verdict(
            lambda loss: np.float32(loss[-5:]).mean(),
            lambda loss: not {inf, -inf, None} & {None if x != x else x for x in loss},
        ),
    ),
    ("outcome", verdict(lambda loss: loss[len(loss) - 5 :] @ np.full(5, 0.2), lambda loss: isfinite(sum(loss)))),
    ("outcome", verdict(lambda loss: torch.tensor(loss).float()[-5:].mean())),
    ("outcome", verdict(lambda loss: np.convolve(loss, np.ones(5) / 5, "valid")[-1])),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.9 and chance - end < 0.25)),
    ("trainable_edge", edge_by_loop),
    (
        "trainable_edge",
        lambda a, learned: np.float32(min([x for x, row in zip(a, learned, strict=True) if row.all()] + [inf])),
    ),
    ("trainable_edge", lambda a, learned: reduce(min, a[learned.prod(1) > 0], inf)),
    ("trainable_edge", lambda a, learned: Decimal(edge_by_loop(a, learned))),
    ("trainable_edge", lambda a, learned: np.min(a[~(~learned).any(axis=-1)], initial=float("inf"))),
    (
        "trainable_edge",
        lambda a, learned: next((x for x, row in sorted(zip(a, learned.tolist(), strict=True)) if all(row)), inf),
    ),
    ("trainable_edge", lambda a, learned: -np.where(learned.all(1), -a, -inf).max()),
    ("trainable_edge", edge_sorted),
    ("trainable_edge", lambda alphas, learned: torch.tensor(np.where(learned.all(-1), alphas, inf)).min()),
    ("interval", around()),
    ("interval", by_squares_alone),
    ("interval", by_pairs_of_seeds),
    ("interval", by_tensor),
    ("interval", by_single_tensor),
    ("interval", lambda p, t: tuple(np.mean(p) + sign * t * np.sqrt(np.var(p, ddof=1) / len(p)) for sign in (-1, 1))),
    ("interval", lambda p, t: [fmean(p) + x * np.std(p) / sqrt(len(p) - 1) for x in (-t, t)]),
    ("matching_rate", rate_of(lambda N, a, b: 2 * N * sqrt(2) * b / a)),
    ("matching_rate", by_vectors),
    (
        "matching_rate",
        lambda rate, shallow, deep: rate * prod(x / y for x, y in zip(*ratios(shallow, deep), strict=True)),
    ),
    ("matching_rate", lambda rate, shallow, deep: np.float32(rate_of(lambda N, a, b: N * b / a)(rate, shallow, deep))),
    (
        "matching_rate",
        lambda rate, shallow, deep: torch.tensor(rate_of(lambda N, a, b: b / a * N)(rate, shallow, deep)),
    ),
    ("matching_rate", lambda rate, s, d: Fraction(rate) * Fraction(s[0] * s[2] / s[1]) / Fraction(d[0] * d[2] / d[1])),
    ("matching_rate", lambda rate, s, d: exp(log(rate) + log(s[0] / d[0]) + log(s[2] / d[2]) - log(s[1] / d[1]))),
]

WRONG = [
    ("edge_alpha", edge(layers=lambda N: N), "N layers are 2N sub-layers"),
    ("edge_alpha", edge(share=sqrt), "no square root to take"),
    ("edge_alpha", edge(alpha=lambda r, s: (s / (2 * r)) ** (1 / 4)), "two matrices of gain β"),
    ("edge_alpha", edge(alpha=lambda r, s: (s / (4 * r)) ** (1 / 4)), "Count the powers of α again"),
    ("edge_alpha", edge(alpha=lambda r, s: sqrt(s / (4 * r))), "Count the powers of α again"),
    ("edge_alpha", edge(alpha=lambda r, s: sqrt(s / r)), "That is for β = 1"),
    ("edge_alpha", edge(alpha=lambda r, s: (s / (2 * r)) ** (1 / 6)), "and so does the √2 in it"),
    ("edge_alpha", edge(alpha=lambda r, s: (s / r) ** (1 / 6)), "and so does the √2 in it"),
    ("edge_alpha", edge(alpha=lambda r, s: (s / (4 * r)) ** (1 / 5)), "scales its variance by α²"),
    ("edge_alpha", edge(alpha=lambda r, s: (1 / (4 * r)) ** (1 / 6)), "s is missing"),
    ("edge_alpha", edge(share=lambda share: 1 - share), "not what is lost"),
    ("edge_alpha", lambda N, share, s: (s * 2 * N / (4 * (1 - share))) ** (1 / 6), "if losses added"),
    ("edge_alpha", lambda N, share, s: (s * 2 * N / (4 * (1 / share - 1))) ** (1 / 6), "each norm shrinks"),
    ("edge_alpha", lambda N, share, s: (-s * N / (2 * log(share))) ** (1 / 6), "take the root of share itself"),
    ("edge_alpha", edge(ratio=lambda kept: 1 - kept), "f over α² alone"),
    ("edge_alpha", edge(ratio=lambda kept: kept - 1), "Look at the sign under the root"),
    ("edge_alpha", lambda *_: np.float64("nan"), "Look at the sign under the root"),
    ("edge_alpha", lambda N, share, s: (2 * N) ** 0.25, "That is the paper's α"),
    ("edge_alpha", edge(alpha=lambda r, s: complex(-s / (4 * r)) ** (1 / 6)), "Look at the sign under the root"),
    ("edge_alpha", edge(layers=lambda N: 1 / (1 / 2 * N)), "put the product in parentheses"),
    ("edge_alpha", edge(alpha=lambda r, s: (s / (4 * r)) ** 1 / 6), "Python reads x**1/6"),
    ("edge_alpha", edge(alpha=lambda r, s: (s / (4 * r)) ** (1 / 3)), "That is α²"),
    ("edge_alpha", edge(alpha=lambda r, s: (4 * s / r) ** (1 / 6)), "the 4 divides"),
    ("edge_alpha", edge(alpha=lambda r, s: (4 * r / s) ** (1 / 6)), "what is kept grows with α"),
    ("edge_alpha", edge(layers=lambda N: 1), "That is for one sub-layer"),
    ("edge_alpha", lambda N, share, s: round(edge()(N, share, s), 3), "something is rounded on the way"),
    ("edge_alpha", lambda N, share, s: edge()(min(N, 100), share, s), "the value is wrong"),
    ("edge_alpha", lambda N, share, s: edge()(N, max(share, 0.1), s), "the value is wrong"),
    ("edge_alpha", lambda N, share, s: edge()(max(N, 2), share, s), "the value is wrong"),
    ("edge_alpha", lambda N, share, s: edge()(N, share, min(s, 1)), "the value is wrong"),
    ("edge_alpha", edge(alpha=lambda r, s: (s / (3 * r)) ** (1 / 6)), "Put your α into the rule"),
    ("edge_alpha", lambda N, share, s: -edge()(N, share, s), "Put your α into the rule"),
    ("edge_alpha", first_call_decides(edge()), "Put your α into the rule"),
    ("edge_alpha", cached_by(lambda N, share, s: N, edge()), "Put your α into the rule"),
    ("outcome", verdict(lambda loss: loss[-1]), "The last loss alone"),
    ("outcome", verdict(lambda loss: loss[-1], lambda loss: True), "The last loss alone"),
    ("outcome", verdict(min), "The lowest loss of all is luck"),
    ("outcome", verdict(np.mean), "The mean over all steps"),
    ("outcome", verdict(lambda loss: loss[:5].mean()), "the first five losses"),
    ("outcome", verdict(lambda loss: loss[5:].mean()), "leaves five out"),
    ("outcome", verdict(lambda loss: sum(loss[-5:])), "five times as large"),
    ("outcome", verdict(finite=lambda loss: True), "A comparison with NaN is always False"),
    ("outcome", verdict(finite=lambda loss: np.nan not in list(loss + 0)), "A comparison with NaN is always False"),
    ("outcome", verdict(finite=lambda loss: isfinite(loss[-1])), "not finite at every step"),
    ("outcome", verdict(finite=lambda loss: isfinite(sum(loss[-5:]))), "not finite at every step"),
    ("outcome", verdict(finite=lambda loss: not np.isnan(loss).any()), "Infinity is not finite either"),
    ("outcome", verdict(finite=lambda loss: np.isfinite(loss).any()), "they need not all be so"),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.9), "may be told apart in training"),
    ("outcome", verdict(lost=lambda end, alike, chance: end > chance - 0.25), "whose tokens differ"),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.9 or end > chance - 0.25), "and, not or"),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.9 and end > chance), "hovers around chance"),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.9 and end > log(16) - 0.25), "an argument"),
    ("outcome", verdict(lost=lambda end, alike, chance: False), "Nothing is ever lost"),
    ("outcome", verdict(lambda loss: loss[-6:].mean()), "Those are the last six losses"),
    ("outcome", verdict(lambda loss: loss[-4:].mean()), "Those are the last four losses"),
    ("outcome", verdict(lambda loss: loss[-5:-1].mean()), "without the last one"),
    ("outcome", verdict(lambda loss: loss[-10:].mean()), "Those are the last ten losses"),
    ("outcome", verdict(lambda loss: np.mean(loss[25:30])), "count from the end"),
    ("outcome", verdict(lambda loss: np.mean(loss[35:40])), "count from the end"),
    ("outcome", verdict(lambda loss: np.median(loss[-5:])), "That is the median"),
    ("outcome", verdict(finite=lambda loss: not np.isnan(loss).all()), "they need not all be so"),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.99 and end > chance - 0.25), "a similarity of 0.9"),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.9 and end > chance + 0.25), "not a quarter above"),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.9 and abs(end - chance) < 0.25), "no upper limit"),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.9 and end > 0.9 * chance), "not a part of chance"),
    ("outcome", verdict(lost=lambda end, alike, chance: alike > 0.9 and end >= chance - 0.25), "Exactly chance - 0.25"),
    ("outcome", in_order("diverged lost learned"), "learned is asked before lost"),
    ("outcome", in_order("learned diverged lost"), "before anything else"),
    ("outcome", in_order("learned lost diverged"), "before anything else"),
    ("outcome", in_order("diverged learned lost", most=1.0 + 1e-9), "A mean of exactly 1.0"),
    ("outcome", in_order("diverged learned lost", most=1.03), "What has not diverged"),
    ("outcome", first_call_decides(verdict()), "What has not diverged"),
    ("outcome", lambda *a: {"slow": None}.get(verdict()(*a), verdict()(*a)), "returns nothing"),
    ("outcome", lambda *a: [verdict()(*a)], "The answer is a word"),
    ("outcome", lambda *a: verdict()(*a).upper(), "in small letters"),
    ("outcome", lambda *a: WORDS[verdict()(*a)], "The answer is a word"),
    ("outcome", sorts, "changed its input in place"),
    ("trainable_edge", chosen(lambda learned: learned.any(1)), "not for any"),
    ("trainable_edge", chosen(lambda learned: learned.mean(1) > 0.5), "Most seeds are not enough"),
    ("trainable_edge", chosen(lambda learned: learned.all(0)), "go along axis 1"),
    ("trainable_edge", lambda alphas, learned: learned.all(1).argmax(), "a place in the array"),
    ("trainable_edge", lambda alphas, learned: learned[alphas.argsort()].all(1).argmax(), "a place in the array"),
    ("trainable_edge", chosen(lambda learned: learned.all(1), max), "That is the largest α at which all learned"),
    ("trainable_edge", chosen(lambda learned: learned.all(1), lambda a: a[0]), "The αs come in any order"),
    ("trainable_edge", chosen(lambda learned: ~learned.all(1), max), "the largest α that failed"),
    ("trainable_edge", lambda alphas, learned: alphas.min(), "That is the smallest α tried"),
    ("trainable_edge", chosen(lambda learned: learned.mean(1) > 0.9), "One of 2,000 seeds failed"),
    ("trainable_edge", chosen(lambda learned: learned.mean(1) > 0.999), "One of 2,000 seeds failed"),
    ("trainable_edge", chosen(lambda learned: learned[:, 0]), "One of 2,000 seeds failed"),
    ("trainable_edge", chosen(lambda learned: learned[:, :3].all(1)), "One of 2,000 seeds failed"),
    ("trainable_edge", edge_with_rows_left, "they no longer belong together"),
    ("trainable_edge", edge_without_a_row, "infinity, np.inf. Your function returns nothing"),
    ("trainable_edge", lambda a, learned: a[learned.all(1)].min(), "infinity, np.inf. Your function raised ValueError"),
    ("trainable_edge", lambda a, learned: min(a[learned.all(1)], default=a.max() + 1), "infinity, np.inf"),
    ("trainable_edge", lambda a, learned: min(a[learned.all(1)], default=np.nan), "infinity, np.inf"),
    ("trainable_edge", lambda a, learned: min(a[learned.all(1)], default="inf"), "The answer is one number"),
    ("trainable_edge", lambda a, learned: a[learned.all(1)], "The answer is one number"),
    ("trainable_edge", lambda a, learned: np.round(edge_by_loop(a, learned)), "that α is the edge"),
    ("trainable_edge", first_call_decides(edge_by_loop), "that α is the edge"),
    ("trainable_edge", cached_by(lambda a, learned: a, edge_by_loop), "At α = 2.5 one seed failed"),
    ("trainable_edge", lambda a, learned: edge_sorted(a, learned) if not a.sort() else 0, "changed its input in place"),
    ("trainable_edge", above_the_last_failure, "even if a larger one failed"),
    ("trainable_edge", lambda a, learned: a[learned.all(1)].min() if learned.all(1).any() else 0.0, "infinity"),
    ("interval", around(lambda p: np.std(p) / sqrt(len(p))), "unless it is given ddof=1"),
    ("interval", around(stdev), "divide by √k"),
    ("interval", around(np.std), "divide by √k"),
    ("interval", around(lambda p: stdev(p) / len(p)), "over √k, not over k"),
    ("interval", around(lambda p: stdev(p) ** 2 / sqrt(len(p))), "That is the variance"),
    ("interval", around(t=lambda t: 1), "one standard error to either side"),
    ("interval", around(t=lambda t: 1.96), "1.96 is for very many seeds"),
    ("interval", around(t=lambda t: 2), "2 is for very many seeds"),
    ("interval", around(t=lambda t: t / 2), "not t in all"),
    ("interval", around(t=lambda t: 2 * t), "not 2t"),
    ("interval", around(centre=median), "around the median"),
    ("interval", around(centre=lambda p: 0), "Around the mean, not around 0"),
    ("interval", lambda p, t: (min(p), max(p)), "the smallest and the largest power"),
    ("interval", lambda p, t: (fmean(p), t * stdev(p) / sqrt(len(p))), "Give both ends"),
    ("interval", lambda p, t: around()(p, t)[::-1], "The lower end comes first"),
    ("interval", lambda p, t: t * stdev(p) / sqrt(len(p)), "The answer is a pair"),
    ("interval", lambda p, t: {"low": 0, "high": 1}, "The answer is a pair"),
    ("interval", lambda p, t: ("low", "high"), "a pair of numbers"),
    ("interval", lambda p, t: np.round(around()(p, t), 3).tolist(), "something is rounded on the way"),
    ("interval", lambda p, t: around()(p[:3], t), "the value is wrong"),
    ("interval", lambda p, t: around(lambda p: stdev(p) / sqrt(3))(p, t), "the value is wrong"),
    ("interval", lambda p, t: around()(sorted(p), t) if not p.sort() else 0, "changed its input in place"),
    ("interval", first_call_decides(around()), "Where all seeds agree"),
    ("matching_rate", lambda rate, shallow, deep: rate_of(lambda N, a, b: N * b / a)(rate, deep, shallow), "Upside"),
    ("matching_rate", rate_of(lambda N, a, b: N * (b / a) ** 2), "That is SGD's sum"),
    ("matching_rate", rate_of(lambda N, a, b: N * b**2 / a), "β comes once"),
    ("matching_rate", rate_of(lambda N, a, b: N), "Depth alone is not all"),
    ("matching_rate", rate_of(lambda N, a, b: N * b), "α is missing"),
    ("matching_rate", rate_of(lambda N, a, b: N / a), "β is missing"),
    ("matching_rate", rate_of(lambda N, a, b: b / a), "The depth is missing"),
    ("matching_rate", rate_of(lambda N, a, b: N * a / b), "β/α, not α/β"),
    ("matching_rate", rate_of(lambda N, a, b: sqrt(N) * b / a), "N of them, not √N"),
    ("matching_rate", rate_of(lambda N, a, b: sqrt(N)), "with the paper's α and β alone"),
    ("matching_rate", lambda rate, s, deep: rate * 2 * s[0] * sqrt(2) * s[2] / s[1], "divide by the deep stack's sum"),
    ("matching_rate", lambda rate, *stacks: rate_of(lambda N, a, b: N * b / a)(1, *stacks), "the ratio of both sums"),
    ("matching_rate", lambda rate, s, deep: rate * s[0] * s[2] / s[1], "divide by the deep stack's sum"),
    ("matching_rate", rate_of(lambda N, a, b: N / b * a), "β/α, not α/β"),
    ("matching_rate", rate_of(lambda N, a, b: N * b * a), "α makes the bound smaller"),
    ("matching_rate", rate_of(lambda N, a, b: N**2 * b / a), "a quarter of the rate"),
    ("matching_rate", rate_of(lambda N, a, b: N // 4 * b / a), "a quarter of the rate"),
    ("matching_rate", rate_of(lambda N, a, b: (N + 1) * b / a), "a quarter of the rate"),
    ("matching_rate", lambda rate, *stacks: min(rate, rate_of(lambda N, a, b: N * b / a)(rate, *stacks)), "and back"),
    ("matching_rate", lambda *given: round(rate_of(lambda N, a, b: N * b / a)(*given), 4), "something is rounded"),
    ("matching_rate", first_call_decides(rate_of(lambda N, a, b: N * b / a)), "Two equal stacks"),
]  # fmt: skip
