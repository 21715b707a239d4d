"""Lesson 10, the training loop: the cosine and the scale of the loss. The other judges have modules of their own."""

from math import cos, pi, sqrt

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_10.accumulation import accumulated_loss
from deepnet_edu.checks.lesson_10.adamw import adamw_step
from deepnet_edu.checks.lesson_10.saved import checkpoints
from deepnet_edu.checks.lesson_10.steps import pair, scaled_step, training_step

#: Steps, peak, warm-up, start, final.
_SCHEDULES = [(50, 3.0, 10, 0.01, 0.2), (31, 0.5, 7, 0.02, 0.1), (83, 2.0, 13, 0.05, 0.3)]


def cosine_rate(trial: Trial) -> None:
    """For n < warmup: start + (peak - start)·n/warmup. From there on, with y = (n - warmup)/(steps - warmup):
    final + (peak - final)·(1 + cos(π·y))/2.
    """
    for steps, peak, warmup, start, final in _SCHEDULES:
        for n in (2, warmup // 2, warmup - 2, warmup + 3, (warmup + steps) // 2 + 1, steps - 6, steps - 2):
            got = trial.call(n, steps, peak, warmup, start, final)
            if n < warmup:
                expected, said = start + (peak - start) * n / warmup, "The rate in the warm-up is wrong."
                wrong = _wrong_rise(n, peak, warmup, start)
            else:
                expected, said = _fall((n - warmup) / (steps - warmup), peak, final), "The rate on the cosine is wrong."
                wrong = _wrong_fall(n, steps, peak, warmup, start, final)
            trial.equal(got, expected, [Misconception(rate, why) for why, rate in wrong.items()], said)
    for steps, peak, warmup, start, final in [*_SCHEDULES, (20, 1.0, 1, 0.1, 0.2)]:  # the steps beside the seams
        for n in (1, warmup - 1, warmup + 1, steps - 1):
            rising, y = start + (peak - start) * n / warmup, (n - warmup) / (steps - warmup)
            trial.equal(
                trial.call(n, steps, peak, warmup, start, final), rising if n < warmup else _fall(y, peak, final)
            )
    for steps, peak, warmup, start, final in [*_SCHEDULES, (1000, 1.0, 100, 0.0, 0.1)]:
        for n, name, rate in ((0, "start", start), (warmup, "peak", peak), (steps, "final", final)):
            got = trial.call(n, steps, peak, warmup, start, final)
            trial.like(got, rate)
            near = abs(float(got) - rate) <= 1e-5 * peak
            trial.require(near, f"At n = {n} the rate is {name}.", f"{rate:.6g}", f"{float(got):.6g}")


def _fall(y: float, high: float, low: float) -> float:
    return low + (high - low) * (1 + cos(pi * y)) / 2


def _wrong_rise(n: int, peak: float, warmup: int, start: float) -> dict[str, float]:
    way = n / warmup
    return {
        "The warm-up begins at start, not at 0.": peak * way,
        "At the end of the warm-up the rate is peak, not peak + start.": start + peak * way,
        "In the warm-up the rate does not stay at peak: it rises.": peak,
        "The warm-up is one update early: at n = 0 the rate is start.": start + (peak - start) * (n + 1) / warmup,
        "The warm-up is one update late: it is over at n = warmup.": start + (peak - start) * (n - 1) / warmup,
        "The warm-up is a straight line: the cosine comes later.": _fall(1 - way, peak, start),
        "The warm-up is a straight line, in the rate and not in its exponent.": start ** (1 - way) * peak**way,
    }


def _wrong_fall(n: int, steps: int, peak: float, warmup: int, start: float, final: float) -> dict[str, float]:
    gone, length = n - warmup, steps - warmup
    y = gone / length
    return {
        "The warm-up ends at n = warmup: then the rate falls.": start + (peak - start) * n / warmup,
        "After the warm-up the rate does not stay at peak.": peak,
        "The cosine begins where the warm-up ends, not at n = 0.": _fall(n / steps, peak, final),
        "The cosine must end at n = steps: how long is it?": _fall(gone / steps, peak, final),
        "The cosine ends one update early: it has to end at n = steps.": _fall(gone / (length - 1), peak, final),
        "The cosine begins one update early: it has to begin at n = warmup.": _fall((gone + 1) / length, peak, final),
        "Take half a period: a whole one comes back to the peak.": _fall(2 * y, peak, final),
        "Take half a period: that is a quarter.": _fall(y / 2, peak, final),
        "It ends at final, not at 0.": _fall(y, peak, 0.0),
        "It ends at final, not at start.": _fall(y, peak, start),
        "final is a rate, not a share of peak.": _fall(y, peak, final * peak),
        "It begins at peak: this is too high by final.": final + _fall(y, peak, 0.0),
        "A cosine falls from 1 to -1: what scales the difference ends at 0.": final + (peak - final) * cos(pi * y),
        "That is a straight line: the cosine is flat at both ends.": peak - (peak - final) * y,
        "cos counts in radians.": _fall(y * 180 / pi, peak, final),
        "That is the inverse square root, the paper's schedule.": peak * sqrt(warmup / n),
    }


def next_scale(trial: Trial) -> None:
    """(scale/2, 0) after an overflow; (2·scale, 0) where this good step is the interval-th in a row; else
    (scale, good + 1).
    """
    for scale, good, overflow, interval in _SCALES:
        got = trial.call(scale, good, overflow, interval)
        found = pair(trial, got, "(scale, good steps in a row)")
        kind = "overflow" if overflow else "good step"
        if overflow:
            expected, wrong = (
                (scale / 2, 0),
                [
                    Misconception((2 * scale, 0), "An overflow means that the scale is too large: it must fall."),
                    Misconception((scale / 2, good), "The row of good steps is broken: the count begins again at 0."),
                    Misconception(
                        (scale / 2, good + 1), "A step that overflowed is not a good step: the count begins at 0."
                    ),
                    Misconception((scale, 0), "On an overflow the scale must change, or the next step overflows too."),
                    Misconception((scale, good + 1), "overflow is not used."),
                    Misconception((scale // 2, 0), "The scale need not be whole: 3 is halved to 1.5, and 1 to 0.5."),
                    Misconception((scale / 4, 0), "An overflow halves the scale only once."),
                    Misconception((scale - 1, 0), "An overflow halves the scale."),
                ],
            )
        elif good + 1 == interval:
            expected, wrong = (
                (2 * scale, 0),
                [
                    Misconception(
                        (scale, interval), "This step completes the row: double the scale now, not a step later."
                    ),
                    Misconception((2 * scale, interval), "After doubling, the count begins again at 0."),
                    Misconception((2 * scale, 1), "After doubling, the count begins again at 0."),
                    Misconception((scale, 0), "The row is complete, and the scale has not changed."),
                    Misconception((scale / 2, 0), "Good steps let the scale grow."),
                    Misconception((scale + 1, 0), "The scale doubles: powers of two change no digit of a number."),
                ],
            )
        else:
            expected, wrong = (
                (scale, good + 1),
                [
                    Misconception((2 * scale, 0), "Doubled too early: only after interval good steps in a row."),
                    Misconception((2 * scale, good + 1), "Doubled too early: only after interval good steps in a row."),
                    Misconception((scale, good), "This step was good: count it."),
                    Misconception((scale, 0), "No overflow and no complete row: the count does not begin again."),
                    Misconception((scale / 2, 0), "The scale falls where a step overflows, and this one did not."),
                ],
            )
        trial.equal(found, expected, wrong, f"After this {kind} the pair is wrong.")
    for scale, overflow, expected, said in [
        (2.0**40, True, (2.0**39, 0), "An overflow halves the scale, however large it is."),
        (2.0**-3, True, (2.0**-4, 0), "An overflow halves the scale, however small it is."),
        (2.0**24, False, (2.0**25, 0), "A complete row doubles the scale, however large it is."),
    ]:
        found = pair(trial, trial.call(scale, 6, overflow, 7), "(scale, good steps in a row)")
        trial.require(found == expected, said, str(expected), str(found))


#: Scale, good steps in a row, whether the step overflows, interval.
_SCALES = [
    (1024.0, 1, False, 5),
    (1024.0, 3, True, 5),
    (96.0, 2, False, 3),
    (64.0, 4, True, 5),
    (8.0, 6, False, 7),
    (16.0, 0, False, 1),
    (3.0, 1, False, 3),
    (64.0, 0, True, 8),
    (3.0, 0, True, 4),
    (5.0, 2, True, 4),
    (0.5, 3, False, 4),
    (1.0, 1, False, 4),
]


JUDGES: dict[str, Judge] = {
    "training_step": training_step,
    "scaled_step": scaled_step,
    "checkpoints": checkpoints,
    "accumulated_loss": accumulated_loss,
    "cosine_rate": cosine_rate,
    "next_scale": next_scale,
    "adamw_step": adamw_step,
}
