"""Lesson 15, many GPUs: shares of a batch and of its loss, bytes by ZeRO's stages, the bubble, the order of a pipeline
and what it keeps, and the ring."""

from typing import Any

import torch
from torch import Tensor

from deepnet_edu.checks.base import Judge, Misconception, Trial

_NUMBERS = "The answer is a list or a range of whole numbers."
_WORDS = 'The answer is a list of words such as "F0" and "B0".'


def _whole_numbers(trial: Trial, got: Any) -> list[int]:
    """As a list; a range, a tuple, an array or a tensor will do as well."""
    if isinstance(got, Tensor) or hasattr(got, "tolist"):
        got = got.tolist()
    trial.require(isinstance(got, list | tuple | range | set), _NUMBERS, got=repr(got)[:80])
    found = list(got)
    trial.require(all(isinstance(n, int) and not isinstance(n, bool) for n in found), _NUMBERS, got=repr(found)[:80])
    return found


def my_rows(trial: Trial) -> None:
    """Every row on exactly one rank, and shares that differ by one row at most."""
    for batch_size, ranks in [(11, 3), (8, 2), (7, 4), (3, 5), (12, 1)]:
        shares = [_whole_numbers(trial, trial.call(batch_size, rank, ranks)) for rank in range(ranks)]
        rows = [row for share in shares for row in share]
        shown = f"{batch_size} rows on {ranks} ranks: {shares}"[:150]
        trial.require(
            all(0 <= row < batch_size for row in rows),
            f"Rows are numbered from 0 to batch_size - 1, here {batch_size - 1}.",
            got=shown,
        )
        if ranks > 1 and batch_size >= ranks:
            trial.require(
                sorted(shares[0]) != list(range(batch_size)),
                "That is the whole batch: every rank would do all the work.",
                got=shown,
            )
        trial.require(
            len(set(rows)) == len(rows), "A row belongs to two ranks: it would count twice in the gradient.", got=shown
        )
        missing = sorted(set(range(batch_size)) - set(rows))
        if missing and batch_size % ranks and len(missing) == batch_size % ranks:
            trial.fail(f"Where the batch does not come out even, rows are lost: here {missing} of {batch_size}.")
        trial.require(not missing, f"Nobody has the rows {missing} of {batch_size}.", got=shown)
        sizes = [len(share) for share in shares]
        trial.require(
            max(sizes) - min(sizes) <= 1,
            "The shares are not as equal as they can be: the slowest rank makes all others wait.",
            got=shown,
        )


def share_loss(trial: Trial) -> None:
    """Σ losses · ranks/all_answers, with its gradient."""
    for n, all_answers, ranks in [(5, 17, 3), (2, 24, 4), (9, 10, 2), (0, 11, 3)]:
        losses = torch.linspace(0.4, 3.1, n, dtype=torch.float64) ** 2 if n else torch.zeros(0, dtype=torch.float64)
        leaf = losses.clone().requires_grad_()
        got = trial.call(leaf, all_answers, ranks)
        total = losses.sum().item()
        mean = total / n if n else float("nan")
        wrong = [
            Misconception(
                mean, "That is this rank's own mean: with few answers, each of them would count more than on others."
            ),
            Misconception(
                total / all_answers, "DDP divides by the number of ranks once more: multiply by it, so that it cancels."
            ),
            Misconception(total / (all_answers * ranks), "DDP divides by ranks already: multiply, do not divide."),
            Misconception(total, "That is a sum: divide by the answers of all ranks."),
            Misconception(total * ranks, "Divide by the answers of all ranks."),
            Misconception(mean * ranks, "Divide by the answers of all ranks, not by this rank's."),
            Misconception(mean / ranks, "Divide by the answers of all ranks, not by this rank's."),
            Misconception(mean / all_answers * ranks, "The losses are added up, not averaged."),
            Misconception(mean / all_answers, "The losses are added up, not averaged."),
        ]
        if not n:
            finite = not isinstance(got, Tensor) or got.ndim > 0 or bool(torch.isfinite(got))
            trial.require(finite, "A rank without any answer must give 0. A mean of nothing is no number: use a sum.")
        trial.equal(got, total * ranks / all_answers, wrong, "The sum of the losses, times ranks, over all answers.")
        trial.require(
            isinstance(got, Tensor) and got.requires_grad,
            "It is the right number, but no gradient can pass: compute it from losses, without item(), detach() or "
            "a new tensor.",
        )
        (gradient,) = torch.autograd.grad(got, leaf)
        trial.equal(gradient, torch.full_like(leaf, ranks / all_answers), (), "The gradient is not that of the value.")


def bytes_per_rank(trial: Trial) -> None:
    """4, 4 and 8 bytes a parameter, each divided from its stage on."""
    for parameters, ranks in [(1000, 8), (70, 5)]:
        right = [
            16 * parameters,
            8 * parameters + 8 * parameters / ranks,
            4 * parameters + 12 * parameters / ranks,
            16 * parameters / ranks,
        ]
        for stage in range(4):
            got = trial.call(parameters, ranks, stage)
            wrong = [
                Misconception(right[stage] / 4, "These are numbers: a float32 has 4 bytes."),
                Misconception(right[stage] * ranks, "That is all ranks together: what does one of them keep?"),
            ]
            if stage:
                wrong += [
                    Misconception(right[stage - 1], "That is the stage before: stage 0 divides nothing."),
                    Misconception(right[3], "That divides everything: only stage 3 does."),
                ]
            else:
                wrong.append(Misconception(right[1], "Stage 0 divides nothing: these are copies."))
                wrong.append(Misconception(right[3], "Stage 0 divides nothing: these are copies."))
            if stage < 3:
                wrong.append(Misconception(right[stage + 1], "That is the stage after: stage 0 divides nothing."))
            if stage == 1:
                wrong.append(
                    Misconception(
                        12 * parameters + 4 * parameters / ranks,
                        "Adam keeps two averages for each weight, 8 bytes: both are divided first.",
                    )
                )
            if stage == 2:
                wrong += [
                    Misconception(
                        12 * parameters + 4 * parameters / ranks,
                        "Stages add up: at stage 2 the averages stay divided as well.",
                    ),
                    Misconception(
                        8 * parameters + 8 * parameters / ranks,
                        "At stage 2 gradients and averages are both divided, 4 + 8 bytes.",
                    ),
                ]
            if stage == 3:
                wrong.append(
                    Misconception(
                        12 * parameters + 4 * parameters / ranks,
                        "Stages add up: at stage 3 gradients and averages stay divided as well.",
                    )
                )
            wrong.append(
                Misconception(right[stage] * 3 / 4, "Adam keeps two averages for each weight: 16 bytes in all.")
            )
            trial.equal(got, right[stage], wrong, "4 bytes of weights, 4 of gradients, 8 of averages, some divided.")


def bubble_share(trial: Trial) -> None:
    """(p - 1)/(m·v)."""
    for p, m, v in [(4, 8, None), (3, 5, None), (6, 12, 2), (4, 20, 3), (1, 7, None)]:
        got = trial.call(p, m) if v is None else trial.call(p, m, chunks=v)
        v = v or 1
        wrong = [
            Misconception(p / (m * v), "The first rank waits for p - 1 others, not for p."),
            Misconception((p - 1) / m, "With chunks each wait is shorter: divide by the chunks."),
            Misconception((p - 1) * v / m, "Chunks make the bubble smaller: divide by them."),
            Misconception(
                (p - 1) / (m * v + p - 1), "That is the share of the whole step. Asked is waiting over working."
            ),
            Misconception((p - 1) / (m + p - 1), "That is the share of the whole step. Asked is waiting over working."),
            Misconception(3 * (p - 1) / (m * v), "Work has 3 units a micro-batch as well: they cancel."),
            Misconception(3 * (p - 1) / v, "That is the waiting, in units of a forward pass: divide by the work, 3·m."),
            Misconception((p - 1) / v, "That is the waiting: divide by the work."),
            Misconception(1 + (p - 1) / (m * v), "That is the whole step over the work: leave out the 1."),
            Misconception(m * v / (p - 1) if p > 1 else -1.0, "Upside down: waiting over working."),
            Misconception((m - 1) / (p * v), "Ranks and micro-batches are exchanged."),
        ]
        trial.equal(got, (p - 1) / (m * v), wrong, "(ranks - 1) waits, over microbatches × chunks pieces of work.")


_AFTER = "as many as there are ranks after this one."


def _order(m: int, ahead: int) -> list[str]:
    """Fill with ``ahead``, one and one, drain."""
    ahead = max(0, min(ahead, m))
    order = [f"F{i}" for i in range(ahead)]
    for i in range(m - ahead):
        order += [f"F{ahead + i}", f"B{i}"]
    return order + [f"B{i}" for i in range(m - ahead, m)]


def one_forward_one_backward(trial: Trial) -> None:
    """Fill, steady, drain."""
    for rank, ranks, m in [(2, 8, 12), (1, 3, 4), (0, 4, 8), (3, 4, 5), (2, 4, 6), (0, 5, 2), (0, 1, 3)]:
        got = trial.call(rank, ranks, m)
        trial.require(isinstance(got, list | tuple), _WORDS, got=repr(got)[:80])
        got = list(got)
        trial.require(all(isinstance(word, str) for word in got), _WORDS, got=repr(got)[:80])
        after = ranks - 1 - rank
        right = _order(m, after)
        if got == right:
            continue
        shown = {"expected": " ".join(right), "got": " ".join(got)[:120]}
        forward, backward = ([word for word in right if word[0] == letter] for letter in "FB")
        wrong = [
            (forward + backward, "That is GPipe: all forward, then all backward."),
            (forward + backward[::-1], "That is GPipe: all forward, then all backward."),
            (_order(m, after + 1), f"One forward pass too many at the start: {_AFTER}"),
            (_order(m, after - 1), f"One forward pass too few at the start: {_AFTER}"),
            (_order(m, rank), "Upside down: rank 0 fills most, the last rank not at all."),
            (_order(m, rank + 1), "Upside down: rank 0 fills most, the last rank not at all."),
            (_order(m, 0), "Every rank begins to go backward at once: then each waits for all after it."),
            (_order(m, ranks - 1), "Every rank fills alike: count the ranks after this one."),
            (_order(m, ranks), "Every rank fills alike: count the ranks after this one."),
            ([f"{w[0]}{int(w[1:]) + 1}" for w in right], "Micro-batches count from 0."),
            ([word for word in right if word in got], "Something is missing: what was filled in must be drained, too."),
        ]
        for order, said in wrong:
            trial.require(got != order, said, **shown)
        counted = sorted(got) == sorted(right)
        few = "No more can be filled in than there are micro-batches: take the smaller one."
        trial.require(counted or after <= m, few, **shown)
        trial.require(counted, "Each micro-batch goes forward once and backward once, and no others.", **shown)
        places = {word: place for place, word in enumerate(got)}
        trial.require(
            all(places[f"F{i}"] < places[f"B{i}"] for i in range(m)),
            "A micro-batch goes backward before it has gone forward.",
            **shown,
        )
        in_turn = [word for word in got if word[0] == "B"] == backward
        trial.require(in_turn, "The oldest micro-batch goes backward first: B0, B1, B2, ….", **shown)
        trial.fail(
            "Fill with as many as there are ranks after this one, then one forward, one backward in turn, then drain."
        )


def most_kept(trial: Trial) -> None:
    """The largest surplus of F over B."""
    orders = [
        _order(8, 3),
        _order(5, 1),
        [f"F{i}" for i in range(6)] + [f"B{i}" for i in range(6)],
        ["F0", "B0", "F1", "F2", "B1", "F3", "B2", "B3"],
        ["F0", "F1", "F2", "B0", "B1", "F3", "B2", "B3"],
        ["F0", "B0"],
    ]
    for order in orders:
        got = trial.call(order)
        counts = [0]
        for word in order:
            counts.append(counts[-1] + (1 if word[0] == "F" else -1))
        m = len(order) // 2
        first = order.index("B0")
        wrong = [
            Misconception(m, "That is how many there are: some are given back before others come."),
            Misconception(0, "At the end nothing is kept: what was the most on the way?"),
            Misconception(first, "Before the first B it is so many; it can become more later."),
            Misconception(max(counts) - 1, "One is missing: look after each word, an F counts at once."),
            Misconception(max(counts) + 1, "One too many: count from 0."),
            Misconception(len(order), "These are the words of the order."),
            Misconception(sum(counts), "Keep the largest, not the sum."),
        ]
        trial.equal(got, max(counts), wrong, "Count up at each F and down at each B, and keep the largest.")


def ring_chunk(trial: Trial) -> None:
    """Any order of pieces with which the ring ends in sums."""
    for n in (4, 5, 2, 3):
        values = 10.0 ** torch.arange(n, dtype=torch.float64)[:, None] * torch.arange(1, n + 1)
        held = values.clone()
        for step in range(2 * (n - 1)):
            sent = []
            for rank in range(n):
                piece = trial.call(rank, step, n)
                trial.like(piece, 0)
                trial.require(float(piece) == int(piece), "The number of a piece is whole.", got=str(piece))
                trial.require(
                    0 <= int(piece) < n,
                    f"Pieces are numbered from 0 to ranks - 1, here {n - 1}: numbers go round, % ranks.",
                    got=f"rank {rank}, step {step}: {int(piece)}",
                )
                sent.append(int(piece))
            trial.require(
                n == 2 or len(set(sent)) > 1,
                "All ranks send the piece of the same number: then only one piece moves at a time.",
                got=f"step {step}: {sent}",
            )
            moved = [held[rank, piece].clone() for rank, piece in enumerate(sent)]
            for rank, (piece, value) in enumerate(zip(sent, moved, strict=True)):
                after = (rank + 1) % n
                held[after, piece] = value + held[after, piece] if step < n - 1 else value
            if step == 0:
                first = sent
            elif step == 1 and n > 2:
                trial.require(
                    sent != first,
                    "At each step the same piece: send on what has just come, the one that rank - 1 sent before.",
                    got=f"steps 0 and 1: {sent}",
                )
                trial.require(
                    sent == [first[rank - 1] for rank in range(n)],
                    "Send on what you have just received and added: the piece that rank - 1 sent one step before.",
                    expected=f"step 1: {[first[rank - 1] for rank in range(n)]}",
                    got=f"step 1: {sent}",
                )
            if step == n - 2:
                whole = [any(torch.isclose(held[rank, c], values[:, c].sum()) for c in range(n)) for rank in range(n)]
                trial.require(
                    all(whole), "After ranks - 1 steps each rank must have one whole sum.", got=f"{n} ranks: {whole}"
                )
        trial.require(
            torch.allclose(held, values.sum(0).expand(n, n)),
            "At the end not every rank has every sum: in the second half, too, send on what has just come.",
            got=f"{n} ranks",
        )


JUDGES: dict[str, Judge] = {
    "my_rows": my_rows,
    "share_loss": share_loss,
    "bytes_per_rank": bytes_per_rank,
    "bubble_share": bubble_share,
    "one_forward_one_backward": one_forward_one_backward,
    "most_kept": most_kept,
    "ring_chunk": ring_chunk,
}
