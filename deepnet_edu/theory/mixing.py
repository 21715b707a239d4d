"""The depth-mixing matrix in closed form: what each sub-layer reads as a weighted sum of all outputs below it."""

import numpy as np

from deepnet_edu.fields import Several, checked
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.model.shape import check_memory
from deepnet_edu.profiles import Array, DepthMixing
from deepnet_edu.residual import RESIDUALS, StackName
from deepnet_edu.theory.forward import StackRows, forward

#: Bytes that an entry takes on the way.
_PER_ENTRY = 40


@checked()
def mixing_matrix(config: ModelConfig, tokens: Several) -> DepthMixing:
    """The matrix of the model's (last) stack at initialisation, all n + 1 rows.

    An output enters with the rule's factor on the branch; each sub-layer above multiplies it by its factor on the skip,
    and a norm divides by the standard deviation that :func:`~deepnet_edu.theory.predict` has for what it reads. Pre-LN
    gives a triangle of equal entries, Post-LN and DeepNorm a geometric decay (arXiv 2603.15031, Section 6.2).

    Args:
        config: a model with layers and a rule that has a formula (:meth:`~deepnet_edu.residual.Residual.signal`).
        tokens: T, of its sequences.

    Raises:
        ValueError: there is no prediction for this rule, or no layers, or the matrix is larger than the memory.
    """
    if config.residual == "none":
        raise ValueError("residual='none': there are no layers, so no outputs to mix.")
    deepest = max(2 * config.encoder_layers, 3 * config.decoder_layers)
    check_memory(_PER_ENTRY * deepest**2, f"A matrix of {deepest:,} sub-layers", "take fewer layers")
    stacks: list[tuple[StackName, int]] = [("encoder", config.encoder_layers), ("decoder", config.decoder_layers)]
    memory, stack = None, None
    for name, layers in stacks:
        if layers:
            stack = forward(config, name, tokens, 1.0, memory)
            v, c = float(stack.rows.out_v[-1]), float(stack.rows.out_c[-1])
            memory = (1.0, c / v) if stack.pattern[-1].signal.norm_finish else (v, c)
    assert stack is not None
    weights, variances = _rows(stack)
    parts = weights**2 * variances
    return DepthMixing(
        f"{RESIDUALS[config.residual].title}, theory",
        weights,
        parts / parts.sum(1, keepdims=True),
        tuple(range(len(weights))),
    )


def _rows(stack: StackRows) -> tuple[Array, Array]:
    """(n + 1, n + 1) weights, and the variances (n + 1,) of the input and of all outputs."""
    x, n = stack.rows, len(stack.rows.in_v)
    signals = [place.signal for place in stack.pattern] * (n // len(stack.pattern))
    weights, stream = np.zeros((n + 1, n + 1)), np.zeros(n + 1)
    stream[0] = 1.0
    for i, s in enumerate(signals):
        weights[i] = stream * s.read / (np.sqrt(x.in_v[i]) if s.norm_read else 1.0)
        stream *= s.skip
        stream[i + 1] = s.branch / (np.sqrt(x.branch_v[i]) if s.norm_branch and x.branch_v[i] > 0 else 1.0)
        stream[i + 1] *= np.sqrt(x.in_v[i]) if s.relative else 1.0
        if s.norm_sum:
            stream /= np.sqrt(x.sum_v[i])
    weights[n] = stream / (np.sqrt(x.out_v[-1]) if signals[-1].norm_finish else 1.0)
    return weights, np.concatenate(([x.in_v[0]], x.branch_v))
