"""The judge of lesson 05's model update: how far a step moves a model's output, and that it leaves no trace."""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.values import same, same_module

_NEEDS_GRADIENTS = (
    "The step takes gradients: put only your two passes under torch.no_grad(), not the step, and the parameters "
    "that are trained must stay so."
)


class _Taken:
    """What became of a step.

    Attributes:
        calls: how often it was taken.
        refused: that no gradient could be taken, even where the learner catches it.
    """

    calls, refused = 0, False


def _step(trial: Trial, taken: _Taken, factors: tuple[float, float]) -> Callable[[nn.Module], None]:
    """A step down a gradient, as the lesson has it: it multiplies the last matrix and its bias by two factors."""

    def step(model: nn.Module) -> None:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        taken.calls += 1
        taken.refused |= len(trained) != 2 or not torch.is_grad_enabled()
        if taken.refused:
            trial.fail(_NEEDS_GRADIENTS)
        gradients = torch.autograd.grad(sum((p.square().sum() / 2 for p in trained), torch.zeros(())), trained)
        with torch.no_grad():
            for parameter, gradient, factor in zip(trained, gradients, factors, strict=True):
                parameter.add_(gradient, alpha=factor - 1)

    step.__qualname__ = "step"  # as Python names it where it is called in another way
    return step


def _of_numbers(d: int, training: bool) -> tuple[nn.Sequential, Tensor]:
    model = nn.Sequential(nn.Linear(d, d), nn.Dropout(0.3)).double().train(training)
    return model, torch.randn(4, d, dtype=torch.float64)


def _of_tokens(d: int, training: bool) -> tuple[nn.Sequential, Tensor]:
    """A model of whole numbers in float32, as in the lesson: logits for each token; what embeds them is not trained."""
    model = nn.Sequential(nn.Embedding(11, d), nn.Dropout(0.3), nn.Linear(d, 7)).train(training)
    model[0].requires_grad_(False)
    return model, torch.randint(11, (2, 5))


def _parts(model: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the last matrix and what its bias give to the output, without dropout."""
    linear = next(one for one in model if isinstance(one, nn.Linear))
    entering = x if x.is_floating_point() else model[0](x)
    return (entering @ linear.weight.mT).detach(), linear.bias.detach()


def model_update(trial: Trial) -> None:
    """‖F(x; θ') - F(x; θ)‖: the root of the sum of squares of all numbers of model(x) after the step minus model(x)
    before it, both in evaluation mode; then the old values are copied back into the parameters, and the old mode set.
    """
    for make, d, training, factors in [
        (_of_numbers, 6, True, (1.3, 0.6)),
        (_of_tokens, 4, False, (0.4, 1.5)),
        (_of_tokens, 6, True, (1.2, 1.9)),
        (_of_numbers, 9, False, (-1.0, -1.0)),  # outputs of the same norm
    ]:
        torch.manual_seed(d)
        model, x = make(d, training)
        by_matrix, by_bias = _parts(model, x)
        change = (factors[0] - 1) * by_matrix + (factors[1] - 1) * by_bias
        still, same_again = (_measured(trial, model, x, (1.0, 1.0)) for _ in range(2))
        trial.require(
            abs(still) < 1e-9,
            "A step that does nothing must give 0: the change of the output is asked for."
            if still == same_again
            else "A step that does nothing must give 0. Two passes with dropout differ without any step: model.eval() "
            "before the first of them.",
            "0",
            f"{still:.3g}",
        )
        got = _measured(trial, model, x, factors)
        wrong = _misconceptions(model, by_matrix, by_bias, change, factors) if factors[0] > 0 else []
        trial.equal(got, change.norm().item(), list(wrong), tolerance=1e-4)
        again = _measured(trial, model, x, factors)
        trial.equal(again, got, sentence="The second call gives another number than the first.", tolerance=1e-4)


def _measured(trial: Trial, model: nn.Sequential, x: Tensor, factors: tuple[float, float]) -> float:
    """What the learner's function gives, once it has left the model as it was."""
    before, same_ones = copy.deepcopy(model), [id(parameter) for parameter in model.parameters()]
    taken, enabled = _Taken(), torch.is_grad_enabled()
    try:
        got = trial.call(model, x, _step(trial, taken, factors))
        lost = torch.is_grad_enabled() != enabled
    finally:
        torch.set_grad_enabled(enabled)
    trial.like(got, 0.0)
    trial.require(not taken.refused, _NEEDS_GRADIENTS)
    trial.require(not lost, "Gradients are still switched off after your function: use `with torch.no_grad():`.")
    trial.require(taken.calls == 1, "Take the step once: call step(model).", "1 call", f"{taken.calls} calls")
    trial.require(
        [id(parameter) for parameter in model.parameters()] == same_ones,
        "The model has other parameters than before, so an optimizer would lose them: copy the old values into those "
        "that it has.",
    )
    trial.require(
        [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in before.parameters()],
        "The model is not trained as before: leave requires_grad as it was.",
    )
    trial.require(
        [p.dtype for p in model.parameters()] == [p.dtype for p in before.parameters()],
        "The model came back in another data type: leave it as it was.",
    )
    trial.require(
        same(dict(model.state_dict()), dict(before.state_dict())),
        "The model is not as it was given: the step is still in it. state_dict() holds references, so clone "
        "each value before the step, and load them afterwards.",
    )
    trial.require(
        [one.training for one in model.modules()] == [one.training for one in before.modules()],
        "The model came back in another mode: training or evaluation, leave it as it was.",
    )
    trial.require(
        all(parameter.grad is None for parameter in model.parameters()),
        "The model came back with gradients: it had none.",
    )
    trial.require(
        not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules()),
        "A hook is still on the model: remove it.",
    )
    trial.require(same_module(model, before), "The model came back with other settings: leave it as it was.")
    return float(got)


def _misconceptions(
    model: nn.Sequential, by_matrix: Tensor, by_bias: Tensor, change: Tensor, factors: tuple[float, float]
) -> Iterator[Misconception]:
    old = by_matrix + by_bias
    new = old + change
    moved = [
        (factor - 1) * parameter.detach().flatten()
        for factor, parameter in zip(factors, (p for p in model.parameters() if p.requires_grad), strict=True)
    ]
    twice = (factors[0] ** 2 - 1) * by_matrix + (factors[1] ** 2 - 1) * by_bias

    def one(value: Tensor, sentence: str) -> Misconception:
        return Misconception(value.item(), sentence)

    yield one(
        torch.cat(moved).norm(), "That is how far the parameters moved: a step may do very different things to F."
    )
    yield one(change.square().mean().sqrt(), "That is the root of the mean square: the norm is asked for.")
    yield one(change.square().mean(), "That is the mean square: the norm is asked for.")
    yield one(change.square().sum(), "That is the square of the norm.")
    yield one(change.abs().sum(), "Square the changes before you add them: the 2-norm is asked for.")
    yield one(change.abs().mean(), "That is the mean change of one number: the norm of all is asked for.")
    yield one(change.abs().max(), "That is the largest change of one number: the norm of all is asked for.")
    yield one(change.sum().abs(), "Changes of both signs must not cancel: the norm of the difference.")
    yield one(new.norm() - old.norm(), "The norm of a difference, not the difference of norms.")
    yield one((new.norm() - old.norm()).abs(), "The norm of a difference, not the difference of norms.")
    yield one(change.norm() / old.norm(), "That is relative to the output before: the change itself is asked for.")
    yield one(new.norm(), "That is the norm of the output after the step: subtract the output before it.")
    yield one(change.norm(dim=-1).mean(), "That is a mean over tokens: one norm of all numbers is asked for.")
    yield one(change.norm(dim=-1).sum(), "That adds up the tokens' norms: one norm of all numbers is asked for.")
    if change.ndim == 2:
        spectral = torch.linalg.matrix_norm(change, 2)
        yield one(spectral, "For a matrix, torch.linalg.norm(…, 2) is a different norm: flatten it first.")
    cosine = 1 - torch.cosine_similarity(old.flatten(), new.flatten(), dim=0)
    yield one(cosine, "That compares directions alone: the length of the difference is asked for.")
    yield one(twice.norm(), "The step was taken twice.")
    yield one(torch.zeros(()), "The output before the step is that of the old weights: compute it before the step.")
