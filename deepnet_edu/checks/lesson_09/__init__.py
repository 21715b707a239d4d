"""Lesson 09, the bug museum: detectors of α and of gains, depth of an overflow. The rooms: ``rooms``, ``copies``."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import floor, log, sqrt

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_09.copies import fresh_copies, layers_are_independent
from deepnet_edu.checks.lesson_09.rooms import decoder_settings, depths_of, stream_is_bounded
from deepnet_edu.checks.tensors import centred, sample
from deepnet_edu.checks.values import Array, as_array

# --- room 1: α on the branch

_Asked = list[tuple[Tensor, Tensor]]


def _box(a: float, b: float, c: float = 1.0, norm: bool = True) -> tuple[Callable[[Tensor, Tensor], Tensor], _Asked]:
    """c·LN(a·x + b·F), or the sum itself, and what it was asked."""
    asked: _Asked = []

    def combine(x: Tensor, fx: Tensor) -> Tensor:
        asked.append((x, fx))
        y = a * x + b * fx
        return c * functional.layer_norm(y, y.shape[-1:], eps=1e-5) if norm else y

    return combine, asked


def effective_alpha(trial: Trial) -> None:
    """Subtract the mean over the features from x, from fx and from the output. Token by token fit out = a·x + b·fx by
    least squares, both coefficients at once; the answer is the mean of a/b over the tokens.
    """
    for a, b, c, norm, d in [
        (2.2135, 1.0, 1.0, True, 16),
        (1.0, 1 / 3.1415, 0.6, True, 12),
        (1.0, 2.2135, -1.4, True, 16),
        (1.0, -0.6235, 1.0, True, 24),
        (2.6183, 1.0, 1.0, False, 24),
    ]:
        combine, asked = _box(a, b, c, norm)
        got = trial.call(combine, d)
        trial.like(got, 1.0)
        trial.require(bool(asked), "Ask the box: draw x and fx, call combine(x, fx), and look at the result.")
        for x, fx in asked:
            trial.require(
                x.shape == fx.shape and x.shape[-1:] == (d,),
                "Draw x and fx of the same shape, with d features in the last dimension.",
                f"(…, {d})",
                f"{tuple(x.shape)} and {tuple(fx.shape)}",
            )
            hidden = _angle(x.detach().double().reshape(-1, d), fx.detach().double().reshape(-1, d)) < 1e-6
            trial.require(
                not hidden or abs(float(got) - a / b) < 1e-4,
                "One of your two inputs is 0, or fx points along x: there the norm hides α, whatever it is. Draw both.",
            )
        x, fx = (tensor.detach().double().reshape(-1, d) for tensor in asked[-1])
        out = combine(x, fx)
        upside_down = Misconception(b / a, "Upside down: the weight of the skip over the branch's is asked for.")
        wrong = [upside_down, *_misreadings(x, fx, out)]
        if b < 0:
            wrong.append(Misconception(-a / b, "The sign counts: this box subtracts the branch."))
        said = (
            "For this box your ratio of the skip's weight to the branch's is wrong."
            if norm
            else "This box is a plain sum: no norm removes the mean of its output. Remove it yourself."
        )
        trial.equal(got, a / b, wrong, said, tolerance=1e-4)
    single, double = (float(trial.call(_box(1.7, b)[0], 16)) for b in (1.0, 2.0))
    trial.require(
        abs(single - 2 * double) < 1e-2,
        "With a branch that is twice as strong the ratio is half as large.",
        f"{single / 2:.4f}",
        f"{double:.4f}",
    )
    combine, asked = _box(1.7, 1.0)
    trial.call(combine)
    trial.require(asked[-1][0].shape[-1:] == (16,), "Without a second argument d is 16.")


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


# --- room 4: gain and variance


def xavier_gain(trial: Trial) -> None:
    """The root mean square of the weights, times √((fan_in + fan_out)/2), as a number."""
    readings = []
    for (fan_out, fan_in), scale, uniform in [
        ((400, 240), 0.02, False),
        ((240, 960), 0.3, False),
        ((300, 500), 2, True),
    ]:
        weight = sample(fan_out, fan_in, seed=fan_out)
        weight = scale * ((weight.sigmoid() - 0.5) if uniform else weight)
        weight = nn.Parameter(weight - weight.mean())
        got = trial.call(weight)
        readings.append((weight, got))
        w = weight.detach()
        std, fans = torch.linalg.matrix_norm(w).item() / sqrt(fan_in * fan_out), fan_in + fan_out
        wrong = [
            Misconception(
                std * sqrt(fan_in),
                "Xavier uses both fans. With fan_in alone a 240 → 400 matrix of gain 0.36 reads 0.31.",
            ),
            Misconception(std * sqrt(fan_out), "Xavier uses both fans: this is fan_out alone."),
            Misconception(std * sqrt(fans), "The mean of the fans, not their sum: √2 too large."),
            Misconception(w.abs().max().item() * sqrt(fans / 6), "The rule needs the variance, not the largest entry."),
            Misconception(std**2 * fans / 2, "That is the gain squared, in units of variance: take the root."),
            Misconception(std * fans / 2, "The root of the mean fan belongs here, not the mean fan."),
            Misconception(std / sqrt(fans / 2), "Upside down: Xavier's spread divides the standard deviation."),
            Misconception(std, "That is the standard deviation: Xavier's spread at gain 1 divides it."),
            Misconception(std**2 * sqrt(fans / 2), "That is the variance: use the standard deviation."),
            Misconception(w.abs().mean().item() * sqrt(fans / 2), "The mean size is not the root mean square."),
            Misconception(w.mean().item() * sqrt(fans / 2), "The mean of the weights is 0: their spread is asked for."),
            Misconception(std * sqrt(sqrt(fan_in * fan_out)), "The arithmetic mean of the fans, not the geometric."),
        ]  # fmt: skip
        # Dividing by n - 1 in the variance moves the sixth digit.
        trial.equal(got, std * sqrt(fans / 2), wrong, "The gain of this matrix is wrong.", tolerance=2e-5)
    weight, got = readings[0]
    for said, other, factor in [
        ("Twice the weights have twice the gain.", 2 * weight.detach(), 2.0),
        ("Transposed, a matrix has the same gain: both fans count equally.", weight.detach().T.float(), 1.0),
    ]:
        wanted, found = factor * float(got), float(trial.call(other))
        trial.require(abs(found - wanted) <= 1e-2 * abs(wanted), said, f"{wanted:.5g}", f"{found:.5g}")


# --- optional


def slice_gains(trial: Trial) -> None:
    """[xavier_gain(part) for part in weight.chunk(3)]: the first d rows are the query's, then come the key's and the
    value's, and the fans of a slice are d and d.
    """
    for d, gains in [(160, (1.0437, 0.7162, 0.2518)), (200, (0.8137, 1.2249, 0.4383))]:
        parts = [sample(d, d, seed=d + i) for i in range(3)]
        parts = [g * (p - p.mean()) / p.std(correction=0) / sqrt(d) for g, p in zip(gains, parts, strict=True)]
        packed = nn.Parameter(torch.cat(parts))
        got = trial.call(packed)
        right = np.array(gains)
        said, shape = "The gains of the three slices are wrong.", "Three gains are asked for, one per slice."
        trial.equal(got, right, _wrong_slices(packed.detach(), right), said, tolerance=1e-4, shape_sentence=shape)
        louder = packed.detach().clone()
        louder[2 * d :] *= 3
        before, after = as_array(got), as_array(trial.call(louder))
        trial.require(
            after.shape == before.shape and np.allclose(before[:2], after[:2], rtol=1e-3),
            "The value's rows alone were tripled: the other two gains stay.",
            str(before[:2].round(4)),
            str(after[:2].round(4)),
        )


def _wrong_slices(packed: Tensor, right: Array) -> list[Misconception]:
    d = packed.shape[1]
    whole = torch.linalg.matrix_norm(packed).item() / sqrt(3) / d

    def gains(parts: Sequence[Tensor]) -> Array:
        return np.array([p.square().mean().sqrt().item() * sqrt(sum(p.shape) / 2) for p in parts])

    return [
        Misconception(right * sqrt(2), "fan_out of a slice is d, not 3d: else all gains read √2 too large."),
        Misconception(np.full(3, whole * sqrt(2 * d)), "One gain for the whole matrix: measure each d×d slice."),
        Misconception(np.full(3, whole * sqrt(d)), "One spread for the whole matrix: measure each d×d slice."),
        Misconception(right[::-1], "The order is query, key, value."),
        Misconception(right[[0, 2, 1]], "The order is query, key, value."),
        Misconception(right[[2, 0, 1]], "The order is query, key, value."),
        Misconception(right[[1, 0, 2]], "The order is query, key, value."),
        Misconception(right / sqrt(d), "These are standard deviations: a gain compares them with Xavier's."),
        Misconception(right**2, "These are squares: a gain is of the weights, not of their variance."),
        Misconception(gains(packed.chunk(3, dim=1)), "The slices are rows: the first d rows are the query's."),
        Misconception(gains(packed.view(d, 3, d).unbind(1)), "The first d rows are the query's, not every third row."),
    ]


def overflow_depth(trial: Trial) -> None:
    """Count: begin with n = 0 and a stream of 1; as long as it is not above the limit, multiply it by α and add 1 to n.

    Logarithms, floor(ln limit/ln α) + 1, are right up to rounding: at an exact power they may be one short.
    """
    points: list[tuple[float, float]] = [
        (2.5, 65504.0), (3.1623, 3.4e38), (1.2, 3.4e38), (2.0, 65536), (1.5, 2.25), (7, 7**7), (10, 1000),
        (3, 243), (5, 125), (10, 10), (10, 1e15), (1.5, 1.2),
    ]  # fmt: skip
    for alpha, limit in points:
        size, expected = Fraction(1), 0
        while size <= limit:
            size, expected = size * Fraction(alpha), expected + 1
        wrong = _wrong_depths(alpha, limit, expected)
        trial.equal(trial.call(alpha, limit), expected, wrong, "For this limit your depth is wrong.")
    for alpha, limit in points:
        n = round(float(trial.call(alpha, limit)))
        short = f"After your {n} sub-layers the stream is not above the limit yet."
        trial.require(alpha**n > limit, short, f"above {limit:.4g}", f"{alpha**n:.4g}")
        late = f"After {n - 1} sub-layers the stream is above the limit already."
        trial.require(alpha ** (n - 1) <= limit, late, f"at most {limit:.4g}", f"{alpha ** (n - 1):.4g}")


def _wrong_depths(alpha: float, limit: float, right: int) -> list[Misconception]:
    """Wrong depths; at an exact power only those that go wrong there, with and without exact logarithms."""
    exact = log(limit) / log(alpha)
    if alpha ** (right - 1) == limit:
        if exact >= right - 1:
            reached = Misconception(
                right - 1, "At an exact power the limit is reached, not passed: one more is needed."
            )
            return [reached] if exact == right - 1 else []
        rounded = (
            "At an exact power, such as 10³ = 1,000, the limit is reached, not passed. Logarithms do not see it: on a "
            "computer ln 1000/ln 10 is 2.9999999999999996, and its floor 2."
        )
        return [Misconception(floor(exact) + 1, rounded)]
    half = (
        "That is half as many: each sub-layer multiplies the stream by α, and the limit is the stream's own, not that "
        "of its variance."
    )
    base = "Both logarithms must be of the same base."
    return [
        Misconception(right - 1, "One short: there the stream is still within the limit."),
        Misconception(right + 1, "One too many: the stream is above the limit already before."),
        Misconception(exact, "The number of sub-layers is whole: that of the first one at which the limit is passed."),
        Misconception(floor(exact / 2) + 1, half),
        Misconception(floor(exact / log(10)) + 1, base),
        *([Misconception(2 * right, "Twice as many: each sub-layer counts once.")] if right > 1 else []),
        Misconception(limit / alpha, "The growth is a power, not a product."),
        Misconception(1 / exact, "Upside down: the limit takes many sub-layers, not a part of one."),
    ]


JUDGES: dict[str, Judge] = {
    "effective_alpha": effective_alpha,
    "layers_are_independent": layers_are_independent,
    "depths_of": depths_of,
    "xavier_gain": xavier_gain,
    "stream_is_bounded": stream_is_bounded,
    "fresh_copies": fresh_copies,
    "decoder_settings": decoder_settings,
    "slice_gains": slice_gains,
    "overflow_depth": overflow_depth,
}
