"""AdamW and SGD over flat buffers: at a thousand layers, 12,000 updates of small tensors cost far more than one."""

import ctypes
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from deepnet_edu.model import Model
from deepnet_edu.model.compiled import plain_name
from deepnet_edu.residual import RESIDUALS, Residual
from deepnet_edu.training.config import TrainConfig


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are updated in the same way.

    Attributes:
        parameters: in the order of the model.
        learning_rate_factor: of the residual rule, for these.
        epsilon_factor: likewise.
        weight_decay: 0 where the residual rule says that they do not decay.
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
    inside = {
        parameter: (sublayer.residual, plain_name(name))
        for sublayer in model.sublayers()
        for name, parameter in sublayer.named_parameters()
    }
    names = {parameter: plain_name(name) for name, parameter in model.named_parameters()}
    outside = RESIDUALS.get(model.config.residual, Residual)
    groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    for parameter in chosen:
        factors = 1.0, 1.0
        if parameter in inside:
            rule, name = inside[parameter]
            factors = rule.learning_rate_factor(name), rule.epsilon_factor(name)
            decays = rule.decays(name, parameter)
        else:
            decays = outside.decays(names[parameter], parameter)
        groups.setdefault((*factors, weight_decay if decays else 0.0), []).append(parameter)
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
            self.parameters, self.split(values), self.split(self.flat.grad), strict=True
        ):
            parameter.data, parameter.grad = value, gradient
        _give_back()
        self._values = [parameter.data_ptr() for parameter in self.parameters]
        self._gradients = [parameter.grad.data_ptr() for parameter in self.parameters]  # type: ignore[union-attr]

    @property
    def tensors(self) -> list[nn.Parameter]:
        """What the optimizer updates."""
        return [self.flat]

    def gradients(self) -> list[Tensor]:
        """What there is of gradients, here the one buffer."""
        assert self.flat.grad is not None
        return [self.flat.grad]

    def zero(self) -> None:
        """Set all gradients to 0."""
        self.gradients()[0].zero_()

    def pieces(self, buffers: dict[nn.Parameter, Tensor]) -> list[tuple[nn.Parameter, Tensor]]:
        """What is in ``buffers``, by parameter, one of the form of each of ``tensors``; as views."""
        return list(zip(self.parameters, self.split(buffers[self.flat]), strict=True))

    def split(self, buffer: Tensor) -> list[Tensor]:
        """A buffer of this form by parameter, as views."""
        pieces = buffer.split([parameter.numel() for parameter in self.parameters])
        return [piece.view_as(parameter) for piece, parameter in zip(pieces, self.parameters, strict=True)]

    def hold(self) -> bool:
        """Take back what left the buffers, as ``zero_grad``, new ``data`` or ``model.to`` may do without a word; its
        updates would be lost.

        Returns:
            Whether something had left. What left with new values comes back with them.

        Raises:
            RuntimeError: a parameter has come to another device or precision; the optimizer's state has not.
        """
        values = [parameter.data_ptr() for parameter in self.parameters]
        gradients = [0 if (g := parameter.grad) is None else g.data_ptr() for parameter in self.parameters]
        if values == self._values and gradients == self._gradients:
            return False
        assert self.flat.grad is not None
        for parameter, value, gradient in zip(
            self.parameters, self.split(self.flat.data), self.split(self.flat.grad), strict=True
        ):
            if parameter.dtype != value.dtype or parameter.device != value.device:
                raise RuntimeError(
                    f"A parameter came to {parameter.dtype} on {parameter.device} while it was trained in "
                    f"{value.dtype} on {value.device}: move or cast the model before training, and start a new run."
                )
            if parameter.data_ptr() != value.data_ptr():
                value.copy_(parameter.detach())
            if parameter.grad is None:
                gradient.zero_()
            elif parameter.grad.data_ptr() != gradient.data_ptr():
                gradient.copy_(parameter.grad)
            parameter.data, parameter.grad = value, gradient
        return True

    def release(self) -> None:
        """Give every parameter memory of its own and drop the gradients."""
        for parameter in self.parameters:
            parameter.grad = None
        self.flat.grad = None  # before anything is asked for
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()


class ShardedParameters:
    """Parameters of which this rank has its shards only, as ``fully_shard`` has left them: the same as
    :class:`FlatParameters`, but each is updated by itself."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)

    @property
    def tensors(self) -> list[nn.Parameter]:
        """What the optimizer updates."""
        return self.parameters

    def gradients(self) -> list[Tensor]:
        """This rank's shards of the gradients."""
        found = [parameter.grad for parameter in self.parameters]
        return [cast(Any, grad).to_local() for grad in found if grad is not None]

    def zero(self) -> None:
        """Forget all gradients; ``fully_shard`` makes new ones."""
        for parameter in self.parameters:
            parameter.grad = None

    def pieces(self, buffers: dict[nn.Parameter, Tensor]) -> list[tuple[nn.Parameter, Tensor]]:
        """What is in ``buffers``, by parameter."""
        return [(parameter, buffers[parameter]) for parameter in self.parameters]

    def hold(self) -> bool:
        """There is no buffer that a parameter could leave."""
        return False

    def release(self) -> None:
        """Drop the gradients; the shards stay."""
        self.zero()


def buffer(parameters: list[nn.Parameter]) -> FlatParameters | ShardedParameters:
    """One buffer for whole parameters; shards stay where they are."""
    cut = hasattr(parameters[0], "to_local")  # a DTensor, whose module takes long to load for those who need none
    return ShardedParameters(parameters) if cut else FlatParameters(parameters)


def make_optimizer(
    flats: Sequence[FlatParameters | ShardedParameters], groups: list[ParameterGroup], config: TrainConfig
) -> torch.optim.Optimizer:
    """PyTorch's own AdamW or SGD, fused, on the flat buffers."""
    settings: list[dict[str, Any]] = [
        {"params": flat.tensors, "weight_decay": group.weight_decay} for flat, group in zip(flats, groups, strict=True)
    ]
    graphed = {"capturable": True} if config.cuda_graph else {}
    if config.cuda_graph:  # the graph reads the learning rate where it is
        for setting, flat in zip(settings, flats, strict=True):
            setting["lr"] = torch.tensor(config.learning_rate, dtype=torch.float32, device=flat.tensors[0].device)
    if config.optimizer == "sgd":
        fused = not any(
            isinstance(flat, ShardedParameters) for flat in flats
        )  # which PyTorch has for whole tensors only
        return torch.optim.SGD(settings, lr=config.learning_rate, fused=fused)
    for setting, group in zip(settings, groups, strict=True):
        setting["eps"] = config.epsilon * group.epsilon_factor
    return torch.optim.AdamW(settings, lr=config.learning_rate, betas=config.betas, fused=True, **graphed)


def _give_back() -> None:
    """Return freed memory to the system: 12,000 small tensors that have just been freed hold 200 MB for nothing.

    glibc keeps small blocks until asked; other systems have no such call, and need none.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
