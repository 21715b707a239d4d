"""Lesson 02, layer norm: the gain of its Jacobian, α on the wrong side, and the gradient along a skip; the norms
themselves are judged in norms.py and norm_backward.py."""

from math import exp, log1p, sqrt

import torch
from torch import Tensor
from torch.nn import functional

from deepnet_edu.checks.again import deep, heeds, steady
from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_02.norm_backward import layer_norm_backward
from deepnet_edu.checks.lesson_02.norms import layer_norm, rms_norm
from deepnet_edu.checks.numbers import holds, number
from deepnet_edu.checks.tensors import sample
from deepnet_edu.checks.values import as_array


def _token(d: int, scale: float) -> Tensor:
    """One that is neither centred nor of unit variance."""
    return scale * (sample(d, seed=40 + d) + 1.1)


def jacobian_gain(trial: Trial) -> None:
    """All directions that LN lets through are stretched equally, by one over the standard deviation: √d/‖x - mean‖."""
    steady(trial, (_token(8, 0.6),), (_token(8, 1.6),))
    for d, scale in [(8, 0.6), (8, 1.6), (12, 3.0), (5, 1.7), (16, 1e-4)]:
        x = _token(d, scale)
        got = trial.call(x)
        c = x - x.mean()
        jacobian = torch.autograd.functional.jacobian(lambda x, d=d: functional.layer_norm(x, (d,), eps=0.0), x)
        expected = torch.linalg.matrix_norm(jacobian, 2).item()
        length, root = c.norm().item(), sqrt(d)
        wrong = [
            Misconception(root / x.norm().item(), "That is RMSNorm's gain. LayerNorm removes the mean first."),
            Misconception(1 / length, "LN returns a vector of length √d, not 1."),
            Misconception(d / length**2, "A gain is a ratio of lengths: 1/std, not 1/var."),
            Misconception(
                torch.linalg.matrix_norm(jacobian).item(),
                "That is the root of all singular values' squares, √(d-2) times too large: the largest is asked for.",
            ),
            Misconception(
                torch.linalg.matrix_norm(jacobian, "nuc").item(),
                "That is the sum of all singular values, d - 2 equal ones: the largest is asked for.",
            ),
            Misconception(
                jacobian.abs().max().item(),
                "That is the Jacobian's largest entry. A nudge moves all features: a gain belongs to a direction.",
            ),
            Misconception(length / root, "Upside down: a small x is stretched, so its gradient is too."),
            Misconception(
                sqrt(d - 1) / length, "x.std() divides by d - 1, the sample's; LayerNorm divides by d: correction=0."
            ),
            Misconception(root / length**2, "One length too many: a gain has the unit of 1/x, not of 1/x²."),
            Misconception(
                1 / sqrt(length**2 / d + 1e-5),
                "That has a norm's usual ε = 1e-5 in it. Here ε is 0: it matters at a small x.",
            ),
        ]
        trial.equal(got, expected, wrong, tolerance=1e-5)
    one, ten = (float(as_array(trial.call(_token(8, scale)))) for scale in (0.6, 6.0))
    trial.require(
        abs(ten / one - 0.1) < 1e-2 if one else False,
        "A token ten times as long comes out the same, so a nudge of it moves the output a tenth as far.",
        f"{one / 10:.4g}",
        f"{ten:.4g}",
    )
    shifted = float(as_array(trial.call(_token(8, 0.6) + 5.0)))
    trial.require(
        abs(shifted - one) < 1e-2 * abs(one),
        "A constant added to all features is removed again: the gain stays.",
        f"{one:.4g}",
        f"{shifted:.4g}",
    )


def misplaced_share(trial: Trial) -> None:
    """Divide x + αF by α. LN does not see it, and leaves x/α + F, DeepNorm's line with 1/α for α: (1/(1 + α²f))ⁿ."""
    steady(trial, (9, 0.4, 1.3), (9, 1.5, 0.8))
    points = [(9, 0.4, 1.3), (9, 0.4, 0.8), (9, 1.5, 0.8), (4, 1.5, 0.8), (24, 0.0104, 2.2134)]
    for n, f, alpha in points:
        got = trial.call(n, f, alpha)
        one = 1 / (1 + alpha**2 * f)
        wrong = [
            Misconception(
                (alpha**2 / (alpha**2 + f)) ** n,
                "That is with α on the skip. Here it multiplies F alone.",
            ),
            Misconception((1 / (1 + alpha * f)) ** n, "Scaling F by α scales its variance by α²."),
            Misconception((1 / (1 + f)) ** n, "α is on the branch alone: without it the ratio is wrong."),
            Misconception(
                (1 / (1 + alpha**4 * f)) ** n,
                "α² too many: by it the branch is too strong beside α on the skip, but asked is the share itself.",
            ),
            Misconception(
                (1 / (1 + f / alpha)) ** n, "A factor α on the branch makes it stronger, and the input's share smaller."
            ),
            Misconception(
                (1 / (1 + alpha**2 * f**2)) ** n, "f is the branch's variance already: only α has to be squared."
            ),
            Misconception(
                (1 / (1 + alpha * sqrt(f))) ** n, "A share of variance is a ratio of variances, not of lengths."
            ),
            Misconception(1 / (1 + n * alpha**2 * f), "Each norm shrinks all that came before: shares multiply."),
            Misconception(
                one ** (n / 2),
                "Each of the n sub-layers has its own norm: the share of one counts n times.",
            ),
            Misconception(one ** (2 * n), "n counts sub-layers, not layers: there are n norms."),
            Misconception(one, "That is the share after one sub-layer: n of them follow each other."),
            Misconception(1 - one**n, "That is the share of the branches, not of the input."),
        ]
        expected = exp(-n * log1p(alpha**2 * f))
        trial.equal(got, expected, wrong, tolerance=1e-5)
    heeds(trial, ("n", "f", "alpha"), *points[:4])
    for n, f, alpha, share in [(0, 0.4, 1.3, 1.0), (1, 1, 2, 0.2), (1, 1, 1, 0.5), (3, 1, 1, 0.125)]:
        trial.equal(trial.call(n, f, alpha), share)
    # 1,000 layers, as in the lesson. In float32 a ratio that is nearly 1 is rounded, and 2,000 roundings multiply.
    thousand = deep(trial, "sub-layers", 2000, 1.25e-4, 6.6874)
    trial.equal(thousand, exp(-2000 * log1p(1.25e-4 * 6.6874**2)), tolerance=1e-2)
    holds(trial, number(trial, 5, 0.0, 1.3), 1.0, "With f = 0 no branch adds anything: all is the input's.")


def skip_gradient_factor(trial: Trial) -> None:
    """On its way down a gradient is divided by √(α² + f) in the norm, then multiplied by α on the skip: α/√(α² + f)."""
    steady(trial, (2.5, 0.6), (2.5, 1.8))
    points = [(2.5, 0.525), (2.5, 1.8), (0.7, 1.8), (6.6874, 1.2), (3.0, 7.0)]
    for alpha, f in points:
        got = trial.call(alpha, f)
        wrong = [
            Misconception(alpha, "The norm divides the gradient too, by the standard deviation of the sum."),
            Misconception(1 / sqrt(alpha**2 + f), "The skip multiplies by α on the way back, too."),
            Misconception(
                alpha**2 / (alpha**2 + f), "That is its square: a share of variance. A factor of length is its root."
            ),
            Misconception(
                alpha / (alpha + sqrt(f)), "Independent signals add their variances, not their standard deviations."
            ),
            Misconception(alpha / (alpha**2 + f), "A norm divides by the standard deviation, not by the variance."),
            Misconception(1.0, "Only where the branch adds nothing: with it the norm has more to divide by."),
            Misconception(
                alpha / sqrt(alpha + f),
                "Scaling x by α scales its variance by α²: so it enters the variance of the sum.",
            ),
            Misconception(alpha / sqrt(alpha**2 + f**2), "f is the branch's variance already: do not square it."),
            Misconception(
                sqrt(alpha**2 + f) / alpha, "Upside down: the norm divides the gradient by what it divides x by."
            ),
            Misconception(
                sqrt(f) / sqrt(alpha**2 + f),
                "That is the branch's part of the sum: the way along the skip is asked for.",
            ),
            Misconception(alpha / sqrt(1 + f), "The norm sees αx + F, and not x + F."),
            Misconception(1 / sqrt(1 + f), "The skip carries αx: do not forget α."),
        ]
        trial.equal(got, alpha / sqrt(alpha**2 + f), wrong)
    heeds(trial, ("alpha", "f"), *points[:3])
    alone = float(as_array(trial.call(2.5, 0.0)))
    trial.require(
        abs(alone - 1) < 1e-2,
        "Without a branch (f = 0) the norm divides by what the skip multiplies with: the factor is 1.",
        "1",
        f"{alone:.4g}",
    )
    twice, once = float(as_array(trial.call(5.0, 2.4))), float(as_array(trial.call(2.5, 0.6)))
    trial.require(
        abs(twice - once) < 1e-2,
        "Skip and branch twice as long, f four times as large: the norm hides it, and the factor stays.",
        f"{once:.4g}",
        f"{twice:.4g}",
    )
    for alpha, f in [(1, 1), (1.0, 0.25)]:
        trial.equal(trial.call(alpha, f), alpha / sqrt(alpha**2 + f))
    # As the lesson uses it at 1,000 layers.
    power = float(as_array(trial.call(6.6874, 1.25e-4))) ** 2000
    said = "The value is so near to 1 that it is right to a few digits, but not to the power of 2,000 sub-layers."
    trial.equal(power, (1 + 1.25e-4 / 6.6874**2) ** -1000, sentence=said, tolerance=1e-3)


JUDGES: dict[str, Judge] = {
    "layer_norm": layer_norm,
    "misplaced_share": misplaced_share,
    "jacobian_gain": jacobian_gain,
    "skip_gradient_factor": skip_gradient_factor,
    "layer_norm_backward": layer_norm_backward,
    "rms_norm": rms_norm,
}
