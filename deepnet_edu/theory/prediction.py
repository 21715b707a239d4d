"""What a whole stack should look like at initialisation. NumPy only: a thousand layers cost nothing."""

from dataclasses import dataclass
from functools import lru_cache
from math import pi, sqrt

import numpy as np

from deepnet_edu.models import ModelConfig
from deepnet_edu.record import DepthProfile
from deepnet_edu.residual import RESIDUALS, Residual, Signal, StackName, places
from deepnet_edu.theory.moments import activation_correlation, attention_moments, relu_ffn_correlation


@dataclass(frozen=True)
class _Stream:
    """v, the mean square of a feature; c, its covariance between two tokens; share, what of v is the stack's input."""

    v: float
    c: float
    share: float = 1.0

    def norm(self) -> "_Stream":
        return _Stream(1.0, self.c / self.v, self.share)

    def times(self, factor: float) -> "_Stream":
        return _Stream(factor**2 * self.v, factor**2 * self.c, self.share)


def predict(config: ModelConfig, tokens: int) -> DepthProfile:
    """Variance, token similarity and input share by sub-layer at initialisation, as theory has them.

    Each branch adds a variance f and a covariance g between tokens to the stream's own v and c, where the rule's
    :class:`~deepnet_edu.residual.Signal` puts them. Attention averages its values with flat scores
    (:func:`attention_moments` in a decoder, r + (1 - r)/T where every token sees all), between two matrices of the
    rule's own standard deviation; a feed-forward branch keeps E[φ(y)φ(z)] (:func:`activation_correlation`).

    Assumes wide layers, branches independent of the stream, an input of variance 1 with independent tokens, and one
    correlation for all pairs of positions. Where tokens collapse (Post-LN) the last one is rough. Real scores are not
    flat, so real averages cancel less: a norm right behind the average (Sub-LN, Peri-LN) makes the similarity of the
    first layers too high here, by up to 0.45 in an encoder, where flat scores make all tokens equal.

    Args:
        config: architecture, rule and shape.
        tokens: T, length of the sequences, at least 2; of an encoder-decoder's two sequences alike.

    Raises:
        ValueError: there is no prediction for this rule, the stack has no layers, or the sequence is too short.
    """
    if config.residual == "none":
        raise ValueError("residual='none': there are no layers, so there is nothing to predict.")
    if tokens < 2:
        raise ValueError(f"tokens={tokens}: tokens of a sequence are compared, give 2 or more.")
    stacks: dict[StackName, int] = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    rows, where, memory = [], [], None
    for stack in (name for name, layers in stacks.items() if layers):
        stream = None
        for place in places(stack, config.encoder_layers, config.decoder_layers, config.norm, config.override):
            rule = RESIDUALS[config.residual](place, config.d_model)
            signal = _signal(rule, config)
            if stream is None:
                own = (
                    1.0 if config.position == "rotary" else 0.5
                )  # the token's part of variance 1, the position's beside
                stream = _Stream(own * rule.ends_gain("embedding") ** 2 + 1 - own, 0.0)
            stream = _sublayer(stream, rule, signal, config, tokens, memory)
            rows.append((stream.v, stream.c / stream.v, stream.share))
            where.append((place.stack, place.layer, place.sublayer))
        assert stream is not None
        memory = stream.norm() if signal.norm_finish else stream
    variance, similarity, share = np.array(rows).T
    of_stack, layer, sublayer = zip(*where, strict=True)
    label = f"{RESIDUALS[config.residual].title}, theory"
    return DepthProfile(label, variance, similarity, share, stack=of_stack, layer=layer, sublayer=sublayer)


def _signal(rule: Residual, config: ModelConfig) -> Signal:
    """What the rule says of itself, unless it was said of a parent class with other verbs."""
    lineage = type(rule).__mro__
    speaker = next(i for i, cls in enumerate(lineage) if "signal" in vars(cls))
    verbs = ("start", "read", "write", "finish", "stream", "inside")
    signal = None if any(verb in vars(cls) for cls in lineage[:speaker] for verb in verbs) else rule.signal()
    if signal is None:
        raise ValueError(
            f"There is no prediction for residual {config.residual!r}: it is more than one sum and its norms. "
            "Measure it with probe(), or use one that is, for example 'deepnorm'."
        )
    return signal


def _sublayer(
    x: _Stream, rule: Residual, signal: Signal, config: ModelConfig, tokens: int, memory: _Stream | None
) -> _Stream:
    """The stream behind one sub-layer."""
    seen = (x.norm() if signal.norm_read else x).times(signal.read)
    if rule.place.sublayer == "ffn":
        branch = _feed_forward(seen, rule, signal, config)
    else:
        branch = _attention(seen, rule, signal, config, tokens, memory)
    branch = (branch.norm() if signal.norm_branch else branch).times(signal.branch)
    skip = x.times(signal.skip)
    v = skip.v + branch.v
    total = _Stream(v, skip.c + branch.c, x.share * skip.v / v)
    return total.norm() if signal.norm_sum else total


def _attention(
    x: _Stream, rule: Residual, signal: Signal, config: ModelConfig, tokens: int, memory: _Stream | None
) -> _Stream:
    """Value matrix, flat average, output matrix."""
    d, cross = config.d_model, rule.place.sublayer == "cross_attention"
    if cross:
        assert memory is not None
        x = memory
    values = x.times(sqrt(d) * rule.std("value", d, d))
    if signal.norm_value and not cross:
        values = values.norm()
    r = values.c / values.v
    if rule.place.stack == "decoder" and not cross:
        variance, covariance = attention_moments(tokens, r)
    else:
        variance = covariance = r + (1 - r) / tokens
    mixed = _Stream(values.v * variance, values.v * covariance)
    return (mixed.norm() if signal.norm_inside else mixed).times(sqrt(d) * rule.std("output", d, d))


def _feed_forward(x: _Stream, rule: Residual, signal: Signal, config: ModelConfig) -> _Stream:
    """Matrix, activation, matrix."""
    d, ff = config.d_model, config.d_ff
    mean, second, both = _activation(
        config.activation,
        x.v * d * rule.std("ffn_in", d, ff) ** 2,
        x.v * d * rule.std("ffn_gate", d, ff) ** 2,
        x.c / x.v,
    )
    hidden = _Stream(second, both)
    if signal.norm_inside:
        hidden = (_Stream(second - mean, both - mean) if config.norm == "layer" else hidden).norm()
    return hidden.times(sqrt(ff) * rule.std("ffn_out", ff, d))


def _activation(activation: str, variance: float, gate: float, r: float) -> tuple[float, float, float]:
    """E[φ]², E[φ²] and E[φφ'] of two tokens with correlation r."""
    r = min(r, 1.0)
    if activation == "relu":
        return variance / (2 * pi), variance / 2, variance / 2 * relu_ffn_correlation(r)
    if activation == "swiglu":  # SiLU of the gate times an independent W₁x
        c = _coefficients("silu", round(sqrt(gate), 6))
        return 0.0, variance * float(c.sum()), variance * r * float(np.polynomial.polynomial.polyval(r, c))
    c = _coefficients("gelu", round(sqrt(variance), 6))
    return float(c[0]), float(c.sum()), float(np.polynomial.polynomial.polyval(r, c))


#: A norm before the branch makes all layers alike.
_coefficients = lru_cache(maxsize=1024)(activation_correlation)
