"""The judge of lesson 13's paired bootstrap: the score that it gives sees which sentences were drawn."""

from typing import Any

import numpy as np

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.numbers import apart
from deepnet_edu.checks.trial import TYPE, Array
from deepnet_edu.checks.values import describe, is_number

#: Sentences, draws, seed.
_SIZES = [(12, 300, 0), (31, 500, 1), (9, 400, 2)]


def paired_interval(trial: Trial) -> None:
    """Draw rows once for both systems, generator.integers(n, size=n), as often as ``draws`` says; each draw gives a
    difference of scores, score(a[rows].sum(0)) - score(b[rows].sum(0)). Return that of all sentences, and the 0.025 and
    0.975 quantiles of the draws' differences.
    """
    for n, draws, seed in _SIZES:
        a, b = _statistics(n, seed)
        score = _Score(a, b)
        got = _three(trial, trial.call(a, b, score, draws, np.random.default_rng(seed)))
        of_a, of_b = score.drawn(trial, draws)
        _look(trial, of_a, of_b)
        differences = np.array([_ratio(x @ a) - _ratio(y @ b) for x, y in zip(of_a, of_b, strict=True)])
        whole = _ratio(a.sum(0)) - _ratio(b.sum(0))
        right = np.array([whole, *np.quantile(differences, [0.025, 0.975])])
        own = np.array([_ratio(x @ a) for x in of_a])
        said = "Difference, low and high belong to the same draws: one of the three is wrong."
        trial.equal(got, right, apart(_wrong(right, differences, own)), said)
    a, b = _statistics(*_SIZES[0][::2])
    first, again = [
        np.array(_three(trial, trial.call(a, b, _Score(a, b), 50, np.random.default_rng(5))), float) for _ in range(2)
    ]
    said = "The same generator gave a different interval: draw with the generator that is given."
    trial.require(bool(np.allclose(first, again)), said)
    same = np.array(_three(trial, trial.call(a, a, _ratio, 50, np.random.default_rng(5))), float)
    said = "A system against itself: the difference is 0 in every draw, and so are both ends."
    trial.require(bool((abs(same) < 1e-4).all()), said, "0, 0, 0")


def _statistics(n: int, seed: int) -> tuple[Array, Array]:
    """Counts of two systems, a row for each sentence: its number, its system, matches, words. Sentences differ in how
    hard they are for both."""
    draw = np.random.default_rng([n, seed])
    words = draw.integers(4, 12, n).astype(float)
    hard = draw.uniform(0.1, 0.9, n)
    matches = [words * np.clip(hard + better + draw.normal(0, 0.05, n), 0, 1) for better in (0.06, 0.0)]
    a, b = (np.column_stack([np.eye(n), np.full(n, 1.0 - i), matches[i], words]) for i in range(2))
    return a, b


def _ratio(sums: Any) -> float:
    """Matches over words, in percent."""
    return float(100 * sums[-2] / sums[-1])


class _Score:
    """Keeps how often it was asked for each sentence, of a and of b."""

    def __init__(self, a: Array, b: Array) -> None:
        self.n, self.k = len(a), a.shape[1]
        self.seen: dict[bool, list[Array]] = {True: [], False: []}

    def __call__(self, sums: Any) -> float:
        sums = np.asarray(sums, float)
        if sums.shape != (self.k,):
            raise ValueError(f"score takes the sums over sentences, an array of shape ({self.k},): not {sums.shape}.")
        counts = sums[: self.n]
        if not counts.sum() > 0.5:
            raise ValueError("score was asked for no sentence at all.")
        self.seen[bool(sums[self.n] > 0.5)].append(counts.round().astype(int))
        return _ratio(sums)

    def drawn(self, trial: Trial, draws: int) -> tuple[Array, Array]:
        """How often each sentence was drawn, (draws, n), of a and of b."""
        found = []
        for seen in self.seen.values():
            rows = np.array(seen, int).reshape(-1, self.n)
            # The score of all sentences may be asked for before the draws or after them.
            rows = rows[1:] if len(rows) and (rows[0] == 1).all() else rows
            rows = rows[:-1] if len(rows) > draws and (rows[-1] == 1).all() else rows
            said = "The score of a corpus is that of the sums, not a mean of its sentences' scores."
            trial.require(not len(rows) or int(rows.sum(1).max()) > 1, said)
            said = f"Draw {draws} times, as draws says, and score each draw for both systems."
            trial.require(len(rows) == draws, said, f"{draws} draws", f"{len(rows)} draws")
            found.append(rows)
        return found[0], found[1]


def _look(trial: Trial, of_a: Array, of_b: Array) -> None:
    """Whether the draws are draws: the same for both, as many sentences, some twice, each as likely as another."""
    draws, n = of_a.shape
    said = "Every draw is the same test set in another order: draw with replacement."
    trial.require(not (of_a == 1).all(), said)
    said = "A hard sentence is hard for both: draw the same sentences for both systems."
    trial.require(bool((of_a == of_b).all()), said)
    sizes = of_a.sum(1)
    # Half of the sentences without replacement spread as much as all of them with it.
    half = bool((abs(2 * sizes - n) <= 1).all() and of_a.max() == 1)
    said = "A draw is a test set as large as the one at hand."
    trial.require(half or bool((sizes == n).all()), said, f"{n} sentences", f"{sizes.min()} to {sizes.max()}")
    said = "Draw again each time: most draws are the same."
    trial.require(np.unique(of_a, axis=0, return_counts=True)[1].max() < draws / 2, said)
    mean = of_a.mean(0) * n / sizes.mean()
    said = "Every sentence must be as likely to be drawn as another, the first and the last too."
    trial.require(bool((abs(mean - 1) < 6 / np.sqrt(draws)).all()), said)


def _wrong(right: Array, differences: Array, own: Array) -> list[Misconception]:
    whole, low, high = right
    centre, spread, root = differences.mean(), differences.std(), np.sqrt(len(differences))
    width = "That is not a 95% interval: it leaves out 2.5% of the draws at either end."
    divided = "The draws spread as much as the score would on other sentences: do not divide by √draws."
    return [
        Misconception(np.array([whole, *np.quantile(differences, [0.05, 0.95])]), width),
        Misconception(np.array([whole, differences.min(), differences.max()]), width),
        Misconception(np.array([whole, *np.quantile(differences, [0.25, 0.75])]), width),
        Misconception(np.array([whole, whole + (low - whole) / root, whole + (high - whole) / root]), divided),
        Misconception(np.array([whole, centre - 1.96 * spread / root, centre + 1.96 * spread / root]), divided),
        Misconception(
            np.array([centre, low, high]), "The difference is that of all sentences, and not the mean of the draws."
        ),
        Misconception(-right[[0, 2, 1]], "The difference is a minus b."),
        Misconception(
            np.array([whole, *np.quantile(own, [0.025, 0.975])]), "That is an interval of a's own score: a minus b."
        ),
        Misconception(
            np.array([whole, centre - 1.96 * spread, centre + 1.96 * spread]),
            "That assumes a normal distribution: the draws' own quantiles are asked for.",
        ),
    ]


def _three(trial: Trial, got: Any) -> Any:
    said = "The answer is three numbers: the difference, and the low and the high end of its interval."
    three = hasattr(got, "__len__") and not isinstance(got, str | dict) and getattr(got, "ndim", 1) == 1
    trial.require(three and len(got) == 3, said, got=describe(got), rung=TYPE)
    trial.require(all(map(is_number, got)), said, got=describe(got), rung=TYPE)
    return got
