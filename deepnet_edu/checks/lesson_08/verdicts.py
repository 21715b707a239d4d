"""Verdicts on training runs: the judge of ``outcome`` (lesson 08), and the rules by which people went wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np

from deepnet_edu.checks.base import Trial
from deepnet_edu.checks.trial import Array

_WORDS = {
    "diverged": "One loss that is not finite, at any step, and the run has diverged.",
    "learned": "The mean of the last five losses is below 1.0: learned, whatever its tokens were like.",
    "lost": "Lost takes both: similarity above 0.9, and the mean of the last five above chance - 0.25.",
    "slow": "What has not diverged, not learned and is not lost is slow.",
}


@dataclass(frozen=True)
class ReportedRun:
    """A training run, and the right word for it."""

    verdict: str
    loss: Array
    similarity: float
    chance: float

    def __str__(self) -> str:
        last = ", ".join(f"{loss:.4g}" for loss in self.loss[-5:])
        odd = [f"{self.loss[i]:g} at step {i}" for i in np.flatnonzero(~np.isfinite(self.loss))[:1]]
        return "; ".join([*odd, f"last losses {last}", f"similarity {self.similarity}", f"chance {self.chance:.3g}"])


def _losses(start: float, end: float, *last: float, steps: int = 40) -> Array:
    """Losses from start to end, then the last five."""
    return np.append(np.linspace(start, end, steps - len(last)), last)


def _with(loss: Array, step: int | slice, value: float) -> Array:
    loss = loss.copy()
    loss[step] = value
    return loss


def _ending(mean: float, seed: int) -> Array:
    """Last losses of this mean, wild around it: other losses, or another kind of mean, give another value."""
    draw = np.random.default_rng(seed)
    last = draw.exponential(size=5)
    return np.append(draw.uniform(0.3, 3.0, draw.integers(5, 60)), last * mean / last.mean())


_16, _64, _6 = log(16), log(64), log(6)
_DOWN = _losses(2.8, 0.5, 0.5, 0.4, 0.5, 0.5, 0.4)
_FLAT = _losses(2.8, 2.75, 2.81, 2.72, 2.79, 2.74, 2.7)
#: Each is something that a wrong answer trips over. A mean is on a threshold only where its sum is exact.
RUNS = [
    ReportedRun("learned", _DOWN, 0.2, _16),
    ReportedRun("learned", _DOWN, 0.97, _16),
    ReportedRun("slow", _FLAT, 0.3, _16),
    ReportedRun("lost", _FLAT, 0.98, _16),
    ReportedRun("lost", _FLAT + 0.1, 0.98, _16),
    ReportedRun("lost", _FLAT + 0.5, 0.98, _16),
    ReportedRun("lost", _FLAT, 0.995, _16),
    ReportedRun("lost", _FLAT + 0.5, 0.995, _16),
    ReportedRun("diverged", _with(_DOWN, slice(12, None), np.nan), 0.2, _16),
    ReportedRun("diverged", _with(_FLAT, -1, np.nan), 0.98, _16),
    ReportedRun("diverged", _with(_DOWN, 9, np.nan), 0.2, _16),
    ReportedRun("diverged", _with(_FLAT, 9, np.nan), 0.3, _16),
    ReportedRun("diverged", _with(_FLAT, 9, np.nan), 0.98, _16),
    ReportedRun("diverged", np.full(30, np.nan), 0.98, _16),
    ReportedRun("diverged", _with(_DOWN, 3, np.inf), 0.97, _16),
    ReportedRun("diverged", _with(_FLAT, 0, np.inf), 0.3, _16),
    # The last loss, the lowest, the last four, six, ten and all of them mislead; so do places counted from the start.
    ReportedRun("slow", _losses(2.8, 1.4, 1.5, 1.4, 1.4, 1.5, 0.7), 0.2, _16),
    ReportedRun("learned", _losses(2.8, 0.8, 0.6, 0.7, 0.8, 0.8, 1.4), 0.2, _16),
    ReportedRun("learned", _with(_losses(0.8, 0.6, 0.5, 0.4, 0.5, 0.5, 0.4), slice(5), 40.0), 0.2, _16),
    ReportedRun("slow", _with(_losses(2.8, 1.8, 1.8, 1.9, 1.7, 1.8, 1.8), 14, 0.5), 0.2, _16),
    ReportedRun("slow", _losses(0.3, 0.5, 1.3, 1.5, 1.4, 1.6, 1.5), 0.2, _16),
    ReportedRun("learned", _with(_losses(2.8, 1.3, 0.7, 1.05, 1.05, 1.05, 1.05), -6, 1.3), 0.2, _16),
    ReportedRun("slow", _with(_losses(2.8, 0.6, 1.3, 0.95, 0.95, 0.95, 0.95), -6, 0.6), 0.2, _16),
    ReportedRun("slow", _losses(2.8, 0.5, 0.9, 0.9, 0.9, 0.9, 1.6), 0.2, _16),  # the last alone spoils it
    ReportedRun("learned", _losses(2.8, 1.1, 1.1, 1.1, 1.1, 1.1, 0.2), 0.2, _16),
    ReportedRun("slow", _losses(2.8, 1.4, 0.9, 0.9, 0.9, 1.4, 1.4), 0.2, _16),  # median below, mean above
    ReportedRun("learned", _losses(2.8, 0.5, 1.1, 1.1, 0.5, 0.5, 1.1), 0.2, _16),
    ReportedRun("slow", _losses(2.8, 0.6, 1.6, 1.5, 1.7, 1.6, 1.5, steps=61), 0.2, _16),
    ReportedRun("learned", _losses(3.9, 2.7, 0.6, 0.5, 0.5, 0.6, 0.5, steps=12), 0.2, _16),
    # Tokens similar, but on its way: not far below chance - 0.25.
    ReportedRun("slow", _losses(2.8, 2.2, 2.3, 2.1, 2.2, 2.2, 2.2), 0.98, _16),
    ReportedRun("slow", _losses(2.8, 2.4, 2.4, 2.3, 2.5, 2.4, 2.4), 0.98, _16),
    ReportedRun("slow", _losses(2.8, 2.51, 2.51, 2.51, 2.51, 2.51, 2.51), 0.98, _16),  # above 0.9·chance
    ReportedRun("lost", _losses(2.9, 2.6, 2.6, 2.5, 2.6, 2.6, 2.6), 0.92, _16),
    ReportedRun("slow", _losses(2.9, 2.6, 2.6, 2.5, 2.6, 2.6, 2.6), 0.88, _16),
    # Other tasks, other chances: with two or three words even a model that knows nothing may count as learned.
    ReportedRun("slow", _FLAT, 0.98, _64),
    ReportedRun("lost", _FLAT + _64 - _16, 0.98, _64),
    ReportedRun("lost", _losses(1.9, 1.8, 1.8, 1.7, 1.7, 1.8, 1.7), 0.98, _6),
    ReportedRun("learned", _losses(1.2, 0.95, 0.95, 0.9, 0.98, 0.95, 0.95), 0.98, log(3)),
    # Near a threshold, and exactly on one: then neither below nor above.
    *(ReportedRun("learned", _ending(0.97, seed), 0.3, _16) for seed in range(8)),
    *(ReportedRun("slow", _ending(1.03, seed), 0.3, _16) for seed in range(8, 16)),
    *(ReportedRun("lost", _ending(chance - 0.22, int(10 * chance)), 0.95, chance) for chance in (1.8, 2.4, 3.1, 4.3)),
    *(ReportedRun("slow", _ending(chance - 0.28, int(10 * chance)), 0.95, chance) for chance in (1.9, 2.5, 3.2, 4.4)),
    ReportedRun("slow", np.append(np.linspace(3.0, 1.0, 30), np.ones(5)), 0.2, _16),
    ReportedRun("slow", np.append(np.linspace(3.0, 2.0, 30), np.full(5, 2.0)), 0.98, 2.25),
]

_Lost = Callable[[ReportedRun, float], bool]
_BELOW: _Lost = lambda run, final: run.similarity > 0.9 and final > run.chance - 0.25  # noqa: E731


def verdicts(
    final: Callable[[Array], float] = lambda loss: loss[-5:].mean(),
    finite: Callable[[Array], bool] = lambda loss: bool(np.isfinite(loss).all()),
    lost: _Lost = _BELOW,
    learned: Callable[[float], bool] = lambda final: final < 1,
    order: str = "diverged learned lost",
) -> list[str]:
    """The words for all runs by these rules, asked in this order."""

    def verdict(run: ReportedRun) -> str:
        end = final(run.loss)
        asked = {"diverged": not finite(run.loss), "learned": learned(end), "lost": lost(run, end)}
        return next((word for word in order.split() if asked[word]), "slow")

    return [verdict(run) for run in RUNS]


def wrong_verdicts() -> list[tuple[list[str], str]]:
    """What each wrong rule says to all runs, and what to say to a learner who follows it."""
    nan = "A comparison with NaN is always False, so such a run gets the last word: ask for NaN first."
    whole = "Look for losses that are not finite at every step: one is enough, even if others follow."
    noisy = "The last loss alone is one batch, and noisy: take the mean of the last five."
    alone = "Tokens that start similar may be told apart in training: lost needs a loss near chance too."
    first = "The first word that fits counts: ask for losses that are not finite before anything else."

    def lost(similar: float = 0.9, below: float = 0.25, part: float = 1.0) -> _Lost:
        return lambda run, final: run.similarity > similar and final > part * run.chance - below

    finals: list[tuple[Callable[[Array], float], str]] = [
        (lambda loss: loss.min(), "The lowest loss of all is luck: take the mean of the last five."),
        (lambda loss: loss[-5:].min(), "The lowest of five is luck: take their mean."),
        (lambda loss: float(np.median(loss[-5:])), "That is the median of the last five: their mean is asked for."),
        (np.mean, "The mean over all steps is mostly that of the start: take the last five."),
        (lambda loss: loss[:5].mean(), "Those are the first five losses: the last are loss[-5:]."),
        (lambda loss: loss[5:].mean(), "loss[5:] leaves five out: the last five are loss[-5:]."),
        (
            lambda loss: loss[-5:-1].mean(),
            "loss[-5:-1] are four losses, without the last one: the last five go to the end.",
        ),
        (lambda loss: loss[-4:].mean(), "Those are the last four losses: take five."),
        (lambda loss: loss[-6:].mean(), "Those are the last six losses: take five."),
        (lambda loss: loss[-10:].mean(), "Those are the last ten losses: take five."),
        (lambda loss: loss[25:30].mean() if len(loss) > 25 else np.nan, "Runs differ in length: count from the end."),
        (lambda loss: loss[35:40].mean() if len(loss) > 35 else np.nan, "Runs differ in length: count from the end."),
        (lambda loss: loss[-5:].sum(), "A sum of five losses is five times as large: take the mean."),
        (lambda loss: loss[-1], noisy),
    ]
    finites: list[tuple[Callable[[Array], bool], str]] = [
        (lambda loss: True, nan),
        (lambda loss: bool(np.isfinite(loss[-1])), whole),
        (lambda loss: bool(np.isfinite(loss[-5:]).all()), whole),
        (lambda loss: not np.isnan(loss).any(), "Infinity is not finite either: np.isfinite knows both."),
        (lambda loss: bool(np.isfinite(loss).any()), "One loss that is not finite is enough: they need not all be so."),
    ]
    losts: list[tuple[_Lost, str]] = [
        (lambda run, final: run.similarity > 0.9, alone),
        (
            lambda run, final: final > run.chance - 0.25,
            "A run near chance whose tokens differ can still learn: lost needs similar tokens, too.",
        ),
        (
            lambda run, final: run.similarity > 0.9 or final > run.chance - 0.25,
            "Lost needs both, similar tokens and a loss near chance: and, not or.",
        ),
        (
            lost(below=0.0),
            "A model that knows nothing hovers around chance, also below it: lost begins at chance - 0.25.",
        ),
        (lost(below=-0.25), "Lost begins a quarter below chance, not a quarter above it."),
        (
            lambda run, final: run.similarity > 0.9 and abs(final - run.chance) < 0.25,
            "A run that ends far above chance may be lost, too: there is no upper limit.",
        ),
        (lost(part=0.9, below=0.0), "The limit of lost is a quarter of a nat below chance, not a part of chance."),
        (lambda run, final: run.similarity > 0.9 and final > _16 - 0.25, "chance is an argument: use it."),
        (lost(similar=0.99), "Lost begins at a similarity of 0.9. (Lesson 00 asked for 0.99.)"),
        (
            lambda run, final: run.similarity < 0.9 and final > run.chance - 0.25,
            "Similar tokens have a similarity above 0.9.",
        ),
        (lambda run, final: False, "Nothing is ever lost: the last question is missing."),
        (
            lambda run, final: run.similarity > 0.9 and final >= run.chance - 0.25,
            "Exactly chance - 0.25 is not above chance - 0.25.",
        ),
    ]
    return [
        *((verdicts(final=rule), sentence) for rule, sentence in finals),
        (verdicts(final=lambda loss: loss[-1], finite=lambda loss: True), noisy),
        *((verdicts(finite=rule), sentence) for rule, sentence in finites),
        *((verdicts(lost=rule), sentence) for rule, sentence in losts),
        (verdicts(lost=losts[0][0], order="diverged lost learned"), alone),
        (verdicts(order="diverged lost learned"), "The first word that fits counts: learned is asked before lost."),
        (verdicts(order="learned diverged lost"), first),
        (verdicts(order="learned lost diverged"), first),
        (verdicts(learned=lambda final: final <= 1), "A mean of exactly 1.0 is not below 1.0."),
    ]


def outcome(trial: Trial) -> None:
    """Ask in this order: any loss not finite: diverged; mean of the last five losses below 1.0: learned; similarity
    above 0.9 and that mean above chance - 0.25: lost; else slow.
    """
    got = [_word(trial, run) for run in RUNS]
    failed = next((run for run, word in zip(RUNS, got, strict=True) if word != run.verdict), None)
    if failed is not None:
        said = next((sentence for words, sentence in wrong_verdicts() if words == got), _WORDS[failed.verdict])
        word = _word(trial, failed)
        trial.require(False, said, f'"{failed.verdict}" ({failed})', f'"{word}"')


def _word(trial: Trial, run: ReportedRun) -> str:
    answer: Any = trial.call(run.loss.copy(), run.similarity, run.chance)
    trial.require(isinstance(answer, str), "The answer is a word, in quotes.", "a text", type(answer).__name__)
    trial.require(
        answer in _WORDS,
        'The answer is one of four words, in small letters: "diverged", "learned", "lost", "slow".',
        got=f'"{answer[:40]}"',
    )
    return str(answer)
