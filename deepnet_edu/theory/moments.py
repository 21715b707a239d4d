"""Moments of one component: what it does to a variance, to a correlation between tokens, and to a gradient.

Formulas of Kedia et al. (arXiv 2403.09635), read in their code, unless a docstring says otherwise. σ² is the variance
of each feature, r the correlation of two tokens in the same feature; inputs are Gaussian.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import acos, erf, exp, factorial, log, pi, sqrt
from typing import Annotated, Any, Literal

import numpy as np

from deepnet_edu.fields import Correlation, Count, NotNegative, Positive, Range, Several, checked
from deepnet_edu.messages import unknown
from deepnet_edu.profiles import Array

Dropped = Annotated[float, Range(0, 1, open=True)]
Scores = Annotated[float, Range(0, 300)]


def numbers(given: Any) -> Array:
    """A list of numbers as an array, (n,).

    Raises:
        ValueError: it is something else.
    """
    try:
        found = np.asarray(given, dtype=float)
    except (TypeError, ValueError, OverflowError):
        found = np.array(np.nan)
    if found.ndim != 1 or not (np.abs(found) <= 1e100).all():
        raise ValueError("Expected a list of finite numbers, one for each sub-layer, for example np.full(24, 0.1).")
    return found


@dataclass(frozen=True)
class Moments:
    """What leaves a component.

    Attributes:
        mean: of a feature.
        variance: of a feature.
        covariance: of two tokens in the same feature.
        gradient: the factor on the variance of a gradient on its way back.
    """

    mean: float
    variance: float
    covariance: float
    gradient: float


@checked()
def linear_moments(
    fan_in: Count, fan_out: Count, weight_variance: NotNegative, variance: NotNegative, r: Correlation = 0.0
) -> Moments:
    """y = Wx: variance fan_in·σ_w²·σ², covariance r times that; gradient factor fan_out·σ_w².

    Assumes weights independent of the input, of mean 0; an input of mean 0.
    """
    out = fan_in * weight_variance * variance
    return Moments(0.0, out, r * out, fan_out * weight_variance)


@checked()
def relu_moments(variance: NotNegative, r: Correlation = 0.0) -> Moments:
    """max(0, x): mean σ/√(2π), variance σ²(π-1)/(2π), covariance σ²(πr + √(1-r²) - r·acos r - 1)/(2π), gradient ½.

    Second moment σ²/2, which is Lemma 1 of Xiong et al. (arXiv 2002.04745) feature by feature. Assumes x ~ N(0, σ²).
    """
    covariance = variance * (pi * r + sqrt(1 - r * r) - r * acos(r) - 1) / (2 * pi)
    return Moments(sqrt(variance / (2 * pi)), variance * (pi - 1) / (2 * pi), covariance, 0.5)


@checked()
def layer_norm_moments(variance: Positive, r: Correlation = 0.0) -> Moments:
    """LN: variance 1, covariance r, gradient factor 1/σ². Assumes many features; each token takes its own mean away."""
    return Moments(0.0, 1.0, r, 1 / variance)


@checked()
def layer_norm_jacobian(length: Positive, d_model: Count) -> float:
    """‖∂LN(x)/∂x‖₂ = √d/‖x‖₂, γ = 1 (arXiv 2002.04745, Lemma 3, there as a bound O(√d/‖x‖)).

    Exact for the spectral norm where x has mean 0 and d ≥ 3: two directions are lost, all others are divided by σ.
    """
    return sqrt(d_model) / length


@checked()
def attention_forward_moments(
    tokens: Count, r: Correlation, variance: NotNegative = 1.0, gain: NotNegative = 1.0
) -> Moments:
    """Bidirectional flat attention: variance and covariance (r + (1-r)/n)·σ²·gain, all tokens get the same.

    Its gradient factor is (1 + (n-1)r_g)/n for gradients correlated by r_g, :func:`attention_backward_factor`; here for
    independent ones. Assumes scores of 0, as at initialisation.

    Args:
        tokens: n.
        r: correlation between tokens.
        variance: σ².
        gain: (d·σ_w²)² of value and output together.
    """
    out = (r + (1 - r) / tokens) * variance * gain
    return Moments(0.0, out, out, gain * attention_backward_factor(tokens, 0.0))


@checked()
def attention_backward_factor(tokens: Count, gradient_r: Correlation, dropout: Dropped = 0.0) -> float:
    """(1 + (n-1)·r_g·(1-p))/(n(1-p)): the factor on a gradient's variance that flat attention returns to its values."""
    return (1 + (tokens - 1) * gradient_r * (1 - dropout)) / (tokens * (1 - dropout))


@checked()
def softmax_variance(tokens: Count, score_variance: Scores, r: Correlation = 0.0) -> float:
    """Variance of one attention weight: (exp((1-r)σ²) - 1)/n². Assumes Gaussian scores, and n large beside exp(σ²)."""
    return (exp((1 - r) * score_variance) - 1) / tokens**2


@checked()
def relu_ffn_correlation(r: Correlation, dropout: Dropped = 0.0) -> float:
    """r_out = (1-p)·(r + (√(1-r²) - r·acos r)/π): correlation of two tokens after W₂·max(0, W₁x).

    The second matrix turns the ReLU's mean into something that tokens share: even r = 0 gives 1/π.
    """
    return (1 - dropout) * rectified(r)


def rectified(r: float) -> float:
    """The same without dropout and without a look at r, for loops."""
    return r + (sqrt(1 - r * r) - r * acos(r)) / pi


@checked()
def attention_moments(tokens: Several, similarity: Correlation, score_variance: Scores = 0.0) -> tuple[float, float]:
    """Variance and covariance between positions, both means, of a causal average of unit-variance tokens.

    With flat scores position i averages i tokens with correlation r: variance r + (1-r)/i, mean over i
    r + (1-r)·H_T/T. Two positions i < j share i tokens: covariance r + (1-r)/j, mean over pairs
    r + (1-r)·2(T - H_T)/(T(T-1)). With others see :func:`attention_weights`.
    Lemma 4.1 (arXiv 2203.00555) bounds the variance by 1.

    Args:
        tokens: T, at least 2.
        similarity: r, correlation between any two tokens.
        score_variance: σ² of the scores of independent tokens; 0 where scores are flat.
    """
    r = similarity
    own, pair = weights_of_scores(tokens, True, score_variance * (1 - r), r)
    return r + (1 - r) * own, r + (1 - r) * pair


@checked()
def attention_weights(tokens: Several, causal: bool, variance: Scores, r: Correlation) -> tuple[float, float]:
    """Σ_s A_ts² and Σ_s A_ts·A_t's, means over positions t and over pairs of them: what of independent values is left
    in an average, and what two averages share.

    Gaussian scores of variance σ² among the keys of a query make softmax weights with E[A²] = exp(σ²)/t² for many
    tokens t, and two queries of correlation r have E[A·A'] = exp(rσ²)/t² (:func:`softmax_variance` is their difference
    for r = 0). A query that sees one token gives it weight 1; between the two 1/(1 + (t - 1)·exp(-σ²)), our own, is
    used. With flat scores, σ² = 0, both are exact: 1/T, or means of 1/t in a decoder.

    Args:
        tokens: T.
        causal: whether tokens see the past alone.
        variance: σ² of the scores among the keys of one query; what all keys have in common moves none.
        r: correlation of two queries.
    """
    own, pair = weights_of_scores(tokens, causal, variance, r)
    return float(own), float(pair)


def weights_of_scores(tokens: int, causal: bool, variance: Any, r: Any) -> tuple[Any, Any]:
    """:func:`attention_weights` of numbers or of arrays of them, unchecked."""
    T = tokens
    e = np.exp if isinstance(variance, np.ndarray) or isinstance(r, np.ndarray) else exp  # ten times as quick
    own, pair = e(-variance), e(-r * variance)
    if not causal:
        return 1 / (1 + (T - 1) * own), 1 / (1 + (T - 1) * pair)
    return _harmonic(T, own) / T, 2 * (T - _harmonic(T, pair)) / (pair * T * (T - 1))


def _harmonic(n: int, q: Any) -> Any:
    """Σ 1/(1 + kq) for k from 0 to n - 1, the harmonic number H_n for q = 1, as (ψ(n + 1/q) - ψ(1/q))/q."""
    return (_digamma(n + 1 / q) - _digamma(1 / q)) / q


def _digamma(x: Any) -> Any:
    """ψ(x) for x ≥ 1: six steps up, then Stirling's series, to 1e-10."""
    below = 0.0
    for k in range(6):
        below = below + 1 / (x + k)
    x = x + 6
    y = 1 / (x * x)
    ln = np.log(x) if isinstance(x, np.ndarray) else log(x)
    return ln - 0.5 / x - y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y / 132)))) - below


@checked()
def activation_correlation(
    activation: Literal["gelu", "silu"], sigma: float, order: Annotated[int, Range(1, 100)] = 30
) -> Array:
    """Coefficients c with E[φ(y)φ(z)] = Σ c[k]·r^k, for y, z ~ N(0, σ²) with correlation r (Mehler's formula).

    c[k] = E[φ(σu)·He_k(u)]²/k! for standard normal u, by Gauss-Hermite quadrature, so c[0] is the squared mean; the
    last coefficient takes the rest, so that r = 1 gives E[φ(z)²] exactly. φ(y) = y·Φ(y) for GELU, y/(1 + e^(-y)) for
    SiLU.
    """
    if activation not in ("gelu", "silu"):
        raise ValueError(unknown("activation", activation, ("gelu", "silu")))
    u, weights, hermite, factorials = _hermite(order)
    y = sigma * u
    gate = 0.5 * (1 + np.array([erf(v / sqrt(2)) for v in y])) if activation == "gelu" else 1 / (1 + np.exp(-y))
    phi = y * gate
    c = ((weights * phi) @ hermite) ** 2 / factorials
    return np.append(c, max(0.0, float((weights * phi**2).sum() - c.sum())))


@lru_cache
def _hermite(order: int) -> tuple[Array, Array, Array, Array]:
    """Nodes, weights (n,), He_k at the nodes (n, order), k! (order,)."""
    u, weights = np.polynomial.hermite_e.hermegauss(100)
    hermite = np.polynomial.hermite_e.hermevander(u, order - 1)
    return (
        np.asarray(u),
        weights / weights.sum(),
        np.asarray(hermite),
        np.array([float(factorial(k)) for k in range(order)]),
    )
