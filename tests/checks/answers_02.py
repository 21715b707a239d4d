"""Lesson 02: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch.nn import functional


def _x(g: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.tensor(g.normal(0.7, 0.5, shape))


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "layer_norm": lambda f, g: f(_x(g, 2, 3, 6), _x(g, 6), _x(g, 6), 0.1),
    "layer_norm_backward": lambda f, g: f(_x(g, 2, 3, 6), _x(g, 2, 3, 6), _x(g, 6), 0.1),
    "jacobian_gain": lambda f, g: f(_x(g, 6)),
    "equivalent_branch_scale": lambda f, g: f(g.uniform(0.3, 3)),
    "rms_norm": lambda f, g: f(_x(g, 2, 3, 6), _x(g, 6), 0.1),
    "skip_gradient_factor": lambda f, g: f(g.uniform(0.3, 3), g.uniform(0, 2)),
}


def parts(x, eps):
    c = x - x.mean(-1, keepdim=True)
    return c, (c.square().mean(-1, keepdim=True) + eps).rsqrt()


def two_pass(x, gamma, beta, eps):
    mean, square = x.mean(-1, keepdim=True), x.square().mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(square - mean**2 + eps) * gamma + beta


def by_autograd(grad_y, x, gamma, eps):
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        functional.layer_norm(leaf, x.shape[-1:], gamma, None, eps).backward(grad_y)
    return leaf.grad


def by_matrix(grad_y, x, gamma, eps):
    """The Jacobian of one token at a time, I - 11ᵀ/d - x̂x̂ᵀ/d over the standard deviation."""
    d = x.shape[-1]
    c, inverse = parts(x, eps)
    xhat = c * inverse
    one = torch.ones(d, d, dtype=x.dtype) / d
    matrix = torch.eye(d, dtype=x.dtype) - one - xhat[..., :, None] * xhat[..., None, :] / d
    return inverse * torch.einsum("btij,btj->bti", matrix, grad_y * gamma)


def backward(work):
    def answer(grad_y, x, gamma, eps):
        c, inverse = parts(x, eps)
        return work(grad_y, gamma, c, inverse, lambda t: t.mean(-1, keepdim=True))

    return answer


def in_place(x, gamma, beta, eps):
    x -= x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gamma + beta


def largest_singular_value(x):
    jacobian = torch.autograd.functional.jacobian(lambda x: functional.layer_norm(x, x.shape, eps=0.0), x)
    return torch.linalg.svdvals(jacobian).max()


RIGHT = [
    ("layer_norm", lambda x, g, b, eps: functional.layer_norm(x, x.shape[-1:], g, b, eps)),
    ("layer_norm", two_pass),
    (
        "layer_norm",
        lambda x, g, b, eps: (x - x.mean(-1, True)) * (x.var(-1, False, keepdim=True) + eps) ** -0.5 * g + b,
    ),
    ("layer_norm_backward", by_autograd),
    ("layer_norm_backward", by_matrix),
    ("jacobian_gain", largest_singular_value),
    ("jacobian_gain", lambda x: 1 / x.std(correction=0).item()),
    ("equivalent_branch_scale", lambda alpha: alpha**-1.0),
    ("equivalent_branch_scale", lambda alpha: np.float64(alpha) / alpha**2),
    ("rms_norm", lambda x, g, eps: functional.rms_norm(x, x.shape[-1:], g, eps)),
    ("rms_norm", lambda x, g, eps: g * x * torch.rsqrt((x * x).sum(-1, keepdim=True) / x.shape[-1] + eps)),
    ("skip_gradient_factor", lambda a, f: (1 + f / a**2) ** -0.5),
    ("skip_gradient_factor", lambda a, f: np.cos(np.arctan(np.sqrt(f) / a))),
]

WRONG = [
    ("layer_norm", lambda x, g, b, e: parts(x, 0)[0] / (x.var(-1, keepdim=True) + e).sqrt() * g + b, "sample variance"),
    ("layer_norm", lambda x, g, b, e: parts(x, 0)[0] / (1 / parts(x, 0)[1] + e) * g + b, "inside the square root"),
    ("layer_norm", lambda x, g, b, e: parts(x, 0)[0] * parts(x, 0)[1] * g + b, "ε is missing"),
    ("layer_norm", lambda x, g, b, e: parts(x, e)[0] * parts(x, e)[1] ** 2 * g + b, "not by the variance"),
    ("layer_norm", lambda x, g, b, e: two_pass(x.mT, 1, 0, e).mT * g + b, "not the tokens'"),
    (
        "layer_norm",
        lambda x, g, b, e: (x - x.mean()) / (x.var(correction=0) + e).sqrt() * g + b,
        "last dimension alone",
    ),
    ("layer_norm", lambda x, g, b, e: functional.rms_norm(x, x.shape[-1:], g, e) + b, "this is RMSNorm"),
    ("layer_norm", lambda x, g, b, e: x * parts(x, e)[1] * g + b, "not from its variance alone"),
    ("layer_norm", lambda x, g, b, e: (two_pass(x, 1, 0, e) + b) * g, "β comes last"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, 1, 0, e), "γ and β are missing"),
    ("layer_norm", in_place, "changed its input in place"),
    ("layer_norm_backward", backward(lambda g, w, c, i, m: i * g * w), "two directions"),
    ("layer_norm_backward", backward(lambda g, w, c, i, m: i * (g * w - m(g * w))), "the term with x̂ is missing"),
    ("layer_norm_backward", backward(lambda g, w, c, i, m: i * (g * w - c * i * m(g * w * c * i))), "the term mean(g)"),
    (
        "layer_norm_backward",
        backward(lambda g, w, c, i, m: i * (g - m(g) - c * i * m(g * c * i)) * w),
        "it comes first",
    ),
    ("layer_norm_backward", backward(lambda g, w, c, i, m: i * (g - m(g) - c * i * m(g * c * i))), "γ is missing"),
    (
        "layer_norm_backward",
        backward(lambda g, w, c, i, m: g * w - m(g * w) - c * i * m(g * w * c * i)),
        "divides gradients too",
    ),
    (
        "layer_norm_backward",
        backward(lambda g, w, c, i, m: i * (g * w - m(g * w) - c * i * (g * w * c * i).sum(-1, keepdim=True))),
        "x̂ has squared length d",
    ),
    (
        "layer_norm_backward",
        backward(lambda g, w, c, i, m: i * (g * w - m(g * w) + c * i * m(g * w * c * i))),
        "minus, not plus",
    ),
    ("layer_norm_backward", lambda g, x, w, e: by_autograd(g, x, w, e).sum((0, 1)), "nothing is summed"),
    ("jacobian_gain", lambda x: sqrt(len(x)) / x.norm(), "That is RMSNorm's gain"),
    ("jacobian_gain", lambda x: 1 / (x - x.mean()).norm(), "length √d, not 1"),
    ("jacobian_gain", lambda x: 1 / x.var(correction=0), "not 1/var"),
    ("jacobian_gain", lambda x: sqrt(len(x) - 2) / x.std(correction=0), "asked is the largest one"),
    ("jacobian_gain", lambda x: x.std(correction=0), "Upside down"),
    ("jacobian_gain", lambda x: 1 / x.std(), "correction=0"),
    ("equivalent_branch_scale", lambda a: a, "α² too strong"),
    ("equivalent_branch_scale", lambda a: a**-2, "One α"),
    ("equivalent_branch_scale", lambda a: 1.0, "α stands before x alone"),
    ("rms_norm", lambda x, g, e: functional.layer_norm(x, x.shape[-1:], g, None, e), "That is LayerNorm"),
    ("rms_norm", lambda x, g, e: x * parts(x, e)[1] * g, "not the standard deviation"),
    ("rms_norm", lambda x, g, e: x / (x.square().sum(-1, keepdim=True) + e).sqrt() * g, "not their sum"),
    ("rms_norm", lambda x, g, e: x / x.square().mean(-1, keepdim=True).sqrt() * g, "ε is missing"),
    ("rms_norm", lambda x, g, e: functional.rms_norm(x, x.shape[-1:], None, e), "γ is missing"),
    ("skip_gradient_factor", lambda a, f: a, "divides the gradient too"),
    ("skip_gradient_factor", lambda a, f: 1 / sqrt(a * a + f), "The skip multiplies by α"),
    ("skip_gradient_factor", lambda a, f: a * a / (a * a + f), "its root"),
    ("skip_gradient_factor", lambda a, f: a / (a + sqrt(f)), "not their standard deviations"),
    ("skip_gradient_factor", lambda a, f: a / sqrt(a + f), "scales its variance by α²"),
]
