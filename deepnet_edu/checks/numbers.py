"""What the judges of answers that are numbers share: a number for some arguments, and a property of numbers."""

from typing import Any

from deepnet_edu.checks.trial import Trial


def number(trial: Trial, *arguments: Any, **keywords: Any) -> float:
    """The one number that the learner's function returns for these arguments."""
    got = trial.call(*arguments, **keywords)
    trial.like(got, 0.0)
    return float(got)


def holds(trial: Trial, got: float, wanted: float, sentence: str) -> None:
    """A property, that two numbers are about the same: finer differences are for the values to tell."""
    same = abs(got - wanted) <= 0.01 * max(abs(wanted), 1e-3)
    trial.require(same, sentence, f"{wanted:.6g}", f"{got:.6g}")
