"""Lesson 14, vision: an image as tokens, what a model without positions cannot see, rollout, a paired test."""

from collections.abc import Iterable, Mapping
from itertools import product
from math import erfc, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.numbers import apart
from deepnet_edu.checks.trial import PROPERTY, TYPE, Array
from deepnet_edu.checks.values import as_array, close, describe

#: Images, channels, height, width, side of a patch. The first ones are those in which wrong ways of cutting differ.
_IMAGES = [(2, 3, 6, 9, 3), (3, 2, 8, 4, 2), (1, 3, 4, 6, 2)]
_EDGES = [(2, 1, 4, 4, 2), (1, 2, 3, 5, 1), (1, 1, 5, 5, 5), (3, 2, 2, 8, 2)]


def patches(trial: Trial) -> None:
    """Reshape to (B, C, H//s, s, W//s, s); put both numbers of patches in front, then the channel, then the pixels of a
    patch, (0, 2, 4, 1, 3, 5); and reshape to (B, n, C*s*s).
    """
    draw = torch.Generator().manual_seed(0)
    for B, C, H, W, s in (*_IMAGES, *_EDGES):
        images = torch.randn(B, C, H, W, generator=draw, dtype=torch.float64)
        got = trial.call(images, s)
        shape = "A patch is a token, and its pixels in all channels are its features: (B, n, C·size²)."
        wrong = apart(_wrong_patches(images, s)) if (B, C, H, W, s) in _IMAGES else []
        said = "Some pixel is in the wrong patch, or at the wrong place in it."
        trial.equal(got, _cut(images, s), wrong, said, shape_sentence=shape)
    weight = torch.randn(5, 2, 3, 3, generator=draw, dtype=torch.float64)
    images = torch.randn(2, 2, 6, 9, generator=draw, dtype=torch.float64)
    tokens = as_array(trial.call(images, 3) @ weight.flatten(1).T)
    same = torch.nn.functional.conv2d(images, weight, stride=3).flatten(2).transpose(1, 2)
    said = "A linear map of patches is a convolution that steps from patch to patch: here both differ."
    trial.require(close(tokens, as_array(same), 1e-4), said)
    leaf = images.clone().requires_grad_()
    trial.gradients(lambda: trial.call(leaf, 3), lambda: _cut(leaf, 3), {"images": leaf})


def _cut(images: Tensor, s: int) -> Tensor:
    """Square by square, row by row."""
    _, _, H, W = images.shape
    corners = product(range(0, H, s), range(0, W, s))
    return torch.stack([images[:, :, y : y + s, x : x + s].flatten(1) for y, x in corners], dim=1)


def _wrong_patches(images: Tensor, s: int) -> list[Misconception]:
    B, C, H, W = images.shape
    n, right = H // s * (W // s), _cut(images, s)
    grid = images.reshape(B, C, H // s, s, W // s, s)
    last = right.unflatten(2, (C, s * s)).transpose(2, 3).flatten(2)
    turned = right.unflatten(2, (C, s, s)).transpose(3, 4).flatten(2)
    columns = right.unflatten(1, (H // s, W // s)).transpose(1, 2).flatten(1, 2)
    memory = "That cuts the memory, row after row of pixels, and not the image."
    other = "Height and width differ, and so do the numbers of patches along them."
    pixels = "A patch is a token and its pixels are its features: they are exchanged here."
    return [
        Misconception(images.reshape(B, n, C * s * s), memory),
        Misconception(grid.permute(0, 2, 4, 1, 5, 3).reshape(B, n, -1), "Within a patch, pixels go row by row."),
        Misconception(turned, "Within a patch, pixels go row by row."),
        Misconception(grid.permute(0, 4, 2, 1, 3, 5).reshape(B, n, -1), "Patches go row by row, as one reads."),
        Misconception(columns, "Patches go row by row, as one reads."),
        Misconception(last, "Within a patch channels come first, as in a convolution's weight."),
        Misconception(images.reshape(B, C, W // s, s, H // s, s).permute(0, 2, 4, 1, 3, 5).reshape(B, n, -1), other),
        Misconception(right.transpose(1, 2).reshape(B, n, -1), pixels),
    ]


#: What may be done to images, in the words of the exercise.
CHANGES = (
    "shuffle",
    "shuffle each",
    "shift by a patch",
    "shift by a pixel",
    "mirror",
    "transpose",
    "half turn",
    "negative",
)
_INSIDE = ("mirror", "transpose", "half turn")


def blind_to(trial: Trial) -> None:
    """With positions: the empty set. Without: shuffle, shuffle each and shift by a patch, which move whole patches;
    with patches of one pixel also mirror, transpose, half turn and shift by a pixel.
    """
    for size, positions in ((2, False), (2, True), (1, False), (4, False), (1, True), (4, True)):
        got = _names(trial, trial.call(size, positions))
        right = {name for name in CHANGES if _unseen(name, size, positions)}
        for name in CHANGES:
            holds = (name in got) == (name in right)
            trial.require(holds, _why(name, size, positions, name in got), str(sorted(right)), str(sorted(got)))


def _names(trial: Trial, got: Any) -> set[str]:
    held = isinstance(got, Iterable) and not isinstance(got, str | Tensor | Mapping | np.ndarray)
    trial.require(held, "The answer is a set of names.", got=describe(got), rung=TYPE)
    names = set(got)
    others = [name for name in names if name not in CHANGES]
    trial.require(not others, f"There is no change called {describe(others[:1])}: see the list.", rung=TYPE)
    return names


def _unseen(name: str, size: int, positions: bool) -> bool:
    """Whether a random image is the same sequence of patches afterwards; without positions, the same patches."""
    draw = np.random.default_rng(size)
    image = draw.normal(size=(8, 8))
    changed = _changed(image, name, size, draw)
    before, after = (_cut(torch.tensor(one)[None, None], size)[0].numpy() for one in (image, changed))
    if not positions:
        before, after = (np.array(sorted(map(tuple, one))) for one in (before, after))
    return bool(np.array_equal(before, after))


def _changed(image: Array, name: str, size: int, draw: np.random.Generator) -> Array:
    if name.startswith("shuffle"):
        n = 8 // size
        grid = image.reshape(n, size, n, size).transpose(0, 2, 1, 3).reshape(n * n, size, size)
        mixed = grid[draw.permutation(n * n)].reshape(n, n, size, size).transpose(0, 2, 1, 3)
        return np.asarray(mixed.reshape(8, 8))
    ways: dict[str, Array] = {
        "shift by a patch": np.roll(image, size, 1),
        "shift by a pixel": np.roll(image, 1, 1),
        "mirror": image[:, ::-1],
        "transpose": image.T,
        "half turn": image[::-1, ::-1],
        "negative": -image,
    }
    return np.ascontiguousarray(ways[name])


def _why(name: str, size: int, positions: bool, named: bool) -> str:
    if name == "negative":
        return '"negative": that changes the pixels themselves.'
    if positions:
        return f'"{name}": every token carries its position, so a moved patch is a different token.'
    if named and name in _INSIDE:
        return f'"{name}": the pixels inside each patch move too, and a patch knows where its pixels are.'
    if named:
        return f'"{name}": patches of {size} × {size} pixels are then cut elsewhere, and hold other pixels.'
    if size == 1 and name not in ("shuffle", "shuffle each", "shift by a patch"):
        return f'"{name}": a patch of one pixel has no inside, so this only moves whole patches.'
    if name == "shuffle each":
        return '"shuffle each": each image is classified by itself, so the order in another image does not matter.'
    return f'"{name}": this moves whole patches, and attention and a mean know no order.'


def rollout(trial: Trial) -> None:
    """Begin with the identity, and for each layer from the bottom up: total = s * total + (1 - s) * A @ total."""
    for L, T in ((3, 4), (2, 3), (4, 2), (5, 3), (1, 3), (3, 1)):
        draw = np.random.default_rng([L, T])
        maps, skips = draw.dirichlet(np.full(T, 0.5), (L, T)), draw.uniform(0.2, 0.9, L)
        got = trial.call(maps, skips)
        wrong = apart(_wrong_rollouts(maps, skips)) if L > 1 and T > 1 else []
        said = "For these maps and shares some entry is wrong."
        trial.equal(got, _by_paths(maps, skips), wrong, said, shape_sentence="The answer is one map: (T, T).")
    draw = np.random.default_rng(0)
    maps = draw.dirichlet(np.ones(3), (4, 3))
    still = as_array(trial.call(maps, np.ones(4)))
    trial.require(close(still, np.eye(3), 1e-3), "Where the skip is all of the sum, a token comes from itself alone.")
    alone = as_array(trial.call(maps[:1], np.zeros(1)))
    trial.require(close(alone, maps[0], 1e-3), "One layer without a skip: its attention is the whole answer.")
    rows = as_array(trial.call(maps, np.array([0.3, 0.9, 0.5, 0.7]))).sum(1)
    trial.require(close(rows, np.ones(3), 1e-3), "Rows sum to 1: each says where all of a token comes from.")


def _by_paths(maps: Array, skips: Array, back: bool = False) -> Array:
    """A token's way down goes, in each layer, by the skip or through attention: the sum over all 2^L ways."""
    T, order = maps.shape[1], list(range(len(maps)))
    total = np.zeros((T, T))
    for way in product((True, False), repeat=len(maps)):
        one = np.eye(T)
        for i in order if back else order[::-1]:
            one = one @ (skips[i] * np.eye(T) if way[i] else (1 - skips[i]) * maps[i])
        total += one
    return total


def _wrong_rollouts(maps: Array, skips: Array) -> list[Misconception]:
    L, T = maps.shape[:2]
    right, eye = _by_paths(maps, skips), np.eye(T)
    half = "That is for a skip that weighs as much as attention: each layer has a share of its own."
    bare = "Most of a token stays where it is, by the skip."
    raw = eye
    for one, s in zip(maps, skips, strict=True):
        raw = (s * eye + one) @ raw
    normed = raw / raw.sum(1, keepdims=True)
    weigh = "Attention has what the skip leaves, so that rows sum to 1."
    return [
        Misconception(_by_paths(maps, skips, back=True), "The first layer acts first: it is the rightmost factor."),
        Misconception(_by_paths(maps, np.full(L, 0.5)), half),
        Misconception(_by_paths(maps, np.full(L, skips.mean())), half),
        Misconception(_by_paths(maps, 0 * skips), bare),
        Misconception(_by_paths(maps, 1 - skips), "The share is the skip's, and attention has the rest."),
        Misconception(_by_paths(maps, skips[::-1]), "The first share belongs to the lowest layer."),
        Misconception(right.T, "Row i says where token i comes from: yours is transposed."),
        Misconception(_by_paths(maps.transpose(0, 2, 1), skips), "Row i of a map says what token i looks at."),
        Misconception(raw, weigh),
        Misconception(normed, weigh),
        Misconception(skips[-1] * eye + (1 - skips[-1]) * maps[-1], "That is the last layer alone."),
        Misconception(maps.mean(0), "That is a mean of maps: a layer looks at what the layers below it have mixed."),
    ]


#: Only the first right, only the second, both, none.
_COUNTS = [(2, 9, 349, 0), (12, 30, 300, 18), (7, 3, 40, 5), (6, 21, 80, 9)]
_FEW = [
    (0, 6, 30, 4),
    (0, 5, 17, 0),
    (0, 0, 10, 3),
    (5, 5, 20, 2),
    (1, 0, 0, 0),
    (0, 1, 9, 0),
    (3, 4, 0, 0),
    (8, 0, 0, 1),
]


def same_quality(trial: Trial) -> None:
    """Count the images on which exactly one is right, n of them, and the smaller side, k. Double the probability of at
    most k heads in n throws of a fair coin, at most 1.
    """
    for counts in (*_COUNTS, *_FEW):
        a, b = _rights(*counts)
        wrong = apart(_wrong_tests(*counts)) if counts in _COUNTS else []
        said = f"With {counts[0]} and {counts[1]} images that one of them alone gets right, the p-value is wrong."
        trial.equal(trial.call(a, b), _two_sided(counts[0], counts[1]), wrong, said)
    a, b = _rights(4, 11, 60, 3)
    trial.equal(trial.call(a, ~b), _two_sided(60, 3), sentence="Against another b the p-value is wrong.")
    one, other = float(trial.call(a, b)), float(trial.call(b, a))
    trial.require(abs(one - other) < 1e-4, "Nothing may depend on which of the two comes first.")
    more = float(trial.call(*_rights(4, 11, 600, 300)))
    said = "Images on which both are right, or both wrong, say nothing: they must not change it."
    trial.require(abs(one - more) < 1e-4, said, f"{one:.4g}", f"{more:.4g}", PROPERTY)


def _rights(only_a: int, only_b: int, both: int, none: int) -> tuple[Array, Array]:
    a = np.repeat([True, False, True, False], [only_a, only_b, both, none])
    b = np.repeat([False, True, True, False], [only_a, only_b, both, none])
    order = np.random.default_rng(len(a)).permutation(len(a))
    return a[order], b[order]


def _coin(n: int) -> Array:
    """Probability of each number of heads in n throws."""
    p = np.ones(1)
    for _ in range(n):
        p = np.convolve(p, [0.5, 0.5])
    return p


def _two_sided(a: int, b: int) -> float:
    """All splits that are at most as likely as the one that was seen."""
    p = _coin(a + b)
    return float(min(1.0, p[p <= p[a] * (1 + 1e-9)].sum()))


def _wrong_tests(a: int, b: int, both: int, none: int) -> list[Misconception]:
    total, n, k = a + b + both + none, a + b, min(a, b)
    p, every = _coin(n), _coin(total)
    pooled = (a + b + 2 * both) / (2 * total)
    z = abs(a - b) / total / sqrt(2 * pooled * (1 - pooled) / total)
    differ = "Both saw the same images: only those on which they differ say anything."
    normal = "That is an approximation for large n: count the tail of the coin's distribution."
    return [
        Misconception(erfc(z / sqrt(2)), differ),
        Misconception(erfc(z / sqrt(2)) / 2, differ),
        Misconception(p[: k + 1].sum(), "Before looking, either could be the better one: both tails count."),
        Misconception(p[k:].sum(), "That is the other tail: how often is the smaller side as small as this?"),
        Misconception(min(1, 2 * p[k:].sum()), "That is the other tail: how often is the smaller side this small?"),
        Misconception(min(1, 2 * every[: k + 1].sum()), "n is the number of disagreements, not of all images."),
        Misconception(2 * p[k], "As extreme or more so: smaller sides than this one count, too."),
        Misconception(p[k], "As extreme or more so: smaller sides than this one count, too."),
        Misconception(2 * p[:k].sum(), "The number that was seen belongs to its tail."),
        Misconception(erfc(abs(a - b) / sqrt(n) / sqrt(2)), normal),
        Misconception(erfc((abs(a - b) - 1) / sqrt(n) / sqrt(2)), normal),
        Misconception(1 - min(1, 2 * p[: k + 1].sum()), "That is one minus the p-value."),
    ]


JUDGES: dict[str, Judge] = {
    "patches": patches,
    "same_quality": same_quality,
    "blind_to": blind_to,
    "rollout": rollout,
}
