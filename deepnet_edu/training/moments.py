"""The optimizer's state as checkpoints of one process have it: by parameter, and not by buffer."""

import torch
from torch import Tensor

from deepnet_edu.training.step import TrainStep


def by_parameter(step: TrainStep) -> dict[str, Tensor]:
    """The moments by parameter, ``exp_avg/stack.layers.0.…``, and the count of each group."""
    names, found = step.names(), {}
    for i, flat in enumerate(step.flats):
        (buffer,) = flat.tensors
        for key, value in step.optimizer.state.get(buffer, {}).items():
            if value is None:
                continue
            if value.shape != buffer.shape:
                found[f"{key}/{i}"] = value
                continue
            for parameter, piece in flat.pieces({buffer: value}):
                found[f"{key}/{names[parameter]}"] = piece
    return found


def by_buffer(step: TrainStep, saved: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The optimizer's state for each flat buffer, from what ``by_parameter`` made."""
    names = step.names()
    kinds = dict.fromkeys(name.partition("/")[0] for name in saved)
    found = []
    for i, flat in enumerate(step.flats):
        state = {}
        for kind in kinds:
            if f"{kind}/{i}" in saved:
                state[kind] = saved[f"{kind}/{i}"].to(step.device)
                continue
            pieces = [saved[f"{kind}/{names[parameter]}"].reshape(-1) for parameter in flat.parameters]
            state[kind] = torch.cat(pieces).to(step.device)
        found.append(state)
    return found
