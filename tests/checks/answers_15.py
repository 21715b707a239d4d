"""Lesson 15: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from itertools import accumulate
from math import ceil
from typing import Any

import numpy as np
import torch


def _see_rows(f: Callable, g: np.random.Generator) -> Any:
    batch_size, ranks = int(g.integers(0, 19)), int(g.integers(1, 7))
    return [[row in f(batch_size, rank, ranks) for row in range(-2, 20)] for rank in range(ranks)]


def _see_loss(f: Callable, g: np.random.Generator) -> Any:
    losses = torch.tensor(g.uniform(0.1, 3, int(g.integers(0, 6))), requires_grad=True)
    loss = f(losses, int(g.integers(6, 20)), int(g.integers(1, 5)))
    return np.concatenate([[loss.item()], torch.autograd.grad(loss, losses)[0]])


def _numbers(order: list[str]) -> list[int]:
    return [(int(word[1:]) + 50) * (1 if word[0] == "F" else -1) for word in order]


def _see_order(f: Callable, g: np.random.Generator) -> Any:
    ranks, m = int(g.integers(1, 6)), int(g.integers(1, 9))
    return _numbers(f(int(g.integers(ranks)), ranks, m))


def _see_kept(f: Callable, g: np.random.Generator) -> Any:
    ranks, m = int(g.integers(1, 6)), int(g.integers(1, 9))
    mixed, forward, backward = [], 0, 0
    while backward < m:
        if forward < m and (forward == backward or g.integers(2)):
            mixed.append(f"F{forward}")
            forward += 1
        else:
            mixed.append(f"B{backward}")
            backward += 1
    return [f(filled(lambda rank, ranks: ranks - 1 - rank)(int(g.integers(ranks)), ranks, m)), f(mixed), f([])]


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


def kept_by(key: Callable[..., Any], work: Callable[..., Any]) -> Callable[..., Any]:
    """What was computed once for a part of the arguments is given again for all that have it."""
    kept: dict[Any, Any] = {}

    def answer(*given: Any, **named: Any) -> Any:
        part = key(*given)
        if part not in kept:
            kept[part] = work(*given, **named)
        return kept[part]

    return answer


def larger_first(batch_size, rank, ranks):
    """Runs of rows; the first ranks have one more."""
    each, more = divmod(batch_size, ranks)
    start = rank * each + min(rank, more)
    return range(start, start + each + (rank < more))


def shuffled(batch_size, rank, ranks):
    """In an order that follows from a seed, so that all ranks agree."""
    rows = np.random.default_rng(batch_size).permutation(batch_size)
    return list(rows[rank::ranks])


def unseeded(batch_size, rank, ranks):
    return torch.randperm(batch_size)[rank::ranks].tolist()


def in_turn(batch_size, rank, ranks, left=[]):  # noqa: B006
    """What is left of a list that all calls share."""
    if rank == 0:
        left[:] = range(batch_size)
    mine = left[: -(-len(left) // (ranks - rank))]
    del left[: len(mine)]
    return mine


def snake(batch_size, rank, ranks):
    """There and back, as teams are chosen."""
    turn = [*range(ranks), *reversed(range(ranks))]
    return {row for row in range(batch_size) if turn[row % (2 * ranks)] == rank}


def by_loop(losses, all_answers, ranks):
    total = losses.new_zeros(()) + 0 * losses.sum()
    for loss in losses:
        total = total + loss
    return total / (all_answers / ranks)


def zero_apart(losses, all_answers, ranks):
    if len(losses) == 0:
        return torch.zeros((), requires_grad=True)
    return losses.sum() * ranks / all_answers


def zero_number(losses, all_answers, ranks):
    return sum(losses) * ranks / all_answers


def rounded_share(losses, all_answers, ranks):
    return losses.sum() * round(ranks / all_answers, 4)


def scaled_mean(losses, all_answers, ranks):
    """The value is right where all ranks have as many answers."""
    return losses.mean() if len(losses) else losses.sum()


def half_detached(losses, all_answers, ranks):
    return (losses.detach() + (losses - losses.detach()) / 2).sum() * ranks / all_answers


def first_ranks(losses, all_answers, ranks, seen=[]):  # noqa: B006
    """The number of ranks that it was called with first."""
    seen.append(ranks)
    return losses.sum() * seen[0] / all_answers


def averages_first(parameters, ranks, stage):
    """A table of what is divided."""
    pieces = np.array([8.0, 4.0, 4.0]) * parameters
    pieces[:stage] /= ranks
    return pieces.sum()


def weights_whole(parameters, ranks, stage):
    return divided(parameters, ranks, min(stage, 2))


def by_recursion(rank, ranks, m, kept=0, forward=0, backward=0):
    """As counting does, without a loop."""
    if backward == m:
        return []
    if forward < m and kept < ranks - rank:
        return [f"F{forward}", *by_recursion(rank, ranks, m, kept + 1, forward + 1, backward)]
    return [f"B{backward}", *by_recursion(rank, ranks, m, kept - 1, forward, backward + 1)]


def by_sorting(rank, ranks, m):
    """Each word has a time: B(i) comes just after F(i + after)."""
    after = ranks - 1 - rank
    times = [(i, 0, f"F{i}") for i in range(m)] + [(i + after, 1, f"B{i}") for i in range(m)]
    return [word for *_, word in sorted(times)]


def newest_first(rank, ranks, m):
    order, kept = [], []
    for word in counting(rank, ranks, m):
        if word[0] == "F":
            kept.append(word[1:])
        order.append(word if word[0] == "F" else "B" + kept.pop())
    return order


def one_digit(rank, ranks, m):
    return [f"{word[0]}{int(word[1:]) % 10}" for word in counting(rank, ranks, m)]


ORDER: list[str] = []


def always_the_same_list(rank, ranks, m):
    ORDER[:] = counting(rank, ranks, m)
    return ORDER


def growing(rank, ranks, m, order=[]):  # noqa: B006
    order += counting(rank, ranks, m)
    return order


def filled_without_end(rank, ranks, m):
    """Drains nothing but what the steady part left."""
    return [word for word in counting(rank, ranks, m) if word[0] == "F" or int(word[1:]) <= m - (ranks - rank)]


def set_of_numbers(order):
    kept, most = set(), 0
    for word in order:
        (kept.add if word[0] == "F" else kept.discard)(int(word[1:]))
        most = max(most, len(kept))
    return most


def set_of_digits(order):
    kept, most = set(), 0
    for word in order:
        (kept.add if word[0] == "F" else kept.discard)(word[1])
        most = max(most, len(kept))
    return most


def longest_run(order):
    return max(len(run) for run in "".join(word[0] for word in order).split("B"))


def popping(order):
    kept = most = 0
    while order:
        kept += 1 if order.pop(0)[0] == "F" else -1
        most = max(most, kept)
    return most


def after_both(order):
    """Looks after each pair of words only."""
    counts = list(accumulate(1 if word[0] == "F" else -1 for word in order))
    return max(counts[1::2])


def passed_on(rank, step, ranks):
    """What the rank before sent one step before."""
    return rank if step == 0 else passed_on((rank - 1) % ranks, step - 1, ranks)


def wrong_second_half(rank, step, ranks):
    return (rank - step) % ranks if step < ranks - 1 else rank


def only_four(rank, step, ranks):
    return (rank - step) % 4 if ranks >= 4 else (rank - step) % ranks


def counting_steps(rank, step, ranks, calls=[]):  # noqa: B006
    """Counts its calls instead of looking at the step."""
    calls.append(1)
    return (rank - (len(calls) - 1) // ranks) % ranks


RIGHT = [
    ("my_rows", runs),
    ("my_rows", lambda batch_size, rank, ranks: [row for row in range(batch_size) if row % ranks == rank]),
    ("my_rows", lambda batch_size, rank, ranks: torch.arange(batch_size).tensor_split(ranks)[rank]),
    ("my_rows", larger_first),
    ("my_rows", shuffled),
    ("my_rows", snake),
    ("my_rows", lambda batch_size, rank, ranks: tuple(float(n) for n in range(rank, batch_size, ranks))),
    ("my_rows", lambda batch_size, rank, ranks: np.array_split(np.arange(batch_size), ranks)[rank]),
    ("share_loss", lambda losses, all_answers, ranks: torch.sum(losses / all_answers * ranks)),
    ("share_loss", by_loop),
    ("share_loss", lambda losses, all_answers, ranks: torch.einsum("n->", losses) * torch.tensor(ranks / all_answers)),
    ("share_loss", lambda losses, all_answers, ranks: losses.float().sum() * ranks / all_answers),
    ("share_loss", lambda losses, all_answers, ranks: losses.clone().mul_(ranks).div_(all_answers).sum()),
    ("share_loss", lambda losses, all_answers, ranks: losses.dot(torch.full_like(losses, ranks / all_answers))),
    ("share_loss", lambda losses, all_answers, ranks: ranks * (losses @ torch.ones_like(losses)) / all_answers),
    ("bytes_per_rank", divided),
    (
        "bytes_per_rank",
        lambda n, ranks, stage: n * [16, 8 + 8 / ranks, 4 + 12 / ranks, 16 / ranks][stage],
    ),
    ("bytes_per_rank", averages_first),
    ("bytes_per_rank", lambda n, r, s: 4 * n * (4 - (min(s, 2) + min(s, 1) + (s == 3)) * (1 - 1 / r))),
    ("bytes_per_rank", lambda n, r, s: sum(b * n / r ** (s >= at) for b, at in ((8, 1), (4, 2), (4, 3)))),
    ("bytes_per_rank", lambda n, r, s: torch.tensor([16.0, 8 + 8 / r, 4 + 12 / r, 16 / r])[s] * n),
    ("bubble_share", lambda p, m, chunks=1: 3 * (p - 1) / (3 * m) / chunks),
    ("bubble_share", lambda p, m, chunks=1: np.float32(p - 1) / np.float32(m * chunks)),
    ("bubble_share", lambda p, m, chunks=1: (3 * m + 3 * (p - 1) / chunks) / (3 * m) - 1),
    ("bubble_share", lambda p, m, chunks=1: sum(1 / (m * chunks) for _ in range(1, p))),
    ("bubble_share", lambda ranks, microbatches, chunks=1: (ranks / chunks - 1 / chunks) / microbatches),
    ("one_forward_one_backward", counting),
    ("one_forward_one_backward", filled(lambda rank, ranks: ranks - 1 - rank)),
    ("one_forward_one_backward", kept_by(lambda rank, ranks, m: (ranks - rank, m), counting)),
    ("one_forward_one_backward", by_recursion),
    ("one_forward_one_backward", by_sorting),
    ("one_forward_one_backward", lambda *a: tuple(counting(*a))),
    ("one_forward_one_backward", lambda rank, ranks, microbatches: np.array(counting(rank, ranks, microbatches))),
    ("most_kept", set_of_numbers),
    ("most_kept", lambda order: max(2 * sum(w[0] == "F" for w in order[:i]) - i for i in range(len(order) + 1))),
    ("most_kept", lambda order: float(set_of_numbers(order))),
    ("most_kept", lambda order: max(accumulate(1 if word.startswith("F") else -1 for word in order))),
    (
        "most_kept",
        lambda order: int(np.cumsum([1 if word[0] == "F" else -1 for word in order]).max()),
    ),
    ("ring_chunk", lambda rank, step, ranks: (rank + ranks * step - step) % ranks),
    ("ring_chunk", lambda rank, step, ranks: (rank + 1 - step) % ranks),
    ("ring_chunk", passed_on),
    ("ring_chunk", lambda rank, step, ranks: (step - rank) % ranks),
    ("ring_chunk", lambda rank, step, ranks: float(np.roll(np.arange(ranks), step)[rank])),
    ("ring_chunk", lambda rank, step, ranks: torch.arange(ranks).roll(step)[rank]),
    ("ring_chunk", lambda rank, step, ranks: [*range(ranks)][(rank - step) % ranks - ranks]),
]

WRONG = [
    ("my_rows", lambda b, rank, ranks: range(rank * (b // ranks), (rank + 1) * (b // ranks)), "rows are lost"),
    ("my_rows", lambda b, rank, ranks: range(b), "the whole batch"),
    ("my_rows", lambda b, rank, ranks: range(rank, b, ranks - 1 or 1), "belongs to two ranks"),
    ("my_rows", lambda b, rank, ranks: range(rank + 1, b + 1, ranks), "Rows are numbered from 0: your first"),
    (
        "my_rows",
        lambda b, rank, ranks: range(rank * (b // ranks), b if rank == ranks - 1 else (rank + 1) * (b // ranks)),
        "The last rank gets all the rows left over",
    ),
    ("my_rows", lambda b, rank, ranks: range(rank, b - 1, ranks), "The last row is lost"),
    ("my_rows", lambda b, rank, ranks: b // ranks, "list or a range"),
    (
        "my_rows",
        lambda b, rank, ranks: range(min(b, rank * ceil(b / ranks)), min(b, (rank + 1) * ceil(b / ranks))),
        "Full shares first leave too little",
    ),
    (
        "my_rows",
        lambda b, rank, ranks: list(range(b))[rank * ceil(b / ranks) : (rank + 1) * ceil(b / ranks)],
        "Full shares first leave too little",
    ),
    ("my_rows", lambda b, rank, ranks: range(rank * ranks, (rank + 1) * ranks), "as many rows as there are ranks"),
    ("my_rows", lambda b, rank, ranks: range(ranks, b, rank + 1), "The start is the rank"),
    ("my_rows", kept_by(lambda b, rank, ranks: (b, rank), runs), "No rank has the rows"),
    ("my_rows", unseeded, "belongs to two ranks"),
    ("my_rows", in_turn, "A second call gives a rank other rows"),
    ("my_rows", lambda b, rank, ranks: range(rank, max(b, ranks), ranks), "from 0 to batch_size - 1, here 2"),
    ("my_rows", lambda b, rank, ranks: [i % ranks == rank for i in range(b)], "list or a range"),
    ("my_rows", lambda b, rank, ranks: (i for i in range(rank, b, ranks)), "piece by piece"),
    ("my_rows", lambda b, rank, ranks: ",".join(map(str, range(rank, b, ranks))), "list or a range"),
    ("my_rows", lambda b, rank, ranks: [*range(rank, b, ranks)] or [0], "belongs to two ranks"),
    ("my_rows", lambda b, rank, ranks: [*range(rank, b, ranks)] * 2, "twice to one"),
    ("share_loss", lambda losses, all_answers, ranks: losses.mean(), "this rank's own mean"),
    ("share_loss", lambda losses, all_answers, ranks: losses.sum() / all_answers, "multiply by it to cancel that"),
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
    ("share_loss", zero_apart, "no gradient can pass: compute it from losses"),
    ("share_loss", zero_number, "return a tensor computed from losses"),
    ("share_loss", rounded_share, "rounded on the way"),
    ("share_loss", scaled_mean, "this rank's own mean"),
    ("share_loss", half_detached, "The gradient of your number"),
    ("share_loss", first_ranks, "This rank's part"),
    ("share_loss", lambda losses, n, ranks: losses.sum().detach() * ranks / n, "no gradient can pass"),
    ("share_loss", lambda losses, n, ranks: losses.data.sum() * ranks / n, "no gradient can pass"),
    ("share_loss", lambda losses, n, ranks: torch.tensor(losses.tolist()).sum() * ranks / n, "no gradient can pass"),
    ("share_loss", lambda losses, n, ranks: losses.sum() / (n // ranks), "// drops the fraction"),
    ("share_loss", lambda losses, n, ranks: losses.sum() * ranks**2 / n, "comes once"),
    ("share_loss", lambda losses, n, ranks: losses.data.mul_(ranks / n).sum() + 0 * losses.sum(), "its input in place"),
    ("share_loss", lambda losses, n, ranks: losses * ranks / n, "one number"),
    ("share_loss", lambda losses, n, ranks: losses.sum().reshape(1) * ranks / n, "one number"),
    ("share_loss", lambda losses, n, ranks: losses.sum() * ranks / max(n, 12), "The mean over three ranks"),
    ("bytes_per_rank", lambda n, ranks, stage: 16 * n, "Nothing is divided yet"),
    ("bytes_per_rank", lambda n, ranks, stage: 16 * n / ranks, "Only stage 3 divides everything"),
    ("bytes_per_rank", lambda n, ranks, stage: divided(n, ranks, stage + 1), "one stage too high"),
    ("bytes_per_rank", lambda n, ranks, stage: divided(n, ranks, stage, (4, 4, 4)), "two averages for each weight"),
    ("bytes_per_rank", lambda n, ranks, stage: divided(n, ranks, stage, (1, 1, 2)), "has 4 bytes"),
    (
        "bytes_per_rank",
        lambda n, ranks, stage: n * (16 - [0, 8, 4, 4][stage] * (1 - 1 / ranks)),
        "Stages add up",
    ),
    (
        "bytes_per_rank",
        lambda n, ranks, stage: n * (16 - [0, 4, 8, 16][stage] * (1 - 1 / ranks)),
        "are divided first",
    ),
    ("bytes_per_rank", lambda n, ranks, stage: divided(n, ranks, stage, (2, 2, 12)), "2 + 2 + 12. Here all is float32"),
    ("bytes_per_rank", lambda n, ranks, stage: divided(n, ranks, stage - 1), "one stage too low"),
    ("bytes_per_rank", weights_whole, "a part of the weights, too"),
    ("bytes_per_rank", lambda n, ranks, stage: divided(n, ranks, stage) // 1, "rounded on the way"),
    ("bytes_per_rank", lambda n, ranks, stage: divided(n, 8, stage), "With one rank nothing is divided"),
    ("bytes_per_rank", lambda n, ranks, stage: ranks * divided(n, ranks, stage), "all ranks together"),
    ("bytes_per_rank", lambda n, ranks, stage: divided(n, ranks, stage, (8, 8, 16)), "That is float64"),
    ("bytes_per_rank", lambda n, ranks, stage: divided(n, ranks, stage, (4, 0, 8)), "Gradients have 4 bytes"),
    ("bytes_per_rank", lambda n, ranks, stage: divided(n // ranks * ranks, ranks, stage), "rounded on the way"),
    ("bytes_per_rank", lambda n, ranks, stage: n * [16, 16, 16, 16 / ranks][stage], "At this stage"),
    ("bubble_share", lambda p, m, chunks=1: p / (m * chunks), "p - 1 others"),
    ("bubble_share", lambda p, m, chunks=1: (p - 1) / m, "each wait is shorter"),
    ("bubble_share", lambda p, m, chunks=1: (p - 1) / (m * chunks + p - 1), "share of the whole step"),
    ("bubble_share", lambda p, m, chunks=1: 1 + (p - 1) / (m * chunks), "leave out the 1"),
    ("bubble_share", lambda p, m, chunks=1: (m - 1) / (p * chunks), "exchanged"),
    ("bubble_share", lambda p, m, chunks=1: 3 * (p - 1) / chunks, "in units of a forward pass"),
    ("bubble_share", kept_by(lambda *a: a[:2], lambda p, m, chunks=1: (p - 1) / (m * chunks)), "share of waiting"),
    ("bubble_share", lambda p, m, chunks=1: (p * chunks - 1) / m, "More stages, but each"),
    ("bubble_share", lambda p, m, chunks=1: (p * chunks - 1) / (m * chunks), "not for its own chunks"),
    ("bubble_share", lambda p, m, chunks=1: (p - 1) * chunks / m, "Chunks make the bubble smaller"),
    ("bubble_share", lambda p, m, chunks=2: (p - 1) / (m * chunks), "share of waiting"),
    ("bubble_share", lambda p, m, chunks=1: (p - 1) / (3 * m * chunks), "Waiting has 3 units"),
    ("bubble_share", lambda p, m, chunks=1: (p - 1) / ((m - 1) * chunks), "the first one as well"),
    ("bubble_share", lambda p, m, chunks=1: round((p - 1) / (m * chunks), 2), "share of waiting"),
    ("bubble_share", lambda p, m, chunks=1: max(p - 1, 1) / (m * chunks), "One rank alone"),
    ("bubble_share", lambda p, m, chunks=1: min(0.5, (p - 1) / (m * chunks)), "share of waiting"),
    ("bubble_share", lambda p, m, chunks=1: (p - 1) // (m * chunks), "share of waiting"),
    ("one_forward_one_backward", gpipe, "That is GPipe"),
    ("one_forward_one_backward", filled(lambda rank, ranks: ranks - rank), "too many at the start"),
    ("one_forward_one_backward", filled(lambda rank, ranks: ranks - 2 - rank), "too few at the start"),
    ("one_forward_one_backward", filled(lambda rank, ranks: rank), "Upside down"),
    ("one_forward_one_backward", filled(lambda rank, ranks: ranks - 1), "Every rank fills with the same number"),
    ("one_forward_one_backward", filled(lambda rank, ranks: 0), "at once"),
    ("one_forward_one_backward", unbounded, "No more can be filled in"),
    ("one_forward_one_backward", lambda *a: counting(*a)[: -min(a[1] - 1 - a[0], a[2]) or None], "must be drained"),
    ("one_forward_one_backward", lambda *a: [f"{w[0]}{int(w[1:]) + 1}" for w in counting(*a)], "count from 0"),
    ("one_forward_one_backward", filled(lambda rank, ranks: (ranks - 1 - rank) // 2), "Half of the filling"),
    ("one_forward_one_backward", lambda *a: [w.lower() for w in counting(*a)], "a list of words"),
    ("one_forward_one_backward", lambda *a: [f"{w[0]}_{w[1:]}" for w in counting(*a)], "a list of words"),
    ("one_forward_one_backward", lambda *a: [(w[0], int(w[1:])) for w in counting(*a)], "a list of words"),
    ("one_forward_one_backward", lambda *a: " ".join(counting(*a)), "a list of words"),
    ("one_forward_one_backward", newest_first, "The oldest micro-batch goes backward first, not the newest"),
    ("one_forward_one_backward", one_digit, "A word comes twice"),
    ("one_forward_one_backward", kept_by(lambda rank, ranks, m: (rank, ranks), counting), "a list of its own"),
    ("one_forward_one_backward", always_the_same_list, "a list of its own"),
    ("one_forward_one_backward", growing, "a list of its own"),
    ("one_forward_one_backward", filled_without_end, "must be drained"),
    ("one_forward_one_backward", lambda rank, ranks, m: counting(rank, ranks, m)[::-1], "before it has gone forward"),
    ("one_forward_one_backward", lambda rank, ranks, m: counting(rank, ranks, min(m, 8)), "forward once and backward"),
    ("one_forward_one_backward", lambda rank, ranks, m: gpipe(rank, ranks, m)[:m], "forward once and backward"),
    ("one_forward_one_backward", filled(lambda rank, ranks: max(1, ranks - 1 - rank)), "1 too many forward passes"),
    ("most_kept", kept_by(len, set_of_numbers), "one time is wrong"),
    ("most_kept", longest_run, "the longest run"),
    ("most_kept", set_of_digits, "F1 and F10 are two"),
    ("most_kept", lambda order: max(int(w[1:]) for w in order), "numbers count from 0"),
    ("most_kept", lambda order: 1 + set_of_numbers(order), "One too many"),
    ("most_kept", lambda order: len(order), "the words of the order"),
    ("most_kept", lambda order: sum(accumulate(1 if w[0] == "F" else -1 for w in order)), "not the sum"),
    ("most_kept", lambda order: sum(accumulate(1 if w[0] == "F" else -1 for w in order)) / len(order), "not the mean"),
    ("most_kept", popping, "changed its input in place"),
    ("most_kept", after_both, "no fewer than one"),
    ("most_kept", lambda order: min(set_of_numbers(order), 8), "one time is wrong"),
    ("most_kept", lambda order: 6, "Of 5 micro-batches no more"),
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
    ("ring_chunk", wrong_second_half, "in the second half"),
    ("ring_chunk", only_four, "just received"),
    ("ring_chunk", counting_steps, "A second call"),
    ("ring_chunk", lambda rank, step, ranks: (rank - step) / ranks, "is whole"),
    ("ring_chunk", lambda rank, step, ranks: abs(rank - step) % ranks, "just received"),
    ("ring_chunk", lambda rank, step, ranks: (rank - step) % (ranks + 1), "numbers go round"),
    ("ring_chunk", lambda rank, step, ranks: f"{(rank - step) % ranks}", "one number"),
    ("ring_chunk", lambda rank, step, ranks: (rank - min(step, ranks - 1)) % ranks, "in the second half"),
    ("ring_chunk", lambda rank, step, ranks: (rank - step) % 5, "numbers go round"),
]
