"""The judge of lesson 07's exercise ``constants``: three architectures, and every way in which they were confused."""

from math import sqrt
from typing import Any

import numpy as np
from torch import Tensor

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.values import is_number


def constants(trial: Trial) -> None:
    """A stack alone has α = (2N)^(1/4) and β = (8N)^(-1/4), and the other stack is None. With both, the encoder has
    0.81·(N⁴M)^(1/16) and 0.87·(N⁴M)^(-1/16), the decoder (3M)^(1/4) and (12M)^(-1/4)."""
    # Both stacks first: what the lesson goes on with has the form of the first answer, pairs in both places.
    for N, M in [(12, 3), (3, 12), (5, 40), (7, 7), (12, 0), (0, 40), (1000, 0), (0, 7), (1, 0), (0, 128), (100, 100)]:
        got = trial.call(N, M)
        trial.require(
            isinstance(got, tuple | list) and len(got) == 2,
            "The answer is a pair: the encoder's (α, β) and the decoder's.",
            "(encoder, decoder)",
            repr(got)[:80],
        )
        trial.require(
            not all(map(is_number, got)),
            "One stack's (α, β). Say whose: ((α, β), None) is an encoder alone, (None, (α, β)) a decoder alone.",
            "(encoder, decoder)",
            repr(got)[:80],
        )
        trial.require(
            (N > 0 and M > 0) or not (_is_pair(got[N > 0]) and got[M > 0] is None),
            "Encoder and decoder are exchanged: the encoder comes first.",
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
                layers == 0 or _is_pair(pair),
                f"The {name}'s constants are a pair of numbers (α, β).",
                "(α, β)",
                repr(pair)[:80],
            )
        if N == 0 or M == 0:
            _single(trial, got[0] if M == 0 else got[1], N + M)
        else:
            _both(trial, got, N, M)


def _is_pair(pair: Any) -> bool:
    if isinstance(pair, np.ndarray | Tensor):
        return pair.ndim == 1 and len(pair) == 2
    return isinstance(pair, tuple | list) and len(pair) == 2 and all(map(is_number, pair))


def _pair(alpha: float, beta: float, sentence: str) -> Misconception:
    return Misconception(np.array([alpha, beta]), sentence)


def _by_logarithm(base: float, numerator: int, denominator: int) -> float:
    """base^(numerator/denominator), in the form that an answer will hardly have."""
    return float(np.exp(numerator * np.log(base) / denominator))


def _single(trial: Trial, pair: Any, L: int) -> None:
    alpha, beta = _by_logarithm(2 * L, 1, 4), _by_logarithm(8 * L, -1, 4)
    root = _by_logarithm(L**4, 1, 16)
    precedence = "Python reads x**1/4 as (x**1)/4: put the exponent in parentheses, or write 0.25."
    wrong = [
        _pair(L**0.25, (4 * L) ** -0.25, "N layers are 2N sub-layers: the table counts 2N for α and 8N for β."),
        _pair(alpha, 1 / alpha, "Two matrices share the budget: α·β is 1/√2, not 1."),
        _pair((2 * L) ** 0.5, (2 * L) ** -0.5, "That is GLM-130B's choice, exponents ±1/2. The paper's are ±1/4."),
        _pair(alpha, 1 / beta, "β shrinks with depth: the exponent is negative."),
        _pair(beta, alpha, "α and β are exchanged: α grows with depth, β shrinks."),
        _pair(alpha, 8 * L**-0.25, "The 8 belongs inside the root."),
        _pair(2 * L / 4, 1 / (8 * L) / 4, precedence),
        _pair(alpha, 1 / (8 * L) / 4, precedence),
        _pair(alpha, 1.0, "// rounds to a whole number, and x**-1 // 4 is not what was meant: write -0.25."),
        _pair(
            (3 * L) ** 0.25,
            (12 * L) ** -0.25,
            "That is a decoder with cross-attention, three sub-layers a layer. Alone, a layer has two.",
        ),
        _pair(
            0.81 * root, 0.87 / root, "That is the encoder's row of a model with both. Alone it has a row of its own."
        ),
    ]
    trial.equal(
        np.array([float(pair[0]), float(pair[1])]),
        np.array([alpha, beta]),
        wrong,
    )


def _both(trial: Trial, got: Any, N: int, M: int) -> None:
    values = np.array([float(value) for pair in got for value in pair])
    root = _by_logarithm(N**4 * M, 1, 16)
    decoder = (_by_logarithm(3 * M, 1, 4), _by_logarithm(12 * M, -1, 4))
    rounded = (0.81 * root, 0.87 / root)
    exact = (27 ** (-1 / 16) * root, 27 ** (1 / 16) / sqrt(2) / root)
    # Both are right: the paper's two digits, and what they were rounded from. The answer goes with the nearer one.
    encoder = min((rounded, exact), key=lambda pair: float(np.abs(values - pair[0]).min()))
    single_encoder, single_decoder = ((2 * N) ** 0.25, (8 * N) ** -0.25), ((2 * M) ** 0.25, (8 * M) ** -0.25)
    exchanged = (M**4 * N) ** (1 / 16)

    def four(first: tuple[float, float], second: tuple[float, float], sentence: str) -> Misconception:
        return Misconception(np.array([*first, *second]), sentence)

    three = "A decoder layer with cross-attention has three sub-layers, not two."
    mixed = "One of the encoder's two constants is rounded as the paper's, and one is not: both are of one pair."
    sixteenth = "Python reads x**1/16 as (x**1)/16: put the exponent in parentheses."
    wrong = [
        four(
            single_encoder,
            single_decoder,
            "Those are the constants of two separate models. Cross-attention ties them: the encoder's change enters "
            "the decoder M times.",
        ),
        four(encoder, single_decoder, three),
        four(encoder, (decoder[0], single_decoder[1]), three),
        four(encoder, (single_decoder[0], decoder[1]), three),
        four(
            single_encoder,
            decoder,
            "The encoder's constants depend on M too: each of M cross-attentions injects its change.",
        ),
        four(
            (0.81 * exchanged, 0.87 / exchanged),
            decoder,
            "N and M are exchanged: the encoder's own layers, N, come with the fourth power.",
        ),
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
            "The encoder's β shrinks with depth, as the other βs do: its exponent is negative.",
        ),
        four(encoder, (decoder[0], 1 / decoder[0]), "Two matrices share the budget: the decoder's α·β is 1/√2, not 1."),
        four((rounded[0], exact[1]), decoder, mixed),
        four((exact[0], rounded[1]), decoder, mixed),
        four((0.81 * N**4 * M / 16, 0.87 / (N**4 * M) / 16), decoder, sixteenth),
        four((0.81 * N**4 * M / 16, 0.87 / (N**4 * M / 16)), decoder, sixteenth),
        four((0.81 * (N * M) ** (1 / 16), 0.87 / (N * M) ** (1 / 16)), decoder, "The fourth power of N is missing."),
        four(
            (0.81 * (N**4 * M) ** 0.25, 0.87 / (N**4 * M) ** 0.25),
            decoder,
            "The encoder's exponents are ±1/16: N has its fourth power inside.",
        ),
        four(
            encoder,
            (decoder[0], 1 / decoder[1]),
            "The decoder's β shrinks with depth, as the other βs do: its exponent is negative.",
        ),
    ]
    trial.equal(values, np.array([*encoder, *decoder]), wrong)
