"""Lesson 04: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


def _x(g: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(g.normal(0.7, 2, shape))


def _norm(g: np.random.Generator, d: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(d).double()
    norm.weight.data, norm.bias.data = _x(g, d), _x(g, d)
    return norm


def _branch(g: np.random.Generator, d: int) -> Callable[[Tensor], Tensor]:
    weight = _x(g, d, d)
    return lambda x: torch.tanh(x @ weight)


def see_sublayer(f: Callable, g: np.random.Generator) -> Any:
    return f(_x(g, 2, 3, 6), _branch(g, 6), _norm(g, 6)).detach()


def see_stack(f: Callable, g: np.random.Generator) -> Any:
    n = int(g.integers(1, 4))
    return f(_x(g, 2, 3, 6), [_branch(g, 6) for _ in range(n)], [_norm(g, 6) for _ in range(n)], _norm(g, 6)).detach()


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "pre_ln": see_sublayer,
    "post_ln": see_sublayer,
    "token_similarity": lambda f, g: f(_x(g, 2, int(g.integers(2, 5)), 6)),
    "split_gradient": lambda f, g: torch.cat([part.flatten() for part in f(_x(g, 2, 3, 6))]),
    "attention_gradient_factor": lambda f, g: f(int(g.integers(2, 40)), g.uniform(0, 1), bool(g.integers(2))),
    "pre_ln_stack": see_stack,
    "pre_ln_share": lambda f, g: f(int(g.integers(1, 100)), g.uniform(0.1, 2)),
}


def on_a_copy(x, f, norm):
    y = x.clone()
    y += f(norm(x))
    return y


def added_in_place(x, f, norm):
    x += f(norm(x))
    return x


def by_functional(x, f, norm):
    return functional.layer_norm(x + f(x), norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def unit(x: Tensor) -> Tensor:
    return functional.normalize(x, dim=-1)


def pairs(u: Tensor) -> Tensor:
    """Products of all pairs of different rows, summed: (B,)."""
    return u.sum(1).square().sum(-1) - u.square().sum((1, 2))


def number_of_pairs(x: Tensor) -> int:
    return x.shape[1] * (x.shape[1] - 1)


def mean_of_pairs(x: Tensor) -> Tensor:
    return (pairs(x) / number_of_pairs(x)).mean()


def by_mask(x):
    cosines = functional.cosine_similarity(x[:, :, None], x[:, None], dim=-1)
    different = ~torch.eye(x.shape[1], dtype=torch.bool)
    return cosines[:, different].mean().item()


def upper_triangle(x):
    i, j = torch.triu_indices(x.shape[1], x.shape[1], 1)
    return functional.cosine_similarity(x[:, i], x[:, j], dim=-1).mean()


def with_diagonal(x):
    return (unit(x) @ unit(x).mT).mean()


def by_einsum(g):
    T = g.shape[1]
    shared = torch.einsum("btd->bd", g).div(T).unsqueeze(1)
    return [shared, g.sub(shared)]


def by_matrix(g):
    T = g.shape[1]
    mean = torch.ones(T, T, dtype=g.dtype) / T
    return (mean @ g)[:, :1], g - mean @ g


def f_of(T: int, r: float) -> float:
    return r + (1 - r) / T


def by_pairs(T, r, shared=False):
    """Both averages from their T² pairs of tokens."""
    forward = (T + T * (T - 1) * r) / T**2
    backward = (T + T * (T - 1) * (1 if shared else 0)) / T**2
    return np.sqrt((1 + backward) / (1 + forward))


def as_tensor(T, r, shared=False):
    f = torch.tensor(T * r + 1 - r, dtype=torch.float64) / T
    return ((2.0 if shared else (T + 1) / T) / (1 + f)) ** 0.5


def rolled(step, end=lambda final, x: final(x), order=lambda pairs: pairs):
    def stack(x, branches, norms, final_norm):
        for f, norm in order(list(zip(branches, norms, strict=True))):
            x = step(x, f, norm)
        return end(final_norm, x)

    return stack


def pre(x, f, norm):
    return x + f(norm(x))


def recursive(x, branches, norms, final_norm):
    if not branches:
        return final_norm(x)
    return recursive(pre(x, branches[0], norms[0]), branches[1:], norms[1:], final_norm)


RIGHT = [
    ("pre_ln", on_a_copy),
    ("pre_ln", lambda x, f, norm: torch.add(f(norm(x)), x)),
    ("post_ln", by_functional),
    ("post_ln", lambda x, f, norm: norm.forward(f(x).add(x))),
    ("token_similarity", by_mask),
    ("token_similarity", upper_triangle),
    ("token_similarity", lambda x: mean_of_pairs(unit(x)).item()),
    ("split_gradient", by_einsum),
    ("split_gradient", by_matrix),
    ("attention_gradient_factor", by_pairs),
    ("attention_gradient_factor", as_tensor),
    ("pre_ln_stack", recursive),
    ("pre_ln_stack", rolled(lambda x, f, norm: torch.add(x, f(norm(x))))),
    ("pre_ln_share", lambda layer, c: 1 / (1 / c + layer)),
    ("pre_ln_share", lambda layer, c: np.float64(1) - (1 + c * (layer - 1)) / (1 + c * layer)),
]

WRONG = [
    ("pre_ln", lambda x, f, norm: norm(x) + f(norm(x)), "the skip must carry the raw x"),
    ("pre_ln", lambda x, f, norm: x + f(x), "must see a normalised input"),
    ("pre_ln", lambda x, f, norm: norm(x + f(x)), "That is Post-LN"),
    ("pre_ln", lambda x, f, norm: x + norm(f(x)), "stands before the branch"),
    ("pre_ln", lambda x, f, norm: norm(x + f(norm(x))), "nothing normalises Pre-LN's sum"),
    ("pre_ln", lambda x, f, norm: f(norm(x)), "The skip is missing"),
    ("pre_ln", lambda x, f, norm: norm(x) + f(x), "on the skip alone"),
    ("pre_ln", lambda x, f, norm: x + (f(norm(x)) + f(norm(x))) / 2, "Call the branch once"),
    ("pre_ln", added_in_place, "changed its input in place"),
    ("post_ln", lambda x, f, norm: x + norm(f(x)), "You normalised the branch. Post-LN normalises the sum."),
    ("post_ln", lambda x, f, norm: norm(x + norm(f(x))), "a different published rule"),
    ("post_ln", lambda x, f, norm: x + f(norm(x)), "That is Pre-LN"),
    ("post_ln", lambda x, f, norm: x + f(x), "The norm on the sum is missing"),
    ("post_ln", lambda x, f, norm: norm(x + f(norm(x))), "reads x as it is"),
    ("post_ln", lambda x, f, norm: norm(f(x)), "The skip is missing"),
    ("token_similarity", with_diagonal, "always similar to itself"),
    ("token_similarity", lambda x: mean_of_pairs(unit(x).flatten(0, 1)[None]), "tokens of one sequence"),
    ("token_similarity", lambda x: mean_of_pairs(unit(x).transpose(0, 1)), "tokens are the second dimension"),
    ("token_similarity", lambda x: mean_of_pairs(x), "Cosine has no length in it"),
    ("token_similarity", lambda x: mean_of_pairs(x) / x.shape[-1], "unless each token has length √d"),
    ("token_similarity", lambda x: mean_of_pairs(unit(x - x.mean(1, True))), "do not take the mean token away"),
    ("token_similarity", lambda x: mean_of_pairs(unit(x - x.mean(-1, True))), "That is a correlation"),
    ("token_similarity", lambda x: mean_of_pairs(functional.normalize(x, dim=1)), "the last dimension"),
    ("token_similarity", lambda x: pairs(unit(x)).mean() / x.shape[1] ** 2, "not T²"),
    ("token_similarity", lambda x: mean_of_pairs(unit(x)) / 2, "Each pair comes twice"),
    ("token_similarity", lambda x: pairs(unit(x)).mean(), "divide by the number of pairs"),
    (
        "token_similarity",
        lambda x: functional.cosine_similarity(x[:, 1:], x[:, :-1], dim=-1).mean(),
        "neighbours only",
    ),
    ("token_similarity", lambda x: mean_of_pairs(unit(x))[None], "one number"),
    ("split_gradient", lambda g: (g.mean(0, True), g - g.mean(0, True)), "not over the sequences"),
    ("split_gradient", lambda g: (g.mean(-1, True), g - g.mean(-1, True)), "not over features"),
    ("split_gradient", lambda g: (g.mean((0, 1), True), g - g.mean((0, 1), True)), "do not average over the batch"),
    ("split_gradient", lambda g: (g.sum(1, True), g - g.sum(1, True)), "not their sum"),
    ("split_gradient", lambda g: by_matrix(g)[::-1], "shared first, then private"),
    ("split_gradient", lambda g: (by_matrix(g)[0], g), "still in the private one"),
    ("split_gradient", lambda g: (by_matrix(g)[0], by_matrix(g)[0] - g), "The sign"),
    ("split_gradient", lambda g: (g.mean(1), g - g.mean(1, True)), "(B, 1, d)"),
    ("split_gradient", lambda g: g.mean(1, keepdim=True), "two tensors"),
    ("attention_gradient_factor", lambda T, r, shared=False: 1 / sqrt(2), "Only when tokens are alike"),
    ("attention_gradient_factor", lambda T, r, shared=False: 1.0, "does not simply come back"),
    ("attention_gradient_factor", lambda T, r, shared=False: sqrt(2 / 3), "Xiong et al."),
    ("attention_gradient_factor", lambda T, r, shared=False: as_tensor(T, r, not shared), "exchanged"),
    ("attention_gradient_factor", lambda T, r, shared=False: as_tensor(T, r, shared) ** 2, "a factor of length"),
    ("attention_gradient_factor", lambda T, r, shared=False: 1 / sqrt(1 + f_of(T, r)), "sends something back too"),
    (
        "attention_gradient_factor",
        lambda T, r, shared=False: sqrt((1 + (1 if shared else 1 / T)) / (1 + r)),
        "do not cancel to 0",
    ),
    (
        "attention_gradient_factor",
        lambda T, r, shared=False: sqrt((1 + (1 if shared else 1 / T)) / (1 + 1 / T)),
        "Correlated tokens do not cancel",
    ),
    (
        "attention_gradient_factor",
        lambda T, r, shared=False: (1 + (1 if shared else T**-0.5)) / (1 + sqrt(f_of(T, r))),
        "not their lengths",
    ),
    ("pre_ln_stack", rolled(pre, lambda final, x: x), "The final norm is missing"),
    ("pre_ln_stack", rolled(lambda x, f, norm: norm(x + f(x)), lambda final, x: x), "Post-LN sub-layers"),
    ("pre_ln_stack", rolled(lambda x, f, norm: norm(x + f(x))), "Post-LN sub-layers"),
    ("pre_ln_stack", rolled(lambda x, f, norm: x + f(x)), "must see a normalised input"),
    ("pre_ln_stack", rolled(pre, order=lambda pairs: pairs[::-1]), "From the bottom up"),
    ("pre_ln_stack", rolled(pre, order=lambda pairs: [(f, pairs[0][1]) for f, _ in pairs]), "a norm of its own"),
    (
        "pre_ln_stack",
        lambda x, fs, norms, final: rolled(lambda x, f, norm: final(pre(x, f, norm)), lambda _, x: x)(
            x, fs, norms, final
        ),
        "not one behind every sub-layer",
    ),
    (
        "pre_ln_stack",
        lambda x, fs, norms, final: final(x + sum(f(norm(x)) for f, norm in zip(fs, norms, strict=True))),
        "Each branch reads what the ones below",
    ),
    ("pre_ln_share", lambda layer, c: 1 / layer, "The input itself counts"),
    ("pre_ln_share", lambda layer, c: c / (1 + c * (layer - 1)), "holds its own part too"),
    ("pre_ln_share", lambda layer, c: 1 / (1 + layer), "for c = 1"),
    ("pre_ln_share", lambda layer, c: c * layer / (1 + c * layer), "the share of all layers"),
    ("pre_ln_share", lambda layer, c: sqrt(c / (1 + c * layer)), "without the root"),
]
