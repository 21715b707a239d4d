"""Reference answers, cut from solutions/01_residual_arithmetic.py by `make build`. Do not edit."""

import warnings
from math import comb, sqrt

import numpy as np


def variance_by_depth(n, f, alpha=1.0, var0=1.0):
    """Variance of the stream after 0, 1, …, n sub-layers: (n + 1,)."""
    v = [var0]
    for _ in range(n):
        v.append(alpha**2 * v[-1] + f)
    return np.array(v)


def input_share(n, f, alpha):
    """Part of the variance that is still the input's: one number from 0 to 1."""
    return (alpha**2 / (alpha**2 + f)) ** n


def cloned_growth(n, eps):
    """Growth of the squared length after n copies of one layer: one number."""
    length = squares = 1.0
    for k in range(1, n + 1):
        length *= eps * (n - k + 1) / k  # C(n,k)·ε^k, from the term before
        squares += length * length
    return squares


def residual_variance(var_x, var_f, corr):
    """Variance of x + F: one number."""
    return var_x + var_f + 2 * corr * sqrt(var_x * var_f)


def damped_variance(n, f, var0=1.0):
    """Variance of the stream after 0, 1, …, n layers: (n + 1,)."""
    v = [var0]
    for layer in range(1, n + 1):
        v.append(v[-1] + 2 * f / layer)
    return np.array(v)
