"""How far one step of training moves the answers: the paper's model update ‖ΔF‖."""

from typing import Literal, get_args

import torch
from torch import nn

from deepnet_edu.fields import checked
from deepnet_edu.messages import unknown
from deepnet_edu.model import Batch, Model
from deepnet_edu.model.compiled import unwrapped
from deepnet_edu.probing.refusal import check_batch, check_finite
from deepnet_edu.probing.watch import differentiable, undisturbed

Step = Literal["sgd", "sign"]
UpdateGroup = Literal["all", "matrices", "biases", "norms"]


def update_group(model: Model, name: UpdateGroup) -> list[nn.Parameter]:
    """All parameters of a model, or of its stacks the branches' matrices, their biases, or what belongs to the rules
    (gains and biases of norms, learned scales)."""
    if name not in get_args(UpdateGroup):
        raise ValueError(unknown("group of parameters", name, get_args(UpdateGroup)))
    stack = model.group("stack")
    matrices = {weight for sublayer in model.sublayers() for weight in sublayer.matrices()}
    biases = {
        module.bias
        for sublayer in model.sublayers()
        for module in sublayer.branch.children()
        if isinstance(module, nn.Linear) and module.bias is not None
    }
    if name == "all":
        return model.group("all")
    chosen = {"matrices": matrices, "biases": biases, "norms": set(stack) - matrices - biases}
    return [parameter for parameter in stack if parameter in chosen[name]]


@checked(model=unwrapped)
def model_update(
    model: Model,
    batch: Batch,
    step: Step = "sgd",
    parameters: UpdateGroup = "matrices",
    learning_rate: float = 1e-3,
) -> float:
    """‖ΔF‖: root mean square change of the answers after one step, divided by the learning rate.

    Theorem 4.2 (arXiv 2203.00555) bounds it for SGD as the learning rate goes to 0. What it leaves out can be seen
    group by group: biases and the parameters of norms. All parameters are afterwards what they were, to the last bit.

    Args:
        model: a model from build_model, trained or not.
        batch: inputs and targets on the model's device.
        step: ``"sgd"``, θ - ηg, or ``"sign"``, θ - η·sign(g), which is Adam's first step.
        parameters: ``"all"``, embeddings and head too, or of the stacks ``"matrices"``, ``"biases"`` or ``"norms"``.
        learning_rate: η. Small enough for the first order, large enough for the precision.

    Raises:
        ValueError: unknown step or group, an empty group, or as :func:`~deepnet_edu.probing.watch.probe` raises.
    """
    if step not in get_args(Step):
        raise ValueError(unknown("step", step, get_args(Step)))
    if not 0 < learning_rate <= 1e30:
        raise ValueError(f"learning_rate={learning_rate!r}: expected a positive number, for example 1e-3.")
    check_batch(model, batch)
    chosen = update_group(model, parameters)
    if not chosen:
        raise ValueError(f"The stacks have no {parameters}: nothing would be updated.")
    kept = [parameter.detach().clone() for parameter in chosen]
    try:
        with undisturbed(model):
            batch = batch.to(batch.inputs.device)
            with differentiable(chosen), torch.enable_grad():
                logits = model.logits(batch)
                check_finite(logits, model)
                gradients = torch.autograd.grad(model.loss_of(logits, batch), chosen)
            with torch.no_grad():
                for parameter, gradient in zip(chosen, gradients, strict=True):
                    parameter.sub_(gradient.sign() if step == "sign" else gradient, alpha=float(learning_rate))
                change = model.logits(batch) - logits
                return change.square().mean().sqrt().item() / learning_rate
    finally:
        with torch.no_grad():
            for parameter, value in zip(chosen, kept, strict=True):
                parameter.copy_(value)
