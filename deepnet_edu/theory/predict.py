"""What a whole stack should look like at initialisation. NumPy only: a thousand layers cost nothing."""

from math import sqrt

import numpy as np

from deepnet_edu.models import ModelConfig
from deepnet_edu.record import DepthProfile
from deepnet_edu.residual import RESIDUALS, Place, Residual
from deepnet_edu.theory.moments import attention_moments, gelu_correlation


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
