"""Whether another program reads the operations of a forward pass."""

import torch


def transformed() -> str:
    """What else reads the operations now: a compiler, a tracer, a transformation such as vmap, a mode that counts them.

    Returns:
        A clause, empty if none does. Then values may be read, and products may be written where they belong.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return "the model is being compiled or transformed"
    if torch.jit.is_tracing() or torch.autograd.forward_ad._current_level >= 0:
        return "the model is being traced, or differentiated forward"
    if torch._C._len_torch_dispatch_stack():
        return "operations are being counted or replaced by a TorchDispatchMode, which must see all of them"
    return ""
