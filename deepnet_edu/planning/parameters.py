"""How many parameters a model has, without building it at its size."""

from dataclasses import replace
from functools import lru_cache

import torch

from deepnet_edu.config import NO_RESIDUAL, ModelConfig
from deepnet_edu.fields import checked
from deepnet_edu.models import build_empty

#: A stack is built with so many layers; the rest follows.
_BUILT = (1, 2, 3)


@checked()
def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Parameters of the ``"encoder"`` and the ``"decoder"``, of the ``"ends"`` (embeddings and head), and of ``"all"``.

    Models of one to three layers are built on PyTorch's meta device, which holds no numbers. From the second layer on a
    stack grows by the same number of parameters each layer or (DLCL, whose layers remember all below) by one more each.

    Args:
        config: any.

    Raises:
        ValueError: a matrix is larger than any tensor can be.
    """
    if config.residual == NO_RESIDUAL:
        ends = dict(_built(config))["ends"]
        return {"encoder": 0, "decoder": 0, "ends": ends, "all": ends}
    depths = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    built = [
        dict(
            _built(replace(config, encoder_layers=min(n, depths["encoder"]), decoder_layers=min(n, depths["decoder"])))
        )
        for n in _BUILT
    ]
    found = {"ends": built[0]["ends"]}
    for stack, n in depths.items():
        one, two, three = (small.get(stack, 0) for small in built)
        step, more = two - one, (three - two) - (two - one)
        found[stack] = (one, two, three)[n - 1] if 0 < n < 4 else 0
        if n >= 4:
            found[stack] = one + (n - 1) * step + more * (n - 1) * (n - 2) // 2
    return {**found, "all": sum(found.values())}


@lru_cache(maxsize=256)
def _built(config: ModelConfig) -> tuple[tuple[str, int], ...]:
    try:
        with torch.device("meta"):
            model = build_empty(config)
    except (RuntimeError, OverflowError, TypeError):  # more bytes than PyTorch's numbers can count
        raise ValueError("A matrix of this model is larger than any tensor can be: use smaller sizes.") from None
    stacks = {name: sum(p.numel() for p in stack.parameters()) for name, stack in model.stacks().items()}
    return (*stacks.items(), ("ends", sum(p.numel() for p in model.parameters()) - sum(stacks.values())))
