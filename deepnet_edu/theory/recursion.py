"""The stream's variance, what is left of its input, and how similar its tokens become, sub-layer by sub-layer."""

from math import log, sqrt

import numpy as np

from deepnet_edu.fields import Correlation, Count, NotNegative, Number, Several, Share, checked
from deepnet_edu.profiles import Array
from deepnet_edu.theory.moments import numbers

EULER = 0.5772156649015329


@checked(f=numbers)
def variance_by_depth(f: Array, alpha: Number = 1.0, var0: NotNegative = 1.0) -> Array:
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


@checked(f=numbers)
def input_share(f: Array, alpha: Number = 1.0) -> Array:
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


@checked()
def pre_ln_variance(layers: Count, per_layer: NotNegative, var0: NotNegative = 1.0) -> Array:
    """Pre-LN's stream: σ²_l = σ²_0 + c·l, since every branch sees a normalised input and adds the same.

    Assumes branches independent of the stream. Xiong et al. (arXiv 2002.04745, Lemma 2) bound it, for their weights, by
    (1 + l/2) ≤ σ²_l ≤ (1 + 3l/2) in units of the width.

    Args:
        layers: L.
        per_layer: c, the variance that both branches of a layer add.
        var0: variance of the input.

    Returns:
        (L + 1,): the input's variance, then one value after each layer.
    """
    return np.asarray(var0 + per_layer * np.arange(layers + 1.0))


@checked()
def layernorm_scaling_variance(layers: Count, per_branch: NotNegative, var0: NotNegative = 1.0) -> float:
    """Variance at the top with LN(x)/√l: σ₀² + 2c·(ln L + 0.577), the harmonic sum, instead of σ₀² + 2cL.

    Assumes branches that are linear in their input and independent of the stream (arXiv 2502.05795; the constant is our
    own sum, H_L ≈ ln L + 0.577).

    Args:
        layers: L, at least 1.
        per_branch: c, the variance that a branch adds in the first layer.
        var0: variance of the input.
    """
    return var0 + 2 * per_branch * (log(layers) + EULER)


@checked()
def deepnorm_input_share(layers: Count, s: NotNegative = 1.0) -> float:
    """What is left of the input after N layers: (1 + s·β⁴/α²)^(-2N), with β⁴/α² = 1/(8N√(2N)) exactly.

    ≈ exp(-s/(4√(2N))): a deeper stack starts closer to the identity. Assumes branches independent of the stream, of
    variance s·β⁴: s = 1 for two square matrices, 2·d·d_ff/(d + d_ff)² for a ReLU FFN, less for attention.

    Args:
        layers: N of a single stack.
        s: variance of a branch with gain 1, for an input of variance 1.
    """
    return float((1 + s / (8 * layers * sqrt(2 * layers))) ** (-2 * layers))


@checked()
def similarity_step(t: Share, tokens: Several, s: NotNegative) -> float:
    """What one causal attention branch of Post-LN adds to the similarity t of tokens: Δ = s·f₁/(1 + s·f₂).

    f₁ = (1-t)(n-H_n)(nt+1)/(n(n-1)), f₂ = ((n-H_n)t + H_n - 1)/(n-1), H_n the harmonic number (from a secondary source:
    Post-Norm decoders, 2026). t = ‖Π₁X‖²/‖X‖² is the part of the variance that all tokens share, so that independent
    tokens have t = 1/n. Assumes flat attention, and the same s, the variance of value and output together, in all
    layers.

    Args:
        t: between 0 and 1.
        tokens: n, at least 2.
        s: d_model·σ_W², the factor of a branch's variance; 1 for square Xavier matrices.
    """
    n = tokens
    harmonic = float(np.sum(1 / np.arange(1, n + 1)))
    f1 = (1 - t) * (n - harmonic) * (n * t + 1) / (n * (n - 1))
    f2 = ((n - harmonic) * t + harmonic - 1) / (n - 1)
    return s * f1 / (1 + s * f2)


@checked()
def post_ln_gradient_factors(similarity: Correlation, tokens: Count) -> tuple[float, float]:
    """What a Post-LN attention sub-layer does to a gradient: to the part of its own token, and to what all share.

    Own: 1/√(1 + r + (1-r)/n), nearly 1/√2 a layer once tokens are equal, since attention returns only 1/n of it.
    Shared: √(2/(1 + r + (1-r)/n)), which goes to 1: a whole stack's gradient does not vanish as the own part does.
    Assumes flat, bidirectional attention with gain 1 and correlation r between tokens (after Kedia et al.,
    arXiv 2403.09635, whose moments these follow from).

    Args:
        similarity: r.
        tokens: n.
    """
    norm = 1 + similarity + (1 - similarity) / tokens
    return norm**-0.5, (2 / norm) ** 0.5
