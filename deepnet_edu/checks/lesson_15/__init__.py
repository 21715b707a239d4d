"""Lesson 15, many GPUs: shares of a batch and of its loss, bytes by ZeRO's stages, the bubble. And ``schedules``."""

from collections.abc import Collection, Mapping
from math import ceil
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_15.schedules import most_kept, one_forward_one_backward, ring_chunk
from deepnet_edu.checks.trial import TYPE
from deepnet_edu.checks.values import describe

_NUMBERS = "The answer is a list or a range of whole numbers."


def _whole_numbers(trial: Trial, got: Any) -> list[int]:
    """As a list; a range, a set, an array or a tensor will do as well, and 3.0 for 3."""
    if hasattr(got, "tolist"):
        got = got.tolist()
    held = isinstance(got, Collection) and not isinstance(got, str | bytes | Mapping)
    trial.require(held, _NUMBERS, got=describe(got), rung=TYPE)
    found = [one.item() if hasattr(one, "item") else one for one in got]
    for one in found:
        whole = isinstance(one, Number) and not isinstance(one, bool | complex) and one == int(one)  # type: ignore[call-overload]
        trial.require(whole, _NUMBERS, got=describe(got), rung=TYPE)
    return [int(one) for one in found]


#: How people share out, and what is wrong with it.
_SHARES = [
    (lambda b, r, n: range(b), "That is the whole batch: every rank would do all the work."),
    (lambda b, r, n: range(r * (b // n), (r + 1) * (b // n)), "Where the batch does not come out even, rows are lost."),
    (
        lambda b, r, n: range(min(b, r * ceil(b / n)), min(b, (r + 1) * ceil(b / n))),
        "Full shares first leave too little for the last rank: 9 rows on 4 ranks become 3, 3, 3 and 0.",
    ),
    (
        lambda b, r, n: range(r * (b // n), b if r == n - 1 else (r + 1) * (b // n)),
        "The last rank gets all the rows left over: the others wait for it.",
    ),
    (
        lambda b, r, n: range(r * n, (r + 1) * n),
        "Here a share has as many rows as there are ranks: how many belong to one rank?",
    ),
    (
        lambda b, r, n: range(r + 1, b + 1, n),
        "Rows are numbered from 0: your first row is lost, and your last does not exist.",
    ),
    (lambda b, r, n: range(r, b - 1, n), "The last row is lost: a range ends before its stop."),
    (lambda b, r, n: range(n, b, r + 1), "The start is the rank, and the step the number of ranks."),
]


def my_rows(trial: Trial) -> None:
    """range(rank, batch_size, ranks): deal the rows out one by one, as cards. Runs of rows will do as well, where the
    first batch_size % ranks ranks have one row more.
    """
    batches = [(14, 3), (8, 2), (7, 4), (3, 5), (12, 1), (10, 4), (10, 3), (9, 4), (1, 2), (0, 3)]
    found = [[_whole_numbers(trial, trial.call(size, rank, ranks)) for rank in range(ranks)] for size, ranks in batches]
    trial.call(14, 2, 3)  # the one that the card shows
    for sharing, sentence in _SHARES:
        theirs = [[list(sharing(size, rank, ranks)) for rank in range(ranks)] for size, ranks in batches]
        trial.require(found != theirs, sentence, got=f"14 rows on 3 ranks: {found[0]}")
    for (size, ranks), shares in zip(batches, found, strict=True):
        rows = [row for share in shares for row in share]
        trial.call(size, ranks - 1, ranks)
        shown = f"{size} rows on {ranks} ranks: {shares}"[:150]
        outside = [row for row in rows if not 0 <= row < size]
        trial.require(not outside, f"Rows are numbered from 0 to batch_size - 1, here {size - 1}.", got=shown)
        twice = "A row belongs to two ranks, or twice to one: it would count twice in the gradient."
        trial.require(len(set(rows)) == len(rows), twice, got=shown)
        missing = sorted(set(range(size)) - set(rows))
        trial.require(not missing, f"No rank has the rows {missing} of {size}.", got=shown)
        sizes = [len(share) for share in shares]
        unequal = "The shares are not as equal as they can be: the slowest rank makes all others wait."
        trial.require(max(sizes) - min(sizes) <= 1, unequal, got=shown)
    for (size, ranks), shares in reversed(list(zip(batches, found, strict=True))):
        for rank in reversed(range(ranks)):
            again = sorted(_whole_numbers(trial, trial.call(size, rank, ranks)))
            kept = (
                "A second call gives a rank other rows: each rank is a process of its own, and knows its own numbers."
            )
            trial.require(again == sorted(shares[rank]), kept, str(sorted(shares[rank])), str(again))


def share_loss(trial: Trial) -> None:
    """losses.sum() * ranks / all_answers: what is added up on each rank is its part of the whole sum, and ranks makes
    up for DDP's division.
    """
    given = []
    for n, all_answers, ranks in [(5, 23, 3), (5, 23, 2), (5, 29, 2), (2, 26, 4), (9, 31, 2), (6, 6, 1), (0, 11, 3)]:
        losses = torch.linspace(0.4, 3.1, n, dtype=torch.float64).square().requires_grad_()
        got = trial.call(losses, all_answers, ranks)
        total = losses.sum().item()
        if not n:
            finite = not isinstance(got, Tensor) or got.ndim > 0 or bool(torch.isfinite(got))
            trial.require(finite, "A rank without any answer must give 0. The mean of nothing is NaN: use a sum.")
        wrong = _wrong_losses(total, n, all_answers, ranks) if n and ranks > 1 else []
        trial.equal(got, total * ranks / all_answers, wrong, "This rank's part of the loss is wrong.")
        given.append((got, losses, ranks / all_answers))
        plain = losses.detach().clone()
        trial.change(plain, all_answers, ranks)
        trial.require(torch.equal(plain, losses), "Your function changed its input in place: work on a new tensor.")
    shares = [torch.tensor([3.0, 5.0]), torch.tensor([1.0] * 6), torch.tensor([2.0] * 3)]
    mean = sum(float(trial.call(share, 11, 3)) for share in shares) / 3
    whole = torch.cat(shares).mean().item()
    said = "The mean over three ranks is not the mean of all their answers."
    trial.require(abs(mean - whole) < 1e-2, said, f"{whole:.5g}", f"{mean:.5g}")
    if trial.verdict() is None:
        for got, losses, slope in given:
            _goes_back(trial, got, losses, slope)


def _wrong_losses(total: float, n: int, answers: int, ranks: int) -> list[Misconception]:
    mean = total / n
    own = "Divide by the answers of all ranks, not by this rank's."
    return [
        Misconception(
            mean, "That is this rank's own mean: with few answers, each of them would count more than on others."
        ),
        Misconception(total / answers, "DDP divides by the number of ranks once more: multiply by it to cancel that."),
        Misconception(total / (answers * ranks), "DDP divides by ranks already: multiply, do not divide."),
        Misconception(total, "That is a sum: where are the answers of all ranks?"),
        Misconception(total * ranks, "A sum grows with the batch: where are the answers of all ranks?"),
        Misconception(mean * ranks, own),
        Misconception(mean / ranks, own),
        Misconception(mean / answers * ranks, "The losses are added up, not averaged."),
        Misconception(mean / answers, "The losses are added up, not averaged."),
        Misconception(mean * answers / ranks, "Upside down: many answers make each of them count less."),
        Misconception(total / (answers // ranks), "// drops the fraction: the quotient is not a count."),
        Misconception(total * ranks**2 / answers, "The number of ranks comes once."),
    ]


def _goes_back(trial: Trial, got: Any, losses: Tensor, slope: float) -> None:
    """Each loss has the same gradient."""
    trial.require(
        isinstance(got, Tensor),
        "It is the right number, but no gradient can pass through it: return a tensor computed from losses.",
        "a tensor without dimensions",
        describe(got),
        TYPE,
    )
    apart = (
        "It is the right number, but no gradient can pass: compute it from losses, without item(), detach() or a new "
        "tensor. (Without answers, too: under DDP all other ranks wait for this one's backward pass.)"
    )
    trial.require(got.requires_grad, apart)
    (gradient,) = torch.autograd.grad(got, losses, allow_unused=True)
    trial.require(gradient is not None, apart)
    right = torch.full_like(losses, slope)
    said = "The gradient of your number is not that of this loss."
    near = torch.allclose(gradient, right, rtol=1e-5)
    trial.require(near, said, str(right[:1].tolist()), str(gradient[:1].tolist()))


def bytes_per_rank(trial: Trial) -> None:
    """Add up 4 bytes of weights, 4 of gradients and 8 of averages for each parameter; from stage 1 on the averages are
    divided by ranks, from stage 2 on the gradients as well, at stage 3 the weights, too.
    """
    for parameters, ranks in [(1003, 11), (70, 9), (1, 11)]:
        for stage in range(4):
            got = trial.call(parameters, ranks, stage)
            wrong = _wrong_bytes(parameters, ranks, stage)
            trial.equal(got, _bytes(parameters, ranks, stage), wrong, "At this stage your number is wrong.")
    for stage in range(4):
        alone = float(trial.call(50, 1, stage))
        said = f"With one rank nothing is divided, at stage {stage} either: 16 bytes a parameter."
        trial.require(abs(alone - 800) < 1, said, "800", f"{alone:g}")


def _bytes(parameters: int, ranks: int, stage: int, pieces: tuple[int, int, int] = (4, 4, 8)) -> float:
    """Bytes of weights, gradients and averages, which are divided from stages 3, 2 and 1 on."""
    first = (3, 2, 1)
    return sum(n * parameters / (ranks if stage >= at else 1) for n, at in zip(pieces, first, strict=True))


def _wrong_bytes(parameters: int, ranks: int, stage: int) -> list[Misconception]:
    """Slips whose value is unique here; one that concerns a single stage is known at others by its value there."""
    right = [_bytes(parameters, ranks, at) for at in range(4)]
    one_piece = 12 * parameters + 4 * parameters / ranks
    adds_up = "Stages add up: what is divided at one stage stays divided at the next."
    at_stage: dict[int, list[tuple[float, str]]] = {
        0: [
            (right[1], "That is one stage too high: stage 0 divides nothing."),
            (right[3], "Only stage 3 divides everything."),
        ],
        1: [
            (right[0], "Nothing is divided yet: from stage 1 on a rank keeps a part."),
            (right[3], "Only stage 3 divides everything."),
            (one_piece, "Adam's averages, 8 bytes, are divided first."),
        ],
        2: [
            (right[0], "Nothing is divided yet: from stage 1 on a rank keeps a part."),
            (right[1], "That is one stage too low: stage 0 divides nothing."),
            (right[3], "Only stage 3 divides everything."),
            (one_piece, adds_up),
        ],
        3: [
            (right[0], "Nothing is divided yet: from stage 1 on a rank keeps a part."),
            (right[2], "At stage 3 a rank keeps a part of the weights, too."),
            (one_piece, adds_up),
        ],
    }
    if stage == 1:
        at_stage[stage].append((_bytes(parameters, ranks, stage, (4, 0, 8)), "Gradients have 4 bytes as well."))
    if stage < 3:
        at_stage[stage].append((ranks * right[stage], "That is all ranks together: what does one of them keep?"))
    half = (
        "That counts as ZeRO's paper does for 16-bit weights, 2 + 2 + 12. Here all is float32: 4 + 4 + 8, and the "
        "master weights are the weights."
    )
    return [
        *(Misconception(value, said) for value, said in at_stage[stage]),
        Misconception(_bytes(parameters, ranks, stage, (2, 2, 12)), half),
        Misconception(_bytes(parameters, ranks, stage, (4, 4, 4)), "Adam keeps two averages for each weight."),
        Misconception(_bytes(parameters, ranks, stage, (8, 8, 16)), "That is float64: a float32 has 4 bytes."),
        Misconception(right[stage] / 4, "These are numbers: a float32 has 4 bytes."),
    ]


def bubble_share(trial: Trial) -> None:
    """(ranks - 1) / (microbatches * chunks): rank 0 waits for as many passes as there are other ranks, each as long as
    a stage, that is a chunk of its layers; and it works for all of its micro-batches.
    """
    for p, m, v in [
        (4, 11, None),
        (3, 5, None),
        (6, 13, 2),
        (6, 13, 4),
        (4, 23, 5),
        (5, 8, 4),
        (8, 5, None),
        (4, 1, None),
        (1, 7, None),
    ]:
        got = trial.call(p, m) if v is None else trial.call(p, m, v) if v == 2 else trial.call(p, m, chunks=v)
        said = "The share of waiting is wrong."
        trial.equal(got, (p - 1) / (m * (v or 1)), _wrong_bubbles(p, m, v or 1), said)
    trial.require(
        abs(float(trial.call(1, 5))) < 1e-9, "One rank alone never waits.", "0", f"{float(trial.call(1, 5)):g}"
    )
    few, many = (float(trial.call(4, m)) for m in (6, 12))
    said = "Twice as many micro-batches are twice the work, and the waiting stays."
    trial.require(abs(few - 2 * many) < 1e-3, said, f"{few / 2:.4g}", f"{many:.4g}")


def _wrong_bubbles(p: int, m: int, v: int) -> list[Misconception]:
    if p == 1 or m == 1:
        return []
    whole = "That is the share of the whole step. Waiting over working is asked for."
    waiting = "That is the waiting, in units of a forward pass: divide it by the work."
    return [
        Misconception(p / (m * v), "The first rank waits for p - 1 others, not for p."),
        *([Misconception((p - 1) / m, "With chunks each wait is shorter.")] if v > 1 else []),
        *([Misconception((p - 1) * v / m, "Chunks make the bubble smaller, not larger.")] if v > 1 else []),
        *([Misconception((p * v - 1) / m, "More stages, but each of them is shorter by as much.")] if v > 1 else []),
        *(
            [Misconception((p * v - 1) / (m * v), "A rank waits for other ranks, not for its own chunks.")]
            if v > 1
            else []
        ),
        Misconception((p - 1) / (m * v + p - 1), whole),
        Misconception((p - 1) / (m + p - 1), whole),
        Misconception(3 * (p - 1) / (m * v), "Work has 3 units a micro-batch as well: they cancel."),
        Misconception((p - 1) / (3 * m * v), "Waiting has 3 units a rank as well: they cancel."),
        Misconception(3 * (p - 1) / v, waiting),
        Misconception((p - 1) / v, waiting),
        Misconception(1 + (p - 1) / (m * v), "That is the whole step over the work: leave out the 1."),
        Misconception(m * v / (p - 1), "Upside down: waiting over working."),
        Misconception((m - 1) / (p * v), "Ranks and micro-batches are exchanged."),
        Misconception((p - 1) / ((m - 1) * v), "All micro-batches are work, the first one as well."),
    ]


JUDGES: dict[str, Judge] = {
    "my_rows": my_rows,
    "share_loss": share_loss,
    "bytes_per_rank": bytes_per_rank,
    "bubble_share": bubble_share,
    "one_forward_one_backward": one_forward_one_backward,
    "most_kept": most_kept,
    "ring_chunk": ring_chunk,
}
