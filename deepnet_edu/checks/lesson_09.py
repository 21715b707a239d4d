"""Lesson 09, the bug museum: three detectors, packed gains, the depth of an overflow. Rooms to mend: ``mended``."""

from itertools import count
from math import log, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.mended import beta_of_depth, decoder_settings, draw_with_gain_, fresh_copies, join
from deepnet_edu.checks.parts import centred, is_truth, layer_of, sample

# --- room 1: α on the branch


class _Box:
    """c·LN(a·x + b·F), or the sum itself, that remembers what it was asked."""

    def __init__(self, a: float, b: float, c: float = 1.0, norm: bool = True) -> None:
        self.a, self.b, self.c, self.norm = a, b, c, norm
        self.asked: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, fx: Tensor) -> Tensor:
        self.asked.append((x, fx))
        y = self.a * x + self.b * fx
        return self.c * functional.layer_norm(y, y.shape[-1:], eps=1e-5) if self.norm else y


def effective_alpha(trial: Trial) -> None:
    """Skip over branch inside c·LN(a·x + b·F): a/b."""
    boxes = [
        (_Box(2.2, 1.0), 16),
        (_Box(1.0, 1 / 3.1, c=0.6), 12),
        (_Box(1.0, 2.2), 16),
        (_Box(2.6, 1.0, norm=False), 24),
    ]
    for box, d in boxes:
        got = trial.call(box, d)
        trial.like(got, 1.0)
        trial.require(bool(box.asked), "Ask the box: call combine(x, fx) with x and fx that you drew, and look at it.")
        x, fx = (tensor.detach().double() for tensor in box.asked[-1])
        trial.require(
            x.shape == fx.shape and x.shape[-1:] == (d,),
            "Draw x and fx of the same shape, with d features in the last dimension.",
            f"(…, {d})",
            f"{tuple(x.shape)} and {tuple(fx.shape)}",
        )
        x, fx = x.reshape(-1, d), fx.reshape(-1, d)
        trial.require(
            _angle(x, fx) > 1e-6,
            "Your fx is 0, or points along x: there the norm hides α, whatever it is. Draw it afresh.",
        )
        ratio = box.a / box.b
        upside_down = Misconception(1 / ratio, "Upside down: asked is the weight of the skip over the branch's.")
        wrong = [upside_down, *_misreadings(x, fx, box(x, fx))]
        said = "Fit what came out as a·x + b·fx, token by token, all three centred, and return a/b."
        trial.equal(got, ratio, wrong, said, tolerance=1e-4)
    box = _Box(1.7, 1.0)
    trial.call(box)
    trial.require(box.asked[-1][0].shape[-1:] == (16,), "Without a second argument d is 16.")


def _angle(x: Tensor, fx: Tensor) -> float:
    """Largest sin² between x and F, both centred."""
    cosine = functional.cosine_similarity(centred(x), centred(fx), dim=-1, eps=1e-300)
    return float((1 - cosine.square()).where(fx.square().sum(-1) > 0, 0.0).max())


def _fit(x: Tensor, fx: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients of out on x and F, by the normal equations, token by token: (tokens,) each."""
    xx, ff, xf = (x * x).sum(-1), (fx * fx).sum(-1), (x * fx).sum(-1)
    xo, fo = (x * out).sum(-1), (fx * out).sum(-1)
    return ff * xo - xf * fo, xx * fo - xf * xo


def _misreadings(x: Tensor, fx: Tensor, out: Tensor) -> list[Misconception]:
    """What wrong fits read off the same x, F and output, each (tokens, d)."""
    both = [(x, fx), (centred(x), centred(fx))]
    projected = (
        "Random vectors are not quite at right angles: projecting on x and on fx alone counts twice what they share "
        "(at d = 16 you may read 2.37 for 2.2). Solve for both coefficients together."
    )
    pooled = "Each token has its own normaliser, so one fit for all tokens mixes them: fit token by token."
    wrong = []
    for a, b in both:
        dots = (a * out).sum(-1), (b * out).sum(-1)
        squares = (a * a).sum(-1), (b * b).sum(-1)
        whole = (dots[0].sum() / squares[0].sum()) / (dots[1].sum() / squares[1].sum())
        values = [*_ratios(dots[0] / squares[0], dots[1] / squares[1]), *_ratios(*dots), whole]
        wrong += [Misconception(value, projected) for value in values]
        skip, branch = _fit(a.flatten(), b.flatten(), out.flatten())
        wrong.append(Misconception(skip / branch, pooled))
    mean = "The norm has removed the mean from what came out: remove it from x and fx too."
    wrong += [Misconception(value, mean) for value in _ratios(*_fit(*both[0], out))]
    skip = torch.linalg.lstsq(torch.stack(both[1], -1), out.unsqueeze(-1)).solution[:, 0, 0].mean()
    alone = "That is the skip alone, and the norm has rescaled it: divide by the branch's coefficient."
    return [*wrong, Misconception(skip, alone)]


def _ratios(a: Tensor, b: Tensor) -> list[Tensor]:
    """The ways to make one number of two coefficients a token."""
    return [(a / b).mean(), a.mean() / b.mean(), (a / b).median(), (a / b)[0]]


# --- room 2: copies


def _of_seeds(*seeds: int) -> list[nn.Sequential]:
    return [layer_of(seed) for seed in seeds]


def layers_are_independent(trial: Trial) -> None:
    """Whether no matrix of a layer equals that of another layer at the same place."""
    one = layer_of(1)
    other_biases, half = _of_seeds(1, 1, 1), _of_seeds(1, 2, 3)
    with torch.no_grad():
        for i, layer in enumerate(other_biases):
            for parameter in layer.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.1 * i)
        half[2][1].weight.copy_(half[0][1].weight)  # type: ignore[operator, arg-type]
    cases: list[tuple[Any, bool, str]] = [
        (
            _of_seeds(1, 2, 3, 4),
            True,
            "False alarm: these four layers were drawn apart. Zero biases and unit gains are equal in every healthy "
            "model, so compare the matrices alone.",
        ),
        (
            _of_seeds(1, 1, 1),
            False,
            "Copies are different objects with equal values: compare what is in the matrices, not which object it is.",
        ),
        ([one, one, one], False, "One and the same layer three times is not three layers."),
        (
            _of_seeds(1, 2, 1, 2),
            False,
            "Layers A, B, A, B: neighbours differ, and yet there are only two layers. Every pair counts.",
        ),
        (_of_seeds(1, 2, 3, 3), False, "The last two of these four layers are copies: every pair counts."),
        (_of_seeds(1, 1, 3, 4), False, "The first two of these four layers are copies: every pair counts."),
        (
            nn.ModuleList(other_biases),
            False,
            "These are copies whose biases and norms have moved apart: their matrices are still the same.",
        ),
        (half, False, "Only one of the two matrices is a copy here. It is a copy all the same: look at each of them."),
        (nn.ModuleList(_of_seeds(5, 6)), True, "False alarm: these two layers were drawn apart."),
        (_of_seeds(7), True, "One layer alone has nobody to be a copy of."),
    ]
    for layers, expected, sentence in cases:
        got = trial.call(layers)
        trial.require(is_truth(got), "The answer is True or False.", "a bool", type(got).__name__)
        trial.require(bool(got) is expected, sentence, str(expected), str(bool(got)))


# --- room 4: gain and variance


def xavier_gain(trial: Trial) -> None:
    """Root mean square of the weights times √((fan_in + fan_out)/2)."""
    for (fan_out, fan_in), scale, uniform in [((40, 24), 0.02, False), ((24, 96), 0.3, False), ((30, 50), 1.3, True)]:
        weight = sample(fan_out, fan_in, seed=fan_out)
        weight = scale * ((weight.sigmoid() - 0.5) if uniform else weight)
        weight = nn.Parameter(weight - weight.mean())
        got = trial.call(weight)
        w = weight.detach()
        std, fans = torch.linalg.matrix_norm(w).item() / sqrt(fan_in * fan_out), fan_in + fan_out
        expected = std * sqrt(fans / 2)
        largest = w.abs().max().item()
        wrong = [
            Misconception(
                std * sqrt(fan_in),
                f"Xavier uses both fans. With fan_in alone a {fan_in} → {fan_out} matrix of gain {expected:.2g} reads "
                f"{std * sqrt(fan_in):.2g}.",
            ),
            Misconception(std * sqrt(fan_out), "Xavier uses both fans, their mean: (fan_in + fan_out)/2."),
            Misconception(std * sqrt(fans), "The mean of the fans, (fan_in + fan_out)/2, not their sum: √2 too large."),
            Misconception(largest * sqrt(fans / 6), "From the largest entry, as if uniform: the rule is of variance."),
            Misconception(std**2 * fans / 2, "That is the gain squared, in units of variance: take the root."),
            Misconception(std * fans / 2, "The root of the mean fan: Xavier's spread is g·√(2/(fan_in + fan_out))."),
            Misconception(std / sqrt(fans / 2), "Upside down: divide by Xavier's √(2/(fan_in + fan_out))."),
            Misconception(std, "That is the standard deviation: divide it by Xavier's √(2/(fan_in + fan_out))."),
            Misconception(std**2 * sqrt(fans / 2), "The variance, where the standard deviation belongs."),
            Misconception(w.abs().mean().item() * sqrt(fans / 2), "The mean size is not the root mean square."),
            Misconception(w.mean().item() * sqrt(fans / 2), "The mean of the weights is 0: their spread is asked."),
            Misconception(std * sqrt(sqrt(fan_in * fan_out)), "The arithmetic mean of the fans, not the geometric."),
        ]  # fmt: skip
        said = "Xavier draws with standard deviation g·√(2/(fan_in + fan_out)): solve for g."
        # Dividing by n - 1 in the variance moves the third digit at most.
        trial.equal(got, expected, wrong, said, tolerance=1e-3 * min(1.0, expected))


# --- optional


def slice_gains(trial: Trial) -> None:
    """Xavier gains of query, key and value in a packed (3d, d) matrix."""
    for d, gains in [(24, (1.0, 0.7, 0.25)), (40, (0.9, 1.2, 0.4))]:
        parts = [sample(d, d, seed=d + i) for i in range(3)]
        parts = [g * (p - p.mean()) / p.std(correction=0) / sqrt(d) for g, p in zip(gains, parts, strict=True)]
        packed = torch.cat(parts)
        got = trial.call(nn.Parameter(packed))
        if isinstance(got, list | tuple) and all(isinstance(value, Tensor) and value.ndim == 0 for value in got):
            got = [value.item() for value in got]
        expected = np.array(gains)
        whole = torch.linalg.matrix_norm(packed).item() / sqrt(3) / d

        def columns(d: int = d, packed: Tensor = packed) -> Any:
            parts = packed.chunk(3, dim=1)
            return np.array([p.square().mean().sqrt().item() * sqrt((p.shape[0] + p.shape[1]) / 2) for p in parts])

        rows = np.array([p.square().mean().sqrt().item() * sqrt(d) for p in packed.view(d, 3, d).unbind(1)])
        wrong = [
            Misconception(
                expected * sqrt(2), "fan_out of a slice is d, not 3d: else all gains read √2 too large."
            ),
            Misconception(np.full(3, whole * sqrt(2 * d)), "One gain for the whole matrix: measure each d×d slice."),
            Misconception(np.full(3, whole * sqrt(d)), "One spread for the whole matrix: measure each d×d slice."),
            Misconception(expected[::-1], "The order is query, key, value."),
            Misconception(columns(), "The slices are rows: the first d rows are the query's."),
            Misconception(rows, "The first d rows are the query's, not every third row."),
        ]  # fmt: skip
        trial.equal(
            got,
            expected,
            wrong,
            "The gain of each d×d slice, in the order query, key, value.",
            tolerance=1e-3,
            shape_sentence="Three gains are asked for, one a slice.",
        )


def overflow_depth(trial: Trial) -> None:
    """The least n with αⁿ > limit."""
    for alpha, limit in [(2.2134, 65504.0), (3.1623, 3.4e38), (1.5, 40.0), (2.0, 65504.0)]:
        got = trial.call(alpha, limit)
        expected = next(n for n in count() if alpha**n > limit)
        exact = log(limit) / log(alpha)
        wrong = [
            Misconception(
                expected - 1,
                f"One short: after {expected - 1} sub-layers it is {alpha ** (expected - 1):.3g}, still within.",
            ),
            Misconception(expected + 1, f"One too many: after {expected} it is {alpha**expected:.3g}."),
            Misconception(exact, "Sub-layers are whole: the first one at which the limit is passed."),
            Misconception(-(-exact // 2), "α multiplies the stream, α² its variance: count the stream."),
            Misconception((exact + 1) // 2, "Sub-layers, not layers: each multiplies by α."),
            Misconception(limit / alpha, "The growth is a power, not a product: solve αⁿ > limit with logarithms."),
            Misconception(log(alpha) / log(limit), "Upside down: n = log(limit)/log(α)."),
        ]  # fmt: skip
        trial.equal(got, expected, wrong, "The first n for which αⁿ is above the limit.")


JUDGES: dict[str, Judge] = {
    "effective_alpha": effective_alpha,
    "join": join,
    "layers_are_independent": layers_are_independent,
    "fresh_copies": fresh_copies,
    "beta_of_depth": beta_of_depth,
    "xavier_gain": xavier_gain,
    "draw_with_gain_": draw_with_gain_,
    "decoder_settings": decoder_settings,
    "slice_gains": slice_gains,
    "overflow_depth": overflow_depth,
}
