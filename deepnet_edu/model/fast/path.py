"""The way into this folder: by the fast path where it is known, was compared, and nothing has changed since."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module as hooks_of_all
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from deepnet_edu.model.attention import Context
from deepnet_edu.model.fast.known import LONGEST
from deepnet_edu.model.fast.node import Node, StackRun, StepBuffers
from deepnet_edu.model.fast.proof import proof
from deepnet_edu.model.fast.reading import Reading
from deepnet_edu.model.snapshot import Unknown
from deepnet_edu.model.tracing import transformed

_HOOKS_OF_ALL = [f"_global_{when}_hooks" for when in ("forward", "forward_pre", "backward", "backward_pre")]


class Readings(dict[bool, Reading]):
    """What was read of a stack, in training and in evaluation. A copy of the stack reads for itself."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Readings, ()

    def __deepcopy__(self, memo: Any) -> "Readings":
        return Readings()


def why_not(stack: Any, x: Tensor, context: Context) -> str:
    """What the fast path does not know about an input or what was asked for, a clause; empty if nothing."""
    if stack.mode.offload:
        return "what checkpoints keep was sent to the CPU's memory, and it keeps its own"
    if stack.mode.recompute != "all" or stack.mode.keep_attention:
        return "what checkpoints keep was chosen, and it chooses for itself"
    if stack.mode.attention != "auto":
        return "PyTorch's attention was chosen, and it has its own"
    if others := transformed():
        return others
    if any(getattr(hooks_of_all, name) for name in _HOOKS_OF_ALL):
        return "there are hooks on all modules"
    if any(not isinstance(mode, DeviceContext) for mode in _get_current_function_mode_stack()):
        return "functions are being replaced by a TorchFunctionMode, which must see all of them"
    if x.device.type != "cpu":
        return f"it was measured on the CPU only, and x is on {x.device}"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on, and it computes in the precision of x"
    if type(x) is not Tensor or x.dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 or float64, and x is {x.dtype}"
    if context.cache is not None or context.rotary is not None:
        return "there is a key/value cache, or positions are rotary"
    if context.padding is not None or context.memory_padding is not None:
        return "there is padding"
    longest = max(x.shape[1], 0 if context.memory is None else context.memory.shape[1])
    if not x.numel() or longest > LONGEST:
        return f"sequences have {longest} tokens, and it knows 1 to {LONGEST}"
    return ""


def _read(stack: Any, memory: Tensor | None) -> Reading:
    """The stack as it is now; read again only where something has changed.

    Raises:
        Unknown: there is something that the fast path does not know.
    """
    buffers: StepBuffers | None = stack.step_buffers
    if buffers is None and stack.readings is None:
        stack.readings = Readings()
    known: dict[bool, Reading] = stack.readings if buffers is None else buffers.readings
    reading = known.get(stack.training)
    # A training step has just checked its parameters.
    if reading is not None and reading.snapshot.holds(parameters=buffers is None):
        if reading.looks_up and memory is None:
            raise Unknown("there is no memory")
        return reading
    known.pop(stack.training, None)
    return known.setdefault(stack.training, Reading(stack, memory))


def run(stack: Any, x: Tensor, context: Context) -> tuple[Tensor | None, str]:
    """The stack's output and how it was made, or None and the reason why only the plain path can make it.

    Args:
        stack: a :class:`~deepnet_edu.model.stack.Stack` with layers.
        x: (B, T, d_model).
        context: as the stack got it.
    """
    reason = why_not(stack, x, context)
    if reason:
        return None, reason
    try:
        reading = _read(stack, context.memory)
    except Unknown as error:
        return None, str(error)
    if reading.dtype != x.dtype:
        return None, f"x is {x.dtype} and the weights are {reading.dtype}"
    memory = context.memory if reading.looks_up else None
    depends_on = (x.shape[1], 0 if memory is None else memory.shape[1], torch.get_num_threads())
    if depends_on not in reading.proofs:
        reading.proofs[depends_on] = proof(stack, reading, *depends_on[:2])
    if reading.proofs[depends_on]:
        return None, reading.proofs[depends_on]
    (u,) = stack.start(x)
    weights = reading.weights
    train = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (u, memory, *weights))
    one = StackRun(stack, reading, u, memory, train)
    if not train:
        return one.forward(u, memory, train=False), one.how
    return Node.apply(one, u, memory, *(weights if one.buffers is None else weights[:1])), one.how
