"""Reference answers, cut from solutions/12_language_model.py by `make build`. Do not edit."""

from math import inf, log, sqrt

import torch


def bits_per_byte(nats_per_token, tokens, text):
    """Cost of each byte of the text's UTF-8 form: bits, one number."""
    return nats_per_token * tokens / log(2) / len(text.encode("utf-8"))


def equal_flop_width(layers, budget, tokens, vocab_size, multiple):
    """Largest width, a multiple, whose training costs at most ``budget`` FLOPs a token: a whole number."""
    a = 72 * layers
    b = 6 * vocab_size + 6 * layers * (tokens + 1)
    d = (sqrt(b * b + 4 * a * budget) - b) / (2 * a)
    return int(d + 1e-9) // multiple * multiple


def compare_arms(runs):
    """For each arm: (rate, mean test loss at it, whether it is at an edge)."""
    found = {}
    for arm in {run["arm"] for run in runs}:
        losses = {}
        for run in runs:
            if run["arm"] == arm:
                losses.setdefault(run["rate"], []).append((run["tune"], run["test"]))
        means = {rate: [sum(part) / len(part) for part in zip(*both, strict=True)] for rate, both in losses.items()}
        best = min(means, key=lambda rate: means[rate][0])
        found[arm] = (best, means[best][1], best in (min(means), max(means)))
    return found


def strided_loss(losses, n, window, stride):
    """Mean loss of bytes 1 to n - 1 by windows that overlap: nats, one number."""
    total, scored, begin = 0.0, 1, 0
    while scored < n:
        end = min(begin + window, n)
        total = total + losses(begin, end)[scored - begin - 1 :].sum()
        scored, begin = end, begin + stride
    return total / (n - 1)


def cached_attention(x, w_q, w_k, w_v, cache=None):
    """Outputs of the new tokens, (t, h), and the cache for the next call."""
    q, k, v = x @ w_q, x @ w_k, x @ w_v
    if cache is not None:
        k, v = torch.cat([cache[0], k]), torch.cat([cache[1], v])
    hidden = torch.ones(len(q), len(k), dtype=torch.bool).triu(len(k) - len(q) + 1)
    scores = (q @ k.T / k.shape[1] ** 0.5).masked_fill(hidden, -inf)
    return scores.softmax(-1) @ v, (k, v)
