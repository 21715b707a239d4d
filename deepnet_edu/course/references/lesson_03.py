"""Reference answers, cut from solutions/03_attention_and_ffn.py by `make build`. Do not edit."""

from math import acos, exp, pi, sqrt

import numpy as np
import torch


def attention(q, k, v, n_heads, causal):
    """Queries, keys and values, (B, T, d) each -> (B, T, d)."""
    Q, K, V = (x.unflatten(-1, (n_heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, h, T, d/h)
    scores = Q @ K.mT * Q.shape[-1] ** -0.5  # (B, h, T, T)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    return (scores.softmax(-1) @ V).transpose(1, 2).flatten(2)


def averaged_variance(T, r, causal):
    """Mean over positions of the variance of an even average: one number."""
    if not causal:
        return r + (1 - r) / T
    harmonic = sum(1 / i for i in range(1, T + 1))
    return r + (1 - r) * harmonic / T


def ffn_variance_gain(d_model, d_ff, gain):
    """Variance out over mean square in of W₂ ReLU(W₁x): one number."""
    weight = gain**2 * 2 / (d_model + d_ff)
    up = d_model * weight
    return up / 2 * d_ff * weight


def attention_variance_gain(T, r, causal, gain):
    """Variance of an attention branch's output, for tokens of variance 1: one number."""
    return gain**4 * averaged_variance(T, r, causal)


def sharp_average(T, s):
    """Variance of a softmax average of T independent tokens, scores of variance s: one number."""
    return exp(s) / T


def relu_correlation(r):
    """Cosine between two tokens after ReLU, from their correlation before: one number."""
    return r + (sqrt(1 - r * r) - r * acos(r)) / pi
