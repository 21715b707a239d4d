"""Reference answers, cut from solutions/07_building_deepnet.py by `make build`. Do not edit."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def deepnorm(x, f, norm, alpha):
    """The stream after one DeepNorm sub-layer: (B, T, d)."""
    return norm(alpha * x + f(x))


def constants(encoder_layers, decoder_layers):
    """((α, β) of the encoder, (α, β) of the decoder), None for a stack that is not there."""
    N, M = encoder_layers, decoder_layers

    def pair(S):
        return S**0.25, (4 * S) ** -0.25

    if M == 0:
        return pair(2 * N), None
    if N == 0:
        return None, pair(2 * M)
    return pair((N**4 * M / 27) ** 0.25), pair(3 * M)


def init_qkv_(weight, beta):
    """Fill weight (3d, d) in place: Xavier-normal for each d×d slice, with gains 1, 1, β."""
    query, key, value = weight.data.chunk(3)
    nn.init.xavier_normal_(query, gain=1.0)
    nn.init.xavier_normal_(key, gain=1.0)
    nn.init.xavier_normal_(value, gain=beta)


def build_layers(make_layer, n):
    """n independent layers: nn.ModuleList."""
    return nn.ModuleList(make_layer() for _ in range(n))


def decoder_layer(x, memory, self_attention, cross_attention, ffn, norms, alpha):
    """The stream after self-attention, cross-attention and feed-forward: (B, T, d)."""
    x = deepnorm(x, self_attention, norms[0], alpha)
    x = deepnorm(x, lambda y: cross_attention(y, memory), norms[1], alpha)
    return deepnorm(x, ffn, norms[2], alpha)


def stack_parameters(n, d, d_ff):
    """Parameters of n layers: a whole number."""
    attention = 4 * (d * d + d)
    ffn = (d * d_ff + d_ff) + (d_ff * d + d)
    norms = 2 * 2 * d
    return n * (attention + ffn + norms)
