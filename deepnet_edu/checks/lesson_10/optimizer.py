"""The optimizer with which judges try a learner's training step: descent with momentum, as PyTorch has it.

PyTorch's own ones import its compiler when the first of them is made: seconds, which would count as the learner's.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

#: What every group has before a rate is set.
UNSET = 0.7


class Optimizer:
    """Descent with momentum 0.5, with the parts of PyTorch's optimizers that a loop needs.

    Attributes:
        steps: how often ``step`` was called.
    """

    def __init__(self, *groups: Iterable[nn.Parameter]) -> None:
        self.defaults: dict[str, Any] = {"lr": UNSET}
        self.param_groups: list[dict[str, Any]] = [{"params": list(group), "lr": UNSET} for group in groups]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}
        self.steps = 0

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for parameter in self._parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of whatever has a gradient; the loss where a closure computes it."""
        loss = closure() if closure else None
        self.steps += 1
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        state = self.state.setdefault(parameter, {"momentum_buffer": torch.zeros_like(parameter)})
                        state["momentum_buffer"].mul_(0.5).add_(parameter.grad)
                        parameter.sub_(group["lr"] * state["momentum_buffer"])
        return loss

    def memory(self) -> list[Tensor]:
        """Copies of all momenta."""
        return [value.clone() for state in self.state.values() for value in state.values()]

    def state_dict(self) -> dict[str, Any]:
        """Memory and settings, laid out as PyTorch does; the tensors themselves, not copies."""
        index = {parameter: i for i, parameter in enumerate(self._parameters())}
        groups = [{**group, "params": [index[p] for p in group["params"]]} for group in self.param_groups]
        return {"state": {index[p]: dict(state) for p, state in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take memory and rates from a saved state."""
        parameters = self._parameters()
        self.state = {
            parameters[i]: {name: value.clone() for name, value in state.items()}
            for i, state in state_dict["state"].items()
        }
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group["lr"] = saved["lr"]
