"""Orders of work of lesson 15: what a rank of a pipeline does, what it keeps meanwhile, and what a ring sends."""

import re
from collections.abc import Callable
from typing import Any

import torch

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.trial import TYPE
from deepnet_edu.checks.values import describe

_WORDS = 'The answer is a list of words such as "F0" and "B0": a letter, and the number of the micro-batch.'
_AFTER = "as many as there are ranks after this one."

_Order = Callable[[int, int, int], list[str]]


def _order(m: int, ahead: int) -> list[str]:
    """Fill with ``ahead``, one and one, drain."""
    ahead = max(0, min(ahead, m))
    order = [f"F{i}" for i in range(ahead)]
    for i in range(m - ahead):
        order += [f"F{ahead + i}", f"B{i}"]
    return order + [f"B{i}" for i in range(m - ahead, m)]


def _gpipe(m: int, step: int = 1) -> list[str]:
    return [f"F{i}" for i in range(m)] + [f"B{i}" for i in range(m)][::step]


def _newest_first(m: int, ahead: int) -> list[str]:
    """Each backward pass takes the youngest that is kept."""
    kept: list[str] = []
    order = []
    for word in _order(m, ahead):
        if word[0] == "F":
            kept.append(word)
        order.append(word if word[0] == "F" else f"B{kept.pop()[1:]}")
    return order


def _unbounded(m: int, after: int) -> list[str]:
    order = [f"F{i}" for i in range(after)]
    for i in range(m - after):
        order += [f"F{after + i}", f"B{i}"]
    return order + [f"B{i}" for i in range(max(m - after, 0), m)]


_ORDERS: list[tuple[_Order, str]] = [
    (lambda rank, ranks, m: _gpipe(m), "That is GPipe: all forward, then all backward."),
    (lambda rank, ranks, m: _gpipe(m, -1), "That is GPipe: all forward, then all backward."),
    (lambda rank, ranks, m: _order(m, ranks - rank), f"One forward pass too many at the start: {_AFTER}"),
    (lambda rank, ranks, m: _order(m, ranks - 2 - rank), f"One forward pass too few at the start: {_AFTER}"),
    (lambda rank, ranks, m: _order(m, rank), "Upside down: rank 0 fills most, the last rank not at all."),
    (lambda rank, ranks, m: _order(m, rank + 1), "Upside down: rank 0 fills most, the last rank not at all."),
    (
        lambda rank, ranks, m: _order(m, 0),
        "Every rank begins to go backward at once: then each waits for all after it.",
    ),
    (lambda rank, ranks, m: _order(m, ranks - 1), "Every rank fills with the same number: count the ranks after it."),
    (lambda rank, ranks, m: _order(m, ranks), "Every rank fills with the same number: count the ranks after it."),
    (lambda rank, ranks, m: _order(m, (ranks - 1 - rank) // 2), f"Half of the filling is missing: {_AFTER}"),
    (
        lambda rank, ranks, m: _unbounded(m, ranks - 1 - rank),
        "No more can be filled in than there are micro-batches.",
    ),
    (
        lambda rank, ranks, m: _newest_first(m, ranks - 1 - rank),
        "The oldest micro-batch goes backward first, not the newest.",
    ),
    (
        lambda rank, ranks, m: [f"{word[0]}{int(word[1:]) + 1}" for word in _order(m, ranks - 1 - rank)],
        "Micro-batches count from 0.",
    ),
    (
        lambda rank, ranks, m: _order(m, ranks - 1 - rank)[: 2 * m - min(ranks - 1 - rank, m)],
        "Something is missing: what was filled in must be drained, too.",
    ),
    (
        lambda rank, ranks, m: _order(m, ranks - 1 - rank)[min(ranks - 1 - rank, m) :],
        "The filling is missing: the forward passes before the first backward one.",
    ),
]


def one_forward_one_backward(trial: Trial) -> None:
    """Fill with ahead = min(ranks - 1 - rank, microbatches) forward passes; then F(ahead + i), B(i) in turn for i from
    0 to microbatches - ahead - 1; then the backward passes from microbatches - ahead on.
    """
    cases = [
        (2, 9, 12),
        (1, 3, 4),
        (0, 4, 8),
        (1, 4, 8),
        (0, 4, 3),
        (3, 4, 5),
        (2, 5, 6),
        (0, 5, 2),
        (0, 1, 3),
        (1, 2, 1),
    ]
    given: list[Any] = []
    for case in cases:
        given.append(trial.call(*case))
        _words(trial, given[-1])
    trial.require(
        len(set(map(id, given))) == len(given), "Each call returns a list of its own: an earlier one has changed."
    )
    found = [_words(trial, got) for got in given]
    right = [_order(m, ranks - 1 - rank) for rank, ranks, m in cases]
    if found == right:
        return
    first = next(i for i, (mine, theirs) in enumerate(zip(found, right, strict=True)) if mine != theirs)
    trial.call(*cases[first])  # the one that the card shows
    shown = {"expected": " ".join(right[first])[:120], "got": " ".join(found[first])[:120]}
    for order, sentence in _ORDERS:
        trial.require(found != [order(*case) for case in cases], sentence, **shown)
    mine, theirs = found[first], right[first]
    trial.require(len(set(mine)) == len(mine), "A word comes twice: each micro-batch goes each way once.", **shown)
    trial.require(
        set(mine) == set(theirs), "Each micro-batch goes forward once and backward once, and no others.", **shown
    )
    places = {word: place for place, word in enumerate(mine)}
    turned = any(places[f"F{i}"] > places[f"B{i}"] for i in range(len(mine) // 2))
    trial.require(not turned, "A micro-batch goes backward before it has gone forward.", **shown)
    for letter, sentence in (
        ("B", "The oldest micro-batch goes backward first: B0, B1, B2, …."),
        ("F", "Micro-batches come in order: F0, F1, F2, …."),
    ):
        same = [word for word in mine if word[0] == letter] == [word for word in theirs if word[0] == letter]
        trial.require(same, sentence, **shown)
    filled = mine.index("B0") - theirs.index("B0")
    trial.require(filled == 0, f"Before the first backward pass there are {abs(filled)} too {_many(filled)}.", **shown)
    trial.fail("After the filling, forward and backward passes must alternate.")


def _many(difference: int) -> str:
    return "many forward passes" if difference > 0 else "few forward passes"


def _words(trial: Trial, got: Any) -> list[str]:
    if hasattr(got, "tolist"):
        got = got.tolist()
    trial.require(isinstance(got, list | tuple), _WORDS, got=describe(got), rung=TYPE)
    for word in got:
        fits = isinstance(word, str) and re.fullmatch(r"[FB](0|[1-9][0-9]*)", word) is not None
        trial.require(fits, _WORDS, got=describe(word), rung=TYPE)
    return list(map(str, got))


def most_kept(trial: Trial) -> None:
    """Go through the words with a counter, up by 1 at each F and down by 1 at each B; the answer is the largest number
    that it reaches.
    """
    grouped = "F0 F1 F2 B0 B1 B2 F3 F4 F5 F6 F7 B3 B4 B5 B6 B7"
    mixed = "F0 B0 F1 F2 B1 F3 F4 B2 F5 F6 B3 F7 F8 B4 B5 B6 B7 B8"
    orders = [_order(14, 5), _order(5, 1), _gpipe(12), _gpipe(5), *(text.split() for text in (mixed, grouped, "F0 B0"))]
    for order in orders:
        got = trial.call(order)
        counts = [0]
        for word in order:
            counts.append(counts[-1] + (1 if word[0] == "F" else -1))
        said = "The largest number kept at one time is wrong."
        trial.equal(got, max(counts), _wrong_counts(order, counts) if len(order) > 2 else [], said)
    for order in orders:
        got, forward = float(trial.call(order)), len(order) // 2
        said = f"Of {forward} micro-batches no more than {forward} can be kept, and no fewer than one."
        trial.require(1 <= got <= forward, said, got=f"{got:g}")


def _wrong_counts(order: list[str], counts: list[int]) -> list[Misconception]:
    """Only slips whose value is unique here."""
    runs = re.findall("F+", "".join(word[0] for word in order))
    first = order.index("B0")
    digits: set[str] = set()
    one_digit = 0
    for word in order:
        (digits.add if word[0] == "F" else digits.discard)(word[1])
        one_digit = max(one_digit, len(digits))
    known = [
        (len(order) // 2, "That is how many there are: some are given back before others come."),
        (0, "At the end nothing is kept: what was the most on the way?"),
        (first, "Before the first B it is this many; it can become more later."),
        (max(map(len, runs)), "That is the longest run of F's: what was kept before is still kept."),
        (one_digit, "F1 and F10 are two micro-batches: a number may have two digits."),
        (max(counts) - 1, "One is missing: count after each word, since an F counts at once."),
        (max(counts) + 1, "One too many: nothing is kept at the start."),
        (len(order), "These are the words of the order."),
        (sum(counts), "Keep the largest, not the sum."),
        (sum(counts) / len(order), "Keep the largest, not the mean."),
        (sum(counts) / len(counts), "Keep the largest, not the mean."),
        (len(order) // 2 - 1, "That is the number of the last micro-batch: numbers count from 0."),
    ]
    alone = [
        (value, said)
        for value, said in known
        if not any(said != other and abs(value - theirs) < 1e-9 for theirs, other in known)
    ]
    return [Misconception(value, said) for value, said in alone]


def ring_chunk(trial: Trial) -> None:
    """(rank - step) % ranks: at first the piece of the rank's own number, then the one that rank - 1 has just sent. Any
    other start will do, if all ranks have it.
    """
    for n in (4, 5, 2, 3, 7):
        values = 10.0 ** torch.arange(n, dtype=torch.float64)[:, None] * torch.arange(1, n + 1)
        held, pieces = values.clone(), []
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
            pieces.append(sent)
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
        for step, rank in ((2 * n - 3, n - 1), (0, 1), (n - 2, 0)):
            again = int(trial.call(rank, step, n))
            kept = "A second call sends another piece: it must depend on rank, step and ranks alone."
            trial.require(again == pieces[step][rank], kept, str(pieces[step][rank]), str(again))
