"""What a function must do at every further call: it keeps nothing, what it returned stays, every argument counts, and
it goes as deep as the lesson does."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from deepnet_edu.checks.base import NotRight, Trial
from deepnet_edu.checks.values import Array, argument, as_array


def steady(trial: Trial, *calls: Sequence[Any]) -> None:
    """A property: a repeated call gives the same result, and leaves alone what the others returned.

    Args:
        trial: of the learner's function.
        calls: two or more tuples of arguments.
    """
    results, before = [], []
    for arguments in calls:
        results.append(trial.call(*arguments))
        before.append(_copy(results[-1]))
    again = [_copy(trial.call(*arguments)) for arguments in calls]
    after = [_copy(result) for result in results]
    trial.require(
        all(map(_same, after, before)),
        "What your function returned changed when it was called again: make a new array in each call.",
    )
    trial.require(
        all(map(_same, again, before)),
        "The same call gives another answer the second time: something is kept from one call to the next.",
    )


def heeds(trial: Trial, names: Sequence[str], *calls: Sequence[Any]) -> None:
    """A property: the answer changes with every argument.

    Args:
        trial: of the learner's function.
        names: of the arguments.
        calls: tuples of arguments; each differs from the one before it in one, and so does the right answer.
    """
    before = _copy(trial.call(*calls[0]))
    for earlier, later in pairwise(calls):
        result = _copy(trial.call(*later))
        differing = zip(names, earlier, later, strict=True)
        ((name, a, b),) = [one for one in differing if not np.array_equal(as_array(one[1]), as_array(one[2]))]
        two = f"two different {name}" if np.ndim(a) else f"{name} = {argument(a)} and {argument(b)}"
        said = f"The answer is the same for {two}: {name} is left out, or an earlier answer is kept."
        trial.require(not _same(before, result), said)
        before = result


def deep(trial: Trial, unit: str, *arguments: Any) -> Any:
    """What the function returns at the depth to which the lesson goes, which may be too deep to call itself."""
    try:
        return trial.call(*arguments)
    except NotRight as wrong:
        if "RecursionError" in wrong.sentence:
            said = (
                f"The lesson goes to {arguments[0]:,} {unit}, and Python cannot call a function within itself so often."
            )
            raise NotRight(said, rung=wrong.rung, call=wrong.call) from None
        raise


def _copy(value: Any) -> Array | None:
    try:
        return np.array(as_array(value))
    except Exception:  # it has no numbers, which the first rung says
        return None


def _same(a: Array | None, b: Array | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b, equal_nan=True)
