"""Reference answers, cut from solutions/14_vision.py by `make build`. Do not edit."""

from math import comb

import numpy as np


def patches(images, size):
    """Images (B, C, H, W) cut into squares: (B, n, C·size²)."""
    B, C, H, W = images.shape
    squares = images.reshape(B, C, H // size, size, W // size, size)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(B, -1, C * size * size)


def same_quality(right_a, right_b):
    """Two-sided p-value that both are equally good: one number."""
    only_a = int((right_a & ~right_b).sum())
    only_b = int((right_b & ~right_a).sum())
    n = only_a + only_b
    tail = sum(comb(n, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**n)


def blind_to(size, positions):
    """Names of the changes that no such model can see: a set."""
    if positions:
        return set()
    unseen = {"shuffle", "shuffle each", "shift by a patch"}
    if size == 1:
        unseen = unseen | {"mirror", "transpose", "half turn", "shift by a pixel"}
    return unseen


def rollout(attentions, skips):
    """Where each token at the top comes from: (T, T), rows sum to 1."""
    total = np.eye(len(attentions[0]))
    for attention, skip in zip(attentions, skips, strict=True):
        total = skip * total + (1 - skip) * attention @ total
    return total
