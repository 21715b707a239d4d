"""The condition and its splits, for one stack and for two: judges of ``solve_deepnorm`` and ``solve_encoder``."""

from math import exp, log, sqrt
from typing import Any

import numpy as np
import torch

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.trial import Array
from deepnet_edu.checks.values import as_array, describe, is_number

#: An answer that is right to this precision is right, or rounded: then another sentence says so.
NEARLY = 1e-3


def _pair(trial: Trial, got: Any) -> Array:
    """(α, β) as two numbers, or a sentence."""
    holds = isinstance(got, tuple | list | np.ndarray | torch.Tensor) and np.ndim(got) and len(got) == 2
    trial.require(bool(holds), "The answer is a pair: α, then β.", "(α, β)", describe(got))
    trial.require(all(map(is_number, got)), "The answer is a pair of numbers: α, then β.", "(α, β)", describe(got))
    return as_array(got)


def _named(*known: tuple[float, float, str]) -> list[Misconception]:
    """Wrong pairs with their sentences."""
    return [Misconception(np.array([alpha, beta]), sentence) for alpha, beta, sentence in known]


def even_split(K: float) -> Array:
    """The pair that meets K·2β²/α² = 1 with α² = √K, in logarithms."""
    return np.array([exp(log(K) / 4), exp(-log(K) / 4 - log(2) / 2)])


def _meets(trial: Trial, got: Any, K: float, name: str) -> Array:
    """The pair, if it meets the condition."""
    alpha, beta = _pair(trial, got)
    trial.require(
        alpha > 0 and beta > 0, "α and β are positive: a factor and a gain.", got=f"({alpha:.4g}, {beta:.4g})"
    )
    left = K * 2 * beta**2 / alpha**2
    trial.require(abs(left - 1) < NEARLY, f"The condition does not hold: {name}·2β²/α² is {left:.4g} here, not 1.")
    return np.array([alpha, beta])


_RATIO_ALONE = "The condition holds, for it fixes only β/α. But "
_ALL_IN_BETA = f"{_RATIO_ALONE}with α = 1 the weights do all the work"


def solve_deepnorm(trial: Trial) -> None:
    """α = (2N)^a, and β = α/(2√N) = (2N)^(a - 1/2)/√2: for a = ¼ that is (8N)^(-1/4)."""
    for N, a in ((12, 0.25), (5, 0.4), (700, 0.1), (30, 0.7), (3, 0.3)):
        got = trial.call(N, a)
        _pair(trial, got)
        n = 2 * N
        alpha, beta = exp(a * log(n)), exp((a - 0.5) * log(n) - log(2) / 2)
        square = "One more root gives"
        wrong = _named(
            (
                N**a,
                N ** (a - 0.5) / sqrt(2),
                "N layers are 2N sub-layers: the sum has 2N terms, and α counts them.",
            ),
            (N**a, N**a / n**0.5 / sqrt(2), "β/α is right. But α is (2N)^a, of 2N sub-layers."),
            (alpha, alpha / sqrt(n), "Two matrices share the budget, v² + w² is 2β²: your sum comes to 2."),
            (alpha, alpha / sqrt(N), "Two matrices share the budget, and N layers are 2N sub-layers."),
            (alpha, alpha / (2 * n**0.5), "For β the 2 of v² + w² is under the root, too."),
            (alpha, alpha / (2 * N), "That is N, not √N: β comes squared in the condition, so take the root."),
            (alpha, alpha**2 / (4 * N), "α is right. That is β²: one more root gives β."),
            (alpha**2, alpha**2 / (2 * sqrt(N)), f"That is α². {square} α, and the same for β."),
            (alpha**2, beta, f"That is α². {square} α."),
            (alpha, 1 / beta, "β/α falls with depth: the condition divides by α² and multiplies by β²."),
            (alpha, 2 * sqrt(N) * alpha, "β/α falls with depth: it is turned over."),
            (beta, alpha, "α and β are exchanged: α grows with depth."),
            (2 * N**a, 2 * N**a / (2 * sqrt(N)), "(2N)^a has its parentheses: the power comes first otherwise."),
            (2 * N**a, beta, "(2N)^a has its parentheses: the power comes first otherwise."),
            (
                (3 * N) ** a,
                (3 * N) ** (a - 0.5) / sqrt(2),
                "A single stack has two sub-layers a layer, not three.",
            ),
            (n**0.5, n**-0.5, "Those are GLM-130B's constants: with them the sum falls like 1/N."),
            (
                *even_split(n),
                f"{_RATIO_ALONE}that is the even split, a = ¼, whatever a is: α is (2N)^a.",
            ),
            (
                alpha,
                1 / (sqrt(2) * alpha),
                "α·β = 1/√2 belongs to the even split, a = ¼. For any other a solve the box for β/α again.",
            ),
            (alpha, (8 * N) ** -a, "(8N)^(-1/4) is β for a = ¼ alone. For any other a solve the box for β/α again."),
            (alpha, (8 * N) ** -0.25, "(8N)^(-1/4) is β for a = ¼ alone. For any other a solve the box again."),
            (1.0, 1 / sqrt(2 * n), f"{_ALL_IN_BETA}: here α is (2N)^a."),
        )
        trial.equal(got, np.array([alpha, beta]), wrong)
    for N, a in ((1000, 0.25), (20, 0.0), (1000, 0.5), (1, 0.3)):
        pair = _meets(trial, trial.call(N, a), 2.0 * N, "2N")
        trial.require(
            abs(pair[0] / (2 * N) ** a - 1) < NEARLY,
            f"{_RATIO_ALONE}α is given: (2N)^a.",
            f"α = {(2 * N) ** a:.4g}",
            f"α = {pair[0]:.4g}",
        )


def solve_encoder(trial: Trial) -> None:
    """With K = (N⁴M/27)^(1/4): α = K^(1/4) and β = K^(-1/4)/√2."""
    for N, M in [(12, 3), (3, 17), (40, 7), (1, 1), (5, 7)]:
        got = trial.call(N, M)
        _pair(trial, got)
        K = exp((4 * log(N) + log(M) - log(27)) / 4)
        root, swapped = (exp((4 * log(n) + log(m)) / 16) for n, m in ((N, M), (M, N)))
        c = exp(log(27) / 16)
        a, b = (float(x) for x in even_split(K))
        bug = "The exponent -1/16 turns the root over, and 1.15 = 1/0.87 turns the factor over once too often."
        precedence = "Python reads x**1/16 as (x**1)/16: put the exponent in parentheses."
        wrong = _named(
            (
                0.81 * root,
                0.87 / root,
                "Those are the paper's rounded constants: with them the condition is 1.012, not 1. Do not round.",
            ),
            (0.81 * root, 1.15 / root, f"{bug} (A published bug: the condition becomes 1.77.)"),
            (a, 1.15 / root, f"{bug} (A published bug.)"),
            ((2 * N) ** 0.25, (8 * N) ** -0.25, "That is an encoder alone: the decoder's M entrances are missing."),
            ((3 * M) ** 0.25, (12 * M) ** -0.25, "Those are the decoder's constants."),
            (a, 1 / a, "α is right. Two matrices share the budget, v² + w² is 2β²."),
            (a, 0.5 / a, "α is right. For β the 2 of v² + w² is under the root, too."),
            (a, 1 / b, "α is right. β shrinks with depth: the exponent is negative."),
            (root, 1 / root, "The factors 0.81 and 0.87, not rounded, are missing."),
            (root, 1 / (sqrt(2) * root), "The 27 is missing: it comes from the decoder's constants."),
            (b, a, "α and β are exchanged: α grows with depth, β shrinks."),
            (a**2, b**2, "Those are α² and β². One more root gives the constants."),
            (a**2, 1 / (sqrt(2) * a**2), "That is α². One more root gives α, and the same for β."),
            (0.81 * N**4 * M / 16, 0.87 / (N**4 * M) / 16, precedence),
            (N**4 * M / 27 / 4 / 4, 4 * 4 / (N**4 * M / 27) / sqrt(2), precedence),
            (1.0, 1 / sqrt(2 * K), f"{_ALL_IN_BETA}: split it evenly."),
        )
        if N != M:
            wrong += _named(
                (
                    swapped / c,
                    c / sqrt(2) / swapped,
                    "N and M are exchanged: the encoder's own depth counts four times as much.",
                ),
                (
                    exp((log(N) + log(M) - log(27)) / 16),
                    exp(-(log(N) + log(M) - log(27)) / 16) / sqrt(2),
                    "N comes in its fourth power: it is N⁴.",
                ),
            )
        trial.equal(got, even_split(K), wrong)
    alpha, beta = _meets(trial, trial.call(12, 30), (12**4 * 30 / 27) ** 0.25, "(N⁴M/27)^(1/4)")
    split = alpha**2 * 2 * beta**2
    trial.require(
        abs(split - 1) < NEARLY,
        f"{_RATIO_ALONE}the split is not even: in an even one α² and 2β² are inverses.",
        "α²·2β² = 1",
        f"α²·2β² = {split:.4g}",
    )
