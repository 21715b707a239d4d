"""Lesson 05, exploding updates: Post-LN-init, the warm-up schedule, the model update (in updates.py), arms against a
claim (in causes.py), Theorem 4.2 as a budget, and how far warm-up lets a weight go."""

import contextlib
from math import sqrt

import numpy as np

from deepnet_edu.checks.base import Judge, Misconception, NotRight, Trial
from deepnet_edu.checks.lesson_05.causes import counterexamples
from deepnet_edu.checks.lesson_05.updates import model_update
from deepnet_edu.checks.numbers import apart, grows, holds, number, one_at_a_time


def post_ln_init_divisor(trial: Trial) -> None:
    """n_layers - layer + 1, with layers counted from 1: as many as there are from this layer up to the top."""
    # At these layers no two of the known slips are equal; at the top one of them gives no divisor at all.
    for layer, n in [(18, 18), (3, 18), (13, 18), (4, 11), (5, 12)]:
        got = trial.call(layer, n)
        k = n - layer + 1
        wrong = [
            Misconception(k**2, "That divides the variance: what the weights are divided by is asked for."),
            Misconception(sqrt(k), "k divides the weights, not their variance: no root."),
            Misconception(1 / k, "The divisor is asked for, not the factor."),
            Misconception(layer, "That shrinks the top. Post-LN-init shrinks the bottom: layer 1 most."),
            Misconception(sqrt(layer), "That is DS-Init, which goes the other way: it shrinks the top."),
            Misconception(k + 1, "One too large: the top layer is left as it is, so its divisor is 1."),
            Misconception(n, "Every layer has its own divisor: you divide all by that of the bottom layer."),
            Misconception(n + layer - 1, "The divisor falls on the way up: yours grows."),
            Misconception(
                float(2 ** (n - layer)), "Yours doubles from layer to layer: it grows by the same step each."
            ),
        ]
        if layer == n:
            said = "The top layer is not scaled: its divisor is 1, not 0. Layers are counted from 1."
            wrong = [Misconception(0, said)]
        else:
            wrong.append(Misconception(n - layer, "One too small below the top: the layer itself is counted, too."))
        trial.equal(got, float(k), wrong)
    for n in (1, 6, 24, 200):
        for layer in sorted({1, 2, (n + 1) // 2, n - 1, n} & set(range(1, n + 1))):
            trial.equal(trial.call(layer, n), float(n - layer + 1))
    one_at_a_time(trial, (4, 9), (5, 10), lambda layer, n: float(n - layer + 1))
    holds(trial, number(trial, 9, 9), 1.0, "The top layer is left as it is: its divisor is 1.")
    holds(trial, number(trial, 8, 9), 2.0, "The layer below the top one is divided by 2.")
    holds(trial, number(trial, 3, 9) - number(trial, 4, 9), 1.0, "On the way down the divisor grows by 1 a layer.")


def learning_rate(trial: Trial) -> None:
    """Up to step warmup initial + (peak - initial)·step/warmup; from then on peak·√(warmup/step)."""
    for peak, warmup, initial in [(0.5, 9, 0.02), (3e-3, 40, 1e-5), (2e-6, 9, 1e-7)]:
        # The seam and its neighbour, where many slips are equal, come last.
        for step in (0, 1, warmup // 3, warmup + 3, 4 * warmup, warmup - 1, warmup, warmup + 1):
            got = trial.call(step, peak, warmup, initial)
            expected = _rate(step, peak, warmup, initial)
            wrong = _rising(step, peak, warmup, initial) if step < warmup - 1 else []
            wrong = _falling(step, peak, warmup, initial) if step > warmup + 1 else wrong
            trial.equal(got, expected, wrong)
    for step, rate in [(0, 0.0), (50, 0.5), (100, 1.0), (200, sqrt(0.5)), (40_000, 0.05)]:
        trial.equal(trial.call(step, peak=1.0, warmup=100, initial=0.0), rate)
    for step in (0, 1, 2, 6):  # no warm-up to speak of
        trial.equal(trial.call(step, 0.8, 1, 0.3), 0.3 if step == 0 else 0.8 / sqrt(step))
    trial.equal(trial.call(90_000, 0.5, 9, 0.02), 0.005)  # below the initial rate
    for step in (3, 20):  # one in each half
        one_at_a_time(trial, (step, 0.5, 10, 0.1), (step + 1, 0.6, 9, 0.2), _rate)
    said = "Without a fourth argument the initial rate is 1e-7."
    trial.equal(trial.call(0, 1.0, 10), 1e-7, sentence=said)
    trial.equal(trial.call(3, 4e-7, 10), 1.9e-7, sentence=said)
    holds(trial, number(trial, 0, 0.5, 9, 0.02), 0.02, "At step 0 the rate is the initial one.")
    holds(trial, number(trial, 9, 0.5, 9, 0.02), 0.5, "At step warmup the rate is the peak, by both formulas.")
    holds(trial, number(trial, 36, 0.5, 9, 0.02), 0.25, "At four times the warm-up half of the peak is left.")


def _rate(step: int, peak: float, warmup: int, initial: float = 1e-7) -> float:
    rising = np.interp(step, [0, warmup], [initial, peak])
    return float(rising if step <= warmup else peak / sqrt(step / warmup))


def _rising(step: int, peak: float, warmup: int, initial: float) -> list[Misconception]:
    late, falls = (
        "Step 0 has the initial rate: yours is one step ahead.",
        "That is for after warm-up: before it the rate rises.",
    )
    wrong = [
        Misconception(peak * step / warmup, "Warm-up starts at the initial rate, not at 0."),
        Misconception(initial + peak * step / warmup, "At step warmup the rate is peak, not peak + initial."),
        Misconception(initial + (peak - initial) * (step + 1) / warmup, late),
        Misconception(peak * (step + 1) / warmup, late),
        Misconception(
            initial + (peak - initial) * step / (warmup - 1),
            "The peak is reached at step warmup: yours is a step early.",
        ),
        Misconception(
            initial + (peak - initial) * step / (warmup + 1),
            "The peak is reached at step warmup: yours is a step late.",
        ),
        Misconception(peak, "During warm-up the rate rises in a straight line: yours is at the peak already."),
        Misconception(initial, "During warm-up the rate rises: yours stays."),
        Misconception(
            initial * (peak / initial) ** (step / warmup),
            "The rise is a straight line: yours grows by a constant factor.",
        ),
        Misconception(peak * sqrt(warmup / max(step, 1)), falls),
        Misconception(peak / sqrt(max(step, 1)) if step > 1 else peak * sqrt(warmup), falls),
    ]
    if step:
        wrong.append(
            Misconception(peak + (initial - peak) * step / warmup, "During warm-up the rate rises: yours falls.")
        )
    return wrong


def _falling(step: int, peak: float, warmup: int, initial: float) -> list[Misconception]:
    since, goes_on = step - warmup, "The count of steps continues after warm-up: yours begins again."
    return [
        Misconception(peak / sqrt(step), "At the seam your rate jumps: there it must still be the peak."),
        Misconception(peak * warmup / step, "It falls with the root of the step: yours falls with the step itself."),
        Misconception(peak * (warmup / step) ** 2, "It falls with the root of the step: yours falls with its square."),
        Misconception(peak * sqrt(step / warmup), "After warm-up the rate falls: yours rises."),
        Misconception(peak, "After warm-up the rate falls: yours stays."),
        Misconception(peak * sqrt(warmup / since), goes_on),
        Misconception(peak / sqrt(since), goes_on),
        Misconception(peak / sqrt(1 + since), goes_on),
        Misconception(initial + (peak - initial) * step / warmup, "Warm-up ends at step warmup: then the rate falls."),
        Misconception(
            initial + (peak - initial) * sqrt(warmup / step), "After warm-up the initial rate no longer counts."
        ),
        Misconception(peak * sqrt(warmup / (step + 1)), "After warm-up your count of steps is one ahead."),
    ]


def update_factor(trial: Trial) -> None:
    """The slope √(v² + w²)/α is multiplied by gain/alpha; with Adam the step by rate, with SGD by rate·gain/alpha,
    since the gradient has the slope in it. The sum is multiplied by slope times step.
    """
    for alpha, gain, rate in [(1.7, 0.6, 0.45), (0.8, 1.3, 2.5), (2.6, 0.35, 1.4)]:
        slope = gain / alpha
        right = {"sgd": rate * slope**2, "adam": rate * slope}
        for optimizer, expected in right.items():
            other = right["adam" if optimizer == "sgd" else "sgd"]
            sgd = optimizer == "sgd"
            wrong = [
                Misconception(
                    other,
                    "The slope is in the gradient, and an SGD step is the rate times the gradient: it comes in twice."
                    if sgd
                    else "Adam divides its step by the gradient's size: the slope comes in once.",
                ),
                Misconception(gain * alpha * rate, "A larger α makes the sum smaller: the root is divided by it."),
                Misconception(
                    (gain * alpha) ** 2 * rate, "A larger α makes the sum smaller: the root is divided by it."
                ),
                Misconception(gain**2 * rate / alpha, "The root of v² + w² is multiplied by gain, not by its square."),
                Misconception(sqrt(gain) * rate / alpha, "The root of v² + w² is multiplied by gain, not by its root."),
                Misconception(sqrt(2) * expected, "Asked is a factor: the root of 2 was in the sum before, too."),
                Misconception(expected / rate, "The learning rate is a factor of every step, whatever takes it."),
                Misconception(rate * expected, "The learning rate is in the step alone: it counts once."),
                Misconception(1 / expected, "That is by what the sum was larger before: turn it over."),
                Misconception(expected / gain, "A gain on v and w is a gain on the root, and on the slope."),
                Misconception(expected * alpha, "An α is missing."),
            ]
            if sgd:
                wrong += [
                    Misconception(rate * gain**2 / alpha, "The slope comes in twice, and α with it."),
                    Misconception(rate * gain / alpha**2, "The slope comes in twice, and the root with it."),
                ]
            trial.equal(trial.call(alpha, gain, rate, optimizer), expected, apart(wrong))
    base, others = (1.5, 0.7, 0.4, "adam"), (2.0, 0.9, 0.3, "sgd")
    one_at_a_time(trial, base, others, _factor)
    one_at_a_time(trial, (*base[:3], "sgd"), (*others[:3], "adam"), _factor)
    nothing = "Where nothing is multiplied the factor is 1."
    for optimizer in ("sgd", "adam"):
        holds(trial, number(trial, 1.0, 1.0, 1.0, optimizer), 1.0, nothing)
        once = number(trial, 1.5, 0.7, 0.4, optimizer)
        grows(
            trial, once, number(trial, 3.0, 1.4, 0.4, optimizer), 1, "Twice α and twice v and w: the slope is the same."
        )
        grows(trial, once, number(trial, 1.5, 0.7, 0.8, optimizer), 2, "Twice the rate, twice the step, twice the sum.")


def _factor(alpha: float, gain: float, rate: float, optimizer: str) -> float:
    return rate * (gain / alpha) ** {"sgd": 2, "adam": 1}[optimizer]


def warmup_distance(trial: Trial) -> None:
    """The sum of the learning rates of steps 0 to steps - 1, by the schedule that starts at 1e-7."""

    # With peaks so small that the initial rate counts.
    for steps, peak, warmup in [(5, 4e-7, 20), (20, 3e-6, 8), (12, 2e-6, 12), (30, 5e-6, 11)]:
        got = trial.call(steps, peak, warmup)
        rates = [_rate(t, peak, warmup) for t in range(steps + 1)]
        expected = sum(rates[:-1])
        wrong = [
            Misconception(steps * peak, "That is without warm-up: each step has its own rate."),
            Misconception(sum(rates[1:]), "Steps count from 0: the first has the initial rate."),
            Misconception(sum(rates), "There is one step too many: the first is step 0."),
            Misconception(sum(rates[:-2]), "There is one step too few."),
            Misconception(rates[-1], "That is one rate: the distance is the sum over the steps."),
            Misconception(rates[-2], "That is the last rate: the distance is the sum over the steps."),
            Misconception(expected / steps, "That is the mean rate: the distance is the sum."),
            Misconception(
                peak * steps**2 / (2 * warmup), "A triangle is close while warm-up lasts: add the steps up exactly."
            ),
            Misconception(
                sqrt(sum(one**2 for one in rates[:-1])),
                "That is for steps in random directions: the farthest is when all go the same way.",
            ),
            Misconception(
                sum(one - 1e-7 * max(0, 1 - t / warmup) for t, one in enumerate(rates[:-1])),
                "Your schedule starts at 0: it is to start at 1e-7.",
            ),
            Misconception(
                sum(1e-7 + (peak - 1e-7) * min(1, t / warmup) for t in range(steps)),
                "After warm-up the rate falls: yours stays at the peak.",
            ),
            Misconception(
                sum(1e-7 + (peak - 1e-7) * t / warmup for t in range(steps)), "Warm-up ends: then the rate falls."
            ),
        ]
        if steps <= warmup:  # then the last two are right
            del wrong[-2:]
        trial.equal(got, expected, wrong)
    for steps, peak, warmup in [
        (30, 5e-3, 30),
        (10, 5e-3, 30),
        (20, 0.3, 8),
        (30, 5e-3, 7),
        (3, 0.2, 1),
        (200, 1e-3, 60),
    ]:
        trial.equal(trial.call(steps, peak, warmup), sum(_rate(t, peak, warmup) for t in range(steps)))
    base, others = (9, 0.5, 6), (10, 0.6, 7)
    one_at_a_time(trial, base, others, lambda n, peak, w: sum(_rate(t, peak, w) for t in range(n)))
    none = 0.0
    with contextlib.suppress(NotRight):  # nothing may be asked of a list of no steps
        none = number(trial, 0, 0.5, 8)
    trial.require(abs(none) < 1e-12, "In no steps at all, a weight moves by 0.", "0", f"{none:.6g}")
    said = "In one step, step 0, a weight moves by the initial rate: 1e-7."
    first = number(trial, 1, 0.5, 8)
    trial.require(abs(first - 1e-7) < 1e-9, said, "1e-07", f"{first:.6g}")


JUDGES: dict[str, Judge] = {
    "post_ln_init_divisor": post_ln_init_divisor,
    "learning_rate": learning_rate,
    "model_update": model_update,
    "counterexamples": counterexamples,
    "update_factor": update_factor,
    "warmup_distance": warmup_distance,
}
