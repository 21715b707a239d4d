"""When the loss is no longer a number: where it began, and what to try."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.model import Batch, Model
from deepnet_edu.model.layer import SubLayer
from deepnet_edu.profiles import History
from deepnet_edu.residual import DEFAULT
from deepnet_edu.training.config import TrainConfig
from deepnet_edu.training.step import TrainStep


class TrainingDiverged(RuntimeError):
    """The loss or its gradient is not a number any more. The message is the diagnosis.

    Attributes:
        step: at which it happened, from 0.
        history: everything up to that step.
    """

    def __init__(self, message: str, step: int, history: History) -> None:
        super().__init__(message)
        self.step = step
        self.history = history

    def __reduce__(self) -> tuple[type["TrainingDiverged"], tuple[str, int, History]]:
        # An exception with arguments of its own cannot come back from another process otherwise.
        return type(self), (str(self), self.step, self.history)


@torch.no_grad()
def diagnose(step: TrainStep, batches: list[Batch], history: History) -> str:
    """Step, first layer and role affected, the last updates, and three things to try, in a few sentences.

    Args:
        step: that has just refused to update; the gradients still lie where it put them.
        batches: of this step.
        history: with this step's loss and gradient norm last.
    """
    model, config = step.model, step.config
    where = _where(step, batches, history) if step.sees_all else "no rank sees enough of it to say where it began"
    said = f"Stopped at step {step.count}: loss {history.loss[-1]}, gradient norm {history.gradient_norm[-1]}"
    advice = ", ".join(_advice(model, config)[:2]) + f", or {_advice(model, config)[2]}"
    return f"{said}; {where}. {_before(step, history)}The weights are those of before this step. Try {advice}."


def _where(step: TrainStep, batches: list[Batch], history: History) -> str:
    model = step.model
    weights = [name for name, parameter in model.named_parameters() if not torch.isfinite(parameter).all()]
    if weights:
        return f"the weights of {weights[0]} are not finite"
    for batch in batches:
        with _first_not_finite(model) as found, step.autocast():
            model.loss(batch)
        if found:
            return f"the first value that is not finite leaves {found[0]}"
    if not math.isfinite(history.loss[-1]):
        return "the stack's output is finite, so it is the head or the loss"
    where = "the forward pass is finite, the gradient is not"
    for sublayer in reversed(model.sublayers()):
        for role, gradient in sublayer.branch.weights(of=_gradient).items():
            if not torch.isfinite(gradient).all():
                return f"{where}: on its way down it is lost in {_named(sublayer, role)}"
    return where


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _named(sublayer: SubLayer, role: str = "") -> str:
    place = sublayer.residual.place
    return f"layer {place.layer + 1} ({place.sublayer}{', ' if role else ''}{role})"


@contextmanager
def _first_not_finite(model: Model) -> Iterator[list[str]]:
    """While entered, a forward pass by the plain path tells where its first value that is not finite comes from."""
    found: list[str] = []
    handles: list[Any] = []

    def look(where: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            values = output if isinstance(output, tuple) else (output,)
            if not found and not all(bool(torch.isfinite(value).all()) for value in values):
                found.append(where)

        return hook

    for sublayer in model.sublayers():
        for role, module in sublayer.branch.named_children():
            if isinstance(module, nn.Linear):
                handles.append(module.register_forward_hook(look(_named(sublayer, role))))
        handles.append(sublayer.register_forward_hook(look(_named(sublayer))))
    try:
        with model.running(path="plain"):
            yield found
    finally:
        for handle in handles:
            handle.remove()


def _before(step: TrainStep, history: History) -> str:
    """What the steps before it did."""
    norms = [f"{norm:.3g}" for norm in history.gradient_norm[-4:-1]]
    if not norms:
        return ""
    said = f"The gradient norms before it: {', '.join(norms)}; "
    moved = step.last_update()
    return f"{said[:-2]}. " if moved is None else f"{said}the last update moved the weights by {moved:.1%}. "


def _advice(model: Model, config: TrainConfig) -> list[str]:
    rate = config.learning_rate
    longer = max(2 * config.warmup, 20)
    if config.precision == "fp16":
        last = "precision='bf16', which has the range of fp32"
    elif not config.clip:
        last = "clip=1.0"
    elif model.config.residual != DEFAULT:
        last = f"residual={DEFAULT!r}"
    else:
        last = "model.double(), to tell an overflow from a divergence"
    return [
        f"a lower learning_rate ({rate / 3:.1g} for {rate:.1g})",
        f"a longer warmup ({longer} steps for {config.warmup})",
        last,
    ]
