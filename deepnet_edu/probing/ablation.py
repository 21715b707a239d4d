"""What a trained stack loses when layers are left out."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from deepnet_edu.fields import checked
from deepnet_edu.messages import shown
from deepnet_edu.model import Batch, Model
from deepnet_edu.model.base import evaluating
from deepnet_edu.model.compiled import unwrapped
from deepnet_edu.model.stack import Stack
from deepnet_edu.probing.refusal import check_batch
from deepnet_edu.profiles import Array
from deepnet_edu.residual import State


@contextmanager
def without_layers(stack: Stack, layers: Collection[int]) -> Iterator[None]:
    """A stack whose layers of these numbers, from 0, hand on what they get; afterwards it is what it was.

    All others stay as they are: α is still that of the full depth, and a norm at the very end stays.

    Raises:
        ValueError: there is no such layer, or each layer of this rule reads all those below it.
    """
    n = len(stack.layers)
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < n:
            raise ValueError(f"layer {shown(layer)}: expected a whole number from 0 to {n - 1}, of {n} layers.")
    rule = stack.sublayers()[0].residual
    if rule.growing:
        raise ValueError(f"Layers of {rule.title} read all layers below them one by one: none of them can be left out.")
    chosen = [unwrapped(stack.layers[layer]) for layer in layers]
    try:
        for module in chosen:
            vars(module)["forward"] = _hand_on
        with stack.running(replace(stack.mode, path="plain", compile="no")):
            yield
    finally:
        for module in chosen:
            vars(module).pop("forward", None)


def _hand_on(state: State, context: Any) -> State:
    return state


@checked(model=unwrapped)
@torch.no_grad()
def layer_harm(model: Model, batch: Batch) -> Array:
    """(layers,) rise of the loss on ``batch``, nats per token, when each layer alone is left out; stack by stack.

    Raises:
        ValueError: as :func:`~deepnet_edu.probing.refusal.check_batch` and :func:`without_layers` raise.
    """
    check_batch(model, batch)
    harm = []
    with evaluating(model):
        loss = model.loss(batch).item()
        for stack in model.stacks().values():
            for layer in range(len(stack.layers)):
                with without_layers(stack, (layer,)):
                    harm.append(model.loss(batch).item() - loss)
    return np.array(harm)
