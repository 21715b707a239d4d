"""AdamW over flat buffers: at a thousand layers, 12,000 updates of small tensors cost far more than one."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepnet_edu.models import Model

#: AdamW's own default.
EPSILON = 1e-8


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are updated alike.

    Attributes:
        parameters: in the order of the model.
        learning_rate_factor: of the residual rule, for these.
        epsilon_factor: likewise.
        weight_decay: 0 for norms and biases.
    """

    parameters: list[nn.Parameter]
    learning_rate_factor: float
    epsilon_factor: float
    weight_decay: float


def parameter_groups(model: Model, chosen: Iterable[nn.Parameter], weight_decay: float) -> list[ParameterGroup]:
    """``chosen`` in as few groups as their residual rules and the weight decay allow.

    Raises:
        ValueError: nothing was chosen.
    """
    factors = {
        parameter: (sublayer.residual.learning_rate_factor(parameter.ndim > 1), sublayer.residual.epsilon_factor())
        for sublayer in model.sublayers()
        for parameter in sublayer.parameters()
    }
    groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    for parameter in chosen:
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((*factors.get(parameter, (1.0, 1.0)), decay), []).append(parameter)
    if not groups:
        raise ValueError("There is nothing to train: the group of parameters is empty.")
    return [ParameterGroup(parameters, *settings) for settings, parameters in groups.items()]


class FlatParameters:
    """Parameters laid end to end in one tensor, their gradients in another; each parameter becomes a view.

    The model does not notice. ``release`` gives every parameter its own memory back.

    Attributes:
        flat: the tensor that the optimizer updates; ``flat.grad`` holds all gradients.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        values = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])
        self.flat = nn.Parameter(values)
        self.flat.grad = torch.zeros_like(values)
        for parameter, value, gradient in zip(
            self.parameters, self._split(values), self._split(self.flat.grad), strict=True
        ):
            parameter.data, parameter.grad = value, gradient

    def _split(self, buffer: Tensor) -> list[Tensor]:
        pieces = buffer.split([parameter.numel() for parameter in self.parameters])
        return [piece.view_as(parameter) for piece, parameter in zip(pieces, self.parameters, strict=True)]

    def check(self) -> None:
        """Refuse to go on if somebody moved a parameter away: its updates would be lost without a word.

        Raises:
            RuntimeError: the model was moved, cast or its gradients replaced while it trained.
        """
        values, size = self.flat.data_ptr(), self.flat.element_size()
        assert self.flat.grad is not None
        gradients, offset = self.flat.grad.data_ptr(), 0
        for parameter in self.parameters:
            gradient = parameter.grad
            if parameter.data_ptr() != values + offset or gradient is None or gradient.data_ptr() != gradients + offset:
                raise RuntimeError(
                    "A parameter or its gradient left the optimizer's buffer: do not call model.to(), "
                    "model.zero_grad() or load weights between two steps of one run; start a new run instead."
                )
            offset += size * parameter.numel()

    def release(self) -> None:
        """Give every parameter memory of its own and drop the gradients."""
        for parameter in self.parameters:
            parameter.data, parameter.grad = parameter.data.clone(), None
