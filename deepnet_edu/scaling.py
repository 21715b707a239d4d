"""α and β: the closed forms of the DeepNet paper. Nothing else in the package computes them.

DeepNorm is x ← LN(αx + F(x)) for each sub-layer, with α constant in training and inference, and β the Xavier gain
of the value, output and feed-forward projections at initialisation (arXiv 2203.00555, Figure 2).
"""

import operator
from dataclasses import dataclass

from deepnet_edu.messages import shown

#: Beyond it Python cannot take a root of N⁴M.
_DEEPEST = 10**15


@dataclass(frozen=True)
class StackConstants:
    """The two constants of one stack: α scales the skip, β the initial weights of the branch. Both are pure numbers."""

    alpha: float
    beta: float


@dataclass(frozen=True)
class DeepNormConstants:
    """The constants of a model: one :class:`StackConstants` per stack, ``None`` for a stack that it does not have."""

    encoder: StackConstants | None
    decoder: StackConstants | None


def deepnorm_constants(encoder_layers: int = 0, decoder_layers: int = 0) -> DeepNormConstants:
    """α and β for a model with N = ``encoder_layers`` and M = ``decoder_layers``.

    | model           | encoder α        | encoder β         | decoder α  | decoder β   |
    |-----------------|------------------|-------------------|------------|-------------|
    | encoder-only    | (2N)^(1/4)       | (8N)^(-1/4)       |            |             |
    | decoder-only    |                  |                   | (2M)^(1/4) | (8M)^(-1/4) |
    | encoder-decoder | 0.81(N⁴M)^(1/16) | 0.87(N⁴M)^(-1/16) | (3M)^(1/4) | (12M)^(-1/4)|

    0.81 and 0.87 are the paper's own rounding, and what it trained with. The derivation (its Appendix B) gives exactly
    27^(-1/16) = 0.81384… and 27^(1/16)/√2 = 0.86885…; with the rounded pair the encoder's condition
    (N⁴M/27)^(1/4) · 2β²/α² is 1.012 and not 1.

    Args:
        encoder_layers: N, layers (not sub-layers) of the encoder; 0 for a decoder-only model.
        decoder_layers: M, layers of the decoder; 0 for an encoder-only model.

    Returns:
        ``.encoder`` and ``.decoder``, each ``None`` or with ``.alpha`` and ``.beta``.

    Raises:
        ValueError: a depth is negative or no integer, or both are 0.

    Source: arXiv 2203.00555, Figure 2.
    """
    N = _depth("encoder_layers", encoder_layers)
    M = _depth("decoder_layers", decoder_layers)
    if N == M == 0:
        raise ValueError(
            "encoder_layers and decoder_layers are both 0: give at least one layer, "
            "for example deepnorm_constants(decoder_layers=12)."
        )
    if M == 0:
        return DeepNormConstants(encoder=StackConstants((2 * N) ** (1 / 4), (8 * N) ** (-1 / 4)), decoder=None)
    if N == 0:
        return DeepNormConstants(encoder=None, decoder=StackConstants((2 * M) ** (1 / 4), (8 * M) ** (-1 / 4)))
    return DeepNormConstants(
        encoder=StackConstants(0.81 * (N**4 * M) ** (1 / 16), 0.87 * (N**4 * M) ** (-1 / 16)),
        decoder=StackConstants((3 * M) ** (1 / 4), (12 * M) ** (-1 / 4)),
    )


def _depth(name: str, value: int) -> int:
    """``value`` as a plain int, or a ValueError that says what a depth is. (True is an int to Python, not to us.)"""
    expected = "expected a whole number of layers, 0 or more (0 means that the model has no such stack)."
    try:
        depth = operator.index(value)
    except TypeError:
        raise ValueError(f"{name}={shown(value)}: {expected}") from None
    if isinstance(value, bool) or not 0 <= depth <= _DEEPEST:
        most = "" if isinstance(value, bool) or depth < 0 else f" At most {_DEEPEST:,}."
        raise ValueError(f"{name}={shown(value)}: {expected}{most}")
    return depth
