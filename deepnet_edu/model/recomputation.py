"""What a checkpoint keeps beside the state, and which of PyTorch's implementations computes attention."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from deepnet_edu.model.mode import Backend

_BACKENDS: dict[str, SDPBackend] = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
#: The operations that give attention's output and the log-sum-exp of its scores; "math" is made of smaller ones.
ATTENTION = frozenset(
    getattr(torch.ops.aten, f"_scaled_dot_product_{name}").default
    for name in ("flash_attention", "efficient_attention", "cudnn_attention", "flash_attention_for_cpu")
)


def attention_by(backend: Backend) -> AbstractContextManager[Any]:
    """While entered, attention asks this implementation first; as :class:`~deepnet_edu.model.mode.Mode` has it."""
    if backend == "auto":
        return nullcontext()
    first = _BACKENDS[backend]
    if backend == "math":  # it can do everything, and every other one would be preferred to it
        return sdpa_kernel(first)
    return sdpa_kernel([first, *(one for one in _BACKENDS.values() if one != first)], set_priority=True)


def kept_with(keep_attention: bool) -> dict[str, Any]:
    """For ``torch.utils.checkpoint.checkpoint``: what it keeps of what it would compute again."""
    return {"context_fn": partial(create_selective_checkpoint_contexts, _policy)} if keep_attention else {}


def _policy(_context: Any, operation: Any, *_arguments: Any, **_named: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in ATTENTION else CheckpointPolicy.PREFER_RECOMPUTE
