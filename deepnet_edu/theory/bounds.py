"""Bounds: gradients of Post-LN and Pre-LN (Xiong et al.), and the model update (DeepNet, Theorems 4.2 and 4.3)."""

from math import log, sqrt
from typing import Any, Literal

import numpy as np

from deepnet_edu.fields import Count, Number, Positive, checked
from deepnet_edu.profiles import Array
from deepnet_edu.theory.moments import numbers


def _parts(given: Any) -> Any:
    """v, w, α, step with lists as arrays."""
    if not isinstance(given, list | tuple) or len(given) != 4:
        return given
    v, w, alpha, step = given
    return numbers(v), numbers(w), alpha, numbers(step)


@checked()
def last_ffn_gradient_bound(d_model: Count, layers: Count, norm: Literal["post_ln", "pre_ln"]) -> float:
    """The gradient of the last FFN's second matrix: d√(ln d) for Post-LN, d√(ln d / L) for Pre-LN, up to a constant.

    Assumes weights N(0, 1/d), query and key 0, ReLU, d_ff = d, and holds with high probability (arXiv 2002.04745,
    Theorem 1). Use ratios: the constant is the same for both.

    Args:
        d_model: d.
        layers: L.
        norm: which of the two.

    Raises:
        ValueError: neither of the two.
    """
    if norm not in ("post_ln", "pre_ln"):
        raise ValueError(f"norm={norm!r}: the theorem has 'post_ln' and 'pre_ln'.")
    return d_model * sqrt(log(d_model) / (layers if norm == "pre_ln" else 1))


@checked()
def post_ln_gradient_decay(layers: Count) -> Array:
    """(2/3)^((L-l)/2) for l = 1 … L: how Post-LN's bound falls on the way down; Pre-LN's does not depend on l.

    Each FFN's norm divides by √(3/2), the length that the sum has there (arXiv 2002.04745, Lemma 2 and Appendix).
    Assumes what :func:`last_ffn_gradient_bound` does; attention's part is bounded by 1.
    """
    return np.asarray((2 / 3) ** ((layers - np.arange(1, layers + 1)) / 2))


@checked(v=numbers, w=numbers, step=numbers)
def update_bound(v: Array, w: Array, alpha: Positive, step: Array) -> float:
    """‖ΔF‖ ≤ Σ_{i=1}^{2N} √(v_i² + w_i²)/α · ‖θ_i* - θ_i‖ (arXiv 2203.00555, Theorem 4.2).

    Assumes hidden size 1, weights v, w positive and below 1, α > 1, first order, SGD; only matrices, no biases, no
    parameters of norms. Up to a constant: use how it grows.

    Args:
        v, w: (2N,) scale of each sub-layer's two matrices.
        alpha: of the skip.
        step: (2N,) ‖θ_i* - θ_i‖, how far each sub-layer's weights moved.
    """
    if not v.shape == w.shape == step.shape:
        raise ValueError(f"v, w and step have {len(v)}, {len(w)} and {len(step)} entries: expected one a sub-layer.")
    return float(np.sum(np.sqrt(v**2 + w**2) / alpha * step))


@checked(encoder=_parts, decoder=_parts)
def encoder_decoder_update_bound(
    encoder: tuple[Array, Array, float, Array], decoder: tuple[Array, Array, float, Array]
) -> float:
    """‖ΔF‖ ≤ Σ_{j=1}^{M} v_{d,3j-1} w_{d,3j-1}/α_d · E + D, E and D the sums of Theorem 4.2 over 2N and 3M sub-layers.

    The encoder's update enters once through each of the M cross-attentions, which is why a decoder is less stable
    (arXiv 2203.00555, Theorem 4.3). Assumptions as :func:`update_bound`.

    Args:
        encoder: v, w, α, step of 2N sub-layers.
        decoder: v, w, α, step of 3M sub-layers: self-attention, cross-attention, FFN.

    Raises:
        ValueError: the number of the decoder's sub-layers is not a multiple of three.
    """
    v, w, alpha, _ = decoder
    if len(v) % 3:
        raise ValueError(f"A decoder with cross-attention has 3 sub-layers a layer, {len(v)} is not a multiple of 3.")
    update = update_bound(*encoder), update_bound(*decoder)
    entrance = float(np.sum(v[1::3] * w[1::3] / alpha))
    return entrance * update[0] + update[1]


@checked()
def sgd_update_sum(sublayers: Count, v: Number, w: Number, alpha: Positive) -> float:
    """Theorem 4.2 for equal sub-layers and one SGD step per unit of learning rate: L·(v² + w²)/α².

    A step is the gradient, and ‖∂F/∂θ_i‖ is itself bounded by √(v² + w²)/α. DeepNorm makes this 1 at every depth
    (arXiv 2203.00555, Section 4.3: 2N(v² + w²)/α² = 1).
    """
    return sublayers * (v * v + w * w) / alpha**2


@checked()
def fixed_step_update_sum(sublayers: Count, v: Number, w: Number, alpha: Positive) -> float:
    """The same for steps of one size, as Adam's first are: L·√(v² + w²)/α.

    √(2N) for DeepNorm's constants, √2 for GLM-130B's: why a group that trained with Adam took other exponents.
    """
    return sublayers * sqrt(v * v + w * w) / alpha


@checked()
def encoder_condition(encoder_layers: Count, decoder_layers: Count, v: Number, w: Number, alpha: Positive) -> float:
    """(N⁴M/27)^(1/4)·(v² + w²)/α², which the encoder of an encoder-decoder should bring to 1 (Section 4.3, Appendix B).

    With the paper's rounded 0.81 and 0.87 it is 1.012.
    """
    return float((encoder_layers**4 * decoder_layers / 27) ** 0.25 * (v * v + w * w) / alpha**2)
