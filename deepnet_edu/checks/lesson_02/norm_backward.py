"""The judge of layer norm's way back, in lesson 02."""

import torch
from torch import Tensor

from deepnet_edu.checks.again import heeds, steady
from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.lesson_02.norms import SHAPES, by_hand, case, root
from deepnet_edu.checks.tensors import centred, sample

_BY_HAND = "Write the way back with tensor arithmetic alone: no autograd, and no ready-made norm."


def layer_norm_backward(trial: Trial) -> None:
    """With g = grad_y·γ take two projections away and divide: (g - mean(g) - x̂·mean(g·x̂))/√(var + ε)."""
    for number, (shape, eps) in enumerate([*SHAPES, ((2, 3, 5), 0.0)]):
        x, gamma, _ = case(shape)
        if eps == 0:
            x = 0.5 * sample(*shape, seed=9) + 0.7  # no token is almost constant
        grad_y = sample(*shape, seed=90 + shape[-1]) + 0.4
        with by_hand(trial, _BY_HAND, autograd=True):
            if number == 0:
                steady(trial, (grad_y, x, gamma, eps), (2 * grad_y + 1, x, gamma, eps))
            got = trial.call(grad_y, x, gamma, eps)
        trial.equal(
            got,
            _right(grad_y, x, gamma, eps),
            _slips_on_the_way_back(grad_y, x, gamma, eps) if eps else [],
            "" if eps else "With ε = 0 the gradient of x is wrong.",
            shape_sentence="The gradient of x has the shape of x: nothing is summed (sums over tokens are those of γ "
            "and β).",
        )
    x, gamma, other = case((2, 5, 8))
    x[0, 0] = 0.5 * sample(8, seed=9) + 0.7  # no token is almost constant
    grad_y = sample(2, 5, 8, seed=97) + 0.4
    back = _right(grad_y, x, gamma, 1e-2)
    with by_hand(trial, _BY_HAND, autograd=True):
        _properties(trial, grad_y, x, gamma, other)
        # As the lesson's own operation calls it: without a graph, on an x that wants a gradient.
        leaf = x.clone().requires_grad_()
        with torch.no_grad():
            trial.equal(trial.call(grad_y, leaf, gamma, 1e-2), back, tolerance=1e-4)
            none = trial.call(0 * grad_y, leaf, gamma, 1e-2)
        trial.equal(none, torch.zeros_like(x), sentence="Where no gradient arrives, none is passed on.")
        singles = grad_y.float(), x.float(), gamma.float()
        trial.like(trial.call(*singles, 1e-2), back.float())


def _right(grad_y: Tensor, x: Tensor, gamma: Tensor, eps: float) -> Tensor:
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        y = centred(leaf) / root(leaf, eps) * gamma
        (back,) = torch.autograd.grad(y, leaf, grad_y)
    return back


def _properties(trial: Trial, grad_y: Tensor, x: Tensor, gamma: Tensor, other: Tensor) -> None:
    calls = [(grad_y, x, gamma, 1e-2), (2 * grad_y, x, gamma, 1e-2), (2 * grad_y, x, gamma, 0.3)]
    calls += [(2 * grad_y, x, other, 0.3), (2 * grad_y, x.roll(1, 1), other, 0.3)]
    heeds(trial, ("grad_y", "x", "gamma", "eps"), *calls)
    once, twice = (trial.call(*calls[i]) for i in (0, 1))
    total = once.sum(-1).abs().max().item()
    trial.require(
        total < 1e-2,
        "A constant added to a token changes nothing above, so its gradient has no constant part: it sums to 0.",
        "0",
        f"{total:.4g}",
    )
    along = (trial.call(grad_y, x, gamma, 0.0) * centred(x)).sum(-1).abs().max().item()
    trial.require(
        along < 1e-2,
        "With ε = 0 a longer token changes nothing above, so its gradient is at right angles to x - mean.",
        "0",
        f"{along:.4g}",
    )
    apart = (twice - 2 * once).abs().max().item()
    trial.require(apart < 1e-2, "Twice the gradient above is twice the gradient below.", "0", f"{apart:.4g}")


def _slips_on_the_way_back(grad_y: Tensor, x: Tensor, gamma: Tensor, eps: float) -> list[Misconception]:
    c = centred(x)
    inverse = 1 / root(x, eps)
    xhat, g = c * inverse, grad_y * gamma

    def mean(t: Tensor) -> Tensor:
        return t.mean(-1, keepdim=True)

    def projected(g: Tensor, xhat: Tensor = xhat) -> Tensor:
        return g - mean(g) - xhat * mean(g * xhat)

    def by(deviation: Tensor) -> Tensor:
        return projected(g, c / deviation) / deviation

    tokens = [t.mean(1, keepdim=True) for t in (g, g * xhat)]
    return [
        Misconception(
            inverse * g, "Mean and variance depend on x too: two directions must be projected out of the gradient."
        ),
        Misconception(
            inverse * (g - mean(g)), "You let the mean move but not the variance: the term with x̂ is missing."
        ),
        Misconception(
            inverse * (g - xhat * mean(g * xhat)),
            "You let the variance move but not the mean: the term mean(g) is missing.",
        ),
        Misconception(
            inverse * projected(grad_y) * gamma,
            "γ acts after normalising, so on the way back it comes first: before the projection, not after it.",
        ),
        Misconception(inverse * projected(grad_y), "γ is missing: on the way back the gradient meets it first."),
        Misconception(
            inverse * (g - mean(grad_y) - xhat * mean(grad_y * xhat)),
            "The two means are those of the gradient that has passed γ, not of grad_y.",
        ),
        Misconception(inverse * projected(grad_y / gamma), "γ multiplies on the way up, and on the way back as well."),
        Misconception(projected(g), "The last factor is missing: a norm divides gradients, too."),
        Misconception(
            inverse**2 * projected(g), "Divided once too often: by the variance, not by the standard deviation."
        ),
        Misconception(projected(g) / inverse, "Upside down: a norm divides gradients by what it divides x by."),
        Misconception(
            inverse * (g - mean(g) - xhat * (g * xhat).sum(-1, keepdim=True)),
            "x̂ has squared length d: the projection on it takes the mean of the products, not their sum.",
        ),
        Misconception(
            inverse * (g - g.sum(-1, keepdim=True) - xhat * mean(g * xhat)),
            "The constant part of a gradient is its mean, not its sum.",
        ),
        Misconception(
            inverse * (g - mean(g) - c * mean(g * c)),
            "The direction that is taken away is x̂, the normalised x, not x minus its mean.",
        ),
        Misconception(
            inverse * (g - mean(g) - x * inverse * mean(g * x * inverse)), "x̂ is x without its mean, divided."
        ),
        Misconception(
            inverse * (g - mean(g) + xhat * mean(g * xhat)),
            "Both projections are taken away: minus, not plus.",
        ),
        Misconception(
            inverse * (g - tokens[0] - xhat * tokens[1]), "Each token has means of its own, over its features."
        ),
        Misconception(by(root(x, eps, correction=1)), "x.var(-1) divides by d - 1; LayerNorm divides by d."),
        Misconception(by(root(x, 0.0)), "ε is missing: it is inside the root as on the way up."),
        Misconception(
            by(root(x, 0.0) + eps), "ε is inside the square root, as on the way up, not added to the deviation."
        ),
    ]
