"""The judges of lesson 10's two steps: what the learner's step did to a small model is compared with what each known
slip would have done to it."""

from collections.abc import Sequence
from math import inf, isfinite, nan
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepnet_edu.checks.base import Misconception, NotRight, Trial
from deepnet_edu.checks.lesson_10.optimizer import Optimizer
from deepnet_edu.checks.lesson_10.slips import (
    SCALED_SLIPS,
    SLIPS,
    Batch,
    Model,
    Step,
    after,
    batch_of,
    short,
    values_of,
)

_NO_STEP = "Nothing moved: optimizer.step() was not called."


def pair(trial: Trial, got: Any, what: str) -> tuple[float, float]:
    """Two plain numbers."""
    two = isinstance(got, tuple | list | np.ndarray | Tensor) and getattr(got, "ndim", 1) == 1 and len(got) == 2
    kind = type(got).__name__
    trial.require(two, f"The answer is a pair, {what}.", "two numbers", kind)
    values = list(got)
    trial.require(
        not any(isinstance(value, Tensor) and value.requires_grad for value in values),
        "The loss that you return still holds the whole graph in memory: loss.item() is the number.",
    )
    for value in values:
        trial.like(value, 0.0)
    return float(values[0]), float(values[1])


def _gradient(model: Model, batch: Batch) -> tuple[float, float]:
    """Loss, and norm of its gradient, of the weights as they are."""
    loss = model.loss(batch)
    gradient = torch.autograd.grad(loss, [model.w, model.b])
    model.starts.clear()
    return loss.item(), torch.cat(gradient).norm().item()


def _judged_step(
    trial: Trial, model: Model, optimizer: Optimizer, start: Model, steps: Sequence[Step], clip: float, scaled: bool
) -> None:
    """The last of some steps: what it returned, what it left, and the weights."""
    step = steps[-1]
    owned, before = [(p, p.requires_grad) for p in model.parameters()], optimizer.steps
    loss, norm = _gradient(model, step.batch)
    found = _taken(trial, model, optimizer, step, clip, scaled)
    wrong = {slip: after(start, steps, clip, slip) for slip in (SCALED_SLIPS if scaled else SLIPS)}
    sentences = SLIPS | SCALED_SLIPS
    if optimizer.steps == before:
        sentences["nothing"] = _NO_STEP
    trial.equal(
        values_of(model),
        after(start, steps, clip),
        [Misconception(values, sentences[slip]) for slip, values in wrong.items()],
        f"After step {len(steps)} the weights are wrong.",
    )
    later = model.loss(step.batch).item()
    swapped = "The pair is the other way round: first the loss, then the norm."
    trial.equal(
        found[0],
        loss,
        [
            Misconception(later, "That is the loss after the step: return the one before it."),
            Misconception(norm, swapped),
            *(
                [Misconception(loss * step.scale, "That is the scaled loss: the caller does not know of the scale.")]
                if scaled
                else []
            ),
        ],
        "The loss that you return is wrong.",
    )
    trial.equal(
        found[1],
        norm,
        [
            Misconception(min(norm, clip), "That is the norm after clipping: return what it was before."),
            Misconception(norm**2, "That is the square of the norm."),
            Misconception(loss, swapped),
            *([Misconception(norm * step.scale, "That is the norm of the scaled gradient.")] if scaled else []),
        ],
        "The norm that you return is wrong.",
        tolerance=1e-5,
    )
    trial.require(
        all(p is q and p.requires_grad == trained for (p, trained), q in zip(owned, model.parameters(), strict=True)),
        "A parameter was replaced, or is trained now and was not: a step changes values, and nothing else.",
    )
    trial.require(model.training, "Your step left the model in another mode: eval() turns dropout off.")


def _taken(trial: Trial, model: Model, optimizer: Optimizer, step: Step, clip: float, scaled: bool) -> Any:
    """What the learner's step returns: two numbers."""
    arguments = (step.rate, clip, step.scale) if scaled else (step.rate, clip)
    model.blind = False
    try:
        got = trial.call(model, step.batch, optimizer, *arguments)
    except NotRight:
        said = "The forward pass ran without gradients: backward has no graph to go through."
        trial.require(not model.blind, said)
        raise
    return pair(trial, got, "(loss, norm of the gradient)")


def training_step(trial: Trial) -> None:
    """Six lines in this order: optimizer.zero_grad(); loss = model.loss(batch); loss.backward(); norm =
    clip_grad_norm_(model.parameters(), clip); group["lr"] = rate for each group in optimizer.param_groups;
    optimizer.step(). Return loss.item() and norm.item().
    """
    for d, clip, rates in [(3, 0.8, (0.02, 0.05, 0.01)), (5, 0.6, (0.1, 0.03, 0.07, 0.02)), (4, inf, (0.04, 0.06))]:
        model, start = Model(d, seed=d), Model(d, seed=d)
        optimizer = Optimizer([model.w], [model.b])
        steps: list[Step] = []
        for k, rate in enumerate(rates):
            batch = batch_of(d, 10 * d + k, size=40.0 if k == 2 else 1.0) if k else short(model, batch_of(d, 10 * d))
            steps.append(Step(batch, rate))
            _judged_step(trial, model, optimizer, start, steps, clip, scaled=False)
            trial.require(
                bool(torch.isfinite(values_of(model)).all()),
                "With clip = inf nothing is clipped, and the weights are no longer finite: inf/inf is not a number.",
            )


#: Size of the model, clip, and the scale of each step.
_SCALES = [(3, 0.4, (16.0, 64.0, 2.0)), (4, 9.0, (64.0, 16.0, 1.0)), (5, 1.1, (32.0, 4.0))]


def scaled_step(trial: Trial) -> None:
    """In this order: zero_grad; the loss; (scale·loss).backward(); divide every .grad that is not None by scale; clip;
    and only if the norm is finite set the rate and call optimizer.step(). Return loss.item() and norm.item().
    """
    for d, clip, scales in _SCALES:
        model, start = Model(d, seed=20 + d), Model(d, seed=20 + d)
        optimizer = Optimizer([model.w], [model.b])
        steps: list[Step] = []
        for k, (rate, scale) in enumerate(zip((0.02, 0.05, 0.03), scales, strict=False)):
            batch = batch_of(d, 30 + d + k, size=40.0 if clip < 2 and k == 1 else 1.0)
            batch = batch if k or clip > 2 else short(model, batch)
            steps.append(Step(batch, rate, scale))
            _judged_step(trial, model, optimizer, start, steps, clip, scaled=True)
            began = model.starts[0] if model.starts else nan
            trial.require(
                abs(began - scale) <= 1e-6 * scale,
                "The backward pass did not start from scale times the loss: small gradients become 0 on their way.",
                f"{scale:.6g} times the loss",
                f"{began:.6g} times",
            )
    _overflows(trial)


#: How a step in float32 overflows: slopes of which one is infinite when scaled, two that leave no number, and a loss.
_OVERFLOWS = [((1e10,), 1.0), ((1e10, -1e10), 1.0), ((), inf)]


def _overflows(trial: Trial) -> None:
    """A good step, one with an overflow, and a good one again."""
    clip = 9.0
    for steep, factor in _OVERFLOWS:
        model, start = Model(3, 4, torch.float32), Model(3, 4, torch.float32)
        optimizer = Optimizer([model.w], [model.b])
        first, second = (batch_of(3, seed, dtype=torch.float32) for seed in (9, 6))
        steps = [Step(first, 0.01, 8.0), Step(second, 0.02, 4.0)]
        _judged_step(trial, model, optimizer, start, steps[:1], clip, scaled=True)
        before, memory = values_of(model).clone(), optimizer.memory()
        over = Step(Batch(second.x, second.y * factor, steep), 0.02, 2.0**100)
        with torch.no_grad():
            loss = model.loss(over.batch).item()
        found = _taken(trial, model, optimizer, over, clip, scaled=True)
        trial.require(
            not isfinite(found[1]),
            "The scaled gradient overflowed; return its norm as it is, inf or nan: the caller halves the scale by it.",
            "inf or nan",
            f"{found[1]:.3g}",
        )
        now = values_of(model)
        trial.require(
            bool(torch.isfinite(now).all()),
            "The gradient overflowed and the step was taken: the weights are no longer finite. Skip such a step; "
            "its norm may be inf, and may be nan.",
        )
        trial.require(
            torch.equal(now, before),
            "A step with an overflow must change nothing: a gradient that is partly infinite is useless.",
        )
        trial.require(
            all(map(torch.equal, memory, optimizer.memory())),
            "The weights stayed, but the optimizer's memory changed: do not call optimizer.step at all.",
        )
        trial.require(
            found[0] == loss or abs(found[0] - loss) <= 1e-5 * abs(loss),
            "The gradient overflowed, the loss did not: return the loss, without the scale.",
            f"{loss:.6g}",
            f"{found[0]:.6g}",
        )
        _taken(trial, model, optimizer, steps[1], clip, scaled=True)
        trial.require(
            torch.allclose(values_of(model), after(start, steps, clip), rtol=1e-5, atol=1e-5),
            "The step after an overflow is wrong: is an infinite gradient still in .grad?",
        )
