"""Floating point operations of a model, from the configuration alone: a multiplication and an addition are two."""

from deepnet_edu.fields import check_whole, checked
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.residual import RESIDUALS


def has_own_products(config: ModelConfig) -> bool:
    """Whether the rule has matrix products besides its branches', which are not counted."""
    rule = RESIDUALS.get(config.residual)
    return rule is not None and rule.own_products


def layer_operations(config: ModelConfig, stack: str, B: int, T: int, S: int, *, causal: bool) -> tuple[int, int]:
    """Operations of one layer, forward: in products with weights, and in scores and mixed values.

    Args:
        config: any but one whose rule has products of its own.
        stack: ``"encoder"`` or ``"decoder"``.
        B, T, S: sequences, tokens of the decoder, tokens of the encoder.
        causal: whether a decoder's masked pairs do not count.
    """
    own, cross = S if stack == "encoder" else T, stack == "decoder" and bool(config.encoder_layers)
    d = config.d_model
    kv = config.kv_width
    weights = 4 * B * own * d * (d + kv) + config.ffn_matrices * 2 * B * own * d * config.d_ff
    weights += cross * 4 * B * d * (own * d + S * kv)
    pairs = own * (own + 1) // 2 if causal and stack == "decoder" else own * own
    return weights, 4 * B * d * (pairs + cross * own * S)


def end_operations(config: ModelConfig, B: int, T: int) -> tuple[int, int]:
    """Forward, of the head and of the embedding of patches. Looking up a token is none."""
    d = config.d_model
    if config.n_classes:
        return 2 * B * config.n_classes * d, 2 * B * T * config.channels * config.patch_size**2 * d
    return 2 * B * T * d * (config.vocab_size + d * (config.head == "bert")), 0


@checked()
def flops_per_token(config: ModelConfig, tokens: int, *, source_tokens: int = 0) -> float | None:
    """What a training step must compute for each token: three forward passes, the backward pass being two of them.

    With products of weights, head included, and with attention, whose masked pairs do not count (half of a decoder's
    own: 6N + 6·L·d_model·(T + 1) for L layers). What checkpoints compute again does not count either, so tokens a
    second × this / the device's peak is model FLOPs utilisation, MFU (arXiv 2204.02311, Appendix B, counts masked pairs
    too).

    Args:
        config: any.
        tokens: T, of the target where there are two languages; of an image, its patches.
        source_tokens: of the source; 0 for as many.

    Returns:
        Floating point operations for each token that is read, of source and target; None for a rule with products of
        its own, which are not counted.

    Raises:
        ValueError: a length is not positive.
    """
    for name, value, least in (("tokens", tokens, 1), ("source_tokens", source_tokens, 0)):
        check_whole(name, value, least)
    return None if has_own_products(config) else branch_flops_per_token(config, tokens, source_tokens)


def branch_flops_per_token(config: ModelConfig, tokens: int, source_tokens: int = 0) -> float:
    """As :func:`flops_per_token`, of the branches and the head alone, whatever the rule computes besides."""
    S = source_tokens or tokens
    head, patches = end_operations(config, 1, tokens)
    total = 3 * head + 2 * patches  # no gradient of the pixels is wanted
    depths = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    for stack, n in depths.items():
        total += 3 * n * sum(layer_operations(config, stack, 1, tokens, S, causal=True))
    return total / (tokens + (S if all(depths.values()) else 0))
