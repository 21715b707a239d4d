"""Lesson 15: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np
import torch


def _see_rows(f: Callable, g: np.random.Generator) -> Any:
    batch_size, ranks = int(g.integers(1, 13)), int(g.integers(1, 6))
    return [[row in f(batch_size, rank, ranks) for row in range(-2, 20)] for rank in range(ranks)]


def _see_loss(f: Callable, g: np.random.Generator) -> Any:
    losses = torch.tensor(g.uniform(0.1, 3, int(g.integers(1, 6))), requires_grad=True)
    loss = f(losses, int(g.integers(6, 20)), int(g.integers(1, 5)))
    return np.concatenate([[loss.item()], torch.autograd.grad(loss, losses)[0]])


def _numbers(order: list[str]) -> list[int]:
    return [(int(word[1:]) + 50) * (1 if word[0] == "F" else -1) for word in order]


def _see_order(f: Callable, g: np.random.Generator) -> Any:
    ranks, m = int(g.integers(1, 6)), int(g.integers(1, 9))
    return _numbers(f(int(g.integers(ranks)), ranks, m))


def _see_kept(f: Callable, g: np.random.Generator) -> Any:
    ranks, m = int(g.integers(1, 6)), int(g.integers(1, 9))
    return f(filled(lambda rank, ranks: ranks - 1 - rank)(int(g.integers(ranks)), ranks, m))


def _see_ring(f: Callable, g: np.random.Generator) -> Any:
    """What the ranks hold in the end: there are as many right schedules as pieces to begin with."""
    n = int(g.integers(2, 6))
    held = g.uniform(1, 2, (n, n))
    for step in range(2 * (n - 1)):
        sent = [f(rank, step, n) for rank in range(n)]
        if min(sent) < 0:
            return [np.nan]
        moved = [held[rank, piece] for rank, piece in enumerate(sent)]
        for rank, (piece, value) in enumerate(zip(sent, moved, strict=True)):
            held[(rank + 1) % n, piece] = value + (held[(rank + 1) % n, piece] if step < n - 1 else 0)
    return held


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "my_rows": _see_rows,
    "share_loss": _see_loss,
    "bytes_per_rank": lambda f, g: [f(int(g.integers(1, 99)), int(g.integers(1, 9)), stage) for stage in range(4)],
    "bubble_share": lambda f, g: [f(*map(int, g.integers(1, 20, 3))), f(*map(int, g.integers(1, 9, 2)))],
    "one_forward_one_backward": _see_order,
    "most_kept": _see_kept,
    "ring_chunk": _see_ring,
}


def runs(batch_size, rank, ranks):
    """One run of rows after the other."""
    return list(range(rank * batch_size // ranks, (rank + 1) * batch_size // ranks))


def divided(parameters, ranks, stage, pieces=(4, 4, 8)):
    """Each of the three by the stage from which on it is divided."""
    first = (3, 2, 1)
    return sum(n * parameters / (ranks if stage >= s else 1) for n, s in zip(pieces, first, strict=True))


def filled(ahead_of):
    """The order with another number of passes to fill, at most as many as there are micro-batches."""

    def order(rank, ranks, m):
        ahead = max(0, min(ahead_of(rank, ranks), m))
        words = [f"F{i}" for i in range(ahead)]
        for i in range(m - ahead):
            words += [f"F{ahead + i}", f"B{i}"]
        return words + [f"B{i}" for i in range(m - ahead, m)]

    return order


def counting(rank, ranks, m):
    """As a machine would: forward while allowed, backward otherwise."""
    order, forward, backward = [], 0, 0
    while backward < m:
        if forward < m and forward - backward < ranks - rank:
            order.append(f"F{forward}")
            forward += 1
        else:
            order.append(f"B{backward}")
            backward += 1
    return order


def gpipe(rank, ranks, m):
    return [f"F{i}" for i in range(m)] + [f"B{i}" for i in range(m)]


def unbounded(rank, ranks, m):
    ahead = ranks - 1 - rank
    order = [f"F{i}" for i in range(ahead)]
    for i in range(m - ahead):
        order += [f"F{ahead + i}", f"B{i}"]
    return order + [f"B{i}" for i in range(max(m - ahead, 0), m)]


RIGHT = [
    ("my_rows", runs),
    ("my_rows", lambda batch_size, rank, ranks: [row for row in range(batch_size) if row % ranks == rank]),
    ("my_rows", lambda batch_size, rank, ranks: torch.arange(batch_size).tensor_split(ranks)[rank]),
    ("share_loss", lambda losses, all_answers, ranks: torch.sum(losses / all_answers * ranks)),
    ("share_loss", lambda losses, all_answers, ranks: ranks * (losses @ torch.ones_like(losses)) / all_answers),
    ("bytes_per_rank", divided),
    (
        "bytes_per_rank",
        lambda n, ranks, stage: n * [16, 8 + 8 / ranks, 4 + 12 / ranks, 16 / ranks][stage],
    ),
    ("bubble_share", lambda p, m, chunks=1: 3 * (p - 1) / (3 * m) / chunks),
    ("bubble_share", lambda ranks, microbatches, chunks=1: (ranks / chunks - 1 / chunks) / microbatches),
    ("one_forward_one_backward", counting),
    ("one_forward_one_backward", filled(lambda rank, ranks: ranks - 1 - rank)),
    ("most_kept", lambda order: max(accumulate(1 if word.startswith("F") else -1 for word in order))),
    (
        "most_kept",
        lambda order: int(np.cumsum([1 if word[0] == "F" else -1 for word in order]).max()),
    ),
    ("ring_chunk", lambda rank, step, ranks: (rank + ranks * step - step) % ranks),
    ("ring_chunk", lambda rank, step, ranks: (rank + 1 - step) % ranks),
]

WRONG = [
    ("my_rows", lambda b, rank, ranks: range(rank * (b // ranks), (rank + 1) * (b // ranks)), "rows are lost"),
    ("my_rows", lambda b, rank, ranks: range(b), "the whole batch"),
    ("my_rows", lambda b, rank, ranks: range(rank, b, ranks - 1 or 1), "belongs to two ranks"),
    ("my_rows", lambda b, rank, ranks: range(rank + 1, b + 1, ranks), "from 0 to batch_size - 1"),
    (
        "my_rows",
        lambda b, rank, ranks: range(rank * (b // ranks), b if rank == ranks - 1 else (rank + 1) * (b // ranks)),
        "as equal as they can be",
    ),
    ("my_rows", lambda b, rank, ranks: range(rank, b - 1, ranks), "Nobody has the rows"),
    ("my_rows", lambda b, rank, ranks: b // ranks, "list or a range"),
    ("share_loss", lambda losses, all_answers, ranks: losses.mean(), "this rank's own mean"),
    ("share_loss", lambda losses, all_answers, ranks: losses.sum() / all_answers, "once more: multiply"),
    ("share_loss", lambda losses, all_answers, ranks: losses.sum() / (all_answers * ranks), "multiply, do not divide"),
    ("share_loss", lambda losses, all_answers, ranks: losses.sum(), "That is a sum"),
    (
        "share_loss",
        lambda losses, all_answers, ranks: losses.sum().item() * ranks / all_answers,
        "no gradient can pass",
    ),
    (
        "share_loss",
        lambda losses, all_answers, ranks: losses.mean() * len(losses) * ranks / all_answers,
        "must give 0",
    ),
    ("bytes_per_rank", lambda n, ranks, stage: 16 * n, "the stage before"),
    ("bytes_per_rank", lambda n, ranks, stage: 16 * n / ranks, "these are copies"),
    ("bytes_per_rank", lambda n, ranks, stage: divided(n, ranks, stage + 1), "Stage 0 divides nothing"),
    ("bytes_per_rank", lambda n, ranks, stage: divided(n, ranks, stage, (4, 4, 4)), "two averages for each weight: 16"),
    ("bytes_per_rank", lambda n, ranks, stage: divided(n, ranks, stage, (1, 1, 2)), "has 4 bytes"),
    (
        "bytes_per_rank",
        lambda n, ranks, stage: n * (16 - [0, 8, 4, 4][stage] * (1 - 1 / ranks)),
        "Stages add up",
    ),
    (
        "bytes_per_rank",
        lambda n, ranks, stage: n * (16 - [0, 4, 8, 16][stage] * (1 - 1 / ranks)),
        "both are divided first",
    ),
    ("bubble_share", lambda p, m, chunks=1: p / (m * chunks), "p - 1 others"),
    ("bubble_share", lambda p, m, chunks=1: (p - 1) / m, "divide by the chunks"),
    ("bubble_share", lambda p, m, chunks=1: (p - 1) / (m * chunks + p - 1), "share of the whole step"),
    ("bubble_share", lambda p, m, chunks=1: 1 + (p - 1) / (m * chunks), "leave out the 1"),
    ("bubble_share", lambda p, m, chunks=1: (m - 1) / (p * chunks), "exchanged"),
    ("bubble_share", lambda p, m, chunks=1: 3 * (p - 1) / chunks, "in units of a forward pass"),
    ("one_forward_one_backward", gpipe, "That is GPipe"),
    ("one_forward_one_backward", filled(lambda rank, ranks: ranks - rank), "too many at the start"),
    ("one_forward_one_backward", filled(lambda rank, ranks: ranks - 2 - rank), "too few at the start"),
    ("one_forward_one_backward", filled(lambda rank, ranks: rank), "Upside down"),
    ("one_forward_one_backward", filled(lambda rank, ranks: ranks - 1), "Every rank fills alike"),
    ("one_forward_one_backward", filled(lambda rank, ranks: 0), "at once"),
    ("one_forward_one_backward", unbounded, "take the smaller one"),
    ("one_forward_one_backward", lambda *a: counting(*a)[: -min(a[1] - 1 - a[0], a[2]) or None], "must be drained"),
    ("one_forward_one_backward", lambda *a: [f"{w[0]}{int(w[1:]) + 1}" for w in counting(*a)], "count from 0"),
    ("most_kept", lambda order: sum(word[0] == "F" for word in order), "some are given back"),
    ("most_kept", lambda order: sum(1 if word[0] == "F" else -1 for word in order), "At the end nothing is kept"),
    ("most_kept", lambda order: order.index("B0"), "Before the first B"),
    (
        "most_kept",
        lambda order: max(accumulate([1 if word[0] == "F" else -1 for word in order[1:]], initial=0)),
        "One is missing",
    ),
    ("ring_chunk", lambda rank, step, ranks: rank, "the same piece"),
    ("ring_chunk", lambda rank, step, ranks: step % ranks, "the piece of the same number"),
    ("ring_chunk", lambda rank, step, ranks: (rank + step) % ranks, "just received"),
    ("ring_chunk", lambda rank, step, ranks: rank - step, "numbers go round"),
    ("ring_chunk", lambda rank, step, ranks: (rank - 2 * step) % ranks, "just received"),
]
