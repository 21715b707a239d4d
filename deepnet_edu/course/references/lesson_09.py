"""Reference answers, cut from solutions/09_bug_museum.py by `make build`. Do not edit."""

import copy
from math import ceil, log, sqrt

import torch
import torch.nn.functional as F
from torch import nn


def effective_alpha(combine, d=16):
    """Weight of the skip over that of the branch: one number."""
    x, fx = torch.randn(2, 8, d, dtype=torch.float64)
    out = combine(x, fx)
    sides = torch.stack([x, fx], dim=-1)
    sides = sides - sides.mean(dim=-2, keepdim=True)
    skip, branch = torch.linalg.lstsq(sides, out.unsqueeze(-1)).solution.squeeze(-1).unbind(-1)
    return (skip / branch).mean().item()


def layers_are_independent(layers):
    """Whether every matrix of every layer has values of its own: True or False."""
    matrices = [tuple(p.flatten().tolist()) for layer in layers for p in layer.parameters() if p.ndim == 2]
    return len(set(matrices)) == len(matrices)


def depths_of(alpha, beta):
    """(N of α, N of β): the numbers of layers for which each constant is the paper's."""
    return alpha**4 / 2, 1 / (8 * beta**4)


def xavier_gain(weight):
    """The Xavier gain of a (fan_out, fan_in) matrix: one number."""
    fan_out, fan_in = weight.shape
    return weight.square().mean().sqrt().item() * sqrt((fan_in + fan_out) / 2)


def stream_is_bounded(combine, d=16):
    """Whether what the box gives cannot grow with what it gets: True or False."""
    x, fx = torch.randn(2, 8, d, dtype=torch.float64)
    small, large = combine(x, fx), combine(1000 * x, 1000 * fx)
    return bool(large.norm() < 10 * small.norm())


def fresh_copies(layer, n, draw_):
    """n copies of a layer with weights of their own: nn.ModuleList."""
    layers = nn.ModuleList([copy.deepcopy(layer) for _ in range(n)])
    for one in layers:
        draw_(one)
    return layers


def decoder_settings(layers, deepnorm=False, norm_first=True, sub_ln=True):
    """Settings of a decoder: a dictionary with alpha, norm_first and sub_ln."""
    alpha = (2 * layers) ** 0.25 if deepnorm else 1.0
    return {"alpha": alpha, "norm_first": norm_first and not deepnorm, "sub_ln": sub_ln and not deepnorm}


def slice_gains(weight):
    """Xavier gains of the slices of a packed (3d, d) matrix: three numbers."""
    return [xavier_gain(part) for part in weight.chunk(3)]


def overflow_depth(alpha, limit):
    """The least n with αⁿ > limit: a whole number."""
    size = 1
    for n in range(1, ceil(log(limit) / log(alpha)) + 2):  # one more than needed: logarithms are rounded
        size *= alpha
        if size > limit:
            return n
