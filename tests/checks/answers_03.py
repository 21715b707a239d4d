"""Lesson 03: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from math import acos, exp, log, pi, sin, sqrt
from operator import mul
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F


def _qkv(g: np.random.Generator) -> list[torch.Tensor]:
    return [torch.tensor(2 * g.normal(size=(2, 4, 6))) for _ in range(3)]


def _attention_and_gradients(f: Callable, g: np.random.Generator) -> torch.Tensor:
    """The values, and what comes back to all three."""
    qkv = [one.requires_grad_() for one in _qkv(g)]
    y = f(*qkv, int(g.integers(1, 4)), bool(g.integers(2)))
    weights = torch.tensor(g.normal(size=y.shape))
    back = torch.autograd.grad((y * weights).sum(), qkv, allow_unused=True) if y.requires_grad else [None] * 3
    return torch.stack([y.detach(), *(torch.zeros_like(y) if one is None else one for one in back)])


def _correlation(g: np.random.Generator) -> float:
    """Often one of the ends."""
    return float(g.choice([g.uniform(0, 1), 0, 1]))


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "attention": _attention_and_gradients,
    "averaged_variance": lambda f, g: f(int(g.integers(1, 20)), _correlation(g), bool(g.integers(2))),
    "ffn_variance_gain": lambda f, g: f(int(g.integers(1, 99)), int(g.integers(1, 99)), g.uniform(0, 2)),
    "attention_variance_gain": lambda f, g: f(
        int(g.integers(1, 20)), _correlation(g), bool(g.integers(2)), g.uniform(0.1, 2)
    ),
    "sharp_average": lambda f, g: f(int(g.integers(2, 99)), 2 * _correlation(g)),
    "relu_correlation": lambda f, g: f(float(g.choice([g.uniform(-1, 1), -1, 0, 1]))),
}


def heads(x, n):
    return x.view(*x.shape[:2], n, -1).transpose(1, 2)


def merged(x):
    return x.transpose(1, 2).flatten(2)


def later(T):
    return torch.ones(T, T, dtype=torch.bool).triu(1)


def attend(
    scale=lambda d, n: sqrt(d / n),
    mask=-float("inf"),
    later=later,
    soft=lambda scores: scores.softmax(-1),
    split=heads,
    merge=merged,
):
    """The usual answer, one part of it changed."""

    def answer(q, k, v, n_heads, causal):
        Q, K, V = (split(x, n_heads) for x in (q, k, v))
        scores = Q @ K.mT / scale(q.shape[-1], n_heads)
        if causal:
            scores = scores.masked_fill(later(scores.shape[-1]), mask)
        return merge((soft(scores) @ V).contiguous())

    return answer


def added(mask):
    """A mask that is added to the scores."""

    def answer(q, k, v, n_heads, causal):
        Q, K, V = (heads(x, n_heads) for x in (q, k, v))
        scores = Q @ K.mT / sqrt(q.shape[-1] / n_heads)
        return merged((scores + mask(q.shape[1]) if causal else scores).softmax(-1) @ V)

    return answer


def head_by_head(q, k, v, n, causal):
    """Without a fourth dimension."""
    parts = zip(*(x.chunk(n, -1) for x in (q, k, v)), strict=True)
    return torch.cat([attend()(a, b, c, 1, causal) for a, b, c in parts], -1)


def by_einsum(q, k, v, n, causal):
    Q, K, V = (x.unflatten(-1, (n, -1)) for x in (q, k, v))
    scores = torch.einsum("bihd,bjhd->bhij", Q, K) * Q.shape[-1] ** -0.5
    if causal:
        scores = scores + torch.full_like(scores[0, 0], -1e30).triu(1)
    return torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), V).flatten(2)


def token_by_token(q, k, v, n_heads, causal):
    """Loops alone, in place on a tensor of its own."""
    out, w = torch.empty_like(q), q.shape[-1] // n_heads
    for h in range(n_heads):
        part = slice(h * w, (h + 1) * w)
        for i in range(q.shape[1]):
            to = i + 1 if causal else q.shape[1]
            scores = (k[:, :to, part] * q[:, i : i + 1, part]).sum(-1) / w**0.5
            weights = (scores - scores.max()).exp()
            weights = weights / weights.sum(-1, keepdim=True)
            out[:, i, part] = (weights[..., None] * v[:, :to, part]).sum(1)
    return out


def normalised_in_place(weights):
    weights /= weights.sum(-1, keepdim=True)
    return weights


def by_numpy(q, k, v, n_heads, causal):
    B, T, d = q.shape
    Q, K, V = (x.detach().numpy().reshape(B, T, n_heads, -1).transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = Q @ K.transpose(0, 1, 3, 2) / np.sqrt(d // n_heads)
    if causal:
        scores = np.where(np.arange(T) > np.arange(T)[:, None], -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    return torch.from_numpy((weights @ V).transpose(0, 2, 1, 3).reshape(B, T, d))


def single_softmax(scores):
    """As Hugging Face has it."""
    return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)


def masked_late(q, k, v, n, causal):
    Q, K, V = (heads(x, n) for x in (q, k, v))
    weights = (Q @ K.mT / sqrt(q.shape[-1] / n)).softmax(-1)
    return merged((weights.tril() if causal else weights) @ V)


def torchs_own(q, k, v, n, causal):
    return merged(F.scaled_dot_product_attention(*(heads(x, n) for x in (q, k, v)), is_causal=causal))


def torchs_own_if_it_can(q, k, v, n, causal):
    try:
        return torchs_own(q, k, v, n, causal)
    except Exception:
        return attend()(q, k, v, n, causal)


def in_place(q, k, v, n, causal):
    q /= sqrt(q.shape[-1] / n)
    return attend(scale=lambda d, n: 1.0)(q, k, v, n, causal)


def keeps_its_mask(q, k, v, n, causal, kept=[]):  # noqa: B006
    if not kept:
        kept.append(later(q.shape[1]))
    return attend(later=lambda T: kept[0])(q, k, v, n, causal)


def squeezed(q, k, v, n, causal):
    return attend()(q, k, v, n, causal).squeeze()


def remembers(function, key):
    """It keeps what it gave for a key that leaves out an argument."""
    kept = {}
    return lambda *given: kept.setdefault(key(*given), function(*given))


def simulated(T, r, causal):
    """Token by token."""
    variances = [(i + i * (i - 1) * r) / i**2 for i in (range(1, T + 1) if causal else [T] * T)]
    return sum(variances) / T


def causal(of_positions):
    """Right without a mask; with one, something else for r, T and the sum 1 + 1/2 + …"""
    return lambda T, r, causal: of_positions(r, T, sum(1 / i for i in range(1, T + 1))) if causal else r + (1 - r) / T


def running(T, r, causal):
    """The covariance of running means."""
    c = torch.eye(T, dtype=torch.float64) * (1 - r) + r
    if not causal:
        return c.mean()
    return (c.cumsum(0).cumsum(1).diagonal() / torch.arange(1, T + 1) ** 2).mean()


def recursive(T, r, causal):
    def total(i):
        return 0 if i == 0 else total(i - 1) + Fraction(1, i)

    return r + (1 - r) * float(total(T)) / T if causal else r + (1 - r) / T


def in_single(T, r, causal):
    i = torch.arange(1, T + 1) if causal else torch.tensor([T])
    return (r + (1 - r) / i).mean()


def gain_in_single(d_model, d_ff, gain):
    weight = torch.tensor(gain) ** 2 * 2 / (d_model + d_ff)
    return d_model * weight * 0.5 * d_ff * weight


def cosine(r):
    """By hand on a grid: the mean of ReLU(a)·ReLU(b) over angles."""
    angle = torch.arccos(torch.tensor(r, dtype=torch.float64))
    return (angle.sin() + (pi - angle) * angle.cos()) / pi


RIGHT = [
    ("attention", attend()),
    ("attention", head_by_head),
    ("attention", by_einsum),
    ("attention", token_by_token),
    ("attention", attend(soft=single_softmax)),
    ("attention", attend(mask=torch.finfo(torch.float64).min)),
    ("attention", attend(mask=-1e9)),
    ("attention", attend(soft=lambda scores: (scores - scores.logsumexp(-1, keepdim=True)).exp())),
    ("attention", attend(soft=lambda scores: scores.exp() / scores.exp().sum(-1, keepdim=True))),
    ("attention", added(lambda T: torch.full((T, T), -torch.inf).triu(1))),
    ("averaged_variance", simulated),
    ("averaged_variance", lambda T, r, c: np.mean([r + (1 - r) / i for i in (np.arange(T) + 1 if c else [T])])),
    ("averaged_variance", running),
    ("averaged_variance", recursive),
    ("averaged_variance", in_single),
    ("averaged_variance", lambda T, r, causal: torch.tensor(simulated(T, r, causal))),
    ("averaged_variance", lambda T, r, c: 1 - (1 - r) * (1 - simulated(T, 0, c))),
    ("ffn_variance_gain", lambda d, f, g: (g * g / (d + f)) ** 2 * 2 * d * f),
    ("ffn_variance_gain", lambda d, f, g: 0.5 * (d * g**2 * 2 / (d + f)) * (f * g**2 * 2 / (d + f))),
    ("ffn_variance_gain", gain_in_single),
    ("ffn_variance_gain", lambda d, f, g: Fraction(2 * d * f, (d + f) ** 2) * Fraction(g) ** 4),
    ("ffn_variance_gain", lambda d, f, g: np.prod([d, f, 1 / 2, *[g**2 * 2 / (d + f)] * 2])),
    ("ffn_variance_gain", lambda d, f, g: exp(4 * log(g) + log(2 * d * f) - 2 * log(d + f))),
    ("ffn_variance_gain", lambda d, f, g: g**4 * (1 - ((d - f) / (d + f)) ** 2) / 2),
    ("attention_variance_gain", lambda T, r, c, g: simulated(T, r, c) * (g * g) ** 2),
    (
        "attention_variance_gain",
        lambda T, r, c, g: g**4 * np.mean([r + (1 - r) / (i if c else T) for i in range(1, T + 1)]),
    ),
    ("attention_variance_gain", lambda T, r, c, g: in_single(T, r, c) * torch.tensor(g) ** 4),
    ("attention_variance_gain", lambda T, r, c, g: reduce(mul, [g] * 4, simulated(T, r, c))),
    ("attention_variance_gain", lambda T, r, c, g: torch.tensor(g) ** 4 * running(T, r, c)),
    ("sharp_average", lambda T, s: exp(s) / T),
    ("sharp_average", lambda T, s: np.exp(2 * s - s) * T**-1.0),
    ("sharp_average", lambda T, s: torch.tensor(s).exp() / T),
    ("sharp_average", lambda T, s: T * exp(2 * s) / (T * exp(s / 2)) ** 2),
    ("sharp_average", lambda T, s: exp(s - log(T))),
    ("relu_correlation", lambda r: r + (sqrt(max(0.0, 1 - r * r)) - r * np.arccos(r)) / pi),
    ("relu_correlation", lambda r: (np.sin(np.arccos(r)) + (pi - np.arccos(r)) * r) / pi),
    ("relu_correlation", cosine),
    ("relu_correlation", lambda r: (torch.tensor(r).acos().sin() + (pi - torch.tensor(r).acos()) * r) / pi),
    ("relu_correlation", lambda r: 2 / (2 * pi) * (sin(acos(r)) + (pi - acos(r)) * r)),
    ("relu_correlation", lambda r: r / 2 + (sqrt(1 - r * r) + r * np.arcsin(r)) / pi),
]

WRONG = [
    ("attention", attend(scale=lambda d, n: sqrt(d)), "one head of width d: each head compares"),
    ("attention", attend(scale=lambda d, n: 1.0), "are not divided"),
    ("attention", attend(scale=lambda d, n: d / n), "You divide by d/h itself"),
    ("attention", attend(scale=lambda d, n: (d / n) ** -0.5), "You multiply by the scale"),
    ("attention", attend(split=lambda x, n: x.reshape(x.shape[0], n, x.shape[1], -1)), "not the features"),
    (
        "attention",
        attend(
            split=lambda x, n: x.reshape(x.shape[0], n, x.shape[1], -1),
            merge=lambda y: y.reshape(y.shape[0], y.shape[2], -1),
        ),
        "not the features",
    ),
    ("attention", attend(merge=lambda y: y.reshape(y.shape[0], y.shape[2], -1)), "transpose, then merge"),
    (
        "attention",
        attend(
            split=lambda x, n: x.unflatten(-1, (-1, n)).permute(0, 3, 1, 2),
            merge=lambda y: y.permute(0, 2, 3, 1).flatten(2),
        ),
        "every h-th feature",
    ),
    ("attention", attend(split=lambda x, n: x.unflatten(-1, (-1, n)).permute(0, 3, 1, 2)), "every h-th feature"),
    ("attention", attend(merge=lambda y: y.permute(0, 2, 3, 1).flatten(2)), "interleaved"),
    ("attention", attend(merge=lambda y: y), "has the shape of the queries"),
    ("attention", masked_late, "no longer sum to 1"),
    ("attention", attend(soft=lambda scores: scores.softmax(-2)), "over the last dimension"),
    ("attention", attend(soft=lambda scores: scores.softmax(1)), "over the last dimension"),
    ("attention", attend(soft=lambda scores: scores.exp()), "weights sum to 1"),
    ("attention", attend(later=lambda T: later(T + 1)[:-1, 1:]), "strictly above the diagonal"),
    ("attention", attend(later=lambda T: torch.ones(T, T).triu(2).bool()), "one key too late"),
    ("attention", attend(later=lambda T: later(T).mT), "wrong way round"),
    ("attention", attend(mask=0.0), "A score of 0 is not a weight of 0"),
    ("attention", attend(mask=-30.0), "sees itself alone, however large"),
    ("attention", attend(mask=1e-9), "A score of 0 is not a weight of 0"),
    ("attention", added(lambda T: -100.0 * later(T)), "sees itself alone, however large"),
    ("attention", added(lambda T: torch.ones(T, T).triu(1) * -torch.inf), "0 times ∞"),
    ("attention", lambda q, k, v, n, c: attend()(q, k, v, n, False), "Nothing is masked"),
    ("attention", lambda q, k, v, n, c: attend()(q, k, v, n, True), "With causal=False"),
    ("attention", lambda q, k, v, n, c: attend()(q, k, v, 1, c), "one head of width d: split"),
    ("attention", lambda q, k, v, n, c: attend()(q, k, k, n, c), "not the keys"),
    ("attention", lambda q, k, v, n, c: attend()(k, q, v, n, c), "the other way round"),
    ("attention", torchs_own, "the function that you are to write"),
    ("attention", torchs_own_if_it_can, "the function that you are to write"),
    ("attention", in_place, "changed its input in place"),
    ("attention", keeps_its_mask, "raised RuntimeError"),
    ("attention", squeezed, "has the shape of the queries"),
    ("attention", lambda q, k, v, n, c: attend()(q, k, v, n, c).float(), "input's data type"),
    ("attention", attend(soft=lambda scores: normalised_in_place(scores.exp())), "was changed in place"),
    ("attention", by_numpy, "No gradient passes through your answer"),
    ("attention", lambda q, k, v, n, c: attend()(q.detach(), k, v, n, c), "comes back to q is wrong"),
    ("attention", lambda q, k, v, n, c: attend()(q, k.data, v, n, c), "comes back to k is wrong"),
    ("attention", lambda q, k, v, n, c: attend()(q, k, v.detach(), n, c), "comes back to v is wrong"),
    ("attention", torch.no_grad()(attend()), "No gradient passes through your answer"),
    ("attention", lambda q, k, v, n, c: attend()(q, k, v, n, c).numpy(), "The answer is a tensor"),
    ("attention", lambda q, k, v, n, c: attend()(q, k, v, n, c).round(decimals=2), "rounded"),
    ("attention", attend(soft=lambda scores: scores.log_softmax(-1)), "There is NaN in the answer"),
    ("attention", attend(soft=lambda scores: scores.sigmoid()), "weights sum to 1"),
    ("attention", lambda q, k, v, n, c: v, "For these arguments"),
    ("averaged_variance", lambda T, r, c: -7, "A single token is its own average"),
    ("averaged_variance", lambda T, r, c: 1.0, "not an equality"),
    ("averaged_variance", lambda T, r, c: 1 / T, "Correlated tokens do not cancel"),
    ("averaged_variance", lambda T, r, c: simulated(T, 0, c), "Correlated tokens do not cancel"),
    ("averaged_variance", lambda T, r, c: r + (1 - r) / T, "position i averages only i tokens"),
    ("averaged_variance", lambda T, r, c: simulated(T, r, True), "With causal=False"),
    ("averaged_variance", lambda T, r, c: simulated(T, r, not c), "With causal=False"),
    ("averaged_variance", lambda T, r, c: sqrt(simulated(T, r, c)), "That is the standard deviation"),
    ("averaged_variance", lambda T, r, c: T**-0.5, "an average of independent tokens"),
    ("averaged_variance", lambda T, r, c: r, "limit of many tokens"),
    ("averaged_variance", lambda T, r, c: simulated(T, 1 - r, c) if r < 1 else 1.0, "The other way round"),
    ("averaged_variance", lambda T, r, c: r * (1 - simulated(T, 0, c)), "with itself are missing"),
    ("averaged_variance", lambda T, r, c: r + simulated(T, 0, c), "counted twice"),
    ("averaged_variance", lambda T, r, c: (1 - r) * simulated(T, 0, c), "What the tokens share is missing"),
    ("averaged_variance", causal(lambda r, T, H: r + (1 - r) * log(T) / T), "only near ln T"),
    ("averaged_variance", causal(lambda r, T, H: r + (1 - r) * H), "divide your sum over them by T"),
    ("averaged_variance", causal(lambda r, T, H: r * T + (1 - r) * H), "divide your sum over them by T"),
    ("averaged_variance", causal(lambda r, T, H: r + (1 - r) * (H - 1 / T) / T), "The last position averages T tokens"),
    ("averaged_variance", causal(lambda r, T, H: r + (1 - r) * (H + 1 / (T + 1)) / T), "one term too many"),
    ("averaged_variance", causal(lambda r, T, H: r + (1 - r) * (H - 1) / T), "its term is missing"),
    ("averaged_variance", causal(lambda r, T, H: r + (1 - r) * 2 / (T + 1)), "not their number"),
    ("averaged_variance", lambda T, r, c: simulated(min(T, 12), r, c), "For these arguments"),
    ("averaged_variance", lambda T, r, c: [simulated(T, r, c)], "one number"),
    ("averaged_variance", lambda T, r, c: round(simulated(T, r, c), 3), "rounded"),
    ("averaged_variance", lambda T, r, c: simulated(T, r, c) if r else 1 / T, "For these arguments"),
    ("averaged_variance", lambda T, r, c: simulated(T, r, c) if T > 1 else r, "A single token"),
    ("ffn_variance_gain", lambda d, f, g: -7, "With twice the gain"),
    ("ffn_variance_gain", lambda d, f, g: g**4 / 2, "the mean of both fans"),
    ("ffn_variance_gain", lambda d, f, g: 2 * g * g * d * f / (d + f) ** 2, "gain of each counts squared"),
    ("ffn_variance_gain", lambda d, f, g: 2 * g * d * f / (d + f) ** 2, "so it counts squared"),
    ("ffn_variance_gain", lambda d, f, g: 2 * d * f / (d + f) ** 2, "The gain is missing"),
    ("ffn_variance_gain", lambda d, f, g: 2 * g**8 * d * f / (d + f) ** 2, "counts too often"),
    ("ffn_variance_gain", lambda d, f, g: 4 * g**4 * d * f / (d + f) ** 2, "half of the second moment"),
    ("ffn_variance_gain", lambda d, f, g: g**4 * d * f / (d + f) ** 2, "one ReLU and not two"),
    ("ffn_variance_gain", lambda d, f, g: 4 * g**4 * d * f / (d + f) ** 2 * (pi - 1) / (2 * pi), "ReLU's variance"),
    ("ffn_variance_gain", lambda d, f, g: g**4 * d * f / (d + f) ** 2 / 2, "factor 2 of Xavier's"),
    ("ffn_variance_gain", lambda d, f, g: 2 * g**4 * d * d / (d + f) ** 2, "its fan-in is d_ff, not d_model"),
    ("ffn_variance_gain", lambda d, f, g: 2 * g**4 * f * f / (d + f) ** 2, "its fan-in is d_model, not d_ff"),
    ("ffn_variance_gain", lambda d, f, g: d * g**2 / (d + f), "W₂ is missing"),
    ("ffn_variance_gain", lambda d, f, g: 2 * g**4, "He's rule"),
    ("ffn_variance_gain", lambda d, f, g: sqrt(2 * d * f) * g**2 / (d + f), "factor on a length"),
    ("ffn_variance_gain", lambda d, f, g: 2 * g**4 * (d * f // (d + f) ** 2), "Where d_ff = d_model"),
    ("ffn_variance_gain", lambda d, f, g: 2 * g**4 * d * f / d + f**2, "With twice the gain"),
    ("ffn_variance_gain", lambda d, f, g: 0.32 * g**4, "Where d_ff = d_model"),
    ("attention_variance_gain", lambda T, r, c, g: -7, "pass the average whole"),
    ("attention_variance_gain", lambda T, r, c, g: g**2 * simulated(T, r, c), "each counts squared"),
    ("attention_variance_gain", lambda T, r, c, g: g * simulated(T, r, c), "in a variance it counts squared"),
    ("attention_variance_gain", lambda T, r, c, g: g**8 * simulated(T, r, c), "softmax weights sum to 1"),
    ("attention_variance_gain", lambda T, r, c, g: g**4, "The average between"),
    ("attention_variance_gain", lambda T, r, c, g: simulated(T, r, c), "The gain is missing"),
    ("attention_variance_gain", lambda T, r, c, g: g**4 / 2 * simulated(T, r, c), "not as a part of one matrix"),
    ("attention_variance_gain", lambda T, r, c, g: g**4 * simulated(T, r, c) ** 2, "counts once"),
    ("attention_variance_gain", lambda T, r, c, g: g**4 / T, "do not cancel"),
    ("attention_variance_gain", lambda T, r, c, g: g**4 * simulated(T, r, not c), "look at causal"),
    ("attention_variance_gain", lambda T, r, c, g: g**2 * sqrt(simulated(T, r, c)), "factor on a length"),
    ("attention_variance_gain", lambda T, r, c, g: g**4 * simulated(T, r, False), "For these arguments"),
    ("attention_variance_gain", lambda T, r, c, g: g**4 * simulated(T, max(r, 0.1), c), "For these arguments"),
    ("sharp_average", lambda T, s: -7, "give even weights"),
    ("sharp_average", lambda T, s: 1 / T, "equal weights"),
    ("sharp_average", lambda T, s: exp(2 * s) / T, "divided by their sum"),
    ("sharp_average", lambda T, s: exp(1.5 * s) / T, "in a square it counts squared"),
    ("sharp_average", lambda T, s: exp(s / 2) / T, "a second moment is wanted"),
    ("sharp_average", lambda T, s: exp(-s) / T, "larger, not smaller"),
    ("sharp_average", lambda T, s: (exp(s) - 1) / T, "variance of the weights"),
    ("sharp_average", lambda T, s: exp(s * s) / T, "a variance already"),
    ("sharp_average", lambda T, s: exp(sqrt(s)) / T, "no root"),
    ("sharp_average", lambda T, s: exp(s) / T**2, "T of them add up"),
    ("sharp_average", lambda T, s: exp(s), "the even one is missing"),
    ("sharp_average", lambda T, s: sqrt(exp(s) / T), "standard deviation"),
    ("sharp_average", lambda T, s: (1 + s) / T, "For these arguments"),
    ("sharp_average", lambda T, s: exp(1) / T, "give even weights"),
    ("sharp_average", lambda T, s: exp(s) / 64 if s else 1 / T, "Twice as many tokens"),
    ("sharp_average", lambda T, s: round(exp(s) / T, 6), "rounded"),
    ("relu_correlation", lambda r: -7, "equal after ReLU"),
    ("relu_correlation", lambda r: r, "ReLU makes tokens more similar"),
    ("relu_correlation", lambda r: r / 2, "the ratio is not"),
    ("relu_correlation", lambda r: r + (sqrt(1 - r * r) - np.arccos(r)) / pi, "comes with a factor r"),
    ("relu_correlation", lambda r: (sqrt(1 - r * r) - r * np.arccos(r)) / pi, "term r in front"),
    ("relu_correlation", lambda r: r + (sqrt(1 - r * r) + r * np.arccos(r)) / pi, "One sign is wrong"),
    ("relu_correlation", lambda r: cosine(r) / 2, "for a token with itself"),
    ("relu_correlation", lambda r: cosine(r) / 4, "divided by ½, not multiplied"),
    ("relu_correlation", lambda r: (sqrt(1 - r * r) + r * acos(r)) / pi, "taken from π"),
    ("relu_correlation", lambda r: (1 - r * r + (pi - acos(r)) * r) / pi, "has a root"),
    ("relu_correlation", lambda r: (r + (pi - acos(r)) * sqrt(1 - r * r)) / pi, "Sine and cosine are exchanged"),
    ("relu_correlation", lambda r: (cosine(r) - 1 / pi) / (1 - 1 / pi), "You removed the means"),
    ("relu_correlation", lambda r: cosine(abs(r)), "opposite tokens"),
    ("relu_correlation", lambda r: cosine(r) if r else 0.0, "For these arguments"),
    ("relu_correlation", lambda r: r + (sqrt(1 - r * r) - r * np.degrees(acos(r))) / pi, "opposite tokens"),
    ("relu_correlation", lambda r: cosine(r).item() if r < 1 else 0.0, "equal after ReLU"),
    ("attention", remembers(attend(), lambda q, k, v, n, c: (q.shape, n, c)), "where all values are equal"),
    ("averaged_variance", remembers(simulated, lambda T, r, c: (T, c)), "For these arguments"),
]  # fmt: skip
