"""Lesson 10, the training loop: the cosine, accumulation, the scale of the loss, AdamW. The steps are judged in
:mod:`deepnet_edu.checks.steps`, what is saved in :mod:`deepnet_edu.checks.saved`."""

from collections.abc import Sequence
from math import cos, pi, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.saved import checkpoints
from deepnet_edu.checks.steps import pair, scaled_step, training_step
from deepnet_edu.models import IGNORED, Batch


def cosine_rate(trial: Trial) -> None:
    """start + (peak - start)·n/warmup, then final + (peak - final)·(1 + cos(π·done))/2."""
    for steps, peak, warmup, start, final in [(50, 3e-3, 10, 1e-5, 2e-4), (31, 0.5, 7, 0.02, 0.1)]:
        for n in (0, 1, warmup // 2, warmup - 1, warmup, warmup + 1, (warmup + steps) // 2, steps - 3, steps):
            got = trial.call(n, steps, peak, warmup, start, final)
            rising, done = start + (peak - start) * n / warmup, (n - warmup) / (steps - warmup)

            def fall(done: float, final: float = final, peak: float = peak) -> float:
                return final + (peak - final) * (1 + cos(pi * done)) / 2

            wrong = [
                Misconception(peak * n / warmup, "The warm-up begins at start, not at 0."),
                Misconception(
                    start + peak * n / warmup, "At the end of the warm-up the rate is peak, not peak + start."
                ),
                Misconception(peak, "In the warm-up the rate rises in a straight line."),
            ]
            if n > warmup:
                wrong = [
                    Misconception(rising, "The warm-up ends at n = warmup: then the rate falls."),
                    Misconception(
                        fall(n / steps), "The cosine begins where the warm-up ends: (n - warmup)/(steps - warmup)."
                    ),
                    Misconception(
                        fall((n - warmup) / steps),
                        "What is left for the cosine is steps - warmup: it must end at n = steps.",
                    ),
                    Misconception(fall(2 * done), "Half a period, from cos 0 to cos π: 2π would bring the peak back."),
                    Misconception(fall(done / 2), "Half a period, from cos 0 to cos π: π/2 is a quarter."),
                    Misconception(peak * (1 + cos(pi * done)) / 2, "It ends at final, not at 0."),
                    Misconception(
                        final + peak * (1 + cos(pi * done)) / 2,
                        "What the cosine scales is peak - final: it begins at peak.",
                    ),
                    Misconception(
                        final + (peak - final) * cos(pi * done),
                        "The cosine goes from 1 to -1: (1 + cos)/2 goes from 1 to 0.",
                    ),
                    Misconception(
                        peak - (peak - final) * done, "That is a straight line: flat at both ends is what is wanted."
                    ),
                    Misconception(fall(done * 180 / pi), "cos counts in radians."),
                    Misconception(peak * sqrt(warmup / n), "That is the inverse square root, the paper's schedule."),
                ]
            expected = rising if n <= warmup else fall(done)
            trial.equal(
                got,
                expected,
                wrong,
                "From peak at n = warmup to final at n = steps: (1 + cos(π·done))/2 of the way is left.",
                tolerance=1e-9,
            )


class _Counted(nn.Module):
    """Mean over the answers that count, as models of the course have it; remembers the order of passes."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(d, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64))
        self.passes: list[str] = []

    def loss(self, batch: Any) -> Tensor:
        self.passes.append("forward")
        logits = self.table[batch.inputs]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        loss.register_hook(lambda _: self.passes.append("backward"))
        return loss


def accumulated_loss(trial: Trial) -> None:
    """Mean over all answers, its gradient added to .grad, one graph at a time."""
    for d, kept in [(5, (9, 2, 5)), (4, (1, 8)), (6, (7, 3, 4, 12))]:
        draw = torch.Generator().manual_seed(d)
        batches = []
        for answers in kept:
            inputs, targets = torch.randint(d, (3, 4), generator=draw), torch.randint(d, (3, 4), generator=draw)
            targets.view(-1)[torch.randperm(12, generator=draw)[answers:]] = IGNORED
            batches.append(Batch(inputs, targets))
        model, twin = _Counted(d), _Counted(d)
        model.table.grad = torch.full_like(model.table, 0.25)  # what was there before
        losses = [twin.loss(batch) for batch in batches]
        gradients = [torch.autograd.grad(loss, twin.table)[0] for loss in losses]

        def mean(values: Sequence[Any], weights: Sequence[float]) -> Any:
            return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)

        even, tokens = [1.0] * len(kept), [12.0] * len(kept)
        right = mean(gradients, kept)
        got = trial.call(model, batches)
        numbers = [loss.item() for loss in losses]
        wrong_loss = [
            Misconception(
                mean(numbers, even), "That is the mean of means: a batch with few answers counts as much as others."
            ),
            Misconception(sum(numbers), "That is a sum: the mean over all answers was asked for."),
            Misconception(numbers[-1], "That is the last batch's loss alone."),
            Misconception(
                mean(numbers, kept) * sum(kept), "That is the sum over the answers: divide by how many there are."
            ),
        ]
        trial.require(
            not (isinstance(got, Tensor) and got.requires_grad),
            "The loss that you return still holds the whole graph in memory: loss.item() is the number.",
        )
        trial.equal(
            float(got) if isinstance(got, Tensor) and got.ndim == 0 else got,
            mean(numbers, kept),
            wrong_loss,
            "The loss is the mean over all answers of all batches.",
        )
        added = model.table.grad
        trial.require(added is not None, "The gradients are gone: call backward, and leave them in .grad.")
        assert added is not None
        n = sum(kept)
        wrong = [
            Misconception(torch.full_like(right, 0.25), "No gradient arrived: backward is missing."),
            Misconception(right, "It zeroed what was in .grad before: zeroing is the step's work, add to it."),
            Misconception(
                0.25 + mean(gradients, even),
                "That is the gradient of the mean of means: weigh each batch by its number of answers.",
            ),
            Misconception(0.25 + mean(gradients, tokens), "Tokens with target -100 are no answers: count the others."),
            Misconception(0.25 + sum(gradients), "The losses were added up: weigh each by its share of all answers."),
            Misconception(
                0.25 + right * n, "That is the gradient of the sum over answers: divide by how many there are in all."
            ),
            Misconception(
                gradients[-1] * kept[-1] / n, "Only the last batch is left: zero_grad has no place between the batches."
            ),
            Misconception(0.25 + gradients[-1] * kept[-1] / n, "Only the last batch's gradient arrived."),
        ]
        trial.equal(added, 0.25 + right, wrong, "Each batch adds its share, answers / all answers, of its gradient.")
        trial.require(
            model.passes == ["forward", "backward"] * len(kept),
            "All graphs were alive at once, or a batch passed twice: after each forward its backward, which frees the "
            "memory. That is what accumulation is for.",
        )


def next_scale(trial: Trial) -> None:
    """(scale/2, 0) on overflow; (2·scale, 0) after interval good steps in a row; else (scale, good + 1)."""
    for scale, good, overflow, interval in [
        (1024.0, 1, False, 5),
        (1024.0, 3, True, 5),
        (96.0, 2, False, 3),
        (1024.0, 4, True, 5),
        (8.0, 6, False, 7),
        (8.0, 0, False, 1),
        (3.0, 0, False, 2),
    ]:
        got = trial.call(scale, good, overflow, interval)
        found = pair(trial, got, "(scale, good steps in a row)")
        full = good + 1 == interval
        if overflow:
            expected, said = (scale / 2, 0), "On an overflow the scale is halved, and the count begins again at 0."
            wrong = [
                Misconception((2 * scale, 0), "An overflow means that the scale is too large: halve it."),
                Misconception((scale / 2, good), "The row of good steps is broken: the count begins again at 0."),
                Misconception((scale / 2, good + 1), "A step that overflowed is no good step: the count begins at 0."),
                Misconception((scale, 0), "On an overflow the scale must change, or the next step overflows too."),
                Misconception((scale, good + 1), "Nothing heeds overflow."),
            ]
        elif full:
            expected, said = (
                (2 * scale, 0),
                "This good step completes the row: the scale doubles, the count begins at 0.",
            )
            wrong = [
                Misconception(
                    (scale, interval), "This step completes the row: double the scale now, not a step later."
                ),
                Misconception((2 * scale, interval), "After doubling, the count begins again at 0."),
                Misconception((2 * scale, 1), "After doubling, the count begins again at 0."),
                Misconception((scale / 2, 0), "Good steps let the scale grow: double it."),
                Misconception((scale + 1, 0), "The scale doubles: powers of two change no digit of a number."),
            ]
        else:
            expected, said = (scale, good + 1), "A good step counts one more, and the scale stays."
            wrong = [
                Misconception((2 * scale, 0), "Doubled too early: only after interval good steps in a row."),
                Misconception((2 * scale, good + 1), "Doubled too early: only after interval good steps in a row."),
                Misconception((scale, good), "This step was good: count it."),
            ]
        trial.equal(found, expected, wrong, said)


def adamw_step(trial: Trial) -> None:
    """m, v, both corrected for their start at 0, and w - rate·(m̂/(√v̂ + eps) + decay·w)."""
    for size, rate, betas, eps, decay in [(5, 0.03, (0.9, 0.98), 1e-3, 0.2), (4, 0.2, (0.6, 0.9), 0.05, 0.0)]:
        draw = torch.Generator().manual_seed(size)
        w = torch.randn(size, generator=draw, dtype=torch.float64)
        m, v, (b1, b2) = torch.zeros_like(w), torch.zeros_like(w), betas
        for t in (1, 2, 3, 4):
            g = torch.randn(size, generator=draw, dtype=torch.float64)
            before_w, before_m, before_v = w, m, v
            m, v = torch.lerp(m, g, 1 - b1), torch.lerp(v, g.square(), 1 - b2)
            w = (1 - rate * decay) * w - rate * m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt() + eps)
            if t == 1:  # with means of 0 many wrong answers are alike
                continue
            got = trial.call(before_w, g, before_m, before_v, t, rate, betas, eps, decay)
            trial.require(
                isinstance(got, tuple | list) and len(got) == 3,
                "The answer is three tensors, (w, m, v).",
                "three tensors",
                type(got).__name__,
            )
            for value in got:
                trial.like(value, w)
            mhat, vhat = m / (1 - b1**t), v / (1 - b2**t)
            trial.equal(
                got[1],
                m,
                [
                    Misconception(b1 * g + (1 - b1) * before_m, "β is the share that stays: β₁·m + (1 - β₁)·g."),
                    Misconception(b1 * before_m + g, "The new gradient counts 1 - β₁: m is a mean."),
                    Misconception(mhat, "Return m as it is kept: the correction is for this step only."),
                ],
                "m is the running mean of the gradient: β₁·m + (1 - β₁)·g.",
            )
            trial.equal(
                got[2],
                v,
                [
                    Misconception(vhat, "Return v as it is kept: the correction is for this step only."),
                    Misconception(v.sqrt(), "Keep v itself; the root is taken in the step."),
                ],
                "v is the running mean of the gradient's square: β₂·v + (1 - β₂)·g².",
            )

            def step(first: Tensor, second: Tensor, shrink: float, w: Tensor = before_w, rate: float = rate) -> Tensor:
                return w - rate * (first / second + shrink * w)

            wrong = [
                Misconception(step(m, v.sqrt() + eps, decay), "Both means began at 0: divide them by 1 - βᵗ."),
                Misconception(step(mhat, (vhat + eps).sqrt(), decay), "ε stands outside the root: √v̂ + ε."),
                Misconception(step(mhat, vhat.sqrt() + eps, 0.0), "The weight decay is missing."),
                Misconception(step(mhat, vhat.sqrt() + eps, decay / rate), "The decay is times the rate too."),
                Misconception(step(mhat, vhat + eps, decay), "Divide by the root of v̂, a size, not by a square."),
                Misconception(step(-mhat, vhat.sqrt() + eps, decay), "Downhill: minus the rate times the step."),
                Misconception(step(mhat, vhat.sqrt(), decay), "ε is missing."),
            ]
            trial.equal(got[0], w, wrong, "w - rate·(m̂/(√v̂ + ε) + decay·w), with m̂ = m/(1 - β₁ᵗ), v̂ = v/(1 - β₂ᵗ).")


JUDGES: dict[str, Judge] = {
    "training_step": training_step,
    "cosine_rate": cosine_rate,
    "accumulated_loss": accumulated_loss,
    "scaled_step": scaled_step,
    "checkpoints": checkpoints,
    "next_scale": next_scale,
    "adamw_step": adamw_step,
}
