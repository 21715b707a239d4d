"""The judge of lesson 13's beam search: against all sequences there are, on small tables of probabilities."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from math import exp
from typing import Any

import numpy as np

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.numbers import apart
from deepnet_edu.checks.trial import PROPERTY, TYPE
from deepnet_edu.checks.values import as_array, describe, is_number

Tokens = tuple[int, ...]
#: Words, longest, power; the beam is as wide as there are sequences.
_TABLES = [
    (3, 4, 0.0), (3, 4, 1.0), (3, 5, 0.6), (4, 4, 0.0), (4, 4, 1.0), (4, 4, 2.0), (3, 5, 1.0), (3, 3, 1.5), (4, 3, 0.6),
    (3, 4, 2.0), (4, 3, 2.0), (3, 5, 2.0),
]  # fmt: skip
#: Where a beam of one takes the likelier first token and loses, and two do not; the two best begin with the same token.
_TRAP = {(): (0.1, 0.5, 0.4), (1,): (0.35, 0.33, 0.32), (2,): (0.9, 0.05, 0.05)}
_SAME = {(): (0.1, 0.6, 0.3), (1,): (0.05, 0.5, 0.45), (2,): (0.05, 0.5, 0.45), (1, 2): (0.9, 0.05, 0.05)}


def beam_search(trial: Trial) -> None:
    """Keep the sums of log-probabilities of up to ``beams`` unfinished sequences. At each length extend all of them by
    all tokens and sort; those with ``end``, or of length ``longest``, are finished and kept aside with their sum over
    length**power; of the others the best ``beams`` are continued. At the end return the best finished one and its
    score.
    """
    for seed, (words, longest, power) in enumerate(_TABLES):
        table = _Table(words, seed)
        right = _best(table, longest, power)
        got, score = _ask(trial, table, 0, longest, words**longest, power)
        wrong = [Misconception(value, said) for value, said in _wrong(table, longest, power)]
        said = "With a beam that holds every sequence, the best of all must come out: its score is a different one."
        trial.equal(score, right[1], apart(wrong), said)
        if trial.verdict() is None:
            said = "The score is right, but the tokens are wrong: the end token is the last of them."
            trial.require(got == right[0], said, str(right[0]), str(got))
    if trial.verdict() is not None:  # of one that is wrong anyway these would say the wrong thing
        return
    trap = _Table(3, 0, _TRAP)  # asked twice: the model alone does not say what is found
    traps: tuple[tuple[_Table, int, Tokens, str], ...] = (
        (trap, 1, (1, 0), "With one beam only the best unfinished sequence is continued."),
        (trap, 2, (2, 0), "With two beams the second best is continued too, and wins here."),
        (_Table(3, 0, _SAME), 2, (1, 2, 0), "Both beams may come from the same one: choose over all of them together."),
    )
    for table, beams, tokens, said in traps:
        got, _ = _ask(trial, table, 0, 4, beams, 0.0)
        trial.require(got == tokens, said, str(tokens), str(got))
    for seed, (end, longest, beams, power) in enumerate(
        [(2, 5, 2, 0.8), (1, 4, 3, 1.0), (2, 1, 2, 0.8), (0, 5, 1, 0.5)]
    ):
        table = _Table(5, 20 + seed)
        tokens, score = _ask(trial, table, end, longest, beams, power)
        best, value = _narrow(table, end, longest, beams, power)
        said = f"With {end} as the end token and beams={beams} another sequence comes out."
        trial.require(tokens == best and abs(float(score) - value) < 1e-4, said, str(best), str(tokens))


class _Table:
    """Log-probabilities of the next token after each beginning, kept count of; ``first`` gives some of them."""

    def __init__(self, words: int, seed: int, first: Mapping[Tokens, Sequence[float]] | None = None) -> None:
        self.words, self.seed, self.first = words, seed, first or {}
        self.asked: list[Tokens] = []
        self.drawn: dict[Tokens, Any] = {}

    def __call__(self, tokens: Any) -> Any:
        known = tuple(int(token) for token in tokens)
        self.asked.append(known)
        return self.after(known)

    def after(self, known: Tokens) -> Any:
        if self.first:
            return np.log(self.first.get(known, (0.8, 0.1, 0.1)))
        if known not in self.drawn:
            draw = np.random.default_rng([self.seed, *(token + 1 for token in known)])
            self.drawn[known] = np.log(draw.dirichlet(np.full(self.words, 0.8)) * 0.98 + 0.02 / self.words)
        return self.drawn[known].copy()


def _ask(trial: Trial, table: _Table, end: int, longest: int, beams: int, power: float) -> tuple[Tokens, Any]:
    """Tokens and score that the learner's function finds; refused where it asked for more than it may."""
    table.asked.clear()
    got = trial.call(table, end, longest, beams, power)
    two = isinstance(got, tuple | list) and len(got) == 2
    trial.require(two, "The answer is two things: the tokens, and their score.", got=describe(got), rung=TYPE)
    trial.require(is_number(got[1]), "The score is one number.", got=describe(got[1]), rung=TYPE)
    try:
        tokens = tuple(int(token) for token in as_array(got[0]).reshape(-1))
    except (TypeError, ValueError):
        tokens = ()
    said = f"The tokens are a sequence of 1 to {longest} whole numbers."
    trial.require(1 <= len(tokens) <= longest, said, got=describe(got[0]), rung=TYPE)
    beyond = [asked for asked in table.asked if end in asked]
    said = "A sequence that has ended is complete: nothing comes after its end token."
    trial.require(not beyond and end not in tokens[:-1], said, got=str(beyond[0] if beyond else tokens))
    said = f"A sequence of length {longest} is complete, with or without an end: do not ask what comes next."
    trial.require(all(len(asked) < longest for asked in table.asked), said)
    for length in range(longest):
        count = len({asked for asked in table.asked if len(asked) == length})
        said = f"With {beams} beams no more than {beams} sequences of a length are continued."
        trial.require(count <= beams, said, f"{beams} of length {length}", str(count), PROPERTY)
    return tokens, got[1]


def _sequences(table: _Table, longest: int, end: int = 0) -> Iterator[tuple[Tokens, float]]:
    """Every complete sequence, with the sum of its log-probabilities."""
    for length in range(1, longest + 1):
        for tokens in product(range(table.words), repeat=length):
            if end in tokens[:-1] or (tokens[-1] != end and length < longest):
                continue
            yield tokens, float(sum(table.after(tokens[:i])[token] for i, token in enumerate(tokens)))


def _best(table: _Table, longest: int, power: float) -> tuple[Tokens, float]:
    return max(
        ((tokens, total / len(tokens) ** power) for tokens, total in _sequences(table, longest)), key=lambda one: one[1]
    )


def _narrow(table: _Table, end: int, longest: int, beams: int, power: float) -> tuple[Tokens, float]:
    """Beam search by lists that are sorted at each length."""
    alive: list[tuple[float, Tokens]] = [(0.0, ())]
    finished: list[tuple[float, Tokens]] = []
    for length in range(1, longest + 1):
        every = [
            (total + float(p), (*tokens, token))
            for total, tokens in alive
            for token, p in enumerate(table.after(tokens))
        ]
        over = [one for one in every if one[1][-1] == end or length == longest]
        finished += [(total / length**power, tokens) for total, tokens in over]
        alive = sorted((one for one in every if one not in over), reverse=True)[:beams]
    score, tokens = max(finished)
    return tokens, score


def _wrong(table: _Table, longest: int, power: float) -> Iterator[tuple[float, str]]:
    """Scores that people find instead."""
    every = list(_sequences(table, longest))
    over = "Log-probabilities are negative: a longer sequence is helped by dividing, and harmed by multiplying."

    def best(of: Callable[[Tokens, float], float], among: Sequence[tuple[Tokens, float]] = every) -> float:
        return max(of(tokens, total) for tokens, total in among)

    yield _narrow(table, 0, longest, 1, power)[1], "Only one sequence is continued, as if beams were 1."
    yield best(lambda tokens, total: total * len(tokens) ** power), over
    yield (
        best(lambda tokens, total: total / max(len(tokens) - (tokens[-1] == 0), 1) ** power),
        "The end is a token too: it counts in the length.",
    )
    yield (
        best(lambda tokens, total: total / len(tokens) ** power, [one for one in every if one[0][-1] == 0]),
        "A sequence that reaches `longest` without an end is finished too: it may be the best.",
    )
    yield best(lambda tokens, total: total), "The sum is divided by length to the power that is given."
    likely = max(every, key=lambda one: one[1])
    yield (
        likely[1] / len(likely[0]) ** power,
        "Compare finished sequences after dividing, not before: the score decides.",
    )
    ended = [one for one in every if one[0] == (0,)]
    yield ended[0][1], "The first sequence that ends need not be the best: keep it aside, and continue with the others."
    products = "Add logarithms: products of many probabilities become 0."
    yield best(lambda tokens, total: exp(total) / len(tokens) ** power), products
    yield exp(best(lambda tokens, total: total / len(tokens) ** power)), products
