"""One training step: forward, backward, clip, schedule, update."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import nn

from deepnet_edu.fast import Store
from deepnet_edu.models import Batch, Model
from deepnet_edu.stack import Stack
from deepnet_edu.training.optimizer import EPSILON, FlatParameters, parameter_groups


@dataclass(frozen=True)
class StepResult:
    """What one step saw.

    Attributes:
        loss: before the update, nats per token.
        gradient_norm: 2-norm over all trained parameters, before clipping.
        learning_rate: of the update.
    """

    loss: float
    gradient_norm: float
    learning_rate: float


def learning_rate(step: int, peak: float, warmup: int) -> float:
    """Linear warm-up to ``peak`` over ``warmup`` steps, then constant. ``step`` counts from 0."""
    return peak * min(1.0, (step + 1) / warmup) if warmup else peak


class TrainStep:
    """AdamW with warm-up and gradient clipping on some of a model's parameters; the others are frozen meanwhile.

    Use as a context manager: on leaving, the parameters own their memory again and what was frozen is as before.

    Args:
        model: has ``loss(batch)``.
        parameters: those to train.
        peak: learning rate after warm-up.
        warmup: steps of linear warm-up, 0 for none.
        clip: largest 2-norm of the whole gradient, 0 for no clipping.
        weight_decay: AdamW's, on matrices and embeddings only.
        betas: AdamW's.
    """

    def __init__(
        self,
        model: Model,
        parameters: Iterable[nn.Parameter],
        *,
        peak: float,
        warmup: int,
        clip: float,
        weight_decay: float,
        betas: tuple[float, float],
    ) -> None:
        chosen = list(parameters)
        self.model, self.peak, self.warmup, self.clip = model, peak, warmup, clip
        self.count = 0
        self._frozen = {parameter: parameter.requires_grad for parameter in model.parameters()}
        self._owners = [
            (module._parameters, name, parameter)
            for module in model.modules()
            for name, parameter in module._parameters.items()
        ]
        self.groups = parameter_groups(model, chosen, weight_decay)
        self.flats = [FlatParameters(group.parameters) for group in self.groups]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        for parameter in chosen:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [flat.flat], "weight_decay": group.weight_decay, "eps": EPSILON * group.epsilon_factor}
                for flat, group in zip(self.flats, self.groups, strict=True)
            ],
            lr=peak,
            betas=betas,
            fused=True,
        )
        # For the time of a step the fast path may use its memory again, and add gradients where they belong.
        trained = set(chosen)
        self._stores = {
            stack: Store()
            for stack in model.stacks().values()
            if isinstance(stack, Stack) and stack.layers and trained.issuperset(stack.parameters())
        }

    def __enter__(self) -> "TrainStep":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stores.clear()
        for flat in self.flats:
            flat.release()
        for parameter, required in self._frozen.items():
            parameter.requires_grad_(required)

    def __call__(self, batch: Batch) -> StepResult:
        """Take one step. With a loss or gradient that is not finite nothing is updated.

        Raises:
            RuntimeError: the model's parameters were replaced, moved or cast since the last step.
        """
        if not all(owner.get(name) is parameter for owner, name, parameter in self._owners):
            raise RuntimeError(
                "Parameters of the model were replaced by others while it was trained, as "
                "load_state_dict(…, assign=True) does: load weights in place, load_state_dict(…), or start a new run."
            )
        for flat in self.flats:
            if flat.hold():
                self._stores = {stack: Store() for stack in self._stores}  # the old ones know where weights were
        self.model.at_step(self.count)
        gradients = [flat.flat.grad for flat in self.flats if flat.flat.grad is not None]
        for gradient in gradients:
            gradient.zero_()
        try:
            for stack, store in self._stores.items():
                stack.store = store
            loss = self.model.loss(batch)
            loss.backward()
        finally:
            for stack in self._stores:
                stack.store = None
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
        rate = learning_rate(self.count, self.peak, self.warmup)
        result = StepResult(loss.item(), norm.item(), rate)
        if torch.isfinite(loss) and torch.isfinite(norm):
            if self.clip and norm > self.clip:
                for gradient in gradients:
                    gradient.mul_(self.clip / (norm + 1e-6))  # as torch.nn.utils.clip_grad_norm_ has it
            for settings, group in zip(self.optimizer.param_groups, self.groups, strict=True):
                settings["lr"] = rate * group.learning_rate_factor
            self.optimizer.step()
            self.model.project()
            self.count += 1
        return result
