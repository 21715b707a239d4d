"""Misconceptions that a check could not tell apart, by the values that it knows of them."""

from collections.abc import Sequence
from typing import Any

from deepnet_edu.checks import Misconception
from deepnet_edu.checks.values import as_array, close

#: Values are the same if they agree to this, relative to themselves: more than a learner's rounding, less than a slip.
ALIKE = 1e-5


def coincidences(points: Sequence[tuple[Any, Sequence[Misconception]]]) -> list[str]:
    """A sentence for each.

    Args:
        points: at each, the right value and the known wrong ones.
    """
    found = []
    told_apart: dict[str, bool] = {}
    for number, (expected, known) in enumerate(points, 1):
        values = [(one.sentence, as_array(one.value)) for one in known]
        for i, (sentence, value) in enumerate(values):
            told_apart[sentence] = told_apart.get(sentence, False) or not close(value, as_array(expected), ALIKE)
            for other, theirs in values[:i]:
                right = close(value, as_array(expected), ALIKE)  # then neither is named here
                if other != sentence and not right and close(value, theirs, ALIKE):
                    found.append(f"at point {number} two are equal: {other!r} and {sentence!r}")
    return found + [f"right at every point: {sentence!r}" for sentence, told in told_apart.items() if not told]
