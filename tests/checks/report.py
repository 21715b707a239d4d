"""All exercises: wrong answers tried and accepted, right ones tried and refused. Exit status 1 if there is any.

    python -m tests.checks.report [EXERCISE …]

Right are the reference, its forms (tests/checks/forms.py) and RIGHT of the answers files; wrong are WRONG, as people
give them, and the mutants of the reference, without those that compute the same on a hundred random draws.
"""

import sys
import warnings
from collections.abc import Iterator
from typing import Any

from deepnet_edu.checks import check
from tests.checks.answers import ANSWERS, EXERCISES, home, reference, source
from tests.checks.forms import forms, written
from tests.checks.mutants import Observed, function, mutants


def right_answers(exercise: str) -> Iterator[tuple[str, Any]]:
    """By name."""
    yield "the reference", reference(exercise)
    for form in forms(exercise):
        text = written(exercise, source(exercise), form, getattr(home(exercise), exercise))
        yield form, function(text, exercise, home(exercise))
    right = [answer for name, answer in ANSWERS[check.lesson_of[exercise]].RIGHT if name == exercise]
    yield from ((f"RIGHT, number {i}", answer) for i, answer in enumerate(right, 1))


def wrong_answers(exercise: str) -> Iterator[tuple[str, Any]]:
    """Those that people give, by the sentence that each gets."""
    wrong = ANSWERS[check.lesson_of[exercise]].WRONG
    yield from ((sentence, answer) for name, answer, sentence in wrong if name == exercise)


def surviving_mutants(exercise: str, draws: int) -> tuple[int, list[str]]:
    """How many are wrong, and those of them that the check accepts."""
    right = Observed(reference(exercise), ANSWERS[check.lesson_of[exercise]].OBSERVE[exercise], draws)
    caught, survivors = 0, []
    for text in mutants(source(exercise)):
        mutant = function(text, exercise, home(exercise))
        if getattr(check, exercise)(mutant).state == "tried":
            caught += 1
        elif not right.equals(function(text, exercise, home(exercise))):  # a new one: some keep what they have seen
            survivors.append(text)
    return caught + len(survivors), survivors


def row(exercise: str) -> tuple[list[int], list[str]]:
    """Wrong tried and accepted, mutants tried and accepted, right tried and refused; and a line for each fault."""
    wrong, right = list(wrong_answers(exercise)), list(right_answers(exercise))
    accepted = [name for name, answer in wrong if check.judge(exercise, answer).state == "done"]
    refused = [(name, said) for name, answer in right if (said := check.judge(exercise, answer)).state != "done"]
    tried, survivors = surviving_mutants(exercise, 100)
    faults = [f"{exercise}: accepted, though wrong: {one}" for one in (*accepted, *survivors)]
    faults += [f"{exercise}: refused, though right: {name}: {said.sentence}" for name, said in refused]
    return [len(wrong), len(accepted), tried, len(survivors), len(right), len(refused)], faults


def main(exercises: list[str]) -> int:
    """Print the table, a row as soon as it is known."""
    warnings.simplefilter("ignore")  # mutants take roots and logarithms of what has none
    print(
        f"{'':29}wrong answers   mutants         right answers\n{'exercise':29}"
        + "tried accepted  " * 2
        + "tried refused"
    )
    total, faults = [0] * 6, []
    for exercise in exercises:
        numbers, found = row(exercise)
        total = [a + b for a, b in zip(total, numbers, strict=True)]
        faults += found
        _print(f"{check.lesson_of[exercise]} {exercise}", numbers)
    _print("all", total)
    print(*faults, sep="\n")
    return bool(faults)


def _print(name: str, numbers: list[int]) -> None:
    print(
        f"{name:29}" + "".join(f"{a:5} {b:8}  " for a, b in zip(numbers[::2], numbers[1::2], strict=True)), flush=True
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or EXERCISES))
