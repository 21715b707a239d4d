"""The judge of lesson 07's exercise ``constants``: three architectures, and every way in which they were confused."""

from math import sqrt
from typing import Any

import numpy as np
from torch import Tensor

from deepnet_edu.checks.base import Misconception, Trial


def constants(trial: Trial) -> None:
    """((α, β) of the encoder, (α, β) of the decoder), None for a stack that is not there."""
    for N, M in [(12, 0), (0, 40), (12, 3), (3, 12), (5, 40)]:
        got = trial.call(N, M)
        trial.require(
            isinstance(got, tuple | list) and len(got) == 2,
            "The answer is a pair: the encoder's (α, β) and the decoder's.",
            "(encoder, decoder)",
            repr(got)[:80],
        )
        trial.require(
            not all(isinstance(one, int | float) for one in got),
            "One stack's (α, β). Say whose: ((α, β), None) is an encoder alone, (None, (α, β)) a decoder alone.",
            "(encoder, decoder)",
            repr(got)[:80],
        )
        for name, layers, pair in (("encoder", N, got[0]), ("decoder", M, got[1])):
            trial.require(
                layers > 0 or pair is None,
                f"A model without {'an encoder' if name == 'encoder' else 'a decoder'} has no constants for it: None.",
                "None",
                repr(pair)[:80],
            )
            trial.require(
                layers == 0 or (isinstance(pair, tuple | list | np.ndarray | Tensor) and len(pair) == 2),
                f"The {name}'s constants are a pair (α, β).",
                "(α, β)",
                repr(pair)[:80],
            )
        if N == 0 or M == 0:
            _single(trial, got[0] if M == 0 else got[1], N + M)
        else:
            _both(trial, got, N, M)


def _pair(alpha: float, beta: float, sentence: str) -> Misconception:
    return Misconception(np.array([alpha, beta]), sentence)


def _by_logarithm(base: float, numerator: int, denominator: int) -> float:
    """base^(numerator/denominator), in the form that an answer will hardly have."""
    return float(np.exp(numerator * np.log(base) / denominator))


def _single(trial: Trial, pair: Any, L: int) -> None:
    alpha, beta = _by_logarithm(2 * L, 1, 4), _by_logarithm(8 * L, -1, 4)
    precedence = "Python reads x**1/4 as (x**1)/4: put the exponent in parentheses, or write 0.25."
    wrong = [
        _pair(L**0.25, (4 * L) ** -0.25, "N layers are 2N sub-layers: α = (2N)^(1/4)."),
        _pair(alpha, 1 / alpha, "Two matrices share the budget: β is 1/(√2·α), (8N)^(-1/4)."),
        _pair((2 * L) ** 0.5, (2 * L) ** -0.5, "That is GLM-130B's choice, exponents ±1/2. The paper's are ±1/4."),
        _pair(alpha, 1 / beta, "β shrinks with depth: the exponent is negative."),
        _pair(beta, alpha, "α and β are exchanged: α grows with depth, β shrinks."),
        _pair(alpha, 8 * L**-0.25, "The 8 belongs inside: (8N)^(-1/4)."),
        _pair(2 * L / 4, 1 / (8 * L) / 4, precedence),
        _pair(alpha, 1 / (8 * L) / 4, precedence),
        _pair(alpha, 1.0, "// rounds to a whole number, and x**-1 // 4 is not what was meant: write -0.25."),
        _pair(
            (3 * L) ** 0.25,
            (12 * L) ** -0.25,
            "That is a decoder with cross-attention, three sub-layers a layer. Alone, a layer has two.",
        ),
    ]
    trial.equal(
        np.array([float(pair[0]), float(pair[1])]),
        np.array([alpha, beta]),
        wrong,
        "A stack alone has α = (2N)^(1/4) and β = (8N)^(-1/4).",
    )


def _both(trial: Trial, got: Any, N: int, M: int) -> None:
    values = np.array([float(value) for pair in got for value in pair])
    root = _by_logarithm(N**4 * M, 1, 16)
    decoder = (_by_logarithm(3 * M, 1, 4), _by_logarithm(12 * M, -1, 4))
    rounded = (0.81 * root, 0.87 / root)
    exact = (27 ** (-1 / 16) * root, 27 ** (1 / 16) / sqrt(2) / root)
    # Both are right: the paper's two digits, and what they were rounded from.
    encoder = exact if np.allclose(values[:2], exact, rtol=1e-9) else rounded
    single_encoder, single_decoder = ((2 * N) ** 0.25, (8 * N) ** -0.25), ((2 * M) ** 0.25, (8 * M) ** -0.25)
    exchanged = (M**4 * N) ** (1 / 16)

    def four(first: tuple[float, float], second: tuple[float, float], sentence: str) -> Misconception:
        return Misconception(np.array([*first, *second]), sentence)

    three = "A decoder layer with cross-attention has three sub-layers: 3M, and 12M for β."
    wrong = [
        four(
            single_encoder,
            single_decoder,
            "Those are the constants of two separate models. Cross-attention ties them: the encoder's change enters "
            "the decoder M times.",
        ),
        four(encoder, single_decoder, three),
        four(
            single_encoder,
            decoder,
            "The encoder's constants depend on M too: each of M cross-attentions injects its change.",
        ),
        four((0.81 * exchanged, 0.87 / exchanged), decoder, "N and M are exchanged: the encoder has (N⁴M)^(1/16)."),
        four(
            (0.81 * root, 1.15 / root),
            decoder,
            "0.87, not 1.15 = 1/0.87: the exponent -1/16 has turned the root over already. (A published bug.)",
        ),
        four(decoder, encoder, "Encoder and decoder are exchanged: the encoder comes first."),
        four((root, 1 / root), decoder, "The factors 0.81 and 0.87 are missing."),
        four(
            (0.81 * root, 0.87 * root),
            decoder,
            "β shrinks with depth: the exponent is negative.",
        ),
        four(encoder, (decoder[0], 1 / decoder[0]), "Two matrices share the budget: β is (12M)^(-1/4)."),
        four(encoder, (decoder[0], 1 / decoder[1]), "β shrinks with depth: the exponent is negative."),
    ]
    trial.equal(
        values,
        np.array([*encoder, *decoder]),
        wrong,
        "Encoder: 0.81(N⁴M)^(1/16), 0.87(N⁴M)^(-1/16). Decoder: (3M)^(1/4), (12M)^(-1/4).",
    )
