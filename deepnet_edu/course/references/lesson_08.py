"""Reference answers, cut from solutions/08_depth_alpha_explorer.py by `make build`. Do not edit."""

from dataclasses import replace
from math import sqrt

import numpy as np


def edge_alpha(layers, share, s):
    """The α at which `share` of the input's variance is left at the top: one number."""
    kept = share ** (1 / (2 * layers))
    return (s / (4 * (1 / kept - 1))) ** (1 / 6)


def outcome(loss, similarity, chance):
    """The verdict on a run: "diverged", "learned", "lost" or "slow"."""
    if not np.isfinite(loss).all():
        return "diverged"
    final = np.mean(loss[-5:])
    if final < 1.0:
        return "learned"
    return "lost" if similarity > 0.9 and final > chance - 0.25 else "slow"


def trainable_edge(alphas, learned):
    """The smallest α at which every seed learned, infinity where there is none: one number."""
    every = np.all(learned, axis=1)
    return float(np.min(alphas[every], initial=np.inf))


def interval(powers, t):
    """(low, high) around the mean of the powers, t standard errors to either side."""
    reach = t * np.std(powers, ddof=1) / sqrt(len(powers))
    return np.mean(powers) - reach, np.mean(powers) + reach


def matching_rate(rate, shallow, deep):
    """The learning rate at which the deep stack has the shallow one's bound: one number."""
    layers, alpha, beta = shallow
    bound = rate * layers * beta / alpha
    layers, alpha, beta = deep
    return bound * alpha / (layers * beta)
