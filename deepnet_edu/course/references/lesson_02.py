"""Reference answers, cut from solutions/02_layer_norm.py by `make build`. Do not edit."""

from math import sqrt

import numpy as np


def layer_norm(x, gamma, beta, eps):
    """(B, T, d) -> (B, T, d): each token to mean 0 and variance 1, then times gamma, plus beta."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + eps).sqrt() * gamma + beta


def misplaced_share(n, f, alpha):
    """Part of the variance that is still the input's after n times LN(x + αF): one number from 0 to 1."""
    return (1 / (1 + alpha**2 * f)) ** n


def jacobian_gain(x):
    """The largest factor by which LN stretches a nudge of x: one number."""
    return sqrt(len(x)) / (x - x.mean()).norm().item()


def skip_gradient_factor(alpha, f):
    """Factor on the length of a gradient along the skip of one sub-layer: one number."""
    return alpha / sqrt(alpha**2 + f)


def layer_norm_backward(grad_y, x, gamma, eps):
    """(B, T, d) -> (B, T, d): the gradient of x, from that of y."""
    centred = x - x.mean(-1, keepdim=True)
    inverse = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    xhat = centred * inverse
    g = grad_y * gamma
    return inverse * (g - g.mean(-1, keepdim=True) - xhat * (g * xhat).mean(-1, keepdim=True))


def rms_norm(x, gamma, eps):
    """(B, T, d) -> (B, T, d): each token to mean square 1, then times gamma."""
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gamma
