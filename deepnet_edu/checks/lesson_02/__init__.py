"""Lesson 02, layer norm: the gain of its Jacobian, what α may be moved to, and the gradient along a skip; the norms
themselves are judged in norms.py and norm_backward.py."""

from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional

from deepnet_edu.checks.again import heeds, steady
from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_02.norm_backward import layer_norm_backward
from deepnet_edu.checks.lesson_02.norms import layer_norm, rms_norm
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


def equivalent_branch_scale(trial: Trial) -> None:
    """Divide αx + F by α. LN does not see it, and leaves x + F/α: c = 1/α."""
    steady(trial, (2.5,), (0.4,))
    for alpha in (2.5, 0.3, 6.6874):
        got = trial.call(alpha)
        wrong = [
            Misconception(alpha, "Then the branch is α² times too strong: α on the skip makes the branch weaker."),
            Misconception(1 / alpha**2, "One α only: divide the whole sum by α, and see what F becomes."),
            Misconception(alpha**2, "Upside down, and one α too many: α on the skip makes the branch weaker."),
            Misconception(1.0, "LN ignores a factor on the whole sum, but α is on x alone."),
            Misconception(sqrt(alpha), "There are no variances here: both sums are one vector, at two lengths."),
            Misconception(1 / sqrt(alpha), "No variances here: both sums are the same vector, but for its length."),
            Misconception(-1 / alpha, "A minus would reverse the branch: LN keeps the direction of the sum."),
        ]
        trial.equal(got, 1 / alpha, wrong)
    heeds(trial, ("alpha",), (2.5,), (0.3,), (6.6874,))
    one = float(as_array(trial.call(1.0)))
    trial.require(abs(one - 1) < 1e-2, "With α = 1 both sums are the same already: c is 1.", "1", f"{one:.4g}")
    c = float(as_array(trial.call(2.5)))
    x, branch = sample(6, seed=1), sample(6, seed=2)
    wanted, found = (functional.layer_norm(s, (6,), eps=0.0) for s in (2.5 * x + branch, x + c * branch))
    trial.require(
        bool((wanted - found).abs().max() < 1e-2),
        "With this c, LN(αx + F) and LN(x + cF) are not the same for a random x and F.",
        f"{wanted[0]:.4f}, {wanted[1]:.4f}, …",
        f"{found[0]:.4f}, {found[1]:.4f}, …",
    )
    trial.equal(trial.call(4), 0.25, sentence="A whole number for α gives another value than the same float.")


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
    "equivalent_branch_scale": equivalent_branch_scale,
    "jacobian_gain": jacobian_gain,
    "skip_gradient_factor": skip_gradient_factor,
    "layer_norm_backward": layer_norm_backward,
    "rms_norm": rms_norm,
}
