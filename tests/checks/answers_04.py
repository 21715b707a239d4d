"""Lesson 04: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

import functools
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
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


def with_gradients(y: Tensor, *leaves: Tensor) -> Tensor:
    """What a function returns, and what comes back through it."""
    back = torch.autograd.grad(y.square().sum(), leaves)
    return torch.cat([one.detach().flatten() for one in (y, *back)])


def see_sublayer(f: Callable, g: np.random.Generator) -> Any:
    x, norm = _x(g, 2, 3, 6).requires_grad_(), _norm(g, 6)
    return with_gradients(f(x, _branch(g, 6), norm), x, norm.weight)


def see_stack(f: Callable, g: np.random.Generator) -> Any:
    n = int(g.integers(0, 4))
    x, final = _x(g, 2, 3, 6).requires_grad_(), _norm(g, 6)
    return with_gradients(
        f(x, [_branch(g, 6) for _ in range(n)], [_norm(g, 6) for _ in range(n)], final), x, final.bias
    )


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "pre_ln": see_sublayer,
    "rule_of": lambda f, g: sorted(RULES).index(f(black_box(str(g.choice(sorted(RULES)))))),
    "token_similarity": lambda f, g: f(_x(g, 2, int(g.integers(2, 5)), 6)),
    "split_gradient": lambda f, g: torch.cat([part.flatten() for part in f(_x(g, 2, 3, 6))]),
    "attention_gradient_factor": lambda f, g: f(
        int(g.integers(1, 40)), g.choice([0, 1, g.uniform()]), bool(g.integers(2))
    ),
    "pre_ln_stack": see_stack,
    "pre_ln_share": lambda f, g: f(int(g.integers(1, 100)), g.uniform(0.1, 2)),
}


def pre(x, f, norm):
    return x + f(norm(x))


def on_a_copy(x, f, norm):
    y = x.clone()
    y += f(norm(x))
    return y


def added_in_place(x, f, norm):
    x += f(norm(x))
    return x


def on_what_the_branch_returned(x, f, norm):
    y = f(norm(x))
    y += x
    return y


def with_a_copy_for_the_skip(x, f, norm):
    residual = x.clone().detach()
    return residual + f(norm(x))


@torch.no_grad()
def under_no_grad(x, f, norm):
    return x + f(norm(x))


def with_a_fixed_norm(x, f, norm):
    norm.requires_grad_(False)
    return x + f(norm(x))


def with_a_stronger_norm(x, f, norm):
    norm.weight.data *= 2
    return x + f(norm(x)) / 2


def of_first_call(answer: Callable) -> Callable:
    """Keeps what it computed for a shape."""
    kept: dict[Any, Any] = {}

    def keeping(x, *rest):
        key = (*x.shape, x.dtype)
        if key not in kept:
            kept[key] = answer(x, *rest)
        return kept[key]

    return keeping


def own_norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:])


def by_stack(x, f, norm):
    return torch.stack([x, f(norm(x))]).sum(0)


def by_einsum_of_both(x, f, norm):
    return torch.einsum("kbtd,k->btd", torch.stack([x, f(norm(x))]), torch.ones(2, dtype=x.dtype))


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


def by_loops(x):
    found = []
    for sequence in x.tolist():
        rows = [np.array(row) for row in sequence]
        for i, a in enumerate(rows):
            found += [a @ b / np.sqrt(a @ a * (b @ b)) for b in rows[:i]]
    return sum(found) / len(found)


def by_numpy(x):
    rows = x.numpy() / np.linalg.norm(x.numpy(), axis=-1, keepdims=True)
    cosines = np.einsum("bid,bjd->bij", rows, rows)
    return cosines[:, ~np.eye(x.shape[1], dtype=bool)].mean()


def by_length_of_the_sum(x):
    T = x.shape[1]
    return float((unit(x.double()).sum(1).norm(dim=-1) ** 2 - T).mean() / (T * (T - 1)))


def with_an_epsilon(x):
    return mean_of_pairs(x / (x.norm(dim=-1, keepdim=True) + 1e-8))


def one_diagonal_for_all(x):
    u, T = unit(x), x.shape[1]
    return ((u @ u.mT).sum() - T) / (x.shape[0] * T * (T - 1))


def upper_triangle_with_diagonal(x):
    i, j = torch.triu_indices(x.shape[1], x.shape[1])
    return functional.cosine_similarity(x[:, i], x[:, j], dim=-1).mean()


def of_double_alone(x):
    off = 1 - torch.eye(x.shape[1], dtype=torch.float64)
    return ((unit(x) @ unit(x).mT) @ off).diagonal(dim1=1, dim2=2).sum(1).mean() / number_of_pairs(x)


def by_einsum(g):
    T = g.shape[1]
    shared = torch.einsum("btd->bd", g).div(T).unsqueeze(1)
    return [shared, g.sub(shared)]


def by_matrix(g):
    T = g.shape[1]
    mean = torch.ones(T, T, dtype=g.dtype) / T
    return (mean @ g)[:, :1], g - mean @ g


def by_loop_over_tokens(g):
    shared = torch.zeros_like(g[:, :1])
    for t in range(g.shape[1]):
        shared += g[:, t : t + 1] / g.shape[1]
    return shared, torch.cat([one - shared for one in g.split(1, 1)], 1)


def by_running_mean(g):
    shared = g[:, :1].clone()
    for t in range(1, g.shape[1]):
        shared = torch.lerp(shared, g[:, t : t + 1], 1 / (t + 1))
    return (shared, g - shared)


def subtracted_in_place(g):
    shared = g.mean(1, keepdim=True)
    g -= shared
    return shared, g


def in_double_alone(g):
    T = g.shape[1]
    mean = torch.full((T, T), 1 / T, dtype=torch.float64) @ g
    return mean[:, :1], g - mean


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


def by_parts(T, r, shared=False):
    """Of an independent gradient 1/T is shared, and keeps twice its square; the rest is private."""
    part = 1.0 if shared else 1 / T
    return ((2 * part + (1 - part)) / (1 + f_of(T, r))) ** 0.5


def by_matrices(T, r, shared=False):
    A, one = np.full((T, T), 1 / T), np.eye(T)
    up = np.trace(A @ (r + (1 - r) * one) @ A.T) / T
    back = np.trace(A.T @ (np.ones((T, T)) if shared else one) @ A) / T
    return np.sqrt((1 + back) / (1 + up))


def remembering(T, r, shared=False, asked={}):  # noqa: B006
    asked.setdefault(T, sqrt((1 + (1 if shared else 1 / T)) / (1 + f_of(T, r))))
    return asked[T]


def rolled(step, end=lambda final, x: final(x), order=lambda pairs: pairs):
    def stack(x, branches, norms, final_norm):
        for f, norm in order(list(zip(branches, norms, strict=True))):
            x = step(x, f, norm)
        return end(final_norm, x)

    return stack


def by_reduce(x, branches, norms, final_norm):
    return final_norm(functools.reduce(lambda x, k: x + branches[k](norms[k](x)), range(len(norms)), x))


def by_pop(x, branches, norms, final_norm):
    while branches:
        x = pre(x, branches.pop(0), norms.pop(0))
    return final_norm(x)


def on_own_copy(x, branches, norms, final_norm):
    x = x.clone()
    for k, f in enumerate(branches):
        x = x.add(f(norms[k](x)))
    return final_norm(x)


def at_least_one(x, branches, norms, final_norm):
    x = pre(x, branches[0], norms[0])
    for f, norm in zip(branches[1:], norms[1:], strict=True):
        x = pre(x, f, norm)
    return final_norm(x)


def step_by_step(layer, c):
    v = 1.0
    for _ in range(layer):
        before, v = v, v + c
    return 1 - before / v


def recursive(x, branches, norms, final_norm):
    if not branches:
        return final_norm(x)
    return recursive(pre(x, branches[0], norms[0]), branches[1:], norms[1:], final_norm)


RULES = {
    "post_ln": lambda x, f, norm: norm(x + f(x)),
    "pre_ln": lambda x, f, norm: x + f(norm(x)),
    "norm_on_branch": lambda x, f, norm: x + norm(f(x)),
}


def black_box(rule):
    return lambda x, f, norm: RULES[rule](x, f, norm)


def by_real_parts(sublayer):
    """A real norm; a branch of zeros, then one that triples."""
    x, norm = torch.arange(12.0).reshape(1, 3, 4) ** 2, functional.layer_norm
    ln = functools.partial(norm, normalized_shape=(4,))
    if not torch.equal(sublayer(x, torch.zeros_like, ln), x):
        return "post_ln"
    added = sublayer(x, lambda x: 3 * x, ln) - x
    return "pre_ln" if added.std() > 2 else "norm_on_branch"


def by_order_of_calls(sublayer):
    """What was called, and on what."""
    calls = []

    def f(x):
        calls.append("f")
        return x

    def norm(x):
        calls.append("norm")
        return 0 * x

    y = sublayer(torch.ones(2), f, norm)
    return "pre_ln" if calls == ["norm", "f"] else "norm_on_branch" if y.any() else "post_ln"


def by_comparison(sublayer):
    """Each rule written out, on the same random parts."""
    x, A = torch.randn(1, 3, 4), torch.randn(4, 4)
    f, norm = (lambda x: torch.tanh(x @ A)), (lambda x: functional.layer_norm(x, (4,)))
    return min(RULES, key=lambda rule: (RULES[rule](x, f, norm) - sublayer(x, f, norm)).abs().max())


def with_words(post="post_ln", pre="pre_ln", branch="norm_on_branch"):
    return lambda sublayer: {"post_ln": post, "pre_ln": pre, "norm_on_branch": branch}[by_real_parts(sublayer)]


def by_zeros(sublayer):
    x = torch.arange(4.0).reshape(1, 1, 4)
    return "pre_ln" if torch.equal(sublayer(x, torch.zeros_like, own_norm), x) else "post_ln"


def by_turns(kept, sublayer):
    kept.append(1)
    return list(RULES)[len(kept) % 3]


RIGHT = [
    ("pre_ln", on_a_copy),
    ("pre_ln", lambda x, f, norm: torch.add(f(norm(x)), x)),
    ("pre_ln", on_what_the_branch_returned),
    ("pre_ln", by_stack),
    ("pre_ln", by_einsum_of_both),
    ("pre_ln", lambda x, f, norm: sum([x, f(norm(x))])),
    ("rule_of", by_real_parts),
    ("rule_of", by_order_of_calls),
    ("rule_of", by_comparison),
    ("token_similarity", by_mask),
    ("token_similarity", by_loops),
    ("token_similarity", by_numpy),
    ("token_similarity", by_length_of_the_sum),
    ("token_similarity", with_an_epsilon),
    ("token_similarity", upper_triangle),
    ("token_similarity", lambda x: mean_of_pairs(unit(x)).item()),
    ("split_gradient", by_einsum),
    ("split_gradient", by_matrix),
    ("split_gradient", by_loop_over_tokens),
    ("split_gradient", by_running_mean),
    ("split_gradient", lambda g: (g.mean(-2, keepdim=True), g - g.mean(-2).unsqueeze(-2))),
    ("attention_gradient_factor", by_parts),
    ("attention_gradient_factor", by_matrices),
    ("attention_gradient_factor", by_pairs),
    ("attention_gradient_factor", as_tensor),
    ("pre_ln_stack", recursive),
    ("pre_ln_stack", rolled(lambda x, f, norm: torch.add(x, f(norm(x))))),
    ("pre_ln_stack", by_reduce),
    ("pre_ln_stack", on_own_copy),
    ("pre_ln_share", step_by_step),
    ("pre_ln_share", lambda layer, c: Fraction(c) / (1 + Fraction(c) * layer)),
    ("pre_ln_share", lambda layer, c: Decimal(c) / (1 + Decimal(c) * layer)),
    ("pre_ln_share", lambda layer, c: torch.tensor(c) / (1 + torch.tensor(c) * layer)),
    ("pre_ln_share", lambda layer, c: 1 / (1 / c + layer)),
    ("pre_ln_share", lambda layer, c: np.float64(1) - (1 + c * (layer - 1)) / (1 + c * layer)),
]

WRONG = [
    ("pre_ln", lambda x, f, norm: norm(x) + f(norm(x)), "the skip must carry the raw x"),
    ("pre_ln", lambda x, f, norm: x + f(x), "must see a normalised input"),
    ("pre_ln", lambda x, f, norm: norm(x + f(x)), "That is Post-LN"),
    ("pre_ln", lambda x, f, norm: x + norm(f(x)), "comes before the branch"),
    ("pre_ln", with_a_copy_for_the_skip, "gradient that comes back to x"),
    ("pre_ln", lambda x, f, norm: x.data + f(norm(x)), "gradient that comes back to x"),
    ("pre_ln", lambda x, f, norm: x + f(norm(x)).detach(), "gradient that comes back to"),
    ("pre_ln", lambda x, f, norm: x + f(norm(x).detach()), "gradient that comes back to x"),
    ("pre_ln", lambda x, f, norm: x + f(norm(x.detach())), "gradient that comes back to x"),
    ("pre_ln", under_no_grad, "No gradient passes"),
    ("pre_ln", with_a_fixed_norm, "changed a module"),
    ("pre_ln", with_a_stronger_norm, "changed a module"),
    ("pre_ln", of_first_call(pre), "The branch was not called"),
    ("pre_ln", lambda x, f, norm: x + f(own_norm(x)), "a norm of your own"),
    ("pre_ln", lambda x, f, norm: x - f(norm(x)), "added to the skip"),
    ("pre_ln", lambda x, f, norm: x + f(norm(x)) + 1e-3, "Where the branch adds nothing, the stream stays"),
    ("pre_ln", lambda x, f, norm: x + f.forward(norm(x)), "can only be called"),
    ("pre_ln", lambda x, f, norm: norm(x + f(norm(x))), "nothing normalises Pre-LN's sum"),
    ("pre_ln", lambda x, f, norm: f(norm(x)), "The skip is missing"),
    ("pre_ln", lambda x, f, norm: norm(x) + f(x), "on the skip alone"),
    ("pre_ln", lambda x, f, norm: x + (f(norm(x)) + f(norm(x))) / 2, "Call the branch once"),
    ("pre_ln", added_in_place, "changed its input in place"),
    ("rule_of", lambda sublayer: "pre_ln", "the same for all three"),
    ("rule_of", by_zeros, "a branch of zeros"),
    ("rule_of", with_words(pre="norm_on_branch", branch="pre_ln"), "are exchanged"),
    ("rule_of", with_words(post="pre_ln", pre="post_ln"), "Post-LN is not recognised"),
    ("rule_of", with_words(pre="post_ln"), "One rule is taken for another"),
    ("rule_of", functools.partial(by_turns, []), "different answers"),
    ("rule_of", with_words(branch="res_post"), "one of three words"),
    ("rule_of", lambda sublayer: sublayer, "one of three words"),
    ("token_similarity", one_diagonal_for_all, "Each of the B sequences has T pairs"),
    ("token_similarity", upper_triangle_with_diagonal, "always similar to itself"),
    ("token_similarity", lambda x: mean_of_pairs(unit(x[:1])), "the first sequence alone"),
    ("token_similarity", lambda x: (pairs(unit(x)) / number_of_pairs(x)).sum(), "not their sum"),
    ("token_similarity", lambda x: 2 * mean_of_pairs(unit(x)), "holds each pair twice"),
    ("token_similarity", lambda x: upper_triangle(x).abs(), "point in opposite directions"),
    ("token_similarity", lambda x: 1 - upper_triangle(x), "That is a distance"),
    ("token_similarity", lambda x: round(by_mask(x), 3), "something is rounded"),
    ("token_similarity", of_first_call(upper_triangle), "the value is wrong"),
    ("token_similarity", of_double_alone, "Your function raised RuntimeError"),
    ("token_similarity", with_diagonal, "always similar to itself"),
    ("token_similarity", lambda x: mean_of_pairs(unit(x).flatten(0, 1)[None]), "tokens of one sequence"),
    ("token_similarity", lambda x: mean_of_pairs(unit(x).transpose(0, 1)), "tokens are the second dimension"),
    ("token_similarity", lambda x: mean_of_pairs(x), "Cosine has no length in it"),
    ("token_similarity", lambda x: mean_of_pairs(x) / x.shape[-1], "unless each token has length √d"),
    ("token_similarity", lambda x: mean_of_pairs(unit(x - x.mean(1, True))), "do not subtract the mean token"),
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
    ("split_gradient", lambda g: (part for part in by_matrix(g)), "return it whole"),
    ("split_gradient", subtracted_in_place, "changed its input in place"),
    ("split_gradient", in_double_alone, "Your function raised RuntimeError"),
    ("split_gradient", lambda g: (g[:, :1], g - g[:, :1]), "The first token's gradient"),
    ("split_gradient", lambda g: (g.sum(1, True) / 5, g - g.sum(1, True) / 5), "sum to 0"),
    ("split_gradient", lambda g: (by_matrix(g)[0], g + by_matrix(g)[0]), "do not add it"),
    ("split_gradient", lambda g: (g.norm(dim=1, keepdim=True), by_matrix(g)[1]), "That is a length"),
    ("split_gradient", of_first_call(by_matrix), "Together both parts"),
    ("attention_gradient_factor", lambda T, r, shared=False: 1 / sqrt(2), "Only when tokens are equal"),
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
    ("attention_gradient_factor", lambda T, r, shared=False: as_tensor(T, r), "both kinds of gradient the same"),
    ("attention_gradient_factor", lambda T, r, shared=False: as_tensor(T, r, True), "both kinds of gradient the same"),
    ("attention_gradient_factor", lambda T, r, shared=False: 1 / by_pairs(T, r, shared), "Upside down"),
    ("attention_gradient_factor", lambda T, r, shared=False: by_pairs(T, r, shared) * sqrt(1 + f_of(T, r)), "divides"),
    ("attention_gradient_factor", remembering, "both kinds of gradient the same"),
    ("attention_gradient_factor", lambda T, r, shared=False: round(by_pairs(T, r, shared), 3), "something is rounded"),
    ("attention_gradient_factor", lambda T, r, shared: by_pairs(T, r, not shared), "exchanged"),
    (
        "attention_gradient_factor",
        lambda T, r, shared=False: sqrt((1 + (1 if shared else T**-2)) / (1 + f_of(T, r))),
        "is 1/T, not 1/T²",
    ),
    (
        "attention_gradient_factor",
        lambda T, r, shared=False: sqrt((1 if shared else 1 / T) / (1 + f_of(T, r))),
        "The skip sends the gradient back as well",
    ),
    ("pre_ln_stack", lambda x, *rest: recursive(x.detach(), *rest), "gradient that comes back to x"),
    ("pre_ln_stack", rolled(lambda x, f, norm: x.detach() + f(norm(x))), "gradient that comes back to"),
    ("pre_ln_stack", rolled(lambda x, f, norm: x + f(norm(x)).detach()), "gradient that comes back to"),
    ("pre_ln_stack", rolled(lambda x, f, norm: x + f(norm(x.detach()))), "gradient that comes back to"),
    ("pre_ln_stack", rolled(pre, lambda final, x: final(x.detach())), "gradient that comes back to"),
    ("pre_ln_stack", torch.no_grad()(recursive), "No gradient passes"),
    ("pre_ln_stack", of_first_call(recursive), "The branch was not called"),
    ("pre_ln_stack", by_pop, "changed its input in place"),
    ("pre_ln_stack", at_least_one, "IndexError"),
    ("pre_ln_stack", rolled(lambda x, f, norm: norm(x) + f(norm(x))), "The skip carries the raw stream"),
    ("pre_ln_stack", rolled(lambda x, f, norm: f(norm(x))), "The skips are missing"),
    ("pre_ln_stack", rolled(lambda x, f, norm: x + (f(norm(x)) + f(norm(x))) / 2), "Call the branch once"),
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
        "not one after every sub-layer",
    ),
    (
        "pre_ln_stack",
        lambda x, fs, norms, final: final(x + sum(f(norm(x)) for f, norm in zip(fs, norms, strict=True))),
        "Each branch reads what the ones below",
    ),
    ("pre_ln_share", lambda layer, c: 1 / layer, "The input itself counts"),
    ("pre_ln_share", lambda layer, c: c / (1 + c * (layer - 1)), "holds the layer's own part"),
    ("pre_ln_share", lambda layer, c: c / layer, "every layer adds c"),
    ("pre_ln_share", lambda layer, c: layer / (1 + c * layer), "whatever its number is"),
    ("pre_ln_share", lambda layer, c: 1 - c / (1 + c * layer), "what was there before"),
    ("pre_ln_share", lambda layer, c: (1 + c * (layer - 1)) / (1 + c * layer), "what was there before"),
    ("pre_ln_share", lambda layer, c: 1 / (1 + c * layer), "adds c, not 1"),
    ("pre_ln_share", lambda layer, c: c / (1 + c) ** layer * (1 + c) ** (layer - 1), "they do not multiply"),
    ("pre_ln_share", lambda layer, c: c / (1 + c * (layer + 1)), "counted from 1"),
    ("pre_ln_share", lambda layer, c: round(c / (1 + c * layer), 4), "something is rounded"),
    ("pre_ln_share", lambda layer, c: int(c) / (1 + int(c) * layer), "the value is wrong"),
    ("pre_ln_share", lambda layer, c: 1 / (1 + layer), "for c = 1"),
    ("pre_ln_share", lambda layer, c: c * layer / (1 + c * layer), "the share of all layers"),
    ("pre_ln_share", lambda layer, c: sqrt(c / (1 + c * layer)), "without the root"),
]
