"""What a training asks of its model and device: refused before the first step, set, and set back at the end."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from typing import Any

import torch

from deepnet_edu.messages import UserError
from deepnet_edu.model import Batch, Model, check_trainable
from deepnet_edu.model.mode import Mode
from deepnet_edu.planning import fewest_recomputed
from deepnet_edu.residual import Scheduled
from deepnet_edu.training.config import TrainConfig
from deepnet_edu.training.memory import free, lengths


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


def decide(model: Model, config: TrainConfig, batch: Batch) -> None:
    """Set how many layers of all stacks are computed again where ``recompute="auto"`` asks for it: the fewest for which
    the formula stays within :data:`~deepnet_edu.planning.proposal.SHARE` of what the device has free.

    All, where the formula does not know the model: one with a part of another author, say.
    """
    device = next(model.parameters()).device
    sequences, tokens, source_tokens = lengths(model, batch)
    with suppress(ValueError):
        count = fewest_recomputed(
            model.config,
            sequences,
            tokens,
            free(device),
            source_tokens=source_tokens,
            checkpoint_every=config.checkpoint_every,
            keep_attention=config.keep_attention,
            offload=config.offload,
            path="plain",
            precision=config.planned,
            device=device.type,
        )
        model.mode = replace(model.mode, recompute=count)


@contextmanager
def prepared(model: Model, config: TrainConfig) -> Iterator[None]:
    """Run the model as ``config`` says, for the time of a ``with``.

    Raises:
        ValueError: its stacks cannot be run so; nothing stays set.
    """
    default = Mode()
    asked = {field.name: getattr(config, field.name) for field in fields(Mode) if hasattr(config, field.name)}
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value != getattr(default, name)}
    if config.recompute == "auto":  # known once there is a batch: decide
        changes["recompute"] = "all"
    with model.running(**changes):
        yield
