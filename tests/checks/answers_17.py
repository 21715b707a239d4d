"""Lesson 17: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from math import ceil, floor, log
from typing import Any

import numpy as np
import torch
from torch import nn


def _see_count(f: Callable, g: np.random.Generator) -> Any:
    heads = int(g.integers(1, 5))
    d, kv = heads * int(g.integers(1, 5)), int(g.integers(1, heads + 1))
    return f(int(g.integers(1, 50)), d, int(g.integers(0, 5)), heads, kv, int(g.integers(0, 40)), bool(g.integers(2)))


def _see_bill(f: Callable, g: np.random.Generator) -> Any:
    gpus = int(g.integers(1, 4))
    return f(int(g.integers(1, 9)), g.uniform(0, 1e6), gpus, g.uniform(1, 9), g.choice([0.3, 0.4, 1.0]), g.integers(4))


def _see_claims(f: Callable, g: np.random.Generator) -> Any:
    run = (int(g.integers(1, 9)), g.uniform(0, 1e6), g.uniform(1, 9), g.uniform(0.1, 1))
    scores = {f"test {i}": (g.uniform(1, 30), g.uniform(1, 30)) for i in range(int(g.integers(1, 5)))}
    found = f((g.uniform(1, 9), int(g.integers(1, 9))), (g.uniform(1, 9), int(g.integers(1, 9))), run, scores)
    return [found[key] for key in KEYS]


def _see_prediction(f: Callable, g: np.random.Generator) -> Any:
    depths = [int(n) for n in g.choice([1, 2, 3, 6, 12, 50, 200, 1000], int(g.integers(3, 7)), replace=False)]
    power, rises = g.uniform(-0.5, 4), g.uniform(-30, 30)
    bleu = [30 + rises * n**-power + g.normal() * 0.2 for n in depths]
    return [f(depths, bleu, int(g.integers(1, 3000)), law) for law in ("log", "power")]


def _see_fewest(f: Callable, g: np.random.Generator) -> Any:
    given = (int(g.integers(1, 9)) * 10**9, int(g.integers(8, 99)) * 1e9, int(g.integers(4)), int(g.integers(9)) * 1e9)
    return [-1 if (found := f(*given)) is None else found]


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "parameters": _see_count,
    "bill": _see_bill,
    "seed_claims": _see_claims,
    "predict_depth": _see_prediction,
    "fewest_gpus": _see_fewest,
}
KEYS = ("dollars a GPU", "dollars a GPU-hour", "break-even days", "days", "rent", "largest gain", "mean gain")


def counted(vocab, d, layers, heads, kv_heads, d_ff, tied, *, ffn=3, norms=2, last=1, biases=0):
    """With other numbers of matrices, norms and biases."""
    kv = d // heads * kv_heads
    layer = 2 * d * d + 2 * d * kv + ffn * d * d_ff + norms * d + biases * (2 * d + 2 * kv + 2 * d_ff + d)
    return layers * layer + (1 if tied else 2) * vocab * d + last * d


def on_meta(vocab, d, layers, heads, kv_heads, d_ff, tied):
    """Built, a layer as often as there are layers."""
    kv = d // heads * kv_heads
    with torch.device("meta"):
        parts = [nn.Embedding(vocab, d), nn.RMSNorm(d)]
        if not tied:
            parts.append(nn.Linear(d, vocab, bias=False))
        for _ in range(layers):
            parts += [nn.Linear(d, out, bias=False) for out in (d, d, kv, kv)] + [nn.RMSNorm(d), nn.RMSNorm(d)]
            if d_ff:
                parts += [nn.Linear(a, b, bias=False) for a, b in ((d, d_ff), (d, d_ff), (d_ff, d))]
    return sum(p.numel() for part in parts for p in part.parameters())


def by_shapes(vocab, d, layers, heads, kv_heads, d_ff, tied):
    """A list of shapes."""
    head = d // heads
    matrices = [(d, heads * head), (heads * head, d), (d, kv_heads * head), (d, kv_heads * head)]
    matrices += [(d, d_ff), (d, d_ff), (d_ff, d), (d,), (d,)]
    ends = [(vocab, d), (d,)] + [(vocab, d)] * (not tied)
    return layers * sum(map(int, map(np.prod, matrices))) + sum(map(int, map(np.prod, ends)))


def hours_first(parameters, tokens, gpus, peak, mfu, price):
    gpu_hours = 6 * parameters * tokens / (peak * mfu * 3600)
    return gpu_hours / gpus / 24, gpu_hours * price


def billed(parameters, tokens, gpus, peak, mfu, price, *, passes=6, day=24, paid=None):
    seconds = passes * parameters * tokens / (gpus * peak * mfu)
    hours = seconds / 3600
    return hours / day, hours * (gpus if paid is None else paid) * price


def claims(hardware, rent, run, scores, **other):
    """By plain arithmetic, some of it other than right."""
    n, tokens, peak, mfu = run
    days = 6 * n * tokens / (rent[1] * peak * mfu) / 86_400
    gains = [ours - theirs for theirs, ours in scores.values()]
    found = {
        "dollars a GPU": hardware[0] / hardware[1],
        "dollars a GPU-hour": rent[0] / rent[1] / 24,
        "break-even days": hardware[0] / hardware[1] * rent[1] / rent[0],
        "days": days,
        "rent": days * rent[0],
        "largest gain": max(gains),
        "mean gain": sum(gains) / len(gains),
    }
    return {**found, **{name.replace("_", " "): work(hardware, rent, days, scores) for name, work in other.items()}}


def with_other(name, work):
    """One of the seven is another one: of hardware, rent, days and scores."""
    return lambda hardware, rent, run, scores: {
        **claims(hardware, rent, run, scores),
        name: work(hardware, rent, claims(hardware, rent, run, scores)["days"], scores),
    }


def claims_by_numpy(hardware, rent, run, scores):
    found = claims(hardware, rent, run, scores)
    gains = np.diff(np.array(list(scores.values())))[:, 0]
    return {**found, "largest gain": gains.max(), "mean gain": gains.mean(), "a note": "and more than was asked for"}


def claims_by_gpu_hours(hardware, rent, run, scores):
    n, tokens, peak, mfu = run
    price = rent[0] / (24 * rent[1])
    gpu_hours = 6 * n * tokens / peak / mfu / 3600
    gains = sorted(b - a for a, b in scores.values())
    numbers = (
        hardware[0] / hardware[1],
        price,
        hardware[0] / hardware[1] / price / 24,
        gpu_hours / rent[1] / 24,
        gpu_hours * price,
        gains[-1],
        np.mean(gains),
    )
    return dict(zip(KEYS, numbers, strict=True))


def fitted(x, y, at, degree=1):
    return float(np.polyval(np.polyfit(x, y, degree), at))


def searched(depths, bleu, depth, law, *, powers=None, worst=False):
    """By the normal equations; other powers, or the worst of them."""
    d, y = np.array(depths, float), np.array(bleu, float)
    tried = []
    for p in [0.0] if law == "log" else powers or [k / 20 for k in range(1, 61)]:
        x, at = (np.log(d), np.log(depth)) if law == "log" else (d**-p, float(depth) ** -p)
        slope = np.cov(x, y)[0, 1] / np.var(x, ddof=1)
        line = y.mean() + slope * (x - x.mean())
        tried.append((float(((line - y) ** 2).sum()), float(y.mean() + slope * (at - x.mean()))))
    return (max(tried) if worst else min(tried))[1]


def by_lstsq(depths, bleu, depth, law):
    d, best = torch.tensor(depths, dtype=torch.float64), None
    y = torch.tensor(bleu, dtype=torch.float64)[:, None]
    for k in range(1, 61) if law == "power" else [0]:
        f = (lambda t: t.log()) if law == "log" else (lambda t, p=k / 20: t**-p)
        table = torch.stack([f(d), torch.ones_like(d)], 1)
        weights = torch.linalg.lstsq(table, y).solution
        error = (table @ weights - y).square().sum()
        if best is None or error < best[0]:
            best = error, f(torch.tensor(float(depth), dtype=torch.float64)) * weights[0, 0] + weights[1, 0]
    return best[1]


def last_two(depths, bleu, depth, law):
    return fitted(np.log(depths[-2:]), bleu[-2:], log(depth)) if law == "log" else searched(depths, bleu, depth, law)


def logged_scores(depths, bleu, depth, law):
    return float(np.exp(fitted(np.log(depths), np.log(bleu), log(depth))))


def one_power(p):
    return lambda depths, bleu, depth, law: searched(depths, bleu, depth, law, powers=[p])


def sorting_in_place(depths, bleu, depth, law):
    depths.sort()
    bleu.sort()
    return searched(depths, bleu, depth, law)


def as_given(depths, bleu, depth, law):
    """Trusts that the last point is the deepest."""
    d = np.array(depths, float)
    return searched(depths, bleu, depth, law) if d[-1] >= d.max() else bleu[-1]


WHOLE, SHARED = (16, 4, 2, 0), (0, 12, 14, 16)


def fewest(parameters, memory, stage, activations, *, rounded=ceil, whole=WHOLE, shared=SHARED, kept=1):
    room = memory - kept * activations - whole[stage] * parameters
    if room < 0 or (shared[stage] and room == 0):
        return None
    return max(1, rounded(shared[stage] * parameters / room)) if shared[stage] else 1


def by_trying(parameters, memory, stage, activations):
    for gpus in range(1, 5000):
        if WHOLE[stage] * parameters + SHARED[stage] * parameters / gpus + activations <= memory:
            return gpus
    return None


def by_floor_division(parameters, memory, stage, activations):
    room = int(memory - activations) - WHOLE[stage] * parameters
    need = SHARED[stage] * parameters
    if room < 0 or (need and not room):
        return None
    return max(1, -(-need // room)) if room else 1


RIGHT = [
    ("parameters", on_meta),
    ("parameters", by_shapes),
    ("parameters", counted),
    (
        "parameters",
        lambda v, d, n, h, kv, ff, tied: d * (n * (2 * d + 2 * d // h * kv + 3 * ff + 2) + 1 + v * (2 - tied)),
    ),
    ("parameters", lambda v, d, n, h, kv, ff, tied: float(counted(v, d, n, h, kv, ff, tied))),
    ("bill", hours_first),
    ("bill", billed),
    ("bill", lambda n, t, g, peak, u, price: [6 * n * t / g / peak / u / 86_400, 6 * n * t / peak / u / 3600 * price]),
    ("bill", lambda *a: np.array(hours_first(*a))),
    ("bill", lambda *a: torch.tensor(hours_first(*a), dtype=torch.float64)),
    ("seed_claims", claims),
    ("seed_claims", claims_by_numpy),
    ("seed_claims", claims_by_gpu_hours),
    ("predict_depth", searched),
    ("predict_depth", by_lstsq),
    ("predict_depth", lambda depths, bleu, depth, law: np.float64(searched(np.array(depths), bleu, depth, law))),
    ("fewest_gpus", by_trying),
    ("fewest_gpus", by_floor_division),
    ("fewest_gpus", fewest),
    ("fewest_gpus", lambda *a: None if fewest(*a) is None else float(fewest(*a))),
]

WRONG = [
    ("parameters", lambda v, d, n, h, kv, ff, tied: 12 * n * d * d + 2 * v * d, "That is the estimate"),
    ("parameters", lambda v, d, n, h, kv, ff, tied: counted(v, d, n, h, h, ff, tied), "kv_heads heads, fewer"),
    ("parameters", lambda *a: counted(*a, ffn=2), "three matrices: gate, up and down"),
    ("parameters", lambda *a: counted(*a, last=0), "after the last layer"),
    ("parameters", lambda *a: counted(*a, norms=1), "two norms, one for attention"),
    ("parameters", lambda *a: counted(*a, norms=0), "The norms are missing"),
    ("parameters", lambda *a: counted(*a, norms=4, last=2), "a gain and no bias"),
    ("parameters", lambda *a: counted(*a, biases=1), "have no biases"),
    ("parameters", lambda v, d, n, h, kv, ff, tied: counted(v, d, n, h, kv, ff, not tied), "Where they are tied"),
    ("parameters", lambda v, d, n, h, kv, ff, tied: counted(v, d, n, h, kv, ff, True), "Where they are not tied"),
    ("parameters", lambda v, d, n, h, kv, ff, tied: counted(v, d, n, h, kv, ff, False), "Where they are tied"),
    ("parameters", lambda v, d, n, h, kv, ff, tied: counted(v, d, n, h, kv, 4 * d, tied), "Some matrix or vector"),
    ("parameters", lambda v, d, n, h, kv, ff, tied: counted(v, d, n, h, 2, ff, tied), "Some matrix or vector"),
    ("parameters", lambda v, d, n, h, kv, ff, tied: counted(v, d, n, h, kv, ff, tied) - n * d * d, "four matrices"),
    ("parameters", lambda *a: counted(*a) / 1e9, "Some matrix or vector"),
    ("parameters", lambda *a: f"{counted(*a):,}", "one number"),
    ("parameters", lambda *a: round(counted(*a), -3), "Some matrix or vector"),
    ("bill", lambda *a: billed(*a, passes=2), "the forward pass alone"),
    ("bill", lambda *a: billed(*a, passes=8), "What checkpoints compute again"),
    ("bill", lambda *a: billed(*a, paid=1), "All GPUs are paid"),
    ("bill", lambda *a: billed(*a, day=1), "in days: a day has 24 hours"),
    ("bill", lambda n, t, g, peak, u, price: hours_first(n, t, g, peak, 1 / u, price), "a share of the peak"),
    ("bill", lambda n, t, g, peak, u, price: hours_first(n, t, g, peak, 1, price), "No run reaches the peak"),
    ("bill", lambda n, t, g, peak, u, price: hours_first(n, t, g, 2 * peak, u, price), "half zeros"),
    ("bill", lambda n, t, g, peak, u, price: hours_first(n, t, g, peak, u, price / 24), "The price is for an hour"),
    ("bill", lambda *a: hours_first(*a)[::-1], "Days come first"),
    ("bill", lambda *a: hours_first(*a)[1], "two numbers: days and dollars"),
    ("bill", lambda n, t, g, peak, u, price: hours_first(n, t, 1, peak, u, price), "The GPUs share the work"),
    ("bill", lambda n, t, g, peak, u, price: billed(n, t, 1, peak, u, price, paid=g), "The GPUs share the work"),
    ("bill", lambda n, t, g, peak, u, price: hours_first(n, t, g, peak, u, 1), "Those are GPU-hours"),
    ("bill", lambda *a: tuple(round(one) for one in hours_first(*a)), "rounded on the way"),
    ("seed_claims", with_other("dollars a GPU-hour", lambda h, r, days, s: r[0] / r[1]), "has 24 hours"),
    ("seed_claims", with_other("break-even days", lambda h, r, days, s: h[0] / r[0]), "buy as many as are rented"),
    (
        "seed_claims",
        with_other("mean gain", lambda h, r, days, s: float(np.mean([b for _, b in s.values()]))),
        "mean of the gains",
    ),
    (
        "seed_claims",
        with_other("largest gain", lambda h, r, days, s: max((b - a) / a for a, b in s.values())),
        "BLEU points",
    ),
    ("seed_claims", with_other("largest gain", lambda h, r, days, s: max(b for _, b in s.values())), "That is a score"),
    (
        "seed_claims",
        with_other("largest gain", lambda h, r, days, s: max(abs(b - a) for a, b in s.values())),
        "is wrong",
    ),
    ("seed_claims", with_other("rent", lambda h, r, days, s: days * r[0] * r[1]), "for all GPUs already"),
    ("seed_claims", with_other("days", lambda h, r, days, s: days * r[1] / h[1]), "not those that were bought"),
    ("seed_claims", with_other("dollars a GPU", lambda h, r, days, s: h[0] / r[1]), "that come with it"),
    ("seed_claims", lambda *a: list(claims(*a).values()), "a dictionary"),
    ("seed_claims", lambda *a: {key: value for key, value in claims(*a).items() if key != "rent"}, "lacks 'rent'"),
    ("seed_claims", lambda *a: {key: f"{value:.3g}" for key, value in claims(*a).items()}, "must be one number"),
    ("predict_depth", last_two, "the last two points alone"),
    ("predict_depth", lambda depths, bleu, depth, law: fitted(depths, bleu, depth), "a line in the depth itself"),
    ("predict_depth", logged_scores, "without a logarithm"),
    ("predict_depth", one_power(0.5), "not given as 1/2"),
    ("predict_depth", one_power(1.0), "not given as 1:"),
    ("predict_depth", lambda depths, bleu, depth, law: searched(depths, bleu, depth, "log"), "the other law's value"),
    ("predict_depth", lambda depths, bleu, depth, law: searched(depths, bleu, depth, "power"), "the other law's value"),
    ("predict_depth", lambda *a: searched(*a, worst=True), "are met exactly"),
    (
        "predict_depth",
        lambda *a: searched(*a, powers=[k / 10 for k in range(1, 31)]),
        "a different value at that depth",
    ),
    (
        "predict_depth",
        lambda *a: searched(*a, powers=[k / 20 for k in range(1, 40)]),
        "a different value at that depth",
    ),
    ("predict_depth", sorting_in_place, "changed its input in place"),
    ("predict_depth", as_given, "order of the points must not matter"),
    ("predict_depth", lambda depths, bleu, depth, law: fitted(np.log(depths), bleu, log(depth), 2), "a parabola"),
    ("predict_depth", lambda *a: round(searched(*a), 1), "rounded on the way"),
    ("fewest_gpus", lambda *a: fewest(*a, rounded=floor), "Rounded down"),
    ("fewest_gpus", lambda *a: fewest(*a, kept=0), "need room, too"),
    ("fewest_gpus", lambda n, m, stage, a: ceil(16 * n / (m - a)), "No number of GPUs is enough"),
    ("fewest_gpus", lambda *a: fewest(*a) or 0, "No number of GPUs is enough"),
    ("fewest_gpus", lambda *a: fewest(*a, rounded=lambda x: x), "round up"),
    ("fewest_gpus", lambda n, m, stage, a: fewest(n, m, 3, a), "No number of GPUs is enough"),
    ("fewest_gpus", lambda *a: fewest(*a, whole=(16, 8, 4, 0), shared=(0, 8, 12, 16)), "Some number of GPUs is enough"),
    ("fewest_gpus", lambda *a: fewest(*a) and max(2, fewest(*a)), "A different number is the fewest"),
]
