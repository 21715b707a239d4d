"""Reference answers, cut from solutions/04_post_ln_or_pre_ln.py by `make build`. Do not edit."""

from math import sqrt

import numpy as np
import torch


def pre_ln(x, f, norm):
    """The stream after one Pre-LN sub-layer: (B, T, d)."""
    return x + f(norm(x))


def rule_of(sublayer):
    """Which of three rules sublayer(x, f, norm) follows: "post_ln", "pre_ln" or "norm_on_branch"."""
    y = sublayer(torch.full((1, 1, 4), 2.0), torch.ones_like, torch.zeros_like).mean().item()
    return {0.0: "post_ln", 3.0: "pre_ln", 2.0: "norm_on_branch"}[y]


def token_similarity(x):
    """(B, T, d) -> one number: mean cosine of different tokens of a sequence."""
    T = x.shape[1]
    u = x / x.norm(dim=-1, keepdim=True)
    cosines = u @ u.transpose(1, 2)
    return ((cosines.sum((1, 2)) - T) / (T * (T - 1))).mean()


def split_gradient(g):
    """(B, T, d) -> the shared part, (B, 1, d), and the private part, (B, T, d)."""
    shared = g.mean(1, keepdim=True)
    return shared, g - shared


def attention_gradient_factor(T, r, shared=False):
    """Length of a gradient below a Post-LN attention sub-layer over that above it: one number."""
    f = r + (1 - r) / T
    back = 1 if shared else 1 / T
    return sqrt((1 + back) / (1 + f))


def pre_ln_stack(x, branches, norms, final_norm):
    """All sub-layers and the final norm: (B, T, d)."""
    for f, norm in zip(branches, norms, strict=True):
        x = pre_ln(x, f, norm)
    return final_norm(x)


def pre_ln_share(layer, c):
    """Part of the stream's variance that this layer added: one number."""
    return c / (1 + c * layer)
