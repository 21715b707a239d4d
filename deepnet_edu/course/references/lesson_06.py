"""Reference answers, cut from solutions/06_deriving_deepnorm.py by `make build`. Do not edit."""

from math import sqrt

import numpy as np


def depth_slope(depths, updates):
    """p in updates ∝ depths**p: one number."""
    return np.polyfit(np.log(depths), np.log(updates), 1)[0]


def solve_deepnorm(n_layers, a):
    """(α, β) of a single stack with α = (2N)^a."""
    alpha = (2 * n_layers) ** a
    beta = alpha / (2 * n_layers**0.5)
    return alpha, beta


def branch_over_skip(alpha, beta):
    """Var F / Var αx in one sub-layer: one number."""
    return beta**4 / alpha**2


def update_sum(n_layers, alpha, beta, step):
    """The sum of Theorem 4.2, per unit of learning rate: one number."""
    effect = sqrt(2) * beta / alpha
    length = effect if step == "sgd" else 1
    return 2 * n_layers * effect * length


def predicted_slope(group, step, a, b):
    """Power of depth: one number."""
    felt = {"matrices": -a - b, "biases": -a, "norms": 0}[group]
    length = felt if step == "sgd" else 0
    return 1 + felt + length


def encoder_condition(N, M, alpha_e, beta_e, alpha_d, beta_d):
    """The encoder's part of Theorem 4.3 per unit of learning rate: one number."""
    entrance = M * beta_d**2 / alpha_d
    return entrance * 2 * N * 2 * beta_e**2 / alpha_e**2


def solve_encoder(N, M):
    """(α, β) of an encoder of N layers under a decoder of M."""
    K = (N**4 * M / 27) ** 0.25
    return K**0.25, K**-0.25 / sqrt(2)
