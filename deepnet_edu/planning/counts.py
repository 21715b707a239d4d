"""Parameters and floating point operations by part, by formula: arithmetic alone, nothing is built."""

from deepnet_edu.config import ModelConfig
from deepnet_edu.fields import Positive, checked
from deepnet_edu.messages import shown
from deepnet_edu.planning.flops import OWN_PRODUCTS, end_operations, layer_operations

#: Rules of one norm a sub-layer and no other parameters, and norms at the end of each of their stacks.
END_NORMS = {"post_ln": 0, "deepnorm": 0, "deepnorm_glm": 0, "pre_ln": 1}


@checked()
def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """Parameters of each part of a model; their sum is what :func:`count_parameters` finds by building it.

    With d = d_model, k = n_kv_heads·d/n_heads (d where queries are not grouped) and m matrices of d × d_ff in a
    feed-forward branch (2, with a gate 3), a layer has

        attention 2d² + 2dk (+ 2d + 2k of biases), feed-forward m·d·d_ff (+ (m - 1)·d_ff + d), norms 2d or 4d

    and a decoder's layer beside an encoder one attention and one norm more.

    Args:
        config: any shape whose rule is in ``END_NORMS``.

    Returns:
        ``"embeddings"``, ``"positions"``, ``"attention"``, ``"cross_attention"``, ``"feed_forward"``, ``"norms"`` and
        ``"head"``, which is 0 where it is the embedding's matrix.

    Raises:
        ValueError: the rule has parameters of its own: build the model instead.
    """
    if config.residual not in END_NORMS:
        raise ValueError(
            f"residual={config.residual!r} has parameters that no formula here counts: count_parameters(config) builds "
            f"its layers. By formula: {', '.join(END_NORMS)}."
        )
    d, ff, kv, m = config.d_model, config.d_ff, config.kv_width, config.ffn_matrices
    encoder, decoder, bias = config.encoder_layers, config.decoder_layers, int(config.bias)
    norm = d if config.norm == "rms" else 2 * d
    cross = decoder if encoder else 0
    attention = 2 * d * d + 2 * d * kv + bias * (2 * d + 2 * kv)
    stacks = bool(encoder) + bool(decoder)
    norms = 2 * (encoder + decoder) + cross + END_NORMS[config.residual] * stacks
    tables = 1 if config.shared_embeddings else stacks
    source = config.source_vocab_size or config.vocab_size
    embeddings = config.vocab_size * d + (tables - 1) * source * d
    if config.task == "classification":
        embeddings = (config.channels * config.patch_size**2 + 1) * d
    head = 0 if config.shared_embeddings else (config.n_classes or config.vocab_size) * d
    if config.embedding == "bert":
        embeddings, norms = embeddings + 2 * d * stacks, norms + stacks
    if config.head == "bert":
        head += d * d + d + config.vocab_size
    norms += config.head != "linear"
    return {
        "embeddings": embeddings,
        "positions": config.max_length * d * stacks if config.position == "learned" else 0,
        "attention": (encoder + decoder) * attention,
        "cross_attention": cross * attention,
        "feed_forward": (encoder + decoder) * (m * d * ff + bias * ((m - 1) * ff + d)),
        "norms": norms * norm,
        "head": head,
    }


@checked()
def training_flops(config: ModelConfig, tokens: Positive, length: int = 0) -> dict[str, float]:
    """Floating point operations of a whole training run, by part: three forward passes for each token.

    ``"branches"`` is 6 times the weights that a token passes, ``"attention"`` scores and mixed values, a decoder's
    masked pairs left out, ``"head"`` 6 times the head's weights. What checkpoints compute again is not counted: it
    lowers the utilisation instead.

    Args:
        config: any but rules in ``OWN_PRODUCTS``.
        tokens: that are read in the whole run, of source and target together.
        length: tokens of a sequence, of the source as of the target; 0 for ``config.max_length``.

    Raises:
        ValueError: tokens or length is not positive, or the rule has products of its own.

    Source: 6N + 6·L·d_model·(T + 1) a token for a decoder of L layers, as :func:`flops_per_token`; 12·L·d_model·T with
    masked pairs counted in arXiv 2204.02311, Appendix B.
    """
    if config.residual in OWN_PRODUCTS:
        raise ValueError(f"residual={config.residual!r} has products of its own, which are not counted: name another.")
    length = length or config.max_length
    if length < 1:
        raise ValueError(f"length={shown(length)}: expected a whole number, 1 or more; 0 for max_length.")
    depths = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    both = length * (2 if all(depths.values()) else 1)
    weights = scores = 0
    for stack, n in depths.items():
        one, pairs = layer_operations(config, stack, 1, length, length, causal=True)
        weights, scores = weights + n * one, scores + n * pairs
    head, patches = end_operations(config, 1, length)
    share = float(tokens) / both
    return {"branches": 3 * weights * share, "attention": 3 * scores * share, "head": (3 * head + 2 * patches) * share}
