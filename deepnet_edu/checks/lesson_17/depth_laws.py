"""The judge of ``predict_depth`` (lesson 17): two laws of depth, each fitted by least squares."""

import numpy as np

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.numbers import holds, number
from deepnet_edu.checks.trial import Array

POWERS = [k / 20 for k in range(1, 61)]
#: Relative precision of fits through few points of unlike size.
_FITTED = 1e-5
#: Depths, scores, and the depth that is asked for. The first is the paper's Figure 8 without its last point; in the
#: last the squares of the errors, their sizes and their fourth powers have the least sum at different powers.
_MEASURED: list[tuple[list[int], list[float], int]] = [
    ([12, 20, 100, 200], [25.25, 26.6, 30.1, 31.1], 1000),
    ([12, 20, 100, 200, 1000], [25.25, 26.6, 30.1, 31.1, 32.05], 10_000),
    ([6, 48, 12, 96, 24, 12], [20.1, 29.3, 24.2, 29.7, 27.9, 24.6], 192),
    ([3, 9, 40], [11.0, 14.2, 15.1], 77),
    ([4, 6, 12, 18, 48, 60], [25.9, 27.1, 29.4, 28.8, 29.4, 29.9], 150),
]
#: Where the best power is the least or the largest that is tried, and where depth is 1.
_EDGES: list[tuple[list[int], list[float], int]] = [
    ([10, 100, 1000, 1500], [10.0, 12.0, 16.5, 18.0], 5000),
    ([2, 3, 5, 9], [1.0, 6.5, 6.9, 6.85], 4),
    ([1, 2, 4, 8], [5.0, 7.1, 8.0, 8.6], 1),
]


def predict_depth(trial: Trial) -> None:
    """Fit a line to (f(depths), bleu) by least squares and return its value at f(depth), where f is the logarithm, or
    d ** -p for each p of 0.05, 0.10, …, 3; keep the p whose line has the least squared error.
    """
    for law in ("log", "power", "log"):
        for points in (*_MEASURED, *_EDGES):
            depths, bleu, depth = points
            right = _line(np.log(depths), np.array(bleu), np.log(depth)) if law == "log" else _power(*points)[1]
            got = trial.call(list(depths), list(bleu), depth, law)
            wrong = _wrong(points, law) if points in _MEASURED else []
            trial.equal(got, right, wrong, "This law's best line gives a different value at that depth.", _FITTED)
    depths, bleu, depth = _MEASURED[0]
    for law in ("log", "power"):
        plain = number(trial, depths, bleu, depth, law)
        turned = number(trial, depths[::-1], bleu[::-1], depth, law)
        holds(trial, turned, plain, "The order of the points must not matter.")
        shifted = number(trial, depths, [score + 40 for score in bleu], depth, law)
        said = "With 40 more on every score the prediction is 40 more, too: scores are fitted as they are."
        holds(trial, shifted, plain + 40, said)
    on_law = {"log": lambda d: 2 + 3 * float(np.log(d)), "power": lambda d: 30 - 50 / d**0.7}
    for law, score in on_law.items():
        met = number(trial, depths, [score(d) for d in depths], 7, law)
        holds(trial, met, score(7), "Points that lie on the law are met exactly, and so is every other depth.")


def _line(x: Array, y: Array, at: float) -> float:
    """The value at ``at`` of the least-squares line, its slope as covariance over variance."""
    slope = float(((x - x.mean()) * (y - y.mean())).mean() / ((x - x.mean()) ** 2).mean())
    return float(y.mean() + slope * (at - x.mean()))


def _power(depths: list[int], bleu: list[float], depth: float, powers: list[float] = POWERS) -> tuple[float, float]:
    """The power of the least squared error, and the value at ``depth``."""
    d, y = np.array(depths, float), np.array(bleu)

    def error(p: float) -> float:
        return float(sum((_line(d**-p, y, one**-p) - score) ** 2 for one, score in zip(d, y, strict=True)))

    best = min(powers, key=error)
    return best, _line(d**-best, y, float(depth) ** -best)


def _wrong(points: tuple[list[int], list[float], int], law: str) -> list[Misconception]:
    depths, bleu, depth = points
    d, y = np.array(depths, float), np.array(bleu)
    x, at = np.log(d), float(np.log(depth))
    logarithm = _line(x, y, at)
    power = _power(*points)[1]
    through = float((x @ y) / (x @ x)) * at
    other = f'That is the other law\'s value: asked for is "{law}".'
    known = [
        (power if law == "log" else logarithm, other),
        (_line(d, y, depth), "That is a line in the depth itself: both laws bend."),
        (float(np.exp(_line(x, np.log(y), at))), "The scores are fitted as they are, without a logarithm."),
        (float(np.polyval(np.polyfit(x, y, 2), at)), "That is a parabola: a law has a line in other axes."),
    ]
    if law == "log":
        last = y[-1] + (y[-1] - y[-2]) / (x[-1] - x[-2]) * (at - x[-1])
        ends = y[0] + (y[-1] - y[0]) / (x[-1] - x[0]) * (at - x[0])
        known += [
            (last, "Those are the last two points alone: all of them make the fit."),
            (ends, "Those are the first and last point alone: all of them make the fit."),
            (through, "That line goes through 0 at one layer: it needs a second constant."),
            (_line(x, y, 0.0), "That is the constant of the law: what does it give at the depth that is asked for?"),
            (_line(x, y, at / np.log(10)), "Two kinds of logarithm: take the same for the points and for the depth."),
            (_line(x, y, float(depth)), "The depth that is asked for needs its logarithm, too."),
        ]
    else:
        d_half, d_one = (_line(d**-p, y, float(depth) ** -p) for p in (0.5, 1.0))
        known += [
            (d_half, "p is not given as 1/2: it is searched, too."),
            (d_one, "p is not given as 1: it is searched, too."),
            (_line(d ** -POWERS[0], y, float(depth) ** -POWERS[0]), "That is the first p that is tried, not the best."),
            (
                _line(d ** -POWERS[-1], y, float(depth) ** -POWERS[-1]),
                "That is the last p that is tried, not the best.",
            ),
            (_power(*points)[0], "That is the power p: what does the law give at the depth that is asked for?"),
        ]
    seen: dict[str, list[float]] = {}
    for value, sentence in known:
        seen.setdefault(sentence, []).append(float(value))
    return [Misconception(value, sentence) for sentence, values in seen.items() for value in values]
