"""Lesson 14: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from fractions import Fraction
from math import comb, erfc, sqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from deepnet_edu.checks.lesson_14 import CHANGES


def _see_patches(f: Callable, g: np.random.Generator) -> Any:
    B, C, rows, columns, s = (int(n) for n in g.integers(1, 4, 5))
    images = torch.tensor(g.normal(size=(B, C, rows * s, columns * s)), requires_grad=True)
    tokens = f(images, s)
    (back,) = torch.autograd.grad(tokens.pow(3).sum(), images)
    return torch.cat([tokens.detach().flatten(), back.flatten()]).numpy()


def _see_blind(f: Callable, g: np.random.Generator) -> Any:
    found = f(int(g.choice([1, 2, 4])), bool(g.integers(2)))
    return [name in found for name in CHANGES]


def _see_rollout(f: Callable, g: np.random.Generator) -> Any:
    L, T = int(g.integers(1, 6)), int(g.integers(1, 5))
    return np.asarray(f(g.dirichlet(np.ones(T), (L, T)), g.uniform(size=L))).ravel()


def _see_quality(f: Callable, g: np.random.Generator) -> Any:
    n = int(g.integers(1, 40))
    return [f(g.uniform(size=n) < 0.7, g.uniform(size=n) < 0.6)]


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "patches": _see_patches,
    "blind_to": _see_blind,
    "rollout": _see_rollout,
    "same_quality": _see_quality,
}


def unfolded(images, size):
    return F.unfold(images, size, stride=size).transpose(1, 2)


def by_loops(images, size):
    _, _, height, width = images.shape
    rows = []
    for y in range(0, height, size):
        for x in range(0, width, size):
            rows.append(images[:, :, y : y + size, x : x + size].reshape(len(images), -1))
    return torch.stack(rows, 1)


def by_windows(images, size):
    windows = images.unfold(2, size, size).unfold(3, size, size)  # (B, C, h, w, s, s)
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def grid(images, s, order, flip=False):
    B, C, H, W = images.shape
    sides = (W // s, s, H // s, s) if flip else (H // s, s, W // s, s)
    return images.reshape(B, C, *sides).permute(order).reshape(B, -1, C * s * s)


ALL = ["shuffle", "shuffle each", "shift by a patch"]
INSIDE = ["mirror", "transpose", "half turn", "shift by a pixel"]


def blind_by_list(size, positions):
    return [] if positions else ALL + INSIDE * (size == 1)


def blind_by_table(size, positions):
    table = {True: (), False: frozenset(ALL)}
    return table[bool(positions)] if positions or size > 1 else frozenset(CHANGES) - {"negative"}


def rolled(maps, skips):
    """As a product, the top layer first."""
    eye = np.eye(maps.shape[1])
    steps = [s * eye + (1 - s) * one for one, s in zip(maps, skips, strict=True)][::-1]
    return np.linalg.multi_dot(steps) if len(steps) > 1 else steps[0]


def rolled_down(maps, skips):
    """Row by row, from the top down."""
    rows = np.eye(maps.shape[1])
    for one, s in zip(maps[::-1], skips[::-1], strict=True):
        rows = s * rows + (1 - s) * rows @ one
    return rows


def rolled_by_torch(maps, skips):
    total = torch.eye(maps.shape[1], dtype=torch.float64)
    for one, s in zip(torch.as_tensor(np.array(maps)), np.asarray(skips), strict=True):
        total = total + (1 - s) * (one @ total - total)
    return total


def steps(maps, skips, step):
    total = np.eye(maps.shape[1])
    for one, s in zip(maps, skips, strict=True):
        total = step(total, one, s)
    return total


def counts(a, b):
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    return int((a & ~b).sum()), int((b & ~a).sum())


def quality(a, b, *, times=2, of=None, most=1.0, below=0):
    x, y = counts(a, b)
    n, k = of or x + y, min(x, y) - below
    return min(most, times * sum(comb(n, i) for i in range(k + 1)) / 2**n)


def quality_by_fractions(a, b):
    """One throw after another, exactly."""
    x, y = counts(a, b)
    heads = {0: Fraction(1)}
    for _ in range(x + y):
        for k, p in list(heads.items())[::-1]:
            heads[k + 1], heads[k] = heads.get(k + 1, 0) + p / 2, p / 2
    return float(sum(p for k, p in heads.items() if abs(2 * k - x - y) >= abs(x - y)))


def quality_by_the_middle(a, b):
    """What is left when the splits nearer to even than this one are taken out."""
    x, y = counts(a, b)
    n, k = x + y, min(x, y)
    return 1 - sum(comb(n, i) for i in range(k + 1, n - k)) / 2**n


def proportions(a, b, *, two=2):
    a, b = np.asarray(a, float), np.asarray(b, float)
    p = (a.mean() + b.mean()) / 2
    z = abs(a.mean() - b.mean()) / sqrt(max(2 * p * (1 - p) / len(a), 1e-12))
    return erfc(z / sqrt(2)) * two / 2


def chi_square(a, b, *, corrected=1):
    x, y = counts(a, b)
    return erfc(max(abs(x - y) - corrected, 0) / sqrt(max(x + y, 1)) / sqrt(2))


RIGHT = [
    ("patches", unfolded),
    ("patches", by_loops),
    ("patches", by_windows),
    ("blind_to", blind_by_list),
    ("blind_to", blind_by_table),
    ("rollout", rolled),
    ("rollout", rolled_down),
    ("rollout", rolled_by_torch),
    ("same_quality", quality_by_fractions),
    ("same_quality", quality_by_the_middle),
    ("same_quality", quality),
]

WRONG = [
    ("patches", lambda x, s: x.reshape(len(x), -1, x.shape[1] * s * s), "cuts the memory"),
    ("patches", lambda x, s: grid(x, s, (0, 2, 4, 3, 5, 1)), "channels come first"),
    ("patches", lambda x, s: grid(x, s, (0, 2, 4, 1, 5, 3)), "pixels go row by row"),
    ("patches", lambda x, s: grid(x, s, (0, 4, 2, 1, 3, 5)), "Patches go row by row"),
    ("patches", lambda x, s: grid(x, s, (0, 2, 4, 1, 3, 5), flip=True), "Height and width differ"),
    ("patches", lambda x, s: F.unfold(x, s, stride=s), "(B, n, C·size²)"),
    ("patches", lambda x, s: F.unfold(x, s, stride=s).reshape(len(x), -1, x.shape[1] * s * s), "they are exchanged"),
    ("patches", lambda x, s: unfolded(x, s).unflatten(2, (x.shape[1], -1)).mean(2), "(B, n, C·size²)"),
    ("patches", lambda x, s: unfolded(x, s).detach(), "No gradient passes"),
    ("blind_to", lambda size, positions: blind_by_list(size, False), "every token carries its position"),
    ("blind_to", lambda size, positions: [] if positions else [*ALL, "mirror"], "the pixels inside each patch move"),
    ("blind_to", lambda size, positions: [] if positions else [*ALL, "half turn"], "the pixels inside each patch move"),
    ("blind_to", lambda size, positions: [] if positions else ALL, "a patch of one pixel has no inside"),
    (
        "blind_to",
        lambda size, positions: [] if positions else ["shuffle", *ALL[2:]],
        "each image is classified by itself",
    ),
    ("blind_to", lambda size, positions: [] if positions else [*ALL, INSIDE[3]], "are then cut elsewhere"),
    ("blind_to", lambda size, positions: [] if positions else ALL[:2] + INSIDE * (size == 1), "moves whole patches"),
    (
        "blind_to",
        lambda size, positions: [*blind_by_list(size, positions), "negative"],
        "that changes the pixels themselves",
    ),
    ("blind_to", lambda size, positions: ["shuffled"], "There is no change called"),
    ("blind_to", lambda size, positions: not positions, "a set of names"),
    ("rollout", lambda A, s: steps(A, s, lambda t, a, w: w * t + (1 - w) * t @ a), "the rightmost factor"),
    ("rollout", lambda A, s: rolled(A, 0 * s + 0.5), "a share of its own"),
    ("rollout", lambda A, s: rolled(A, 0 * s + s.mean()), "a share of its own"),
    ("rollout", lambda A, s: rolled(A, 0 * s), "Most of a token stays"),
    ("rollout", lambda A, s: rolled(A, 1 - s), "attention has the rest"),
    ("rollout", lambda A, s: rolled(A, s[::-1]), "belongs to the lowest layer"),
    ("rollout", lambda A, s: rolled(A, s).T, "yours is transposed"),
    ("rollout", lambda A, s: rolled(A.transpose(0, 2, 1), s), "what token i looks at"),
    ("rollout", lambda A, s: steps(A, s, lambda t, a, w: w * t + a @ t), "so that rows sum to 1"),
    ("rollout", lambda A, s: rolled(A[-1:], s[-1:]), "the last layer alone"),
    ("rollout", lambda A, s: A.mean(0), "a mean of maps"),
    ("rollout", lambda A, s: rolled(A, s)[0], "one map: (T, T)"),
    ("same_quality", proportions, "only those on which they differ"),
    ("same_quality", lambda a, b: quality(a, b, times=1), "both tails count"),
    ("same_quality", lambda a, b: quality(a, b, of=len(a)), "not of all images"),
    ("same_quality", lambda a, b: quality(a, b, most=99), "the p-value is wrong"),
    ("same_quality", lambda a, b: quality(a, b, below=1), "belongs to its tail"),
    ("same_quality", chi_square, "approximation for large n"),
    ("same_quality", lambda a, b: chi_square(a, b, corrected=0), "approximation for large n"),
    ("same_quality", lambda a, b: 1 - quality(a, b), "one minus the p-value"),
    ("same_quality", lambda a, b: abs(np.mean(a) - np.mean(b)), "say nothing: they must not change it"),
]
