"""What a training asks of its model and device: refused before the first step, set, and set back at the end."""

from collections.abc import Callable

import torch

from deepnet_edu.messages import UserError
from deepnet_edu.models import Model, check_trainable
from deepnet_edu.residual import Scheduled
from deepnet_edu.stack import Stack
from deepnet_edu.training.config import TrainConfig


def refuse(model: Model, config: TrainConfig, device: torch.device) -> None:
    """See, before the first step, that the model can be trained so on the device.

    Raises:
        UserError: it cannot.
    """
    check_trainable(model)
    if config.cuda_graph and any(isinstance(rule, Scheduled) for rule in model.rules()):
        raise UserError(
            f"cuda_graph=True replays the same step, and residual={model.config.residual!r} changes from step to step: "
            "leave cuda_graph out."
        )
    if config.cuda_graph and device.type != "cuda":
        raise UserError(
            f"cuda_graph=True records the kernels of a GPU, and the model is on {device}: "
            "move it there, build_model(config, device='cuda'), or leave cuda_graph out."
        )
    if config.tf32 and device.type != "cuda":
        raise UserError(f"tf32=True is a mode of NVIDIA's GPUs, and the model is on {device}: leave tf32 out.")


def prepare(model: Model, config: TrainConfig) -> Callable[[], None]:
    """Set the model as ``config`` says.

    Returns:
        What sets it back.

    Raises:
        ValueError: its stacks cannot be run so; nothing stays set.
    """
    stacks = [stack for stack in model.stacks().values() if isinstance(stack, Stack)]
    before = [(stack, stack.checkpoint_every, stack.offload, stack.compiled) for stack in stacks]
    tf32 = torch.backends.cuda.matmul.allow_tf32

    def restore() -> None:
        for stack, every, offload, compiled in before:
            stack.checkpoint_every, stack.offload, stack.compiled = every, offload, compiled
        torch.backends.cuda.matmul.allow_tf32 = tf32

    try:
        if config.checkpoint_every:
            model.checkpoint_every(config.checkpoint_every)
        if config.offload:
            model.offload(True)
        if config.compile != "no":
            model.use_compiled(config.compile)
        torch.backends.cuda.matmul.allow_tf32 = tf32 or config.tf32
    except ValueError:
        restore()
        raise
    return restore
