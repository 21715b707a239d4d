"""Parameters and floating point operations by part, by formula: arithmetic alone, nothing is built."""

from deepnet_edu.fields import Positive, check_whole, checked
from deepnet_edu.model.config import NO_RESIDUAL, ModelConfig
from deepnet_edu.planning.flops import end_operations, has_own_products, layer_operations
from deepnet_edu.residual import RESIDUALS


def norms_of(config: ModelConfig) -> tuple[int, int] | None:
    """Norms of a sub-layer and of the end of a stack, where the rule learns nothing else; None where it does."""
    if config.residual == NO_RESIDUAL:
        return 0, 0
    rule = RESIDUALS[config.residual]
    return rule.norms if rule.says("norms") and not config.clones else None


def stack_parameters(config: ModelConfig, stack: str, norms: tuple[int, int]) -> dict[str, int]:
    """Parameters of one stack by part: ``"attention"``, ``"cross_attention"``, ``"feed_forward"`` and ``"norms"``.

    Args:
        config: of the model.
        stack: ``"encoder"`` or ``"decoder"``.
        norms: as :func:`norms_of` has them.
    """
    layers = config.encoder_layers if stack == "encoder" else config.decoder_layers
    cross = layers if stack == "decoder" and config.encoder_layers else 0
    d, ff, kv, m, bias = config.d_model, config.d_ff, config.kv_width, config.ffn_matrices, int(config.bias)
    attention = 2 * d * d + 2 * d * kv + bias * (2 * d + 2 * kv)
    return {
        "attention": layers * attention,
        "cross_attention": cross * attention,
        "feed_forward": layers * (m * d * ff + bias * ((m - 1) * ff + d)),
        "norms": (norms[0] * (2 * layers + cross) + norms[1] * bool(layers)) * norm_parameters(config),
    }


def norm_parameters(config: ModelConfig) -> int:
    """Parameters of one LN."""
    return config.d_model if config.norm == "rms" else 2 * config.d_model


def end_tensors(config: ModelConfig) -> dict[str, dict[str, int]]:
    """Numbers of each stack's embedding and of the ``"head"``, tensor by tensor; what is shared has one name.

    Args:
        config: any whose rule has no module at the logits.
    """
    d, norm = config.d_model, norm_parameters(config)
    found: dict[str, dict[str, int]] = {}
    for stack in ("encoder", "decoder"):
        if stack not in config.architecture:
            continue
        if config.task == "classification":
            tensors = {f"{stack} patches": (config.channels * config.patch_size**2 + 1) * d}
        else:
            vocabulary = (stack == "encoder" and config.source_vocab_size) or config.vocab_size
            tensors = {"tokens" if config.shared_embeddings else f"{stack} tokens": vocabulary * d}
        if config.position == "learned":
            tensors[f"{stack} positions"] = config.max_length * d
        if config.embedding == "bert":
            tensors |= {f"{stack} segments": 2 * d, f"{stack} norm": norm}
        found[stack] = tensors
    head = {"tokens" if config.shared_embeddings else "head": (config.n_classes or config.vocab_size) * d}
    if config.head != "linear":
        head["norm"] = norm
    if config.head == "bert":
        head |= {"matrix": d * d + d, "bias": config.vocab_size}
    return {**found, "head": head}


@checked()
def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """Parameters of each part of a model; their sum is what :func:`count_parameters` finds.

    With d = d_model, k = n_kv_heads·d/n_heads (d where queries are not grouped) and m matrices of d × d_ff in a
    feed-forward branch (2, with a gate 3), a layer has

        attention 2d² + 2dk (+ 2d + 2k of biases), feed-forward m·d·d_ff (+ (m - 1)·d_ff + d), norms 2d or 4d

    and a decoder's layer beside an encoder one attention and one norm more.

    Args:
        config: any whose rule learns norms alone.

    Returns:
        ``"embeddings"``, ``"positions"``, ``"attention"``, ``"cross_attention"``, ``"feed_forward"``, ``"norms"`` and
        ``"head"``, which is 0 where it is the embedding's matrix.

    Raises:
        ValueError: the rule has parameters of its own, or layers are clones: build the model instead.
    """
    norms = norms_of(config)
    if norms is None:
        known = [name for name, rule in RESIDUALS.items() if rule.norms and rule.says("norms")]
        what = "clones=True: layers" if config.clones else f"residual={config.residual!r}"
        raise ValueError(
            f"{what} has parameters that no formula here counts: count_parameters(config) builds its layers. By "
            f"formula: {', '.join(known)}."
        )
    stacks = [stack_parameters(config, stack, norms) for stack in ("encoder", "decoder")]
    found = {
        "embeddings": 0,
        "positions": 0,
        **{part: sum(one[part] for one in stacks) for part in stacks[0]},
        "head": 0,
    }
    seen: set[str] = set()
    for end, tensors in end_tensors(config).items():
        for name, count in tensors.items():
            part = "norms" if name.endswith("norm") else "positions" if name.endswith("positions") else ""
            found[part or ("head" if end == "head" else "embeddings")] += 0 if name in seen else count
            seen.add(name)
    return found


@checked()
def training_flops(config: ModelConfig, tokens: Positive, length: int = 0) -> dict[str, float]:
    """Floating point operations of a whole training run, by part: three forward passes for each token.

    ``"branches"`` is 6 times the weights that a token passes, ``"attention"`` scores and mixed values, a decoder's
    masked pairs left out, ``"head"`` 6 times the head's weights. What checkpoints compute again is not counted: it
    lowers the utilisation instead.

    Args:
        config: any but one whose rule has products of its own.
        tokens: that are read in the whole run, of source and target together.
        length: tokens of a sequence, of the source as of the target; 0 for ``config.max_length``.

    Raises:
        ValueError: tokens or length is not positive, or the rule has products of its own.

    Source: 6N + 6·L·d_model·(T + 1) a token for a decoder of L layers, as :func:`flops_per_token`; 12·L·d_model·T with
    masked pairs counted in arXiv 2204.02311, Appendix B.
    """
    if has_own_products(config):
        raise ValueError(f"residual={config.residual!r} has products of its own, which are not counted: name another.")
    length = length or config.max_length
    check_whole("length", length, otherwise="; 0 for max_length")
    depths = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    both = length * (2 if all(depths.values()) else 1)
    weights = scores = 0
    for stack, n in depths.items():
        one, pairs = layer_operations(config, stack, 1, length, length, causal=True)
        weights, scores = weights + n * one, scores + n * pairs
    head, patches = end_operations(config, 1, length)
    share = float(tokens) / both
    return {"branches": 3 * weights * share, "attention": 3 * scores * share, "head": (3 * head + 2 * patches) * share}
