"""Predictions for a stack at initialisation, with their assumptions. NumPy only: a thousand layers cost nothing."""

from math import erf, factorial, sqrt

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


def attention_moments(tokens: int, similarity: float) -> tuple[float, float]:
    """Variance and covariance between positions, both means, of a causal uniform average of unit-variance tokens.

    Position i averages i tokens with correlation r: variance r + (1-r)/i, mean over i r + (1-r)·H_T/T. Two positions
    i < j share i tokens: covariance r + (1-r)/j, mean over pairs r + (1-r)·2(T - H_T)/(T(T-1)).
    Lemma 4.1 (arXiv 2203.00555) bounds the variance by 1. Assumes flat scores, as at initialisation.

    Args:
        tokens: T, at least 2.
        similarity: r, correlation between any two tokens.
    """
    T, r = tokens, similarity
    harmonic = float(np.sum(1 / np.arange(1, T + 1)))
    return r + (1 - r) * harmonic / T, r + (1 - r) * 2 * (T - harmonic) / (T * (T - 1))


def gelu_correlation(sigma: float, order: int = 30) -> Array:
    """Coefficients c with E[GELU(y)GELU(z)] = Σ c[k]·r^k, for y, z ~ N(0, σ²) with correlation r (Mehler's formula).

    c[k] = E[GELU(σu)·He_k(u)]²/k! for standard normal u, by Gauss-Hermite quadrature; the last coefficient takes the
    rest, so that r = 1 gives E[GELU(z)²] exactly.
    """
    u, weights = np.polynomial.hermite_e.hermegauss(100)
    weights = weights / weights.sum()
    gelu = sigma * u * 0.5 * (1 + np.array([erf(sigma * value / sqrt(2)) for value in u]))
    hermite = np.polynomial.hermite_e.hermevander(u, order - 1)  # (100, order)
    c = np.array([(weights * gelu * hermite[:, k]).sum() ** 2 / factorial(k) for k in range(order)])
    return np.append(c, max(0.0, float((weights * gelu**2).sum() - c.sum())))


def predict(config: ModelConfig, tokens: int) -> DepthProfile:
    """Variance, token similarity and input share by sub-layer at initialisation, as theory has them.

    Each branch adds a variance f and a covariance g between tokens to the stream's own v and c; both norms and branches
    see only r = c/v. Attention: :func:`attention_moments`, times (gain of value · gain of output)². Feed-forward with
    Xavier weights of gain b: b²·2·d_ff/(d_model + d_ff) · :func:`gelu_correlation` at r.

    Assumes wide layers, branches independent of the stream, an input of variance 1 with independent tokens, and one
    correlation for all pairs of positions. Where tokens collapse (Post-LN) the last one is rough.

    Args:
        config: shape; residual one of ``"post_ln"``, ``"pre_ln"``, ``"deepnorm"``.
        tokens: T, length of the sequences, at least 2.

    Raises:
        ValueError: there is no prediction for this rule, the stack has no layers, or the sequence is too short.
    """
    if config.residual == "none":
        raise ValueError("residual='none': there are no layers, so there is nothing to predict.")
    if tokens < 2:
        raise ValueError(f"tokens={tokens}: tokens of a sequence are compared, give 2 or more.")
    if config.residual not in ("post_ln", "pre_ln", "deepnorm"):
        raise ValueError(
            f"There is no prediction for residual {config.residual!r}: "
            "use 'post_ln', 'pre_ln' or 'deepnorm', or measure it with probe()."
        )
    place = Place("decoder", 0, "self_attention", 0, 2 * config.decoder_layers, 0, config.decoder_layers)
    rule: Residual = RESIDUALS[config.residual](place, d_model=1)
    alpha, beta = rule.constants.get("alpha", 1.0), rule.gain("value")
    d, ff = config.d_model, config.d_ff
    xavier = 2 / (d + ff)
    feed_forward = beta**2 * xavier * ff * gelu_correlation(sqrt(beta**2 * xavier * d))
    powers = np.arange(len(feed_forward))
    norm_on_the_sum = config.residual != "pre_ln"

    v, c, share = 1.0, 0.0, 1.0
    variance, similarity, kept = [], [], []
    for sublayer in range(2 * config.decoder_layers):
        r = c / v
        if sublayer % 2 == 0:
            f, g = (beta**4 * moment for moment in attention_moments(tokens, r))
        else:
            f, g = float(feed_forward.sum()), float((feed_forward * r**powers).sum())
        share *= alpha**2 * v / (alpha**2 * v + f)
        v, c = alpha**2 * v + f, alpha**2 * c + g
        if norm_on_the_sum:
            v, c = 1.0, c / v
        variance.append(v)
        similarity.append(c / v)
        kept.append(share)
    label = f"{rule.title}, theory"
    return DepthProfile(label, np.array(variance), np.array(similarity), np.array(kept))
