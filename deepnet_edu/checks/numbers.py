"""What the judges of answers that are numbers share: a number for some arguments, a property of numbers, whether each
argument counts at each call, and which misconceptions a point can tell apart."""

from collections.abc import Callable
from typing import Any

from deepnet_edu.checks.trial import Misconception, Trial
from deepnet_edu.checks.values import TOLERANCE, as_array, close


def number(trial: Trial, *arguments: Any, **keywords: Any) -> float:
    """The one number that the learner's function returns for these arguments."""
    got = trial.call(*arguments, **keywords)
    trial.like(got, 0.0)
    return float(got)


def holds(trial: Trial, got: float, wanted: float, sentence: str) -> None:
    """A property: two numbers are about the same; finer differences are left to the values."""
    same = abs(got - wanted) <= 0.01 * max(abs(wanted), 1e-3)
    trial.require(same, sentence, f"{wanted:.6g}", f"{got:.6g}")


def grows(trial: Trial, first: float, second: float, times: float, sentence: str) -> None:
    """A property: the second of two numbers is about ``times`` times the first."""
    same = abs(second - times * first) <= 0.01 * abs(times * first)
    ratio = second / first if first else float("nan")
    trial.require(same, sentence, f"{times:g} times as much", f"{ratio:.6g} times as much")


def one_at_a_time(
    trial: Trial,
    base: tuple[Any, ...],
    others: tuple[Any, ...],
    right: Callable[..., Any],
    tolerance: float = TOLERANCE,
) -> None:
    """The value at ``base``, and where a single argument is changed: so that no answer is right which forgets an
    argument, or remembers an earlier call."""
    points = [base, *((*base[:i], other, *base[i + 1 :]) for i, other in enumerate(others))]
    for point in points:
        trial.equal(trial.call(*point), right(*point), tolerance=tolerance)


def apart(known: list[Misconception]) -> list[Misconception]:
    """Misconceptions whose value is unique here: a point says nothing of two that it cannot tell apart."""
    return [
        one
        for one in known
        if not any(o.sentence != one.sentence and close(as_array(one.value), as_array(o.value), 1e-4) for o in known)
    ]
