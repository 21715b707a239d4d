"""Lesson 12: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from itertools import groupby
from math import e, exp, inf, log, log2, sqrt
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F


def _see_bits(f: Callable, g: np.random.Generator) -> Any:
    text = "".join(g.choice(list("aböß日🙂"), int(g.integers(1, 9))))
    return [f(float(g.uniform(0, 4)), int(g.integers(1, 9)), text)]


def _see_strided(f: Callable, g: np.random.Generator) -> Any:
    window = int(g.integers(2, 9))
    n, stride = int(g.integers(2, 30)), int(g.integers(1, window))
    costs, calls = g.uniform(size=(n, n)), []

    def losses(begin: int, end: int) -> Any:
        calls.append(begin)
        if len(calls) > 4 * n or not 0 <= begin < end <= min(begin + window, n):
            raise ValueError(begin, end)
        return costs[begin, begin + 1 : end]

    return [f(losses, n, window, stride)]


def _see_width(f: Callable, g: np.random.Generator) -> Any:
    layers, tokens, words, multiple = (int(g.integers(1, most)) for most in (40, 600, 900, 9))
    d = int(g.integers(1, 60)) * multiple
    exact = 6 * (12 * layers * d * d + words * d) + 6 * layers * d * (tokens + 1)
    return [f(layers, exact if g.integers(2) else float(exact * g.uniform(0.8, 1.4)), tokens, words, multiple)]


def _see_cached(f: Callable, g: np.random.Generator) -> Any:
    d, head = int(g.integers(1, 6)), int(g.integers(1, 6))
    sizes, wide = g.integers(1, 4, int(g.integers(1, 5))), [(d, head)] * 3
    x, *weights = (torch.tensor(g.normal(size=s), requires_grad=True) for s in [(int(sizes.sum()), d), *wide])
    parts, cache = [], None
    for chunk in x.split(sizes.tolist()):
        y, cache = f(chunk, *weights, cache)
        parts.append(y)
    out = torch.cat(parts)
    back = torch.autograd.grad(out.pow(3).sum(), (x, *weights))
    return torch.cat([out.detach().flatten(), *(one.flatten() for one in back)]).numpy()


def _see_arms(f: Callable, g: np.random.Generator) -> Any:
    runs = [
        {"arm": arm, "rate": rate, "seed": seed, "tune": float(g.normal()), "test": float(g.normal())}
        for arm in "abc"[: int(g.integers(1, 4))]
        for rate in (0.1, 0.3, 1.0, 3.0)[: int(g.integers(1, 5))]
        for seed in range(int(g.integers(1, 4)))
    ]
    found = f([runs[i] for i in g.permutation(len(runs))])
    return [[float(one) for one in found[arm]] for arm in sorted(found)]


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "bits_per_byte": _see_bits,
    "strided_loss": _see_strided,
    "equal_flop_width": _see_width,
    "cached_attention": _see_cached,
    "compare_arms": _see_arms,
}


def size(text):
    return len(text.encode())


def by_first_losses(losses, n, window, stride):
    """A dictionary that keeps what it has."""
    first: dict[int, float] = {}
    for begin in range(0, n, stride):
        end = min(begin + window, n)
        for i, loss in enumerate(losses(begin, end), begin + 1):
            first.setdefault(i, float(loss))
    return fmean(first.values())


def by_filling(losses, n, window, stride):
    """From the last window to the first, which has the last word."""
    known = np.zeros(n)
    for begin in reversed(range(0, max(1, n - 1), stride)):
        end = min(begin + window, n)
        known[begin + 1 : end] = losses(begin, end)
    return known[1:].mean()


def windows(losses, n, window, stride):
    found, begin = [], 0
    while not found or end < n:  # noqa: F821  (bound in the first round)
        end = min(begin + window, n)
        found.append(np.asarray(losses(begin, end)))
        begin += stride
    return found


def last_strides(losses, n, window, stride):
    first, *rest = windows(losses, n, window, stride)
    return np.concatenate([first, *(one[-stride:] for one in rest)]).mean()


def side_by_side(losses, n, window, stride):
    parts = [losses(begin, min(begin + window, n)) for begin in range(0, n, window)]
    return np.concatenate(parts).mean()


def mean_of_means(losses, n, window, stride):
    total, scored, begin = [], 1, 0
    while scored < n:
        end = min(begin + window, n)
        total.append(np.mean(losses(begin, end)[scored - begin - 1 :]))
        scored, begin = end, begin + stride
    return np.mean(total)


def last_losses(losses, n, window, stride):
    kept = {}
    for begin in range(0, n, stride):
        end = min(begin + window, n)
        kept |= dict(enumerate(losses(begin, end), begin + 1))
        if end == n:
            break
    return fmean(map(float, kept.values()))


def width_by_loop(layers, budget, tokens, vocab_size, multiple):
    d = multiple
    while 6 * d * (12 * layers * d + vocab_size + layers * (tokens + 1)) <= budget:
        d += multiple
    return d - multiple


def width_by_halves(layers, budget, tokens, vocab_size, multiple):
    low, high = 0, 10**6
    while high - low > 1:
        middle = (low + high) // 2
        d = middle * multiple
        if 72 * layers * d * d + 6 * d * (vocab_size + layers * (tokens + 1)) > budget:
            high = middle
        else:
            low = middle
    return low * multiple


def width(layers, budget, tokens, vocab_size, multiple, *, head=6, pairs=6, matrices=72, rounding=int):
    a, b = matrices * layers, head * vocab_size + pairs * layers * (tokens + 1)
    d = (sqrt(b * b + 4 * a * budget) - b) / (2 * a)
    return rounding((d + 1e-9) / multiple) * multiple


def attend(x, w_q, w_k, w_v, cache=None, *, past=None, scale=None, new=False, mask=True):
    q, k, v = x @ w_q, x @ w_k, x @ w_v
    own = k, v
    if cache is not None:
        k, v = torch.cat([cache[0], k]), torch.cat([cache[1], v])
    scores = q @ k.T / (scale or k.shape[1] ** 0.5)
    if mask:
        hidden = torch.ones_like(scores, dtype=torch.bool)
        scores = scores.masked_fill(hidden.triu((len(k) - len(q) if past is None else past) + 1), -inf)
    return scores.softmax(-1) @ v, own if new else (k, v)


def attend_by_sdpa(x, w_q, w_k, w_v, cache=None):
    k, v = x @ w_k, x @ w_v
    if cache:
        k, v = torch.cat([cache["k"], k]), torch.cat([cache["v"], v])
    past = len(k) - len(x)
    sees = torch.arange(len(k))[None] <= past + torch.arange(len(x))[:, None]
    y = F.scaled_dot_product_attention((x @ w_q)[None], k[None], v[None], attn_mask=sees[None])
    return y[0], {"k": k, "v": v}


def attend_one_by_one(x, w_q, w_k, w_v, cache=None):
    """A token at a time, so that nothing needs a mask."""
    keys, values, rows = [*(cache or ((), ()))[0]], [*(cache or ((), ()))[1]], []
    for token in x:
        keys, values = [*keys, token @ w_k], [*values, token @ w_v]
        share = (torch.stack(keys) @ (token @ w_q) / w_q.shape[1] ** 0.5).softmax(0)
        rows.append(share @ torch.stack(values))
    return torch.stack(rows), [keys, values]


def attend_growing(x, w_q, w_k, w_v, cache=None):
    """One list for ever."""
    cache = [] if cache is None else cache
    cache.append((x @ w_k, x @ w_v))
    k, v = (torch.cat(one) for one in zip(*cache, strict=True))
    hidden = torch.ones(len(x), len(k), dtype=torch.bool).triu(len(k) - len(x) + 1)
    return (x @ w_q @ k.T / k.shape[1] ** 0.5).masked_fill(hidden, -inf).softmax(-1) @ v, cache


def attend_unmasked_beside(x, w_q, w_k, w_v, cache=None):
    return attend(x, w_q, w_k, w_v, cache, mask=cache is None)


def arms(
    runs, *, choose="tune", report="test", by=fmean, of=fmean, edge=lambda rate, rates: rate in (rates[0], rates[-1])
):
    found = {}
    for arm, mine in groupby(sorted(runs, key=lambda run: run["arm"]), key=lambda run: run["arm"]):
        mine = list(mine)
        rates = sorted({run["rate"] for run in mine})
        score = {rate: by([run[choose] for run in mine if run["rate"] == rate]) for rate in rates}
        best = min(score, key=score.__getitem__)
        loss = of([run[report] for run in mine if run["rate"] == best])
        found[arm] = (best, loss, edge(best, rates))
    return found


def arms_by_numpy(runs):
    names = np.array([run["arm"] for run in runs])
    rate, tune, test = (np.array([run[key] for run in runs]) for key in ("rate", "tune", "test"))
    found = {}
    for name in set(names.tolist()):
        own = names == name
        tried = np.unique(rate[own])
        means = np.array([tune[own & (rate == one)].mean() for one in tried])
        best = tried[means.argmin()]
        found[name] = [best, test[own & (rate == best)].mean(), np.bool_(best in tried[[0, -1]])]
    return found


def arms_by_sums(runs):
    sums: dict = {}
    for run in runs:
        n, a, b = sums.setdefault(run["arm"], {}).get(run["rate"], (0, 0.0, 0.0))
        sums[run["arm"]][run["rate"]] = (n + 1, a + run["tune"], b + run["test"])
    found = {}
    for arm, rates in sums.items():
        _, best = min((a / n, rate) for rate, (n, a, _) in rates.items())
        n, _, total = rates[best]
        found[arm] = (best, total / n, best == min(rates) or best == max(rates))
    return found


def arms_at_one_rate(runs):
    shared = set.intersection(*({r["rate"] for r in runs if r["arm"] == a} for a in {r["arm"] for r in runs}))
    best = min(shared, key=lambda rate: fmean(run["tune"] for run in runs if run["rate"] == rate))
    right = arms(runs)
    rates = {arm: [run["rate"] for run in runs if run["arm"] == arm] for arm in right}
    tests = {a: fmean(r["test"] for r in runs if (r["arm"], r["rate"]) == (a, best)) for a in right}
    return {arm: (best, tests[arm], best in (min(rates[arm]), max(rates[arm]))) for arm in right}


def luckiest(runs):
    right = arms(runs)
    found = {}
    for arm in right:
        mine = [run for run in runs if run["arm"] == arm]
        best = min(mine, key=lambda run: run["tune"])
        rates = [run["rate"] for run in mine]
        found[arm] = (best["rate"], best["test"], best["rate"] in (min(rates), max(rates)))
    return found


RIGHT = [
    ("bits_per_byte", lambda nats, tokens, text: nats * log2(e) * tokens / size(text)),
    (
        "bits_per_byte",
        lambda nats, tokens, text: float(torch.full((tokens,), nats).double().sum()) / log(2) / size(text),
    ),
    ("bits_per_byte", lambda nats, tokens, text: log2(exp(nats)) * (tokens / len(bytes(text, "utf8")))),
    ("strided_loss", by_first_losses),
    ("strided_loss", by_filling),
    ("equal_flop_width", width_by_loop),
    ("equal_flop_width", width_by_halves),
    ("equal_flop_width", width),
    ("cached_attention", attend),
    ("cached_attention", attend_by_sdpa),
    ("cached_attention", attend_one_by_one),
    ("compare_arms", arms),
    ("compare_arms", arms_by_numpy),
    ("compare_arms", arms_by_sums),
]

WRONG = [
    ("bits_per_byte", lambda nats, tokens, text: nats * tokens / log(2) / len(text), "bits per character"),
    ("bits_per_byte", lambda nats, tokens, text: nats * tokens * log(2) / size(text), "divide by ln 2"),
    ("bits_per_byte", lambda nats, tokens, text: nats * tokens / size(text), "divide by ln 2"),
    ("bits_per_byte", lambda nats, tokens, text: nats / log(2), "bits per token"),
    ("bits_per_byte", lambda nats, tokens, text: exp(nats), "a perplexity"),
    ("bits_per_byte", lambda nats, tokens, text: nats * tokens / log(2), "divide by its bytes"),
    ("bits_per_byte", lambda nats, tokens, text: nats / log(2) / size(text), "one token's cost"),
    ("bits_per_byte", lambda nats, tokens, text: nats * size(text) / tokens / log(2), "are exchanged"),
    (
        "bits_per_byte",
        lambda nats, tokens, text: nats * tokens / log(2) / len(text.encode("ascii", "ignore")),
        "bits per byte is wrong",
    ),
    ("bits_per_byte", lambda nats, tokens, text: nats * tokens / log(2) / len(text.encode("utf-16")), "Twice the text"),
    ("strided_loss", lambda f, n, w, s: np.concatenate(windows(f, n, w, s)).mean(), "share count twice"),
    ("strided_loss", side_by_side, "Your windows are side by side"),
    ("strided_loss", last_strides, "The last window is shorter"),
    ("strided_loss", mean_of_means, "A mean of means"),
    ("strided_loss", lambda f, n, w, s: by_first_losses(f, n, w, s) * (n - 1) / n, "has nothing before it"),
    ("strided_loss", lambda f, n, w, s: by_first_losses(f, n, w, s) * (n - 1), "That is the sum"),
    ("strided_loss", lambda f, n, w, s: by_first_losses(f, n, w, 1), "That is stride 1"),
    ("strided_loss", lambda f, n, w, s: by_first_losses(f, n, w, w - 1), "where is the stride"),
    ("strided_loss", last_losses, "not in the last"),
    ("strided_loss", lambda f, n, w, s: f(0, n).mean(), "reads 8 bytes at most"),
    ("equal_flop_width", lambda *a: width(*a, head=0, pairs=0), "the stack's matrices alone"),
    ("equal_flop_width", lambda *a: width(*a, head=0), "weights are missing"),
    ("equal_flop_width", lambda *a: width(*a, pairs=0), "computes with its scores is missing"),
    ("equal_flop_width", lambda *a: width(*a, pairs=12), "masked pairs do not count"),
    ("equal_flop_width", lambda *a: width(*a, head=2, pairs=2, matrices=24), "a forward pass alone"),
    ("equal_flop_width", lambda *a: width(*a, head=12), "only the head counts"),
    ("equal_flop_width", lambda *a: width(*a, rounding=round), "round down"),
    ("equal_flop_width", lambda *a: width(*a, matrices=6), "12·d² weights"),
    ("equal_flop_width", lambda L, F, T, V, m: width(L, F, T, V, 1), "must be a multiple"),
    ("equal_flop_width", lambda L, F, T, V, m: width(L, F - 1, T, V, m), "is the widest that fits"),
    ("cached_attention", lambda *a: attend(*a, past=0), "too little is seen"),
    ("cached_attention", attend_unmasked_beside, "need a mask among themselves"),
    ("cached_attention", lambda *a: attend(*a, mask=False), "where is the mask?"),
    ("cached_attention", lambda x, q, k, v, cache=None: attend(x, q, k, v), "see only each other"),
    ("cached_attention", lambda *a: attend(*a, new=True), "holds the newest tokens only"),
    ("cached_attention", attend_growing, "continued in two ways"),
    ("cached_attention", lambda x, *a: attend(x, *a, scale=x.shape[1] ** 0.5), "the head's own width"),
    ("cached_attention", lambda *a: attend(*a, scale=1.0), "they are not divided here"),
    ("cached_attention", lambda *a: attend(*a)[0], "two things"),
    ("cached_attention", lambda *a: (attend(*a)[0], None), "no cache to hand"),
    ("cached_attention", lambda *a: (attend(*a)[0].detach(), attend(*a)[1]), "No gradient passes"),
    (
        "cached_attention",
        lambda *a: (attend(*a)[0], tuple(t.detach() for t in attend(*a)[1])),
        "The gradient that comes",
    ),
    ("compare_arms", lambda runs: arms(runs, choose="test"), "reports its own luck"),
    ("compare_arms", lambda runs: arms(runs, report="tune"), "so its loss flatters"),
    ("compare_arms", luckiest, "means over the seeds"),
    ("compare_arms", lambda runs: arms(runs, by=min, of=min), "means over the seeds"),
    ("compare_arms", lambda runs: arms(runs, of=min), "means over the seeds"),
    ("compare_arms", arms_at_one_rate, "you compare rates"),
    ("compare_arms", lambda runs: arms(runs, edge=lambda *_: False), "may be outside"),
    ("compare_arms", lambda runs: arms(runs, edge=lambda rate, rates: rate == rates[-1]), "may be outside"),
    ("compare_arms", lambda runs: arms(runs, by=lambda x: -fmean(x)), "Lower is better"),
    ("compare_arms", lambda runs: arms(runs, by=np.median), "not medians"),
    ("compare_arms", lambda runs: list(arms(runs).values()), "a dictionary"),
    ("compare_arms", lambda runs: {arm: one[:2] for arm, one in arms(runs).items()}, "rate, loss, edge"),
]
