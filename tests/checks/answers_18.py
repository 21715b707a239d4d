"""Lesson 18: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from functools import reduce
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import torch
from torch import nn

from deepnet_edu.residual import RESIDUALS, Residual, places


def _see_matrix(f: Callable, g: np.random.Generator) -> Any:
    n = int(g.integers(0, 6))
    return f(g.uniform(0.5, 2, n), g.uniform(0.1, 2, n), bool(g.integers(2))).ravel()


def _see_gain(f: Callable, g: np.random.Generator) -> Any:
    count, n = int(g.integers(1, 6)), int(g.integers(1, 5))
    return [f(g.normal(size=(count, n, n)))]


def _see_rule(f: Callable, g: np.random.Generator) -> Any:
    layers, draw = int(g.integers(1, 5)), torch.Generator().manual_seed(int(g.integers(1000)))
    rules = [f(place, 4).double() for place in places("decoder", 0, layers)]
    x = torch.randn(2, 4, generator=draw, dtype=torch.float64)
    state = rules[0].start(x)
    for rule in rules:
        weight = torch.randn(4, 4, generator=draw, dtype=torch.float64)
        state = rule.write(state, (rule.read(state) @ weight).tanh())
    end = rules[-1].finish(state)
    names = [(rule, name) for rule in rules[::2] for name in ("skip", "first")]
    back = torch.autograd.grad(end.square().sum() + end.pow(3).sum(), [getattr(*one) for one in names])
    return torch.cat([end.detach().flatten(), *(one.flatten() for one in back)]).numpy()


def _see_best(f: Callable, g: np.random.Generator) -> Any:
    losses = g.normal(size=int(g.integers(1, 8))).round(1).tolist()
    return [f(losses, k) for k in range(1, len(losses) + 1)]


def _see_holm(f: Callable, g: np.random.Generator) -> Any:
    return list(f((g.uniform(size=int(g.integers(0, 8))) ** 2).round(2).tolist()))


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "mixing_matrix": _see_matrix,
    "amax_gain": _see_gain,
    "LambdaSkip": _see_rule,
    "expected_best": _see_best,
    "holm": _see_holm,
}


def mixed(skip, branch, norm, *, power=2, shift=0):
    """Row by row, some of it other than right."""
    n = len(skip)
    factors = np.abs(np.roll(skip, shift)) ** power
    rows = [np.eye(1, n + 1)[0]]
    for i in range(n):
        row = factors[i] * rows[-1]
        row[i + 1] = branch[i]
        rows.append(row / row.sum() if norm else row)
    parts = np.array(rows)
    return parts / parts.sum(1, keepdims=True)


def mixed_closed(skip, branch, norm):
    """In closed form, a column for each source: what it adds, and what each later sub-layer leaves of it."""
    a = np.concatenate(([1.0], np.asarray(skip, float)))
    f = np.concatenate(([1.0], np.asarray(branch, float)))
    total = np.where((np.arange(len(a)) > 0) & norm, a**2 + f, 1.0)
    out = np.zeros((len(a), len(a)))
    for i in range(len(a)):
        out[i:, i] = np.cumprod(np.concatenate(([f[i]], a[i + 1 :] ** 2)) / total[i:])
    return out / out.sum(1, keepdims=True)


def mixed_by_lists(skip, branch, norm):
    rows = [[1.0] + [0.0] * len(skip)]
    for i, (a, f) in enumerate(zip(skip, branch, strict=True), 1):
        row = [a * a * one for one in rows[-1]]
        row[i] = f
        total = sum(row) if norm else 1
        rows.append([one / total for one in row])
    totals = map(sum, rows)
    return [[one / total for one in row] for row, total in zip(rows, totals, strict=True)]


def mixed_raw(skip, branch, norm):
    right = mixed(skip, branch, norm)
    if norm:
        return right
    v = [1.0]
    for a, f in zip(skip, branch, strict=True):
        v.append(a * a * v[-1] + f)
    return right * np.array(v)[:, None]


def gain(mixers, *, sizes=np.abs, backwards=False, of=None):
    total = np.eye(mixers.shape[1])
    for one in mixers:
        total = total @ one if backwards else one @ total
    if of is not None:
        return of(total)
    return max(sizes(total).sum(0).max(), sizes(total).sum(1).max())


def gain_by_norms(mixers):
    total = reduce(np.matmul, mixers[::-1])
    return max(np.linalg.norm(total, 1), np.linalg.norm(total, np.inf))


def gain_by_torch(mixers):
    total = torch.as_tensor(mixers[0])
    for one in mixers[1:]:
        total = torch.as_tensor(one) @ total
    return max(torch.linalg.matrix_norm(total, order) for order in (1, float("inf")))


class OnPreLN(RESIDUALS["pre_ln"]):
    """On top of the library's Pre-LN."""

    title = "mine"

    def __init__(self, place, d_model):
        super().__init__(place, d_model)
        t = place.layer / max(1, place.n_layers - 1)
        if place.sublayer == "self_attention":
            self.skip = nn.Parameter(torch.full((1,), 1.15 - 0.10 * t))
            self.first = nn.Parameter(torch.full((1,), 0.20 - 0.15 * t))

    def start(self, x):
        return (x, x)

    def mix(self, state):
        x, first = state
        return x if self.place.sublayer != "self_attention" else torch.addcmul(self.first * first, self.skip, x)

    def read(self, state):
        return super().read((self.mix(state),))

    def write(self, state, branch):
        return (self.mix(state) + branch, state[1])


class Mixing(Residual):
    """Written out; its variants change a part."""

    title = "mine"
    late = False

    def __init__(self, place, d_model):
        super().__init__(place, d_model)
        self.norm = self.norm_layer()
        self.final_norm = self.norm_layer() if place.is_last else None
        self.attention = place.sublayer == "self_attention"
        self.t = (place.layer + 1) / place.n_layers if self.late else place.layer / max(place.n_layers - 1, 1)
        self.skip, self.first = (nn.Parameter(torch.tensor(one)) for one in self.numbers())

    def numbers(self):
        return 1.15 - 0.10 * self.t, 0.20 - 0.15 * self.t

    def start(self, x):
        return x, x

    def read(self, state):
        x, x0 = state
        return self.norm(self.skip * x + self.first * x0) if self.attention else self.norm(x)

    def write(self, state, branch):
        x, x0 = state
        return (self.skip * x + self.first * x0 + branch, x0) if self.attention else (x + branch, x0)

    def finish(self, state):
        return self.final_norm(state[0])


class Unmixed(Mixing):
    def read(self, state):
        return self.norm(state[0])


class OnlyRead(Mixing):
    def write(self, state, branch):
        return state[0] + branch, state[1]


class Everywhere(Mixing):
    def __init__(self, place, d_model):
        super().__init__(place, d_model)
        self.attention = True


class Behind(Mixing):
    def read(self, state):
        return self.norm(state[0])

    def write(self, state, branch):
        x, x0 = state
        x = x + branch
        return (self.skip * x + self.first * x0 if self.attention else x), x0


class Losing(Mixing):
    def write(self, state, branch):
        x, x0 = state
        return (self.skip * x + self.first * x0 + branch, x) if self.attention else (x + branch, x0)


class Late(Mixing):
    late = True


class Same(Mixing):
    def numbers(self):
        return 1.15, 0.20


class Swapped(Mixing):
    def numbers(self):
        return super().numbers()[::-1]


class Plain(Mixing):
    def __init__(self, place, d_model):
        super().__init__(place, d_model)
        del self.skip, self.first
        self.skip, self.first = self.numbers()


class Unended(Mixing):
    def finish(self, state):
        return state[0]


class NoEnd(Mixing):
    def __init__(self, place, d_model):
        super().__init__(place, d_model)
        self.final_norm = None

    def finish(self, state):
        return state[0]


class OneNorm(Mixing):
    def __init__(self, place, d_model):
        super().__init__(place, d_model)
        self.final_norm = self.norm


class Cut(Mixing):
    def read(self, state):
        x, x0 = state
        return self.norm(self.skip.detach() * x + self.first.detach() * x0) if self.attention else self.norm(x)


class Unreturned(Mixing):
    def write(self, state, branch):
        super().write(state, branch)


class InPlace(Mixing):
    def start(self, x):
        return x.mul_(2).div_(1.5), x


class AlwaysLayerNorm(Mixing):
    def __init__(self, place, d_model):
        super().__init__(place, d_model)
        self.norm = nn.LayerNorm(d_model)


class Frozen(Mixing):
    """Holds the numbers of the start, whatever is learned."""

    def read(self, state):
        x, x0 = state
        skip, first = self.numbers()
        y = (skip + 0 * self.skip) * x + (first + 0 * self.first) * x0
        return self.norm(y) if self.attention else self.norm(x)


def best_by_subsets(losses, k):
    return float(np.mean([min(some) for some in combinations(losses, k)]))


def best_by_shares(losses, k):
    """Each loss times the chance that it is the least."""
    x, n, left, total = np.sort(losses), len(losses), 1.0, 0.0
    for i, one in enumerate(x):
        chance = min(1.0, k / (n - i)) * left
        total, left = total + chance * one, left - chance
    return total


def best_by_tails(losses, k):
    x, n = np.sort(losses), len(losses)
    at_least = [comb(n - i, k) / comb(n, k) for i in range(n)]
    return x[0] + sum((x[i] - x[i - 1]) * at_least[i] for i in range(1, n))


def best_twice(losses, k):
    x, n = np.sort(losses), len(losses)
    return sum(x[i] * (((n - i) / n) ** k - ((n - i - 1) / n) ** k) for i in range(n))


def sorting_in_place(losses, k):
    losses.sort()
    return best_by_subsets(losses, k)


def stepped(p, *, factor=lambda m, rank: m - rank, running=True, most=1.0):
    m, largest, out = len(p), 0.0, [0.0] * len(p)
    for rank, i in enumerate(np.argsort(p, kind="stable")):
        one = min(most, factor(m, rank) * p[i])
        largest = max(largest, one)
        out[i] = float(largest if running else one)
    return out


def by_closed_testing(p):
    sets = [s for size in range(1, len(p) + 1) for s in combinations(range(len(p)), size)]
    return [max(min(1, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(len(p))]


def by_numpy(p):
    p = np.asarray(p, float)
    order = np.argsort(p)
    adjusted = np.minimum(1, np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]))
    back = np.empty(len(p))
    back[order] = adjusted
    return back


def by_comparing(p):
    """The largest, over all smaller ones, of that times how many are not smaller still."""
    m = len(p)
    return [min(1.0, max((m - sum(b < a for b in p)) * a for a in p if a <= one)) for one in p]


def benjamini(p):
    m, order = len(p), np.argsort(p)
    out, least = np.ones(m), 1.0
    for rank in range(m - 1, -1, -1):
        least = min(least, m / (rank + 1) * p[order[rank]])
        out[order[rank]] = least
    return out.tolist()


RIGHT = [
    ("mixing_matrix", mixed),
    ("mixing_matrix", mixed_closed),
    ("mixing_matrix", mixed_by_lists),
    ("mixing_matrix", lambda a, f, norm: torch.tensor(mixed(a, f, norm))),
    ("amax_gain", gain_by_norms),
    ("amax_gain", gain_by_torch),
    ("amax_gain", gain),
    ("LambdaSkip", OnPreLN),
    ("LambdaSkip", Mixing),
    ("LambdaSkip", lambda place, d: Mixing(place, d)),
    ("expected_best", best_by_subsets),
    ("expected_best", best_by_shares),
    ("expected_best", best_by_tails),
    ("expected_best", lambda losses, k: np.float32(best_by_subsets(losses, k))),
    ("holm", stepped),
    ("holm", by_closed_testing),
    ("holm", by_numpy),
    ("holm", by_comparing),
]

WRONG = [
    ("mixing_matrix", lambda a, f, norm: mixed(a, f, norm, power=1), "scales the variance by a²"),
    ("mixing_matrix", lambda a, f, norm: mixed(a, f, False), "each branch meets the same stream"),
    ("mixing_matrix", lambda a, f, norm: mixed(a, f, True), "later branches count less"),
    ("mixing_matrix", mixed_raw, "Divide each row by its sum"),
    ("mixing_matrix", lambda a, f, norm: mixed(a, f**2, norm), "given as variances already"),
    ("mixing_matrix", lambda a, f, norm: np.sqrt(mixed(a, f, norm)), "not their roots"),
    ("mixing_matrix", lambda a, f, norm: mixed(a, f, norm).T, "yours is transposed"),
    ("mixing_matrix", lambda a, f, norm: mixed(a, f, norm)[:, 1:], "(n + 1, n + 1)"),
    ("mixing_matrix", lambda a, f, norm: mixed(a, f, norm)[1:, 1:], "(n + 1, n + 1)"),
    ("mixing_matrix", lambda a, f, norm: mixed(a[::-1], f[::-1], norm), "belongs to the lowest sub-layer"),
    ("mixing_matrix", lambda a, f, norm: mixed(np.append(1.0, a[:-1]), f, norm), "takes the skip of its own sub-layer"),
    ("mixing_matrix", lambda a, f, norm: mixed(a, f, norm, shift=-1), "some share is wrong"),
    ("mixing_matrix", lambda a, f, norm: mixed(a, f, norm)[-1], "(n + 1, n + 1)"),
    ("amax_gain", lambda m: gain(m, backwards=True), "is on the right"),
    ("amax_gain", lambda m: max(gain(m[i : i + 1]) for i in range(len(m))), "largest single mixer"),
    ("amax_gain", lambda m: np.prod([gain(m[i : i + 1]) for i in range(len(m))]), "product of gains is a bound"),
    ("amax_gain", lambda m: gain(m, of=lambda t: np.abs(t).sum(1).max()), "Rows alone"),
    ("amax_gain", lambda m: gain(m, of=lambda t: np.abs(t).sum(0).max()), "Columns alone"),
    ("amax_gain", lambda m: gain(m, sizes=lambda t: t), "Sum absolute values"),
    ("amax_gain", lambda m: gain(m, of=lambda t: np.abs(t).max()), "the largest entry"),
    ("amax_gain", lambda m: gain(m, of=lambda t: np.linalg.norm(t, 2)), "the spectral norm"),
    ("amax_gain", lambda m: gain(m, of=lambda t: np.abs(t).sum(1)), "one number"),
    ("LambdaSkip", Unmixed, "must see the mixed stream"),
    ("LambdaSkip", OnlyRead, "The stream itself must be mixed"),
    ("LambdaSkip", Everywhere, "not at each sub-layer"),
    ("LambdaSkip", Behind, "not after it"),
    ("LambdaSkip", Losing, "x₀ must pass unchanged"),
    ("LambdaSkip", Late, "Both ends are included"),
    ("LambdaSkip", Same, "differ from layer to layer"),
    ("LambdaSkip", Swapped, "first to the stack's input"),
    ("LambdaSkip", Plain, "make it an nn.Parameter"),
    ("LambdaSkip", Unended, "The norm at the end is missing"),
    ("LambdaSkip", NoEnd, "the norm at the end is missing"),
    ("LambdaSkip", OneNorm, "a norm of its own"),
    ("LambdaSkip", Cut, "The gradient that comes back to"),
    ("LambdaSkip", Unreturned, "write returns nothing"),
    ("LambdaSkip", InPlace, "in place"),
    ("LambdaSkip", AlwaysLayerNorm, "by self.norm_layer()"),
    ("LambdaSkip", Frozen, "The gradient that comes back to"),
    ("LambdaSkip", lambda place, d: nn.LayerNorm(d), "A rule is a class"),
    ("expected_best", lambda losses, k: min(losses), "That is the least of all tries"),
    ("expected_best", lambda losses, k: min(losses[:k]), "The least of the first k"),
    ("expected_best", best_twice, "may come twice"),
    ("expected_best", lambda losses, k: -best_by_subsets([-x for x in losses], k), "lower is better"),
    ("expected_best", lambda losses, k: np.mean(sorted(losses)[:k]), "the mean of the k best"),
    ("expected_best", lambda losses, k: np.mean(losses), "the mean of all tries"),
    ("expected_best", lambda losses, k: np.median(losses), "the median of all tries"),
    ("expected_best", sorting_in_place, "changed its input in place"),
    ("holm", lambda p: [min(1, len(p) * one) for one in p], "Bonferroni's"),
    ("holm", lambda p: [len(p) * one for one in p], "Bonferroni's, and above 1"),
    ("holm", benjamini, "bounds the share of false claims"),
    ("holm", lambda p: stepped(p, running=False), "not below that of a smaller p"),
    ("holm", lambda p: stepped(p, most=99), "A probability is at most 1."),
    ("holm", lambda p: sorted(stepped(p)), "In the order given"),
    ("holm", lambda p: list(p), "one is below .05"),
    ("holm", lambda p: stepped(p, factor=lambda m, rank: rank + 1), "The smallest has the largest factor"),
    ("holm", lambda p: stepped(sorted(p)), "In the order given"),
    ("holm", lambda p: stepped(p, factor=lambda m, rank: m - rank - 1), "Some adjusted value"),
]
