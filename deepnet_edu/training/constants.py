"""Constants that were set by hand in a built model: a checkpoint knows them, since no configuration does."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn

from deepnet_edu.messages import shown
from deepnet_edu.model.compiled import plain_name
from deepnet_edu.residual import Residual
from deepnet_edu.training.integrity import CheckpointError


def constants_of(model: nn.Module) -> dict[str, float | str]:
    """Constants of residual rules that were set in the built model, by name: all others follow from its config.

    A number; of what became a tensor of several, its shape and SHA-256.
    """
    found: dict[str, float | str] = {}
    for place, rule in model.named_modules():
        if not isinstance(rule, Residual) or not rule.constants:
            continue
        made = rule.formula_constants()
        for name in made.keys() - rule.state_dict().keys():  # what is learned is a weight
            where, value, held = f"{plain_name(place)}.{name}", made[name], getattr(rule, name, None)
            if isinstance(held, Tensor) and held.numel() != 1:
                numbers = held.detach().cpu().double().contiguous().numpy()
                found[where] = f"{tuple(held.shape)} {sha256(numbers.tobytes()).hexdigest()}"
            elif rule.current(name) != (torch.tensor(value, dtype=held.dtype) if isinstance(held, Tensor) else value):
                found[where] = rule.current(name)
    return found


def check_constants(path: Path, saved: Mapping[str, float | str], wanted: Mapping[str, float | str]) -> None:
    """See that what was set by hand in the model that was saved is set in this one.

    Raises:
        CheckpointError: it is not; the first name that differs is named.
    """
    for name in saved.keys() | wanted.keys():
        if saved.get(name) != wanted.get(name):
            there, here = (shown(by[name]) if name in by else "the formula's" for by in (saved, wanted))
            raise CheckpointError(
                f"The checkpoint {path} was trained with other constants: {shown(name)} is {there} there, {here} here. "
                "They do not follow from the configuration: set them in the model again, as they were, and resume, or "
                "start a new run in another folder."
            )
