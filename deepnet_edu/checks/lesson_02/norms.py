"""The judges of lesson 02's norms: layer norm and RMSNorm."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from deepnet_edu.checks.again import heeds, steady
from deepnet_edu.checks.base import Misconception, NotRight, Trial
from deepnet_edu.checks.tensors import centred, sample

#: Small widths and a large ε: at d = 512 and ε = 1e-5 half of the wrong answers are right to three digits. The last has
#: one token of one sequence: what squeezes dimensions away fails there.
SHAPES = [((2, 5, 8), 1e-2), ((3, 4, 12), 0.1), ((1, 3, 6), 0.05)]
_READY_MADE = [
    name + ending
    for name in (
        "layer_norm",
        "native_layer_norm",
        "native_layer_norm_backward",
        "rms_norm",
        "group_norm",
        "native_group_norm",
        "instance_norm",
        "batch_norm",
        "native_batch_norm",
        "normalize",
    )
    for ending in ("", ".default")
]
_OVER_ALL = "Each token is normalised on its own: mean and variance over the last dimension alone."
_FLOOR = "ε is added to the variance, inside the root. A floor under it is another function."


@contextmanager
def by_hand(trial: Trial, sentence: str, autograd: bool = False) -> Iterator[None]:
    """While it holds, the learner's function may use no norm of PyTorch's, and where ``autograd`` is forbidden no
    derivative; else the sentence is said."""
    try:
        with trial.without(*_READY_MADE, *(["_make_dual"] if autograd else []), autograd=autograd):
            yield
    except NotRight as wrong:
        if wrong.sentence.startswith("That is the function that you are to write"):
            raise NotRight(sentence, rung=wrong.rung, call=wrong.call) from None
        raise


def case(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """x that is neither centred nor of unit variance, with one token almost constant; γ and β that are neither 1 nor
    0, and of both signs."""
    d = shape[-1]
    x, gamma = sample(*shape, seed=d), 1 + 0.4 * sample(d, seed=d + 1)
    x[0, 0] *= 0.01
    gamma[1] *= -1
    return 0.5 * x + 0.7, gamma, 0.3 * sample(d, seed=d + 2)


def root(x: Tensor, eps: float, correction: int = 0) -> Tensor:
    """√(var + ε) of each token."""
    return (x.var(-1, correction=correction, keepdim=True) + eps).sqrt()


def _gradients(
    trial: Trial, right: Callable[..., Tensor], names: tuple[str, ...], operands: tuple[Tensor, ...]
) -> None:
    """The gradient that comes back, compared only where the values are right: a wrong value has a wrong gradient."""
    if trial.verdict() is not None:
        return
    leaves = [one.clone().requires_grad_() for one in operands]
    try:
        trial.gradients(
            lambda: trial.call(*leaves, 0.1), lambda: right(*leaves, 0.1), dict(zip(names, leaves, strict=True))
        )
    except NotRight as wrong:
        if "numpy" in wrong.sentence.lower():
            trial.fail("Through NumPy no gradient comes back to x: use tensors all the way.")
        raise


def _independent(trial: Trial, x: Tensor, *rest: Tensor | float) -> None:
    """A property of all norms that work on one token at a time."""
    before = trial.call(x, *rest)
    other = x.clone()
    other[-1, -1] = sample(x.shape[-1], seed=7)
    after = trial.call(other, *rest)
    moved = (after - before)[:, :-1].abs().max().item()
    trial.require(
        moved < 1e-2, "When the last token changes the other tokens come out changed, too.", "0", f"{moved:.4g}"
    )


def _float32(trial: Trial, right: Callable[..., Tensor], parts: tuple[Tensor, ...]) -> None:
    singles = tuple(part.float() for part in parts)
    trial.equal(
        trial.call(*singles, 0.1), right(*singles, 0.1), sentence="In float32 the values are wrong.", tolerance=1e-4
    )


def layer_norm(trial: Trial) -> None:
    """Remove each token's mean, divide by √(var + ε), multiply by γ and add β: (x - mean)/√(var + ε)·γ + β."""

    def right(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        return centred(x) / root(x, eps) * gamma + beta

    with by_hand(trial, "Write the norm with tensor arithmetic alone: nothing of torch.nn, and no ready-made norm."):
        steady(trial, (*case((2, 5, 8)), 1e-2), (*case((2, 5, 8)), 0.1))
        for shape, eps in SHAPES:
            x, gamma, beta = case(shape)
            got = trial.call(x, gamma, beta, eps)
            trial.equal(got, right(x, gamma, beta, eps), _slips(x, gamma, beta, eps))
        x, gamma, beta = case((2, 5, 8))
        calls = [(x, gamma, beta, 1e-2), (x, gamma, beta, 0.3), (x, gamma, gamma, 0.3), (x, beta, gamma, 0.3)]
        heeds(trial, ("x", "gamma", "beta", "eps"), *calls, (x.roll(1, 1), beta, gamma, 0.3))
        plain = trial.call(x, torch.ones_like(gamma), torch.zeros_like(beta), 1e-2)
        mean = plain.mean(-1).abs().max().item()
        trial.require(mean < 1e-2, "With γ = 1 and β = 0 each token has the mean 0 afterwards.", "0", f"{mean:.4g}")
        square = plain[1, 1].square().mean().item()
        wanted = (x[1, 1].var(correction=0) / (x[1, 1].var(correction=0) + 1e-2)).item()
        trial.require(
            abs(square - wanted) < 1e-2,
            "With γ = 1 and β = 0 a token has a variance just below 1 afterwards.",
            f"{wanted:.4g}",
            f"{square:.4g}",
        )
        _independent(trial, x, gamma, beta, 1e-2)
        # As the lesson calls it: almost no ε, and a far larger x.
        x[0, 0] = x[0, 1] + x[0, 2]
        for c in (0.1, 1000.0):
            trial.equal(trial.call(c * x, gamma, beta, 1e-12), right(c * x, gamma, beta, 1e-12), tolerance=1e-4)
        _float32(trial, right, (x, gamma, beta))
        _gradients(trial, right, ("x", "gamma", "beta"), (x, gamma, beta))


def _slips(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> list[Misconception]:
    c = centred(x)
    var = c.square().mean(-1, keepdim=True)

    def over(*dims: int) -> Tensor:
        d = x - x.mean(dims, keepdim=True)
        return d / (d.square().mean(dims, keepdim=True) + eps).sqrt() * gamma + beta

    deviation = x.std(-1, keepdim=True)
    wrong = [
        Misconception(
            c / root(x, eps, correction=1) * gamma + beta,
            "x.var(-1) divides by d - 1, the sample variance; LayerNorm divides by d: correction=0.",
        ),
        Misconception(
            c / (deviation + eps) * gamma + beta,
            "Two mistakes: x.std(-1) divides by d - 1, and ε is inside the square root, not added to the deviation.",
        ),
        Misconception(c / (var.sqrt() + eps) * gamma + beta, "ε is inside the square root: √(var + ε)."),
        Misconception(c / var.sqrt() * gamma + beta, "ε is missing: it is added to the variance."),
        Misconception(c / deviation * gamma + beta, "Two mistakes: x.std(-1) divides by d - 1, and ε is missing."),
        Misconception(c / var.clamp(min=eps).sqrt() * gamma + beta, _FLOOR),
        Misconception(c / var.sqrt().clamp(min=eps) * gamma + beta, _FLOOR),
        Misconception(
            c / (var + eps**2).sqrt() * gamma + beta, "ε is added to the variance as it is: do not square it."
        ),
        Misconception(c / (var + eps) * gamma + beta, "Divide by the standard deviation, not by the variance."),
        Misconception(
            c / (c.square().sum(-1, keepdim=True) + eps).sqrt() * gamma + beta,
            "The variance is the mean of the squares, not their sum: the answer has length √d, not 1.",
        ),
        Misconception(over(0), _OVER_ALL),
        Misconception(over(1, 2), _OVER_ALL),
        Misconception(over(0, 1, 2), _OVER_ALL),
        Misconception(over(0, 1), "That is batch normalisation: here each token is normalised over its own features."),
        Misconception(
            over(1), "Each token is normalised on its own, over its features: the last dimension, not the tokens'."
        ),
        Misconception(
            x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gamma + beta,
            "The mean is not removed: this is RMSNorm, with a bias.",
        ),
        Misconception(x / root(x, eps) * gamma + beta, "Remove the mean from x too, not from its variance alone."),
        Misconception(
            c / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gamma + beta,
            "Remove the mean before squaring too: the variance is that of what is left.",
        ),
        Misconception((c / root(x, eps) + beta) * gamma, "β comes last: multiply by γ first, then add β."),
        Misconception(c / root(x, eps) * beta + gamma, "γ and β are exchanged: γ multiplies, β is added."),
        Misconception(c / root(x, eps) + beta, "γ is missing: multiply by it before β is added."),
        Misconception(c / root(x, eps) * gamma, "β is missing: add it at the end."),
        Misconception(c / root(x, eps), "γ and β are missing: multiply by γ and add β at the end."),
    ]
    if x.shape[0] == 1:  # one sequence: what is taken over all of them is taken over its tokens
        wrong = [one for one in wrong if one.sentence not in (_OVER_ALL, wrong[13].sentence)]
    return wrong


def rms_norm(trial: Trial) -> None:
    """Divide each token by the root of its mean square plus ε, and multiply by γ: x/√(mean(x²) + ε)·γ."""

    def right(x: Tensor, gamma: Tensor, eps: float) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gamma

    steady(trial, (*case((2, 5, 8))[:2], 1e-2), (*case((2, 5, 8))[:2], 0.1))
    for shape, eps in SHAPES:
        x, gamma, _ = case(shape)
        x[0, -1] *= 0.01  # a token that ε matters for
        got = trial.call(x, gamma, eps)
        square = x.square().mean(-1, keepdim=True)
        c = centred(x)

        def over(*dims: int, x: Tensor = x, gamma: Tensor = gamma, eps: float = eps) -> Tensor:
            return x / (x.square().mean(dims, keepdim=True) + eps).sqrt() * gamma

        wrong = [
            Misconception(c / root(x, eps) * gamma, "That is LayerNorm: RMSNorm leaves the mean where it is."),
            Misconception(
                x / root(x, eps) * gamma,
                "The root of the mean square, not the standard deviation: the mean is not removed.",
            ),
            Misconception(x / root(x, eps, correction=1) * gamma, "x.var(-1) removes the mean, and divides by d - 1."),
            Misconception(c / (square + eps).sqrt() * gamma, "No mean is removed: the numerator is x itself."),
            Misconception(
                x / (x.square().sum(-1, keepdim=True) + eps).sqrt() * gamma,
                "The mean of the squares, not their sum: the answer has length √d, not 1.",
            ),
            Misconception(
                x / (x.abs().mean(-1, keepdim=True) + eps) * gamma, "The mean of the squares, not of the lengths."
            ),
            Misconception(x / (square.sqrt() + eps) * gamma, "ε is inside the square root."),
            Misconception(x / square.sqrt() * gamma, "ε is missing: it is added to the mean square."),
            Misconception(x / square.clamp(min=eps).sqrt() * gamma, _FLOOR.replace("variance", "mean square")),
            Misconception(
                x / (square + eps**2).sqrt() * gamma, "ε is added to the mean square as it is: do not square it."
            ),
            Misconception(x / (square + eps).sqrt(), "γ is missing: multiply by it at the end."),
            Misconception(
                x / (square + eps).sqrt() * (1 + gamma), "γ multiplies as it is: 1 + γ is another library's convention."
            ),
            Misconception(x / (square + eps).sqrt() + gamma, "γ multiplies: there is no bias."),
            Misconception(x / (square + eps) * gamma, "Divide by the root of the mean square."),
            Misconception(over(1), "Each token has a mean square of its own, over its features."),
        ]
        if shape[0] > 1:
            wrong += [Misconception(over(*dims), _OVER_ALL) for dims in ((0,), (0, 1), (1, 2), (0, 1, 2))]
        trial.equal(got, functional.rms_norm(x, x.shape[-1:], gamma, eps), wrong)
    x, gamma, beta = case((2, 5, 8))
    calls = [(x, gamma, 1e-2), (x, gamma, 0.3), (x, beta, 0.3), (x.roll(1, 1), beta, 0.3)]
    heeds(trial, ("x", "gamma", "eps"), *calls)
    plain = trial.call(x, torch.ones_like(gamma), 1e-4)
    square_after = plain[1, 1].square().mean().item()
    trial.require(
        abs(square_after - 1) < 1e-2,
        "With γ = 1 and a small ε the mean square of a token is 1 afterwards.",
        "1",
        f"{square_after:.4g}",
    )
    _independent(trial, x, gamma, 1e-2)
    # As the lesson calls it: almost no ε.
    trial.equal(trial.call(0.01 * x, gamma, 1e-5), right(0.01 * x, gamma, 1e-5))
    _float32(trial, right, (x, gamma))
    _gradients(trial, right, ("x", "gamma"), (x, gamma))
