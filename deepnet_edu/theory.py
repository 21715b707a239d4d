"""Predictions for a stack at initialisation, with their assumptions. NumPy only: a thousand layers cost nothing."""

from math import erf, sqrt

import numpy as np

from deepnet_edu.models import ModelConfig
from deepnet_edu.record import Array, DepthProfile
from deepnet_edu.residual import RESIDUALS, Place, Residual


def variance_by_depth(f: Array, alpha: float = 1.0, var0: float = 1.0) -> Array:
    """Variance of a stream without a norm on the sum, x ← αx + F: v ← α²v + f.

    Assumes that the branch's output is independent of the stream, so that variances add.

    Args:
        f: (n,) variance that each branch adds.
        alpha: factor on the skip.
        var0: variance of the input.

    Returns:
        (n + 1,): the input's variance, then one value after each sub-layer.
    """
    v = [var0]
    for branch in f:
        v.append(alpha**2 * v[-1] + float(branch))
    return np.array(v)


def input_share(f: Array, alpha: float = 1.0) -> Array:
    """Share of the variance that is still the input, for x ← LN(αx + F): the product of α²/(α² + f).

    Assumes that the branch's output is independent of the stream. With f = β⁴ and DeepNorm's constants the share
    after 2N sub-layers is (1 + 1/(8N√(2N)))^(-2N) ≈ exp(-1/(4√(2N))): deeper stacks start closer to the identity.

    Args:
        f: (n,) variance of each branch's output, for an input of variance 1.
        alpha: factor on the skip.

    Returns:
        (n,): the share after each sub-layer.
    """
    return np.asarray(np.cumprod(alpha**2 / (alpha**2 + f)))


def averaging_gain(tokens: int) -> float:
    """Variance left by causal uniform attention over ``tokens`` independent tokens, mean over positions: H_T/T.

    Position i averages i tokens of variance 1, which leaves 1/i. Lemma 4.1 (arXiv 2203.00555) bounds this by 1.
    """
    return float(np.mean(1 / np.arange(1, tokens + 1)))


def gelu_second_moment(sigma: float) -> float:
    """E[GELU(z)²] for z ~ N(0, σ²), by Gauss-Hermite quadrature with 80 nodes (ReLU: σ²/2)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    z = sigma * nodes
    gelu = z * 0.5 * (1 + np.array([erf(value / sqrt(2)) for value in z]))
    return float((weights * gelu**2).sum() / weights.sum())


def branch_variance(config: ModelConfig, tokens: int) -> Array:
    """Variance of each branch's output at initialisation for a stream of variance 1, from the bottom up.

    Attention with flat scores, weights of gain g (value) and g (output): g⁴ · H_T/T. Feed-forward with Xavier weights
    of gain g: g² · 2 d_ff/(d_model + d_ff) · E[GELU(z)²], z of variance g² · 2 d_model/(d_model + d_ff).
    Assumes independent tokens: wrong as soon as they collapse.

    Args:
        config: the model's shape.
        tokens: T, length of the sequences.

    Returns:
        (2 · decoder_layers,).
    """
    beta = _rule(config).gain("value")
    d, f = config.d_model, config.d_ff
    attention = beta**4 * averaging_gain(tokens)
    ffn = beta**2 * 2 * f / (d + f) * gelu_second_moment(sqrt(beta**2 * 2 * d / (d + f)))
    return np.tile([attention, ffn], config.decoder_layers)


def predict(config: ModelConfig, tokens: int) -> DepthProfile:
    """Variance and input share by sub-layer at initialisation, as theory has them.

    Assumptions: those of :func:`branch_variance`, and an input of variance 1.

    Args:
        config: shape; residual one of ``"post_ln"``, ``"pre_ln"``, ``"deepnorm"``.
        tokens: T, length of the sequences.

    Raises:
        ValueError: there is no prediction for this rule, or the stack has no layers.
    """
    if config.decoder_layers == 0:
        raise ValueError("decoder_layers=0: there is nothing to predict, give at least one layer.")
    f = branch_variance(config, tokens)
    label = f"{RESIDUALS[config.residual].title}, theory"
    if config.residual == "pre_ln":
        variance = variance_by_depth(f)
        return DepthProfile(label, variance=variance[1:], input_share=variance[0] / variance[1:])
    if config.residual not in ("post_ln", "deepnorm"):
        raise ValueError(
            f"There is no prediction for residual {config.residual!r}: "
            "use 'post_ln', 'pre_ln' or 'deepnorm', or measure it with probe()."
        )
    alpha = _rule(config).constants.get("alpha", 1.0)
    return DepthProfile(label, variance=np.ones_like(f), input_share=input_share(f, alpha))


def _rule(config: ModelConfig) -> Residual:
    """The rule at the bottom of the stack, for its constants; its width does not matter."""
    place = Place("decoder", 0, "self_attention", 0, 2 * config.decoder_layers, 0, config.decoder_layers)
    return RESIDUALS[config.residual](place, d_model=1)
