"""Reference answers, cut from solutions/16_thousand_layer_stability.py by `make build`. Do not edit."""

from itertools import combinations
from math import sqrt

import numpy as np
import torch


def diagnose(run):
    """The cause, one of CAUSES: a text."""
    first, last = run["gradient"][0]
    if run["moved"] == 0:
        return "stack not trained"
    if first == 0 and last == 0:
        return "branches asleep"
    if run["similarity"][0] > 0.99:
        return "tokens alike from the start"
    if last < 1e-6 * first:
        return "branches drowned"
    if run["update"][0] > 0.5:
        return "rate too high"
    if run["loss"][-1] > 0.95 * run["chance"]:
        return "rate too low" if run["moved"] < 0.01 else "targets say nothing"
    return "healthy"


def highest_rate(survives, low, high, ratio):
    """The highest rate seen to survive: one number."""
    while high / low > ratio:
        middle = sqrt(low * high)
        if survives(middle):
            low = middle
        else:
            high = middle
    return low


def working_layers(harm):
    """The number of layers that share the work: one number."""
    h = np.maximum(harm, 0)
    squares = (h * h).sum()
    return float(h.sum() ** 2 / squares) if squares > 0 else 0.0


def noise_scale(small, big, small_batch, big_batch):
    """The batch size at which noise equals signal, in sequences: one number."""
    signal = (big_batch * big - small_batch * small) / (big_batch - small_batch)
    noise = (small - big) / (1 / small_batch - 1 / big_batch)
    return noise / signal


def clean_pairs(runs, factor):
    """Places (i, j) of runs that differ in factor alone: a list of pairs."""

    def rest(run):
        return {name: value for name, value in run.items() if name not in (factor, "result")}

    pairs = []
    for i, j in combinations(range(len(runs)), 2):
        if runs[i][factor] != runs[j][factor] and rest(runs[i]) == rest(runs[j]):
            pairs.append((i, j))
    return pairs
