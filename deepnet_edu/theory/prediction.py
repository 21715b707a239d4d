"""What a whole stack should look like at initialisation. NumPy only: a thousand layers cost a few milliseconds."""

import warnings
from typing import Annotated

import numpy as np

from deepnet_edu.fields import Range, checked
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.model.shape import check_memory
from deepnet_edu.profiles import DepthProfile
from deepnet_edu.residual import RESIDUALS, StackName, sublayer_kinds
from deepnet_edu.theory.backward import gradient_norms
from deepnet_edu.theory.errors import known_errors
from deepnet_edu.theory.forward import StackRows, forward

_LONGEST = 10**7
#: Bytes that a layer takes here, about.
_PER_LAYER = 2000
_SAID: set[str] = set()


@checked()
def predict(config: ModelConfig, tokens: int, gain: Annotated[float, Range(1e-6, 1e6)] = 1.0) -> DepthProfile:
    """Variance, token similarity, input share and gradient by sub-layer at initialisation, as theory has them.

    Forward: each branch adds a variance f and a covariance g between tokens to the stream's own v and c, where the
    rule's :class:`~deepnet_edu.residual.Signal` puts them. Attention averages its values by Gaussian scores
    (:func:`~deepnet_edu.theory.moments.attention_weights`), between two matrices of the rule's own standard deviation;
    a feed-forward branch keeps E[φ(y)φ(z)] (:func:`activation_correlation`).

    Backward: the same two numbers of the gradient, through :mod:`deepnet_edu.theory.backward`.

    Assumes wide layers, branches independent of the stream, an input of variance 1 with independent tokens, and one
    correlation for all pairs of positions. Where tokens collapse (Post-LN) the last one is rough, and so is the
    gradient, which differs from seed to seed by factors. Where the record has theory off by more than 20% at this rule,
    ``known_errors`` of the profile says by how much, and a warning says it once.

    Args:
        config: architecture, rule and shape.
        tokens: T, length of the sequences, at least 2; the same for an encoder-decoder's two sequences.
        gain: a further factor on the initial weights of value, output and feed-forward.

    Returns:
        The profile; its ``gradient_norm`` is for a loss whose gradient at the top has variance 1 and is independent
        from token to token: only its ratios mean something.

    Raises:
        ValueError: there is no prediction for this rule, the stack has no layers, or the sequence is too short.

    Warns:
        UserWarning: as above, once for each rule, architecture and row of the record.
    """
    profile = predicted(config, tokens, gain)
    said = f"{profile.label}, {config.architecture}: {'; '.join(profile.known_errors.values())}."
    if profile.known_errors and said not in _SAID:
        _SAID.add(said)
        warnings.warn(f"{said} See benchmarks/predictions.py.", stacklevel=3)
    return profile


def predicted(config: ModelConfig, tokens: int, gain: float = 1.0) -> DepthProfile:
    """The same without a warning, for what calls it at each move of a slider."""
    if config.residual == "none":
        raise ValueError("residual='none': there are no layers, so there is nothing to predict.")
    if not 2 <= tokens <= _LONGEST:
        most = "" if tokens < 2 else f", at most {_LONGEST:,}"
        raise ValueError(f"tokens={tokens}: tokens of a sequence are compared, give 2 or more{most}.")
    layers = config.encoder_layers + config.decoder_layers
    check_memory(_PER_LAYER * layers, f"A prediction of {layers:,} layers", "take fewer")
    stacks: dict[StackName, int] = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    done: list[StackRows] = []
    memory = None
    for stack in (name for name, layers in stacks.items() if layers):
        rows = forward(config, stack, tokens, gain, memory)
        done.append(rows)
        v, c = float(rows.rows.out_v[-1]), float(rows.rows.out_c[-1])
        memory = (1.0, c / v) if rows.pattern[-1].signal.norm_finish else (v, c)
    out_v, out_c, share = (
        np.concatenate([getattr(part.rows, name) for part in done]) for name in ("out_v", "out_c", "share")
    )
    where = [
        (part.stack, n, kind)
        for part in done
        for n in range(stacks[part.stack])
        for kind in sublayer_kinds(part.stack, config.encoder_layers)
    ]
    of_stack, layer, sublayer = zip(*where, strict=True)
    return DepthProfile(
        f"{RESIDUALS[config.residual].title}, theory",
        out_v,
        out_c / out_v,
        share,
        gradient_norm=gradient_norms(config, tokens, done),
        known_errors=known_errors(config),
        stack=of_stack,
        layer=layer,
        sublayer=sublayer,
    )
