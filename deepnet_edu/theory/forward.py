"""The signal on its way up: variance and covariance between tokens, sub-layer by sub-layer."""

from dataclasses import dataclass
from functools import lru_cache
from math import pi, sqrt
from typing import NamedTuple

import numpy as np

from deepnet_edu.model.config import ModelConfig
from deepnet_edu.model.shape import GATES
from deepnet_edu.profiles import Array
from deepnet_edu.residual import DEFAULT, RESIDUALS, Residual, Signal, StackName, place_at, sublayer_kinds
from deepnet_edu.theory.moments import activation_correlation, rectified, weights_of_scores

#: exp(-σ²) of scores is taken of at most this σ².
MAX_SCORES = 300.0


@dataclass(frozen=True)
class Numbers:
    """What a rule says at one place.

    Attributes:
        kind: of the sub-layer.
        signal: where its norms and factors are.
        first, gate, second: fan_in·σ² of value, or of ffn_in and ffn_gate; and of output or ffn_out.
        query, key: fan_in·σ² of these.
    """

    kind: str
    signal: Signal
    first: float
    gate: float
    second: float
    query: float = 0.0
    key: float = 0.0


class Rows(NamedTuple):
    """Variances _v and covariances between tokens _c, (n,) each, one number for each sub-layer: of the stream before
    it, of what the branch sees, of what its first matrix gives (values, or what the activation gets), of what its last
    matrix gets, before and after a norm there, of what it returns, of the sum before its norm, of the stream after it.
    own and pair are what attention leaves of independent values, and what two averages share; 1 and 0 elsewhere.
    """

    in_v: Array
    in_c: Array
    seen_v: Array
    seen_c: Array
    inner_v: Array
    inner_c: Array
    raw_hidden_v: Array
    hidden_v: Array
    hidden_c: Array
    branch_v: Array
    sum_v: Array
    out_v: Array
    out_c: Array
    share: Array
    own: Array
    pair: Array


@dataclass(frozen=True)
class StackRows:
    """One stack.

    Attributes:
        stack: its name.
        pattern: what the rule says at each place, as often repeated as there are places.
        rows: the signal at each place.
    """

    stack: StackName
    pattern: list[Numbers]
    rows: Rows


def forward(
    config: ModelConfig, stack: StackName, tokens: int, gain: float, memory: tuple[float, float] | None
) -> StackRows:
    """The signal through one stack. Plain numbers in one loop: it runs while a slider moves.

    Args:
        config: of the model.
        stack: which of its stacks.
        tokens: T.
        gain: a further factor on the initial weights of value, output and feed-forward.
        memory: variance and covariance of what the encoder returned.
    """
    pattern = _pattern(config, stack, gain)
    layers = config.encoder_layers if stack == "encoder" else config.decoder_layers
    repeated = layers * len(sublayer_kinds(stack, config.encoder_layers)) // len(pattern)
    own = 1.0 if config.position == "rotary" else 0.5  # the token's part of variance 1, the position's beside
    ends = _rule(config, stack, 0).ends_gain("embedding")
    v, c, share = own * ends**2 + 1 - own, 0.0, 1.0
    found: list[float] = []
    for place in pattern * repeated:
        signal = place.signal
        seen_v, seen_c = (1.0, c / v) if signal.norm_read else (v, c)
        seen_v, seen_c = seen_v * signal.read**2, seen_c * signal.read**2
        own, pair = 1.0, 0.0
        if place.kind == "ffn":
            inner_v, inner_c = seen_v * place.first, seen_c * place.first
            mean, hidden_v, hidden_c = _activation(
                config.activation, inner_v, seen_v * place.gate, min(seen_c / seen_v, 1.0)
            )
            if signal.norm_inside and config.norm == "layer":
                hidden_v, hidden_c = hidden_v - mean, hidden_c - mean
        else:
            queries = place.query * seen_v, min(seen_c / seen_v, 1.0)
            if place.kind == "cross_attention":
                assert memory is not None
                seen_v, seen_c = memory
            inner_v, inner_c = seen_v * place.first, seen_c * place.first
            value_v, value_c = inner_v, inner_c
            scores, similarity = queries[0] * place.key * seen_v, queries[1]
            if signal.norm_value and place.kind == "self_attention":
                value_v, value_c = 1.0, inner_c / inner_v
                scores = 1.0  # such a rule norms query and key too (HybridNorm)
            causal = stack == "decoder" and place.kind == "self_attention"
            # Scores of more have found their key.
            scores = min(scores, MAX_SCORES) * max(0.0, 1 - seen_c / seen_v)
            own, pair = weights_of_scores(tokens, causal, scores, similarity)  # unchecked: this is a loop
            hidden_v, hidden_c = value_c + (value_v - value_c) * own, value_c + (value_v - value_c) * pair
        raw_hidden_v = hidden_v
        if signal.norm_inside:
            hidden_v, hidden_c = 1.0, hidden_c / hidden_v
        branch_v, branch_c = hidden_v * place.second, hidden_c * place.second
        raw_branch_v = branch_v
        if signal.norm_branch:
            branch_v, branch_c = 1.0, branch_c / branch_v
        skip, branch = signal.skip**2, signal.branch**2 * (v if signal.relative else 1.0)
        sum_v, sum_c = skip * v + branch * branch_v, skip * c + branch * branch_c
        share *= skip * v / sum_v
        out_v, out_c = (1.0, sum_c / sum_v) if signal.norm_sum else (sum_v, sum_c)
        # One list of numbers: thousands of small tuples would call the garbage collector, which takes 0.2 s.
        found += (
            v, c, seen_v, seen_c, inner_v, inner_c, raw_hidden_v, hidden_v, hidden_c, raw_branch_v, sum_v, out_v,
            out_c, share, own, pair,
        )  # fmt: skip
        v, c = out_v, out_c
    return StackRows(stack, pattern, Rows(*np.array(found).reshape(-1, len(Rows._fields)).T))


def _pattern(config: ModelConfig, stack: StackName, gain: float) -> list[Numbers]:
    """What the rule says at the places of one layer, or of all of them. Making a rule costs far more than asking it, so
    most are not made: where the second layer, the middle one and the last two agree, all above the first do."""
    per_layer = len(sublayer_kinds(stack, config.encoder_layers))
    layers = config.encoder_layers if stack == "encoder" else config.decoder_layers

    def layer(n: int) -> list[Numbers]:
        return [_told(config, stack, n * per_layer + k, gain) for k in range(per_layer)]

    looked_at = [layer(n) for n in sorted({0, 1, layers // 2, layers - 2, layers - 1}) if 0 <= n < layers]
    if all(one == looked_at[-1] for one in looked_at[1:]):
        return looked_at[0] if looked_at[0] == looked_at[-1] else looked_at[0] + looked_at[-1] * (layers - 1)
    return [numbers for n in range(layers) for numbers in layer(n)]


def _rule(config: ModelConfig, stack: StackName, index: int, *, built: bool = False) -> Residual:
    place = place_at(index, stack, config.encoder_layers, config.decoder_layers, config.norm, config.override)
    kind = RESIDUALS[config.residual]
    return kind(place, config.d_model) if built else kind.at(place, config.d_model)


def _told(config: ModelConfig, stack: StackName, index: int, gain: float) -> Numbers:
    """What the rule says at a place. One that needs for that what only its ``__init__`` makes is built."""
    try:
        return _ask(config, _rule(config, stack, index), gain)
    except (AttributeError, KeyError):
        return _ask(config, _rule(config, stack, index, built=True), gain)


def _ask(config: ModelConfig, rule: Residual, gain: float) -> Numbers:
    d, ff, kind = config.d_model, config.d_ff, rule.place.sublayer
    signal, g = _signal(rule, config), gain**2
    if kind == "ffn":
        first, gate = (g * d * rule.std(role, d, ff) ** 2 for role in ("ffn_in", "ffn_gate"))
        return Numbers(kind, signal, first, gate, g * ff * rule.std("ffn_out", ff, d) ** 2)
    kv = config.kv_width
    first, second = g * d * rule.std("value", d, kv) ** 2, g * d * rule.std("output", d, d) ** 2
    query, key = d * rule.std("query", d, d) ** 2, d * rule.std("key", d, kv) ** 2
    return Numbers(kind, signal, first, 0.0, second, query, key)


def _signal(rule: Residual, config: ModelConfig) -> Signal:
    """What the rule says of itself, unless it was said of a parent class with other verbs."""
    said = rule.says("signal")
    signal = rule.signal() if said else None
    if signal is None:
        raise ValueError(
            f"There is no prediction for residual {config.residual!r}: it is more than one sum and its norms. "
            f"Measure it with probe(), or use one that is, for example {DEFAULT!r}."
        )
    return signal


def _activation(activation: str, variance: float, gate: float, r: float) -> tuple[float, float, float]:
    """E[φ]², E[φ²] and E[φφ'] of two tokens with correlation r."""
    if activation == "relu":
        return variance / (2 * pi), variance / 2, variance / 2 * rectified(r)
    if activation in GATES:  # φ of the gate times an independent W₁x
        c, total = hermite(GATES[activation], gate)
        return 0.0, variance * total, variance * r * horner(c, r)
    c, total = hermite("gelu", variance)
    return c[0], total, horner(c, r)


def horner(coefficients: tuple[float, ...], r: float) -> float:
    """Σ c[k]·r^k. Quicker than NumPy for one r."""
    value = 0.0
    for c in reversed(coefficients):
        value = value * r + c
    return value


def hermite(activation: str, variance: float) -> tuple[tuple[float, ...], float]:
    """The coefficients of :func:`activation_correlation`, and their sum."""
    return _hermite(activation, round(sqrt(variance), 6))


@lru_cache(maxsize=4096)  # a norm before the branch makes all layers equal
def _hermite(activation: str, sigma: float) -> tuple[tuple[float, ...], float]:
    c: Array = activation_correlation(activation, sigma)  # type: ignore[arg-type]
    return tuple(map(float, c)), float(c.sum())
