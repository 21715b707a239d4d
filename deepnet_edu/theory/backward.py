"""The gradient on its way down: its variance and its covariance between tokens, sub-layer by sub-layer.

After Kedia et al. (arXiv 2403.09635), whose moments of single components these follow from. The two numbers of a
gradient are what decides: attention returns to a token only its share of that token's gradient, while what all tokens
have in common passes whole (:func:`~deepnet_edu.theory.recursion.post_ln_gradient_factors`).
"""

from collections.abc import Callable, Sequence
from math import pi
from typing import Any

import numpy as np

from deepnet_edu.fields import Correlation, Several, checked
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.model.shape import GATES
from deepnet_edu.profiles import Array
from deepnet_edu.theory.forward import Numbers, StackRows, hermite
from deepnet_edu.theory.moments import Scores, weights_of_scores


@checked()
def attention_backward(
    tokens: Several, causal: bool, score_variance: Scores = 0.0, similarity: Correlation = 0.0
) -> Array:
    """What attention does to (variance, covariance) of a gradient on its way from its output to its values.

    With A the matrix of weights: the value of token s gets Σ_t A_ts g_t. Independent gradients give it Σ_t A_ts², a
    common one (Σ_t A_ts)²; both means over s, and over pairs for the covariance.

    Args:
        tokens: T, at least 2.
        causal: whether tokens see the past alone.
        score_variance: σ² of the scores of independent tokens; 0 where scores are flat.
        similarity: r, correlation of the tokens.

    Returns:
        (2, 2): rows give the new variance and covariance. Exact for independent weights and flat scores, else after
        :func:`~deepnet_edu.theory.moments.attention_weights`; it ignores what goes through the scores.
    """
    return averaged_back(tokens, *weights_of_scores(tokens, causal, score_variance * (1 - similarity), similarity))


def averaged_back(tokens: int, own: Any, pair: Any) -> Array:
    """The same (…, 2, 2) from Σ_s A_ts² and Σ_s A_ts A_t's, means over t and over pairs."""
    T = tokens
    common = own + (T - 1) * pair  # (Σ_t A_ts)², the mean over s
    # Σ_{s≠s'} Σ_t A_ts A_ts' = T - T·own, since each row of A has sum 1; likewise for the columns' sums.
    pair_own, pair_common = (1 - own) / (T - 1), (T - common) / (T - 1)
    return np.moveaxis(np.array([[own, common - own], [pair_own, pair_common - pair_own]]), (0, 1), (-2, -1))


def gradient_norms(config: ModelConfig, tokens: int, stacks: Sequence[StackRows]) -> Array:
    """2-norm of the gradient in the matrices of each sub-layer, up to a common factor.

    Assumes a loss whose gradient at the top of the last stack has variance 1 and is independent from token to token,
    weights independent of it.

    Args:
        config: of the model.
        tokens: T.
        stacks: the signals, the encoder's first.
    """
    norms: list[Array] = []
    top = (1.0, 0.0)
    for stack in reversed(stacks):
        found, top = _down(config, tokens, stack, top)
        norms.insert(0, found)
    return np.concatenate(norms)


def _down(
    config: ModelConfig, tokens: int, stack: StackRows, top: tuple[float, float]
) -> tuple[Array, tuple[float, float]]:
    """The norms of one stack, and the gradient that its cross-attentions send to their memory."""
    x = stack.rows._asdict()
    d, ff, T = config.d_model, config.d_ff, tokens

    def along(ask: Callable[[Numbers], float | bool]) -> Any:
        return np.tile([ask(place) for place in stack.pattern], len(stack.rows.in_v) // len(stack.pattern))

    def flag(name: str) -> Any:
        return along(lambda place: getattr(place.signal, name))

    ffn, cross = along(lambda place: place.kind == "ffn"), along(lambda place: place.kind == "cross_attention")
    # From the sum to the output of the branch's last matrix, and along the skip.
    behind = np.where(flag("norm_sum"), 1 / x["sum_v"], 1.0)
    skip = behind * flag("skip") ** 2
    branch = flag("branch") ** 2 * np.where(flag("relative"), x["in_v"], 1.0)
    last = behind * branch * np.where(flag("norm_branch"), 1 / np.maximum(x["branch_v"], 1e-300), 1.0)
    # Through the last matrix, transposed: fan_out·σ².
    second = along(lambda place: place.second) * np.where(ffn, d / ff, 1.0)
    inside = second * np.where(flag("norm_inside"), 1 / x["raw_hidden_v"], 1.0)
    # Through activation or average, to the output of the first matrix.
    middle = np.empty((len(ffn), 2, 2))
    middle[~ffn] = averaged_back(T, x["own"][~ffn], x["pair"][~ffn])
    middle[ffn] = _activation_backward(config, x, along(lambda place: place.gate), ffn)
    middle *= np.where(flag("norm_value") & ~ffn & ~cross, 1 / x["inner_v"], 1.0)[:, None, None]
    # Through the first matrix, and the norm before the branch.
    first = along(lambda place: place.first) * np.where(ffn, ff / d, 1.0)
    read = flag("read") ** 2 * np.where(flag("norm_read"), 1 / x["in_v"], 1.0)  # the stream's, on its way to the branch
    query, key = along(lambda place: place.query), along(lambda place: place.key)
    asked_v = flag("read") ** 2 * np.where(flag("norm_read"), 1.0, x["in_v"])
    scores = _scores_backward(x, asked_v, flag("norm_value") & ~cross, query, key, T)
    # A norm takes away what is along its input and along (1, …, 1), 2 of d directions of a gradient that is new. What
    # came down the skip has been through the norm above, and has only so much along x as x has turned since.
    turned = 1 - flag("skip") ** 2 * x["in_v"] / x["sum_v"]
    skip *= np.where(flag("norm_sum"), 1 - turned / d, 1.0)
    read *= np.where(flag("norm_sum") | flag("norm_read"), 1 - 2 / d, 1.0)
    to_first, to_query, to_key = (last * inside)[:, None, None] * np.stack([middle, *scores])
    by_query = query[:, None, None] * to_query
    by_rest = first[:, None, None] * to_first + key[:, None, None] * to_key  # what a memory gets of a cross-attention
    to_stream = by_query + np.where(cross[:, None, None], 0.0, by_rest)
    step = skip[:, None, None] * np.eye(2) + read[:, None, None] * to_stream

    norm_finish = stack.pattern[-1].signal.norm_finish
    scale = 1 / x["out_v"][-1] if norm_finish else 1.0
    v, c = top[0] * scale, top[1] * scale
    came: list[float] = []
    for vv, vc, cv, cc in zip(*step.reshape(-1, 4)[::-1].T.tolist(), strict=True):
        came += (v, c)
        v, c = vv * v + vc * c, cv * v + cc * c
    arriving = np.array(came).reshape(-1, 2)[::-1]
    # ‖G‖² of a matrix is fan_in·fan_out times Σ over pairs of tokens of (gradient's) · (input's) covariance.
    at_last = last[:, None] * arriving
    at_first, at_query, at_key, at_memory = (
        np.einsum("nij,nj->ni", to, arriving) for to in (to_first, to_query, to_key, by_rest)
    )
    sizes = np.where(ffn, d * ff, d * d)
    square = sizes * (
        at_last[:, 0] * x["hidden_v"] + (T - 1) * at_last[:, 1] * x["hidden_c"]
        + (at_first + at_key)[:, 0] * x["seen_v"] + (T - 1) * (at_first + at_key)[:, 1] * x["seen_c"]
        + at_query[:, 0] * asked_v + (T - 1) * at_query[:, 1] * asked_v * x["in_c"] / x["in_v"]
    )  # fmt: skip
    to_memory = (at_memory * cross[:, None]).sum(0)
    return np.sqrt(np.maximum(square, 0.0)), (float(to_memory[0]), float(to_memory[1]))


def _scores_backward(x: dict[str, Array], asked_v: Array, normed: Any, query: Array, key: Array, tokens: int) -> Array:
    """(2, sub-layers, 2, 2): what a gradient at attention's output does to the outputs of query and of key.

    The gradient of a score is A_ts·g_t·(v_s - o_t), of variance A_ts²·γ·v' with v' what values do not share. Its sum
    over s is 0: of keys, too, only what they do not share counts, and nothing arrives in what they have in common.
    """
    own, pair = x["own"], x["pair"]
    # 1 over the variance that the norms of query, key and value divide by, where a rule has them.
    by_query, by_key, by_value = (
        np.where(normed, 1 / np.maximum(variance, 1e-300), 1.0)
        for variance in (query * asked_v, key * x["seen_v"], x["inner_v"])
    )
    values = (x["inner_v"] - x["inner_c"]) * by_value * (1 - own)
    keys, queries = key * (x["seen_v"] - x["seen_c"]) * by_key, query * asked_v * by_query
    zero, r = np.zeros_like(own), x["in_c"] / x["in_v"]
    to_query = by_query * values * keys * np.array([[own, zero], [zero, pair]])
    to_key = by_key * values * queries * np.array([[own, (tokens - 1) * pair * r], [zero, zero]])
    to_key[1] = -to_key[0] / (tokens - 1)
    return np.moveaxis(np.stack([to_query, to_key]), 3, 1)


def _activation_backward(config: ModelConfig, x: dict[str, Array], gate: Array, ffn: Any) -> Array:
    """(feed-forward sub-layers, 2, 2): each token's own slope, and that of two tokens together."""
    r = np.minimum(x["seen_c"] / x["seen_v"], 1.0)[ffn]
    variance, gates = x["inner_v"][ffn], (gate * x["seen_v"])[ffn]
    result = np.zeros((len(r), 2, 2))
    result[:, 0, 0] = _slopes(config.activation, variance, gates, np.ones(len(r)))
    result[:, 1, 1] = _slopes(config.activation, variance, gates, r)
    return result


def _slopes(activation: str, variance: Array, gate: Array, r: Array) -> Array:
    """E[φ'(y)φ'(z)] for y, z of this variance with correlation r; with a gate, of both its ways together.

    By Price's theorem it is dE[φ(y)φ(z)]/dr over the variance.
    """
    if activation == "relu":
        return np.asarray((pi - np.arccos(np.clip(r, -1, 1))) / (2 * pi))
    if activation in GATES:
        c, slope = _polynomials(GATES[activation], gate, r)
        return c + variance * r * slope / gate
    return _polynomials("gelu", variance, r)[1] / variance


def _polynomials(activation: str, variance: Array, r: Array) -> tuple[Array, Array]:
    """E[φφ'] at correlation r, and its derivative in r."""
    sigmas, which = np.unique(np.round(np.sqrt(variance), 6), return_inverse=True)
    c = np.array([hermite(activation, float(sigma) ** 2)[0] for sigma in sigmas])[which]  # (n, order)
    value, slope = np.zeros(len(r)), np.zeros(len(r))
    for k in range(c.shape[1] - 1, -1, -1):  # Horner's scheme, for all layers at once
        slope = slope * r + value
        value = value * r + c[:, k]
    return value, slope
