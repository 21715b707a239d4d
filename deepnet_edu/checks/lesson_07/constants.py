"""The judge of lesson 07's exercise ``constants``: three architectures, and every way in which they were confused."""

from math import exp, log, sqrt
from typing import Any

import numpy as np
from torch import Tensor

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.values import as_array, close, describe, is_number

Pair = tuple[float, float]


def constants(trial: Trial) -> None:
    """An encoder alone: ((2N)^(1/4), (8N)^(-1/4)), None; a decoder alone: None, ((2M)^(1/4), (8M)^(-1/4)). Both:
    (0.81(N⁴M)^(1/16), 0.87(N⁴M)^(-1/16)) and ((3M)^(1/4), (12M)^(-1/4)).
    """
    # Both first: then it is known that each of the two is a pair.
    for N, M in [(12, 3), (3, 12), (5, 40), (1, 1)]:
        _both(trial, _stacks(trial, N, M), N, M)
    for N, M in [(12, 0), (0, 41), (1, 0), (0, 1), (0, 1000), (1000, 0)]:
        _alone(trial, _stacks(trial, N, M)[0 if N else 1], N + M)
    for N, M in [(7, 0), (0, 70), (7, 70)]:
        for name, pair in zip(("encoder", "decoder"), _stacks(trial, N, M), strict=True):
            if pair is not None:
                alpha, beta = as_array(pair)
                trial.require(
                    abs(alpha * beta - sqrt(0.5)) < 0.05,
                    f"In each of the paper's pairs α·β is close to 0.7. For the {name} it is not.",
                    "0.7",
                    f"{alpha * beta:.4g}",
                )


def _stacks(trial: Trial, N: int, M: int) -> Any:
    """What the learner has for the encoder and the decoder, each a pair of numbers or None where there is none."""
    got = trial.call(N, M)
    trial.require(
        isinstance(got, tuple | list | np.ndarray | Tensor) and len(got) == 2,
        "The answer is a pair: the encoder's (α, β) and the decoder's.",
        "(encoder, decoder)",
        describe(got),
    )
    trial.require(
        not all(map(is_number, got)),
        "That is one stack's (α, β). Say whose: ((α, β), None) is an encoder alone, (None, (α, β)) a decoder alone.",
        "(encoder, decoder)",
        describe(got),
    )
    if N == 0 or M == 0:
        trial.require(
            got[N > 0] is None or got[M > 0] is not None,
            "Encoder and decoder are exchanged: the encoder comes first.",
            "(encoder, decoder)",
            describe(got),
        )
    for name, article, layers, pair in (("encoder", "an", N, got[0]), ("decoder", "a", M, got[1])):
        if layers == 0:
            without = f"A model without {article} {name} has no constants for it: None."
            trial.require(pair is None, without, "None", describe(pair))
            continue
        holds = isinstance(pair, tuple | list | np.ndarray | Tensor) and len(pair) == 2 and all(map(is_number, pair))
        trial.require(holds, f"The {name}'s constants are a pair (α, β) of numbers.", "(α, β)", describe(pair))
    return got


def _root(base: float, of: int) -> float:
    """The constants in a form that an answer is unlikely to have."""
    return exp(log(base) / of)


def _alone(trial: Trial, pair: Any, L: int) -> None:
    alpha, beta = _root(2 * L, 4), 1 / _root(8 * L, 4)
    precedence = "Python reads x**1/4 as (x**1)/4: put the exponent in parentheses, or write 0.25."
    known: list[tuple[float, float, str]] = [
        (L**0.25, (4 * L) ** -0.25, "N layers are 2N sub-layers, and a stack alone counts them."),
        (alpha, 1 / alpha, "Two matrices share the budget of β: it is smaller than 1/α."),
        ((2 * L) ** 0.5, (2 * L) ** -0.5, "That is GLM-130B's choice, exponents ±1/2. The paper's are different."),
        (alpha, 1 / beta, "β shrinks with depth: the exponent is negative."),
        (beta, alpha, "α and β are exchanged: α grows with depth, β shrinks."),
        (2 * L / 4, 1 / (8 * L) / 4, precedence),
        (alpha, 1 / (8 * L) / 4, precedence),
        (alpha, 1.0, "// rounds down to a whole number, and x**-1 // 4 is not what you mean: write -0.25."),
        (
            (3 * L) ** 0.25,
            (12 * L) ** -0.25,
            "That is a decoder with cross-attention, three sub-layers a layer. Alone, a layer has two.",
        ),
        (0.81 * L ** (1 / 4), 0.87 * L ** (-1 / 4), "Those are constants of an encoder under a decoder."),
    ]
    if L > 1:
        known.append((alpha, 8 * L**-0.25, "The 8 belongs inside the parentheses: the power comes first otherwise."))
    wrong = [Misconception(np.array([a, b]), sentence) for a, b, sentence in known]
    trial.equal([*pair], np.array([alpha, beta]), wrong, "For a stack alone the pair is wrong.")


def _both(trial: Trial, got: Any, N: int, M: int) -> None:
    values = [value for pair in got for value in pair]
    # Both are right: the paper's two digits, and what they were rounded from.
    factors: list[Pair] = [(0.81, 0.87), (1 / _root(27, 16), _root(27, 16) / sqrt(2))]
    root, decoder = _root(N**4 * M, 16), (_root(3 * M, 4), 1 / _root(12 * M, 4))
    rounded, exact = ([a * root, b / root, *decoder] for a, b in factors)
    right = exact if close(as_array(values), np.array(exact), 1e-3) else rounded
    wrong = [one for pair in factors for one in _confused(N, M, *pair)] if N != M else []
    mixed = "One of the encoder's two constants is rounded as in the paper, one is not: take both from one pair."
    for first, second in ((rounded, exact), (exact, rounded)):
        wrong.append(Misconception(np.array([first[0], *second[1:]]), mixed))
    trial.equal(values, np.array(right), wrong, "With encoder and decoder the pairs are wrong.")


def _confused(N: int, M: int, a: float, b: float) -> list[Misconception]:
    """The sentence for each slip where both pairs are there; a and b are the encoder's factors."""
    root, swapped, product = _root(N**4 * M, 16), _root(M**4 * N, 16), N**4 * M
    encoder, decoder = (a * root, b / root), (_root(3 * M, 4), 1 / _root(12 * M, 4))
    single_encoder, single_decoder = ((2 * N) ** 0.25, (8 * N) ** -0.25), ((2 * M) ** 0.25, (8 * M) ** -0.25)
    exchanged, others = (a * swapped, b / swapped), ((3 * N) ** 0.25, (12 * N) ** -0.25)
    bug = "The exponent -1/16 turns the root over, and 1.15 = 1/0.87 turns the factor over once too often."
    precedence = "Python reads x**1/16 as (x**1)/16: put the exponent in parentheses."
    known: list[tuple[Pair, Pair, str]] = [
        (
            single_encoder,
            single_decoder,
            "Those are the constants of two separate models. Cross-attention ties them: the encoder's change enters "
            "the decoder M times.",
        ),
        (encoder, single_decoder, "A decoder layer with cross-attention has three sub-layers: 3M, not 2M."),
        (
            single_encoder,
            decoder,
            "The encoder's constants depend on M too: each of M cross-attentions injects its change.",
        ),
        (exchanged, decoder, "N and M are exchanged in the encoder's (N⁴M)^(1/16)."),
        (
            exchanged,
            others,
            "The arguments are exchanged: the number of the encoder's layers comes first.",
        ),
        ((a * root, 1.15 / root), decoder, f"{bug} (A published bug.)"),
        (decoder, encoder, "Encoder and decoder are exchanged: the encoder comes first."),
        ((root, 1 / root), decoder, "The factors 0.81 and 0.87 are missing."),
        ((a * root, b * root), decoder, "The encoder's β shrinks with depth: the exponent is negative."),
        (encoder, (decoder[0], 1 / decoder[0]), "For the decoder's β two matrices share the budget."),
        (encoder, (decoder[0], 1 / decoder[1]), "The decoder's β shrinks with depth: the exponent is negative."),
        ((encoder[1], encoder[0]), (decoder[1], decoder[0]), "α and β are exchanged: α grows with depth."),
        ((a * product / 16, b / product / 16), decoder, precedence),
        ((a * product / 16, b / root), decoder, precedence),
        ((a * root, b / product / 16), decoder, precedence),
        (
            encoder,
            others,
            "The encoder is right. The decoder's constants depend on its own layers alone: M.",
        ),
        (
            (a * _root(N * M, 16), b / _root(N * M, 16)),
            decoder,
            "The encoder's own depth counts four times as much as the decoder's: N⁴.",
        ),
    ]
    return [Misconception(np.array([*first, *second]), sentence) for first, second, sentence in known]
