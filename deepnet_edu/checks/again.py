"""What a function owes to its next call: it keeps nothing, and what it returned stays as it was."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepnet_edu.checks.base import Trial
from deepnet_edu.checks.values import Array, as_array


def steady(trial: Trial, *calls: Sequence[Any]) -> None:
    """A property: each call gives again what it gave before, and leaves alone what the others returned.

    Args:
        trial: of the learner's function.
        calls: two or more tuples of arguments.
    """
    results = [trial.call(*arguments) for arguments in calls]
    try:
        before = [_copy(result) for result in results]
        again = [_copy(trial.call(*arguments)) for arguments in calls]
        after = [_copy(result) for result in results]
    except (TypeError, ValueError):
        return  # something in it is not a number, which the first rung will say
    trial.require(
        all(map(_same, after, before)),
        "What your function returned changed when it was called again: make a new array in each call.",
    )
    trial.require(
        all(map(_same, again, before)),
        "The same call gives another answer the second time: something is kept from one call to the next.",
    )


def _copy(value: Any) -> Array:
    return np.array(as_array(value))


def _same(a: Array, b: Array) -> bool:
    return np.array_equal(a, b, equal_nan=True)
