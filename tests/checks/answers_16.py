"""Lesson 16: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from itertools import combinations
from math import ceil, exp, log, sqrt
from typing import Any

import numpy as np
import torch

from deepnet_edu.checks.lesson_16.failures import CAUSES, failures


def _see_cause(f: Callable, g: np.random.Generator) -> Any:
    """Of one recorded run, every number off by a thousandth."""
    runs = failures()
    _, run = runs[int(g.integers(len(runs)))]

    def off(value: Any) -> Any:
        return [off(one) for one in value] if isinstance(value, list) else value * g.uniform(0.999, 1.001)

    return [CAUSES.index(f({**{name: off(value) for name, value in run.items()}, "similarity": run["similarity"]}))]


def _see_rate(f: Callable, g: np.random.Generator) -> Any:
    low = 10 ** g.uniform(-5, -1)
    high, ratio = low * 10 ** g.uniform(0.01, 5), g.uniform(1.05, 3)
    edge, asked = low * (high / low) ** g.uniform(0.01, 0.99), []

    def survives(rate: float) -> bool:
        asked.append(float(rate))
        if len(asked) > 200:
            raise RuntimeError("without end")
        return rate <= edge

    return [float(f(survives, low, high, ratio)), len(asked), *asked]


def _see_layers(f: Callable, g: np.random.Generator) -> Any:
    return [f(g.normal(0.3, 1, int(g.integers(1, 9))).round(1))]


def _see_noise(f: Callable, g: np.random.Generator) -> Any:
    b, many = sorted(int(one) for one in g.choice(np.arange(1, 200), 2, replace=False))
    signal, noise = g.uniform(0.1, 5, 2)
    return [f(signal + noise / b, signal + noise / many, b, many)]


def _see_pairs(f: Callable, g: np.random.Generator) -> Any:
    n = int(g.integers(0, 9))
    runs = [{"a": int(g.integers(2)), "b": int(g.integers(3)), "result": int(g.integers(2))} for _ in range(n)]
    seen = np.zeros((n, n))
    for i, j in f(runs, "ab"[int(g.integers(2))]):
        seen[i, j] += 1
    return seen.ravel()


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "diagnose": _see_cause,
    "highest_rate": _see_rate,
    "working_layers": _see_layers,
    "noise_scale": _see_noise,
    "clean_pairs": _see_pairs,
}


def by_questions(run, *, leave=(), at=0):
    """The first question that a run answers with yes; some of them may be left out."""
    (first, last), end = run["gradient"][0], np.mean(run["loss"][-1:])
    nothing = end > 0.93 * run["chance"]
    questions = {
        "tokens alike from the start": run["similarity"][at] > 0.97,
        "branches asleep": max(first, last) < 1e-30,
        "stack not trained": run["moved"] < 1e-9,
        "branches drowned": last < 1e-9 * first,
        "rate too high": run["update"][0] > 1.0,
        "rate too low": nothing and run["moved"] < 0.005,
        "targets say nothing": nothing,
        "healthy": True,
    }
    return next(cause for cause, yes in questions.items() if yes and cause not in leave)


def by_the_loss(run):
    return "healthy" if run["loss"][-1] < 0.9 * run["chance"] else "rate too low"


def by_the_ratio(run):
    (first, last) = run["gradient"][0]
    return "healthy" if first and 0.01 < last / first < 100 else by_questions(run)


def by_jumps(run):
    jumped = max(run["loss"]) > 1.5 * run["loss"][0]
    return "rate too high" if jumped else by_questions(run, leave=("rate too high",))


def in_nats(run):
    return by_questions({**run, "chance": 2.7726})


def recursive(survives, low, high, ratio):
    if high <= ratio * low:
        return low
    middle = exp((log(low) + log(high)) / 2)
    return recursive(survives, *((middle, high) if survives(middle) else (low, middle)), ratio)


def by_a_list(survives, low, high, ratio):
    """Which of the rates that divide the range evenly is the last: by halving the list."""
    parts = 2 ** max(0, ceil(log(max(1.0, log(high / low) / log(ratio)), 2)))
    below, above = 0, parts
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if survives(low * (high / low) ** (middle / parts)) else (below, middle)
    return low * (high / low) ** (below / parts)


def halving(survives, low, high, ratio, *, mean=lambda a, b: sqrt(a * b), enough=1.0, give=0):
    while high / low > ratio**enough:
        middle = mean(low, high)
        low, high = (middle, high) if survives(middle) else (low, middle)
    return (low, high, sqrt(low * high))[give]


def grid(survives, low, high, ratio):
    while low * ratio < high and survives(low * ratio):
        low *= ratio
    return low


def asks_low(survives, low, high, ratio):
    return halving(survives, low, high, ratio) if survives(low) else low


def asks_high(survives, low, high, ratio):
    return high if survives(high) else halving(survives, low, high, ratio)


def asks_twice(survives, low, high, ratio):
    return halving(lambda rate: survives(rate) and survives(rate), low, high, ratio)


def counted(harm, *, up=lambda h: np.maximum(h, 0)):
    h = up(np.asarray(harm, float))
    return float(h.sum() ** 2 / (h**2).sum()) if (h**2).sum() else 0.0


def by_shares(harm):
    h = [one for one in harm if one > 0]
    return 1 / sum((one / sum(h)) ** 2 for one in h) if h else 0.0


def by_norms(harm):
    h = torch.as_tensor(np.asarray(harm, float)).clamp(min=0)
    return (torch.linalg.vector_norm(h, 1) / torch.linalg.vector_norm(h).clamp(min=1e-300)) ** 2


def entropy(harm):
    h = np.array([one for one in harm if one > 0])
    return float(np.exp(-(h / h.sum() * np.log(h / h.sum())).sum())) if len(h) else 0.0


def over_largest(harm):
    h = np.maximum(harm, 0)
    return float(h.sum() / h.max()) if len(h) and h.max() > 0 else 0.0


def upside_down(harm):
    return 1 / counted(harm) if counted(harm) else 0.0


def by_products(small, big, small_batch, big_batch):
    b, many = small_batch, big_batch
    return b * many * (small - big) / (many * big - b * small)


def by_solving(small, big, small_batch, big_batch):
    signal, noise = np.linalg.solve([[1, 1 / small_batch], [1, 1 / big_batch]], [small, big])
    return noise / signal


def grouped(runs, factor):
    groups: dict[Any, list[int]] = {}
    for i, run in enumerate(runs):
        rest = tuple(sorted((name, value) for name, value in run.items() if name not in (factor, "result")))
        groups.setdefault(rest, []).append(i)
    pairs = (pair for same in groups.values() for pair in combinations(same, 2))
    return sorted((i, j) for i, j in pairs if runs[i][factor] != runs[j][factor])


def by_names(runs, factor, *, ignored=("result",), wanted=None, twice=False):
    """Pairs by the names in which they differ, some of them ignored."""
    pairs = []
    for i in range(len(runs)):
        for j in range(0 if twice else i + 1, len(runs)):
            names = {name for name in runs[i] if name not in ignored and runs[i][name] != runs[j][name]}
            if wanted(names, factor) if wanted else names == {factor}:
                pairs.append([i, j])
    return pairs


RIGHT = [
    ("diagnose", by_questions),
    ("diagnose", lambda run: by_questions({**run, "loss": run["loss"][-2:]})),
    ("highest_rate", recursive),
    ("highest_rate", by_a_list),
    ("highest_rate", lambda *a: np.float32(halving(*a))),
    ("working_layers", lambda harm: 0.0 if harm.max() <= 0 else 1 / ((harm.clip(0) / harm.clip(0).sum()) ** 2).sum()),
    ("working_layers", counted),
    ("working_layers", by_shares),
    ("working_layers", by_norms),
    ("noise_scale", by_products),
    ("noise_scale", by_solving),
    ("clean_pairs", grouped),
    ("clean_pairs", by_names),
    ("clean_pairs", lambda runs, factor: tuple(reversed(grouped(runs, factor)))),
]

WRONG = [
    ("diagnose", lambda run: by_questions(run, at=1), "They became similar later, because nothing told them apart"),
    ("diagnose", by_the_loss, "Tokens were equal before the first step"),
    ("diagnose", by_the_ratio, "first and last gradient are of one size"),
    ("diagnose", by_jumps, "The loss alone never jumped"),
    ("diagnose", lambda run: by_questions(run, leave=("stack not trained",)), "moved is 0: embedding and head"),
    ("diagnose", lambda run: by_questions(run, leave=("branches asleep",)), "the gradient is exactly 0"),
    ("diagnose", lambda run: by_questions(run, leave=("branches drowned",)), "the gradient of the last layer is"),
    ("diagnose", lambda run: by_questions(run, leave=("rate too low",)), "nearly those that were drawn"),
    ("diagnose", lambda run: by_questions(run, leave=("targets say nothing",)), "This run learned nothing"),
    ("diagnose", in_nats, "where chance is 1.39"),
    ("diagnose", lambda run: "collapsed", "as the lesson spells them"),
    ("diagnose", lambda run: CAUSES.index(by_questions(run)), "as the lesson spells them"),
    ("highest_rate", lambda *a: halving(*a, mean=lambda a, b: (a + b) / 2), "halve the factor, not the sum"),
    ("highest_rate", grid, "That is a grid"),
    ("highest_rate", lambda *a: halving(*a, give=1), "At the rate that you return a run failed"),
    ("highest_rate", lambda *a: halving(*a, give=2), "No run was made at the rate that you return"),
    ("highest_rate", lambda *a: halving(*a, enough=2), "No run failed within the ratio"),
    ("highest_rate", lambda *a: halving(*a, enough=0.2), "Each run can halve what is left"),
    ("highest_rate", asks_low, "that is known, and needs no run"),
    ("highest_rate", asks_high, "that is known, and needs no run"),
    ("highest_rate", asks_twice, "Some rate was run twice"),
    ("highest_rate", lambda survives, low, high, ratio: low, "No run failed within the ratio"),
    ("highest_rate", lambda *a: halving(*a, mean=lambda a, b: a), "Your search never ends"),
    ("working_layers", upside_down, "Upside down"),
    ("working_layers", lambda harm: float((np.asarray(harm) > 0).sum()), "however little it helps"),
    ("working_layers", over_largest, "however little it helps"),
    ("working_layers", entropy, "however little it helps"),
    ("working_layers", lambda harm: counted(harm, up=lambda h: h), "whose removal lowers the loss"),
    ("working_layers", lambda harm: counted(harm, up=np.abs), "whose removal lowers the loss"),
    ("working_layers", lambda harm: sqrt(counted(harm)), "the root of the number"),
    ("working_layers", lambda harm: counted(harm) / max(1, len(harm)), "a share of the layers"),
    ("working_layers", lambda harm: float(np.maximum(harm, 0).sum()), "not the number of layers that share it"),
    ("working_layers", lambda harm: float(np.float64(np.sum(harm)) ** 2 / np.sum(np.square(harm))), "removal lowers"),
    ("noise_scale", lambda *a: 1 / by_products(*a), "Upside down"),
    ("noise_scale", lambda s, g, b, n: (s - g) / (1 / b - 1 / n) / g, "The big batch still holds some noise"),
    ("noise_scale", lambda s, g, b, n: (s - g) / g, "There are two unknowns"),
    ("noise_scale", lambda s, g, b, n: (s - g) / (1 / b - 1 / n), "That is the noise alone"),
    ("noise_scale", lambda s, g, b, n: (n * g - b * s) / (n - b), "That is the signal alone"),
    ("noise_scale", lambda *a: sqrt(abs(by_products(*a))), "there is no root to take"),
    ("noise_scale", lambda s, g, b, n: by_products(s**2, g**2, b, n), "squared lengths already"),
    ("noise_scale", lambda s, g, b, n: by_products(g, s, b, n), "The first mean belongs to the small batch"),
    ("clean_pairs", lambda *a: by_names(*a, wanted=lambda names, factor: factor in names), "which of them made"),
    ("clean_pairs", lambda *a: by_names(*a, ignored=()), "Their results may differ"),
    ("clean_pairs", lambda *a: by_names(*a, ignored=("result", "seed")), "the seed is a setting like the others"),
    ("clean_pairs", lambda *a: by_names(*a, wanted=lambda names, factor: names <= {factor}), "that is a repetition"),
    ("clean_pairs", lambda *a: by_names(*a, twice=True), "the smaller place first"),
    ("clean_pairs", lambda *a: by_names(*a, wanted=lambda names, factor: len(names) == 1), "have the same"),
    ("clean_pairs", lambda *a: len(by_names(*a)), "a list of pairs"),
    ("clean_pairs", lambda *a: [i for pair in by_names(*a) for i in pair], "a list of pairs"),
    ("clean_pairs", lambda *a: [(i + 1, j + 1) for i, j in by_names(*a)], "count from 0"),
]
