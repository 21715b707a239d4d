"""Lesson 03: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from math import exp, pi, sqrt
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F


def _qkv(g: np.random.Generator) -> list[torch.Tensor]:
    return [torch.tensor(2 * g.normal(size=(2, 4, 6))) for _ in range(3)]


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "attention": lambda f, g: f(*_qkv(g), int(g.integers(1, 4)), bool(g.integers(2))),
    "averaged_variance": lambda f, g: f(int(g.integers(1, 20)), g.uniform(0, 1), bool(g.integers(2))),
    "ffn_variance_gain": lambda f, g: f(int(g.integers(1, 99)), int(g.integers(1, 99)), g.uniform(0.1, 2)),
    "attention_variance_gain": lambda f, g: f(
        int(g.integers(1, 20)), g.uniform(0, 1), bool(g.integers(2)), g.uniform(0.1, 2)
    ),
    "sharp_average": lambda f, g: f(int(g.integers(1, 99)), g.uniform(0, 2)),
    "relu_correlation": lambda f, g: f(g.uniform(-1, 1)),
}


def heads(x, n):
    return x.view(*x.shape[:2], n, -1).transpose(1, 2)


def merged(x):
    return x.transpose(1, 2).flatten(2)


def by_head(q, k, v, n, causal):
    parts = zip(*(x.chunk(n, -1) for x in (q, k, v)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(a, b, c, is_causal=causal) for a, b, c in parts], -1)


def by_einsum(q, k, v, n, causal):
    Q, K, V = (x.unflatten(-1, (n, -1)) for x in (q, k, v))
    scores = torch.einsum("bihd,bjhd->bhij", Q, K) * Q.shape[-1] ** -0.5
    if causal:
        scores = scores + torch.full_like(scores[0, 0], -1e30).triu(1)
    return torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), V).flatten(2)


def attend(scale=lambda d, n: sqrt(d / n), mask=-float("inf"), diagonal=1, dim=-1, split=heads, merge=merged):
    def answer(q, k, v, n, causal):
        Q, K, V = (split(x, n) for x in (q, k, v))
        scores = Q @ K.mT / scale(q.shape[-1], n)
        if causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal)
            scores = scores.masked_fill(later, mask)
        return merge((scores.softmax(dim) @ V).contiguous())

    return answer


def masked_late(q, k, v, n, causal):
    Q, K, V = (heads(x, n) for x in (q, k, v))
    weights = (Q @ K.mT / sqrt(q.shape[-1] / n)).softmax(-1)
    return merged((weights.tril() if causal else weights) @ V)


def simulated(T, r, causal):
    """Token by token."""
    variances = [(i + i * (i - 1) * r) / i**2 for i in (range(1, T + 1) if causal else [T] * T)]
    return sum(variances) / T


RIGHT = [
    ("attention", by_head),
    ("attention", by_einsum),
    ("averaged_variance", simulated),
    ("averaged_variance", lambda T, r, c: np.mean([r + (1 - r) / i for i in (np.arange(T) + 1 if c else [T])])),
    ("ffn_variance_gain", lambda d, f, g: (g * g / (d + f)) ** 2 * 2 * d * f),
    ("ffn_variance_gain", lambda d, f, g: 0.5 * (d * g**2 * 2 / (d + f)) * (f * g**2 * 2 / (d + f))),
    ("attention_variance_gain", lambda T, r, c, g: simulated(T, r, c) * (g * g) ** 2),
    (
        "attention_variance_gain",
        lambda T, r, c, g: g**4 * np.mean([r + (1 - r) / (i if c else T) for i in range(1, T + 1)]),
    ),
    ("sharp_average", lambda T, s: exp(s) / T),
    ("sharp_average", lambda T, s: np.exp(2 * s - s) * T**-1.0),
    ("relu_correlation", lambda r: r + (sqrt(max(0.0, 1 - r * r)) - r * np.arccos(r)) / pi),
    ("relu_correlation", lambda r: (np.sin(np.arccos(r)) + (pi - np.arccos(r)) * r) / pi),
]

WRONG = [
    ("attention", attend(scale=lambda d, n: sqrt(d)), "divide by √(d/h)"),
    ("attention", attend(scale=lambda d, n: 1.0), "are not divided"),
    ("attention", attend(scale=lambda d, n: d / n), "Divide by the root"),
    ("attention", attend(split=lambda x, n: x.reshape(x.shape[0], n, x.shape[1], -1)), "not the features"),
    ("attention", attend(merge=lambda y: y.reshape(y.shape[0], y.shape[2], -1)), "transpose, then merge"),
    ("attention", masked_late, "no longer sum to 1"),
    ("attention", attend(dim=-2), "over the last dimension"),
    ("attention", attend(diagonal=0), "strictly above the diagonal"),
    ("attention", attend(mask=0.0), "A score of 0 is not a weight of 0"),
    ("attention", lambda q, k, v, n, c: by_head(q, k, v, n, False), "Nothing is masked"),
    ("attention", lambda q, k, v, n, c: by_head(q, k, v, n, True), "With causal=False"),
    ("attention", lambda q, k, v, n, c: by_head(q, k, v, 1, c), "one head of width d"),
    ("attention", lambda q, k, v, n, c: by_head(q, k, k, n, c), "not the keys"),
    ("averaged_variance", lambda T, r, c: 1.0, "no equality"),
    ("averaged_variance", lambda T, r, c: 1 / T, "Correlated tokens do not cancel"),
    ("averaged_variance", lambda T, r, c: r + (1 - r) / T, "Position i averages only i tokens"),
    ("averaged_variance", lambda T, r, c: simulated(T, r, True), "With causal=False"),
    ("averaged_variance", lambda T, r, c: sqrt(simulated(T, r, c)), "That is the standard deviation"),
    ("averaged_variance", lambda T, r, c: r, "limit of many tokens"),
    ("averaged_variance", lambda T, r, c: r / T + 1 - r, "The other way round"),
    ("ffn_variance_gain", lambda d, f, g: g**4 / 2, "the mean of both fans"),
    ("ffn_variance_gain", lambda d, f, g: 2 * g * g * d * f / (d + f) ** 2, "gain of each counts squared"),
    ("ffn_variance_gain", lambda d, f, g: 4 * g**4 * d * f / (d + f) ** 2, "half of the second moment"),
    ("ffn_variance_gain", lambda d, f, g: 4 * g**4 * d * f / (d + f) ** 2 * (pi - 1) / (2 * pi), "ReLU's variance"),
    ("ffn_variance_gain", lambda d, f, g: g**4 * d * f / (d + f) ** 2 / 2, "with a 2"),
    ("attention_variance_gain", lambda T, r, c, g: g**2 * simulated(T, r, c), "each counts squared"),
    ("attention_variance_gain", lambda T, r, c, g: g**8 * simulated(T, r, c), "softmax weights sum to 1"),
    ("attention_variance_gain", lambda T, r, c, g: g**4, "The average between"),
    ("attention_variance_gain", lambda T, r, c, g: simulated(T, r, c), "The gain is missing"),
    ("attention_variance_gain", lambda T, r, c, g: g**4 / 2 * simulated(T, r, c), "no ReLU"),
    ("sharp_average", lambda T, s: 1 / T, "equal weights"),
    ("sharp_average", lambda T, s: exp(2 * s) / T, "divided by their sum"),
    ("sharp_average", lambda T, s: exp(-s) / T, "larger, not smaller"),
    ("sharp_average", lambda T, s: (exp(s) - 1) / T, "variance of the weights"),
    ("sharp_average", lambda T, s: exp(s * s) / T, "a variance already"),
    ("relu_correlation", lambda r: r + (sqrt(1 - r * r) - np.arccos(r)) / pi, "comes with a factor r"),
    ("relu_correlation", lambda r: (sqrt(1 - r * r) - r * np.arccos(r)) / pi, "term r in front"),
    ("relu_correlation", lambda r: r + (sqrt(1 - r * r) + r * np.arccos(r)) / pi, "Minus"),
    (
        "relu_correlation",
        lambda r: (sqrt(1 - r * r) + (pi - np.arccos(r)) * r) / (2 * pi),
        "divide by E[ReLU(a)²]",
    ),
]  # fmt: skip
