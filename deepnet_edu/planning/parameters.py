"""How many parameters a model has, without building it at its size."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from deepnet_edu.fields import checked
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.planning.counts import end_tensors, norms_of, stack_parameters

#: A stack is built with this many layers; the rest follows.
_BUILT = (1, 2, 3)
#: PyTorch counts a tensor's bytes in a number of 63 bits.
_LARGEST = 2**63 // 4


@checked()
def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Parameters of the ``"encoder"`` and the ``"decoder"``, of the ``"ends"`` (embeddings and head), and of ``"all"``.

    By formula where the rule says that it learns norms alone. Else models of one to three layers are built on PyTorch's
    meta device, which holds no numbers: from the second layer on a stack grows by the same number of parameters each
    layer or (DLCL, whose layers remember all below) by one more each.

    Args:
        config: any.

    Raises:
        ValueError: a matrix is larger than any tensor can be.
    """
    norms = norms_of(config)
    found = _by_building(config) if norms is None else _by_formula(config, norms)
    return {**found, "all": sum(found.values())}


def _by_formula(config: ModelConfig, norms: tuple[int, int]) -> dict[str, int]:
    d = config.d_model
    ends = {name: count for tensors in end_tensors(config).values() for name, count in tensors.items()}
    matrices = (d * (d + 2 * config.kv_width), (config.ffn_matrices - 1) * d * config.d_ff)
    _check_largest(max(*matrices, *ends.values()))
    stacks = {stack: sum(stack_parameters(config, stack, norms).values()) for stack in ("encoder", "decoder")}
    return {"ends": sum(ends.values()), **stacks}


def _by_building(config: ModelConfig) -> dict[str, int]:
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
    return found


def _check_largest(numbers: int) -> None:
    if numbers >= _LARGEST:
        raise ValueError("A matrix of this model is larger than any tensor can be: use smaller sizes.")


@lru_cache(maxsize=256)
def _built(config: ModelConfig) -> tuple[tuple[str, int], ...]:
    import torch  # here, as below: most models are counted without it

    from deepnet_edu.model import build_empty

    try:
        with torch.device("meta"):
            model = build_empty(config)
    except (RuntimeError, OverflowError, TypeError):  # more bytes than PyTorch's numbers can count
        _check_largest(_LARGEST)
        raise
    stacks = {name: sum(p.numel() for p in stack.parameters()) for name, stack in model.stacks().items()}
    return (*stacks.items(), ("ends", sum(p.numel() for p in model.parameters()) - sum(stacks.values())))


@lru_cache(maxsize=256)
def tensors_at_the_ends(config: ModelConfig) -> tuple[tuple[str, dict[str, int]], ...]:
    """Numbers of each embedding and of the head, tensor by tensor."""
    if norms_of(config) is not None:
        return tuple(end_tensors(config).items())
    import torch  # here: such a rule may have something of its own at the logits

    from deepnet_edu.model import build_empty

    with torch.device("meta"):
        model = build_empty(config)
    names = {parameter: name for name, parameter in model.named_parameters()}
    inside = {parameter for stack in model.stacks().values() for parameter in stack.parameters()}
    below = {stack: list(end.parameters()) for stack, end in zip(model.stacks(), model.embeddings(), strict=True)}
    taken = {parameter for parameters in below.values() for parameter in parameters}
    head = [p for p in names if p not in inside and (p not in taken or p is model.head.weight)]
    ends: list[tuple[str, list[Any]]] = [*below.items(), ("head", head)]
    return tuple((end, {names[p]: p.numel() for p in parameters}) for end, parameters in ends)
