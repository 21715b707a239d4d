"""Every check: right answers written differently pass, wrong ones that people give get the fitting sentence, generated
mutants are caught, odd answers have a sentence of their own."""

import contextlib
import copy
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from deepnet_edu.checks import check
from deepnet_edu.checks.base import judged
from deepnet_edu.course.exercises import exercises_of
from deepnet_edu.course.places import SOLUTIONS, lesson_names
from tests.checks import table
from tests.checks.answers import EXERCISES, RIGHT, WRONG, fresh, home, reference
from tests.checks.mutants import Observed, function, mutants
from tests.checks.report import surviving_mutants


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_reference_passes(exercise: str) -> None:
    result = getattr(check, exercise)(reference(exercise))
    assert result.state == "done", result


@pytest.mark.parametrize(("exercise", "answer"), RIGHT)
def test_right_answers_written_differently_pass(exercise: str, answer: Callable) -> None:
    result = getattr(check, exercise)(answer)
    assert result.state == "done", result


@pytest.mark.parametrize(("exercise", "answer", "sentence"), WRONG)
def test_wrong_answers_get_the_fitting_sentence(exercise: str, answer: Callable, sentence: str) -> None:
    result = getattr(check, exercise)(answer)
    assert result.state == "tried"
    assert sentence in result.sentence


@pytest.mark.parametrize("exercise", EXERCISES)
def test_three_wrong_and_two_right_answers_each(exercise: str) -> None:
    assert sum(name == exercise for name, *_ in WRONG) >= 3
    assert sum(name == exercise for name, _ in RIGHT) >= 2


@pytest.mark.filterwarnings("ignore")  # mutants take roots and logarithms of what has none
@pytest.mark.parametrize("draws", [100, pytest.param(1000, marks=pytest.mark.record)])
@pytest.mark.parametrize("exercise", EXERCISES)
def test_generated_mutants_are_caught(exercise: str, draws: int) -> None:
    """Those that a hundred draws tell from the reference; `make record` looks whether a thousand tell more."""
    tried, survivors = surviving_mutants(exercise, draws)
    assert tried >= 8
    assert not survivors


def test_the_reference_is_not_the_learners() -> None:
    """After mine_or_reference the name holds the reference; checking it again must not count as solved."""
    for exercise in EXERCISES:
        result = getattr(check, exercise)(getattr(home(exercise), exercise))
        assert result.state == "open"
        assert "This is the reference answer" in result.sentence


# Odd answers, made of the right one of every exercise.


def raises(*_: Any, **__: Any) -> None:
    raise KeyError("spam")


def not_attempted(*_: Any, **__: Any) -> None:
    raise NotImplementedError


#: Exercises whose answer is what they change, not what they return.
IN_PLACE = {name for name in EXERCISES if name.endswith("_")}
TENSORS = {
    "pre_ln",
    "pre_ln_stack",
    "deepnorm",
    "decoder_layer",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
}


def assert_left(exercise: str) -> None:
    """One that never returns is: after as short a time as lets the judge call it."""
    called: list[int] = []

    def forever(*_: Any, **__: Any) -> None:
        called.append(1)
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    timeout, sentence = 0.01, ""
    while not called and timeout < 10:
        timeout *= 2
        sentence = judged(exercise, check.judges[exercise], forever, timeout).sentence
    assert called
    assert f"did not return within {timeout:g} s" in sentence


@pytest.mark.parametrize("exercise", EXERCISES)
def test_odd_answers(exercise: str) -> None:
    def give(answer: Callable[..., Any]) -> tuple[str, str]:
        result = judged(exercise, check.judges[exercise], answer, timeout=5.0)
        return result.state, result.sentence

    right = reference(exercise)

    def chatty(*arguments: Any, **keywords: Any) -> Any:
        for i in range(1000):
            print(i)
        return right(*arguments, **keywords)

    assert give(not_attempted)[0] == "open"
    state, sentence = give(raises)
    assert state == "tried"
    assert sentence == "Your function raised KeyError: 'spam' The line: raise KeyError(\"spam\")"
    state, sentence = give(chatty)
    assert state == "done"
    assert "lines, which are not shown: remove the print." in sentence
    assert_left(exercise)
    if exercise in IN_PLACE:
        assert "fill the weight that you were given" in give(lambda *_: None)[1]
        return
    assert "returns nothing: is there a return" in give(lambda *_, **__: None)[1]
    state, sentence = give(lambda *_, **__: "a text")
    assert state == "tried"
    assert "could not use" not in sentence
    if exercise in TENSORS:

        def in_place(x: torch.Tensor, *rest: Any) -> torch.Tensor:
            y = right(x.clone(), *rest)
            x *= 2
            return y

        assert "The answer is a tensor" in give(lambda *_: 2.0)[1]
        assert "input's data type" in give(lambda *a: right(*a).float())[1]
        assert "not on the input's device" in give(lambda *a: right(*a).to("meta"))[1]
        assert "changed its input in place" in give(in_place)[1]


@pytest.mark.parametrize("exercise", EXERCISES)
def test_hard_coded_answers_do_not_pass(exercise: str) -> None:
    """Right at the first call, the same again at all others."""
    right, first = reference(exercise), []

    def hard_coded(*arguments: Any, **keywords: Any) -> Any:
        first.append(right(*arguments, **keywords) if not first else copy.deepcopy(first[0]))
        return first[-1]

    assert getattr(check, exercise)(hard_coded).state == "tried"


#: All changes of a line, in order.
CHANGED = {
    "a + b": "pass|a - b|a * b|a|b|a + 1 + b|a - 1 + b|a + (b + 1)|a + (b - 1)",
    "a - b": "pass|a + b|a|b|b - a|a + 1 - b|a - 1 - b|a - (b + 1)|a - (b - 1)",
    "a / b": "pass|a * b|a // b|a|b|b / a|(a + 1) / b|(a - 1) / b|a / (b + 1)|a / (b - 1)",
    "a // b": "pass|a / b|a|b|b // a|(a + 1) // b|(a - 1) // b|a // (b + 1)|a // (b - 1)",
    "a < b": "pass|a <= b|a + 1 < b|a - 1 < b|a < b + 1|a < b - 1",
    "floor(a)": "pass|a|(floor + 1)(a)|(floor - 1)(a)|ceil(a)|floor(a + 1)|floor(a - 1)",
    "a ** 2": "pass|a * 2|a|2|2 ** a|(a + 1) ** 2|(a - 1) ** 2|a ** 3|a ** 1|a ** -2|a ** 4",
    "-a": "pass|a|-(a + 1)|-(a - 1)",
    "a == True": "pass|a != True|a + 1 == True|a - 1 == True|a == False",
    "x = (1, 2)": "pass|x = (2, 1)|x = (2, 2)|x = (0, 2)|x = (-1, 2)|x = (1, 3)|x = (1, 1)|x = (1, -2)|x = (1, 4)",
    "range(a)": "pass|a|range(a + 1)|range(a - 1)",
    "np(a, b=c)": "pass|np(a)|np(a + 1, b=c)|np(a - 1, b=c)|np(a, b=c + 1)|np(a, b=c - 1)",
    "np(a, b)": "pass|np(b, a)|np(a + 1, b)|np(a - 1, b)|np(a, b + 1)|np(a, b - 1)",
    "for i in a:\n    b": "pass|for i in a + 1:\n    b|for i in a - 1:\n    b|for i in a:\n    pass"
    "|for i in a:\n    b + 1|for i in a:\n    b - 1",
    "lambda a, b: a * b": "pass|lambda a, b: a + b|lambda a, b: a / b|lambda a, b: a|lambda a, b: b"
    "|lambda a, b: (a + 1) * b|lambda a, b: (a - 1) * b|lambda a, b: b * b|lambda a, b: a.detach() * b"
    "|lambda a, b: int(a) * b|lambda a, b: a * (b + 1)|lambda a, b: a * (b - 1)|lambda a, b: a * a"
    "|lambda a, b: a * b.detach()|lambda a, b: a * int(b)",
}


@pytest.mark.parametrize("line", CHANGED)
def test_each_change_is_made(line: str) -> None:
    assert mutants(line) == CHANGED[line].split("|")


def test_a_function_is_also_wrapped_and_wrong_at_0_and_1_alone() -> None:
    found = mutants("def f(n, k):\n    return 2 * n + k")
    assert sum("n == 0" in one or "n == 1" in one for one in found) == 2
    wrapped = [function(one, "f", math) for one in found if "work_of_f" in one]
    x = torch.ones(1, requires_grad=True)
    no_gradient, by_first, by_others, by_all_but_last, grows = wrapped
    assert not no_gradient(x, 1).requires_grad
    for kept, same in ((by_first, (2, 9)), (by_all_but_last, (2, 9)), (by_others, (9, 1))):
        assert [kept(2, 1), kept(3, 2), kept(*same)] == [5, 8, 5]
    assert [grows(5, 0), grows(5, 0)] == [10, 11]


def test_mutants_that_differ_on_one_draw_are_told_apart() -> None:
    right = Observed(lambda n: n, lambda f, g: f(int(g.integers(1000))), 100)
    draws = [int(right.on(right.function, draw)) for draw in range(100)]
    assert right.equals(lambda n: float(n))
    assert not right.equals(lambda n: n + (n == draws[99]))
    assert not right.equals(lambda n: n / (n != draws[99]))
    assert not right.equals(lambda n: np.nan)
    assert not right.equals(lambda n: [n])


def test_exercises_are_listed_in_the_order_in_which_a_lesson_meets_them() -> None:
    """`progress` names the next one by it."""
    by_lesson = exercises_of(lesson_names(SOLUTIONS, "py"))
    met = [exercise.name for exercises in by_lesson.values() for exercise in exercises]
    assert met == list(check.lesson_of)


def test_the_page_does_not_depend_on_who_used_the_answers_before() -> None:
    first, second = (table._rows("variance_by_depth", fresh("01")) for _ in range(2))
    assert first == second
    assert any("gives another answer the second time" in row for row in first)


def test_the_page_for_teachers_is_up_to_date() -> None:
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), "remake it with: python -m tests.checks.table"
