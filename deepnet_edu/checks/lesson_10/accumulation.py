"""The judge of lesson 10's accumulation: gradients, loss, and the order of passes."""

from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Misconception, NotRight, Trial
from deepnet_edu.model import IGNORED, Batch


class Model(nn.Module):
    """Mean over the answers that count, as models of the course have it.

    Attributes:
        passes: forward and backward passes in their order.
        blind: whether a forward pass ran where no gradients are kept.
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(d)
        self.table = nn.Parameter(torch.randn(d, d, generator=draw, dtype=torch.float64))
        self.passes: list[str] = []
        self.blind = False

    def loss(self, batch: Batch) -> Tensor:
        """Of a batch, a number."""
        self.passes.append("forward")
        loss = nn.functional.cross_entropy(self.table[batch.inputs].flatten(0, 1), batch.targets.flatten())
        if loss.requires_grad:
            loss.register_hook(lambda _: self.passes.append("backward"))
        self.blind |= not loss.requires_grad
        return loss


#: Size of the model, answers in each batch, and what is in .grad before.
_CASES = [(5, (9, 2, 5), 0.25), (4, (1, 8), None), (6, (7, 3, 4, 12), -0.5), (3, (2, 6), 0.5)]


def accumulated_loss(trial: Trial) -> None:
    """With aᵢ answers in batch i and a in all: ((aᵢ/a)·model.loss(batch)).backward() for one batch after the other that
    has answers. Return the sum of all (aᵢ/a)·loss, a number.
    """
    for d, kept, before in _CASES:
        batches = _batches(d, kept)
        tokens = [float(batch.targets.numel()) for batch in batches]
        targets = [batch.targets.clone() for batch in batches]
        model, twin = Model(d), Model(d)
        if before is not None:
            model.table.grad = torch.full_like(model.table, before)
        losses = [twin.loss(batch) for batch in batches]
        gradients = [torch.autograd.grad(loss, twin.table)[0] for loss in losses]
        numbers = [loss.item() for loss in losses]
        try:
            got = trial.call(model, batches)
        except NotRight:
            said = "A forward pass ran without gradients: backward has no graph that it could go through."
            trial.require(not model.blind, said)
            raise
        trial.require(
            not (isinstance(got, Tensor) and got.requires_grad),
            "The loss that you return still holds the whole graph in memory: loss.item() is the number.",
        )
        added = model.table.grad
        trial.require(added is not None, "The gradients are gone: call backward, and leave them in .grad.")
        assert added is not None
        known = {said: (before or 0.0) + value for said, value in _wrong_gradients(gradients, kept, tokens).items()}
        if before is not None:
            last = gradients[-1] * kept[-1] / sum(kept)
            known |= {
                "What was in .grad before is gone: zeroing is the step's work, add to it.": _mean(gradients, kept),
                "Only the last batch is left: nothing is zeroed between the batches.": last,
            }
        right = (before or 0.0) + _mean(gradients, kept)
        wrong = [Misconception(value, said) for said, value in known.items()]
        trial.equal(added, right, wrong, "The gradient that was added is another one.")
        wrong = [Misconception(value, said) for said, value in _wrong_losses(numbers, kept, tokens).items()]
        trial.equal(got, _mean(numbers, kept), wrong, "The loss that you return is another one.")
        trial.require(
            model.passes == ["forward", "backward"] * len(kept),
            "All graphs were alive at once, or a batch passed twice: after each forward its backward, which frees the "
            "memory. That is what accumulation is for.",
        )
        trial.require(
            all(torch.equal(batch.targets, old) for batch, old in zip(batches, targets, strict=True)),
            "Your function changed the targets of a batch: the caller still needs them.",
        )
    if trial.verdict() is None:
        _without_answers(trial)


def _without_answers(trial: Trial) -> None:
    """A batch of padding alone: PyTorch's mean over its answers is NaN, and so is 0 times that."""
    nothing = (
        "One of these batches has no answers at all: the mean over them is NaN, and 0 · NaN is NaN. It adds nothing, "
        "leave it out."
    )
    for kept in ((4, 0, 3), (0, 5)):
        batches = _batches(4, kept)
        model, twin = Model(4), Model(4)
        full = [(batch, n) for batch, n in zip(batches, kept, strict=True) if n]
        losses = [twin.loss(batch) for batch, _ in full]
        gradient = _mean([torch.autograd.grad(loss, twin.table)[0] for loss in losses], [n for _, n in full])
        number = _mean([loss.item() for loss in losses], [n for _, n in full])
        got = float(trial.call(model, batches))
        added = model.table.grad
        trial.require(added is not None and bool(added.isfinite().all()) and isfinite(got), nothing, got=f"{got:.4g}")
        assert added is not None
        trial.require(
            abs(got - number) < 1e-4 and bool(torch.allclose(added, gradient, rtol=1e-4, atol=1e-5)),
            "A batch without answers changes neither the gradient nor the loss.",
            f"{number:.5g}",
            f"{got:.5g}",
        )


def _mean(values: Sequence[Any], weights: Sequence[float]) -> Any:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def _wrong_gradients(gradients: Sequence[Tensor], kept: Sequence[int], tokens: Sequence[float]) -> dict[str, Tensor]:
    """What each slip adds, by what to say to it."""
    right = _mean(gradients, kept)
    return {
        "No gradient arrived: backward is missing.": 0 * right,
        "The mean of the batches' means: an answer in a batch with few of them counts more than others.": _mean(
            gradients, [1.0] * len(kept)
        ),
        "Each batch counts by its tokens: those whose target is -100 are no answers.": _mean(gradients, tokens),
        "The sum over the answers was divided by the tokens: -100 is no answer.": right * sum(kept) / sum(tokens),
        "The losses were added up: each counts by its share of all answers.": sum(gradients, start=0 * right),
        "The gradient of a sum over the answers: divide by how many there are in all.": right * sum(kept),
        "The sum over the answers was divided by the number of batches.": right * sum(kept) / len(kept),
        "Only the last batch's gradient arrived.": gradients[-1] * kept[-1] / sum(kept),
        "Only the first batch's gradient arrived.": gradients[0] * kept[0] / sum(kept),
        "The gradient was added twice.": 2 * right,
        "The gradient has the wrong sign: it is added.": -right,
    }


def _wrong_losses(numbers: Sequence[float], kept: Sequence[int], tokens: Sequence[float]) -> dict[str, float]:
    """What each slip returns, by what to say to it."""
    right = _mean(numbers, kept)
    return {
        "You return the mean of means: a batch with few answers counts as much as others.": _mean(
            numbers, [1.0] * len(kept)
        ),
        "You return a mean over tokens: those whose target is -100 are no answers.": _mean(numbers, tokens),
        "You return a sum of losses: the mean over all answers was asked for.": sum(numbers),
        "You return the last batch's loss alone.": numbers[-1],
        "You return the first batch's loss alone.": numbers[0],
        "You return the last batch's share alone: add them up.": numbers[-1] * kept[-1] / sum(kept),
        "You return the sum over the answers: divide by how many there are.": right * sum(kept),
    }


def _batches(d: int, answers: Sequence[int]) -> list[Batch]:
    """Batches of 12, 16, 20, … tokens, with so many answers each."""
    draw, batches = torch.Generator().manual_seed(d), []
    for rows, kept in enumerate(answers, 3):
        inputs, targets = torch.randint(d, (rows, 4), generator=draw), torch.randint(d, (rows, 4), generator=draw)
        targets.view(-1)[torch.randperm(4 * rows, generator=draw)[kept:]] = IGNORED
        batches.append(Batch(inputs, targets))
    return batches
