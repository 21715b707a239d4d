"""Lesson 02, layer norm: forward and backward by hand, the gain of its Jacobian, what α may be moved to, RMSNorm, and
the gradient along a skip."""

from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional

from deepnet_edu.checks.base import Judge, Misconception, Trial

# Small widths and a large ε: at d = 512 and ε = 1e-5 half of the wrong answers are right to three digits.
_SHAPES = [((2, 5, 8), 1e-2), ((3, 4, 12), 0.1)]


def _drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _case(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """x that is neither centred nor of unit variance, γ and β that are neither 1 nor 0."""
    d = shape[-1]
    return 0.5 * _drawn(*shape, seed=d) + 0.7, 1 + 0.4 * _drawn(d, seed=d + 1), 0.3 * _drawn(d, seed=d + 2)


def layer_norm(trial: Trial) -> None:
    """(x - mean)/√(var + ε)·γ + β over the last dimension: (B, T, d)."""
    for shape, eps in _SHAPES:
        x, gamma, beta = _case(shape)
        got = trial.call(x, gamma, beta, eps)
        expected = functional.layer_norm(x, x.shape[-1:], gamma, beta, eps)
        c = x - x.mean(-1, keepdim=True)
        var = c.square().mean(-1, keepdim=True)
        tokens = x - x.mean(1, keepdim=True)
        everything = x - x.mean()
        wrong = [
            Misconception(
                c / (x.var(-1, keepdim=True) + eps).sqrt() * gamma + beta,
                "x.var(-1) divides by d - 1, the sample variance; LayerNorm divides by d: correction=0.",
            ),
            Misconception(c / (var.sqrt() + eps) * gamma + beta, "ε is inside the square root: √(var + ε)."),
            Misconception(c / var.sqrt() * gamma + beta, "ε is missing: √(var + ε)."),
            Misconception(c / (var + eps) * gamma + beta, "Divide by the standard deviation, not by the variance."),
            Misconception(
                tokens / (tokens.square().mean(1, keepdim=True) + eps).sqrt() * gamma + beta,
                "Each token is normalised on its own, over its features: the last dimension, not the tokens'.",
            ),
            Misconception(
                everything / (everything.square().mean() + eps).sqrt() * gamma + beta,
                "Each token is normalised on its own: mean and variance over the last dimension alone.",
            ),
            Misconception(
                x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gamma + beta,
                "The mean is not removed: this is RMSNorm, with a bias.",
            ),
            Misconception(
                x / (var + eps).sqrt() * gamma + beta, "Remove the mean from x too, not from its variance alone."
            ),
            Misconception((c / (var + eps).sqrt() + beta) * gamma, "β comes last: multiply by γ first, then add β."),
            Misconception(c / (var + eps).sqrt(), "γ and β are missing: multiply by γ and add β at the end."),
        ]
        trial.equal(got, expected, wrong, "The answer is (x - mean)/√(var + ε)·γ + β, over the last dimension.")


def layer_norm_backward(trial: Trial) -> None:
    """(g - mean(g) - x̂·mean(g·x̂))/√(var + ε) with g = grad_y·γ: (B, T, d)."""
    for shape, eps in _SHAPES:
        x, gamma, _ = _case(shape)
        grad_y = _drawn(*shape, seed=90 + shape[-1]) + 0.4
        got = trial.call(grad_y, x, gamma, eps)
        leaf = x.clone().requires_grad_()
        with torch.enable_grad():
            y = functional.layer_norm(leaf, x.shape[-1:], gamma, None, eps)
            (expected,) = torch.autograd.grad(y, leaf, grad_y)
        c = x - x.mean(-1, keepdim=True)
        inverse = (c.square().mean(-1, keepdim=True) + eps).rsqrt()
        xhat, g = c * inverse, grad_y * gamma

        def projected(g: Tensor, xhat: Tensor = xhat) -> Tensor:
            return g - g.mean(-1, keepdim=True) - xhat * (g * xhat).mean(-1, keepdim=True)

        wrong = [
            Misconception(
                inverse * g, "Mean and variance depend on x too: two directions must be projected out of the gradient."
            ),
            Misconception(
                inverse * (g - g.mean(-1, keepdim=True)),
                "You let the mean move but not the variance: the term with x̂ is missing.",
            ),
            Misconception(
                inverse * (g - xhat * (g * xhat).mean(-1, keepdim=True)),
                "You let the variance move but not the mean: the term mean(g) is missing.",
            ),
            Misconception(
                inverse * projected(grad_y) * gamma,
                "γ acts after normalising, so on the way back it comes first: g = grad_y·γ, then the projection.",
            ),
            Misconception(inverse * projected(grad_y), "γ is missing: on the way back the gradient meets it first."),
            Misconception(projected(g), "The factor 1/√(var + ε) is missing: a norm divides gradients too."),
            Misconception(
                inverse * (g - g.mean(-1, keepdim=True) - xhat * (g * xhat).sum(-1, keepdim=True)),
                "x̂ has squared length d: the projection on it is x̂·mean(g·x̂), not x̂·sum(g·x̂).",
            ),
            Misconception(
                inverse * (g - g.mean(-1, keepdim=True) - c * (g * c).mean(-1, keepdim=True)),
                "The direction that is taken away is x̂, the normalised x, not x minus its mean.",
            ),
            Misconception(
                inverse * (g - g.mean(-1, keepdim=True) + xhat * (g * xhat).mean(-1, keepdim=True)),
                "Both projections are taken away: minus, not plus.",
            ),
        ]
        trial.equal(
            got,
            expected,
            wrong,
            "The gradient is (g - mean(g) - x̂·mean(g·x̂))/√(var + ε), with g = grad_y·γ.",
            shape_sentence="The gradient of x has the shape of x: nothing is summed (sums over tokens are those of γ "
            "and β).",
        )


def jacobian_gain(trial: Trial) -> None:
    """√d/‖x - mean‖ = 1/std, the largest singular value of LN's Jacobian."""
    for d, scale in [(8, 0.6), (12, 3.0), (5, 1.7)]:
        x = scale * _drawn(d, seed=40 + d) + 1.3
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
                "That is the root of all singular values' squares, √(d-2) times too large: asked is the largest one.",
            ),
            Misconception(length / root, "Upside down: a small x is stretched, so its gradient is too."),
            Misconception(
                sqrt(d - 1) / length, "x.std() divides by d - 1, the sample's; LayerNorm divides by d: correction=0."
            ),
            Misconception(root / length**2, "A gain is a ratio of lengths: √d/‖x - mean‖, not over its square."),
        ]
        trial.equal(
            got, expected, wrong, "All directions that LN lets through are stretched by √d/‖x - mean‖.", tolerance=1e-7
        )


def equivalent_branch_scale(trial: Trial) -> None:
    """1/α: LN(αx + F) = LN(x + F/α)."""
    for alpha in (2.5, 0.4, 6.6874):
        got = trial.call(alpha)
        wrong = [
            Misconception(alpha, "Then the branch is α² too strong: α on the skip makes the branch weaker."),
            Misconception(1 / alpha**2, "One α: divide the whole sum by α, and look at what F became."),
            Misconception(1.0, "LN forgets a factor on the whole sum, but α stands before x alone."),
            Misconception(sqrt(alpha), "No variances here: both sums are the same vector, but for its length."),
            Misconception(1 / sqrt(alpha), "No variances here: both sums are the same vector, but for its length."),
        ]
        trial.equal(got, 1 / alpha, wrong, "Divide αx + F by α: LN does not see it, and the branch is left with 1/α.")


def rms_norm(trial: Trial) -> None:
    """x/√(mean(x²) + ε)·γ over the last dimension: (B, T, d)."""
    for shape, eps in _SHAPES:
        x, gamma, _ = _case(shape)
        got = trial.call(x, gamma, eps)
        square = x.square().mean(-1, keepdim=True)
        c = x - x.mean(-1, keepdim=True)
        wrong = [
            Misconception(
                c / (c.square().mean(-1, keepdim=True) + eps).sqrt() * gamma,
                "That is LayerNorm: RMSNorm leaves the mean where it is.",
            ),
            Misconception(
                x / (c.square().mean(-1, keepdim=True) + eps).sqrt() * gamma,
                "The root of the mean square, not the standard deviation: the mean is not removed.",
            ),
            Misconception(
                x / (x.square().sum(-1, keepdim=True) + eps).sqrt() * gamma,
                "The mean of the squares, not their sum: the answer has length √d, not 1.",
            ),
            Misconception(x / (square.sqrt() + eps) * gamma, "ε is inside the square root."),
            Misconception(x / square.sqrt() * gamma, "ε is missing: √(mean(x²) + ε)."),
            Misconception(x / (square + eps).sqrt(), "γ is missing: multiply by it at the end."),
            Misconception(x / (square + eps) * gamma, "Divide by the root of the mean square."),
        ]
        expected = functional.rms_norm(x, x.shape[-1:], gamma, eps)
        trial.equal(got, expected, wrong, "The answer is x/√(mean(x²) + ε)·γ, over the last dimension.")


def skip_gradient_factor(trial: Trial) -> None:
    """α/√(α² + f)."""
    for alpha, f in [(2.5, 0.6), (0.7, 1.8), (6.6874, 1.2e-3)]:
        got = trial.call(alpha, f)
        wrong = [
            Misconception(alpha, "The norm divides the gradient too, by the standard deviation of the sum."),
            Misconception(1 / sqrt(alpha**2 + f), "The skip multiplies by α, on the way back too."),
            Misconception(
                alpha**2 / (alpha**2 + f), "That is its square: a share of variance. A factor of length is its root."
            ),
            Misconception(
                alpha / (alpha + sqrt(f)), "Independent signals add their variances, not their standard deviations."
            ),
            Misconception(alpha / (alpha**2 + f), "A norm divides by the standard deviation, not by the variance."),
            Misconception(1.0, "Only where the branch adds nothing: with it the norm has more to divide by."),
            Misconception(
                alpha / sqrt(alpha + f), "Scaling x by α scales its variance by α²: the sum has variance α² + f."
            ),
        ]
        trial.equal(
            got, alpha / sqrt(alpha**2 + f), wrong, "Times α on the skip, divided by √(α² + f) in the norm behind it."
        )


JUDGES: dict[str, Judge] = {
    "layer_norm": layer_norm,
    "layer_norm_backward": layer_norm_backward,
    "jacobian_gain": jacobian_gain,
    "equivalent_branch_scale": equivalent_branch_scale,
    "rms_norm": rms_norm,
    "skip_gradient_factor": skip_gradient_factor,
}
