"""Reference answers, cut from solutions/18_after_deepnet.py by `make build`. Do not edit."""

from math import comb

import numpy as np
import torch
from torch import nn

from deepnet_edu.residual import Residual


def mixing_matrix(skip, branch, norm):
    """Shares of the input and of each branch in the stream, row by row: (n + 1, n + 1)."""
    n = len(skip)
    parts = np.zeros((n + 1, n + 1))
    parts[0, 0] = 1
    for row in range(1, n + 1):
        parts[row] = skip[row - 1] ** 2 * parts[row - 1]
        parts[row, row] = branch[row - 1]
        if norm:
            parts[row] = parts[row] / parts[row].sum()
    return parts / parts.sum(1, keepdims=True)


class LambdaSkip(Residual):
    """x ← λx + μx₀ before each layer, then Pre-LN."""

    title = "λ-skip"
    formula = "x ← λx + μx₀ before each layer, x ← x + F(LN(x)), LN at the end"
    source = "karpathy/nanochat, nanochat/gpt.py"

    def __init__(self, place, d_model):
        super().__init__(place, d_model)
        self.norm = self.norm_layer()
        self.final_norm = self.norm_layer() if place.is_last else None
        if place.sublayer == "self_attention":
            t = place.layer / max(1, place.n_layers - 1)
            self.skip = nn.Parameter(torch.tensor([1.15 - 0.10 * t]))
            self.first = nn.Parameter(torch.tensor([0.20 - 0.15 * t]))

    def mixed(self, state):
        x, x0 = state
        return self.skip * x + self.first * x0 if self.place.sublayer == "self_attention" else x

    def start(self, x):
        return (x, x)

    def read(self, state):
        return self.norm(self.mixed(state))

    def write(self, state, branch):
        return (self.mixed(state) + branch, state[1])

    def finish(self, state):
        return self.final_norm(state[0])


def amax_gain(mixers):
    """Largest row or column sum of the product's absolute values: one number."""
    total = np.eye(len(mixers[0]))
    for mixer in mixers:
        total = mixer @ total
    sizes = np.abs(total)
    return float(max(sizes.sum(0).max(), sizes.sum(1).max()))


def expected_best(losses, k):
    """Mean, over all choices of k tries, of the least loss: one number."""
    x, n = sorted(losses), len(losses)
    return sum(x[i] * comb(n - 1 - i, k - 1) for i in range(n)) / comb(n, k)


def holm(p_values):
    """Adjusted p-values, in the order given: a list."""
    m = len(p_values)
    adjusted, largest = [0.0] * m, 0.0
    for rank, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
