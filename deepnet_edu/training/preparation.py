"""What a training asks of its model and device: refused before the first step, set, and set back at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from deepnet_edu.messages import UserError
from deepnet_edu.model import Model, check_trainable
from deepnet_edu.model.mode import Mode
from deepnet_edu.residual import Scheduled
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


@contextmanager
def prepared(model: Model, config: TrainConfig) -> Iterator[None]:
    """Run the model as ``config`` says, for the time of a ``with``.

    Raises:
        ValueError: its stacks cannot be run so; nothing stays set.
    """
    asked: dict[str, Any] = {
        "checkpoint_every": config.checkpoint_every,
        "offload": config.offload,
        "compile": config.compile,
        "stream": config.stream,
        "norm_kernel": config.norm_kernel,
    }
    default = Mode()
    changes = {name: value for name, value in asked.items() if value != getattr(default, name)}
    with model.running(**changes):
        yield
