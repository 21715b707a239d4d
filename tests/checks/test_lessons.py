"""Every check: right answers written differently pass, wrong ones that people give get the fitting sentence, generated
mutants are caught, odd answers have a sentence of their own."""

import ast
import contextlib
import copy
import importlib
import inspect
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from deepnet_edu.checks import check
from deepnet_edu.checks.base import judged
from tests.checks import table
from tests.checks.mutants import equal_everywhere, function, mutants

LESSONS = sorted(set(check.lesson_of.values()))
ANSWERS = {lesson: importlib.import_module(f"tests.checks.answers_{lesson}") for lesson in LESSONS}
REFERENCES = {lesson: importlib.import_module(f"deepnet_edu.course.references.lesson_{lesson}") for lesson in LESSONS}
EXERCISES = list(check.judges)
RIGHT = [(name, answer) for answers in ANSWERS.values() for name, answer in answers.RIGHT]
WRONG = [row for answers in ANSWERS.values() for row in answers.WRONG]


def home(exercise: str) -> ModuleType:
    return REFERENCES[check.lesson_of[exercise]]


def source(exercise: str) -> str:
    return inspect.getsource(getattr(home(exercise), exercise))


def reference(exercise: str) -> Callable[..., Any]:
    return function(source(exercise), exercise, home(exercise))


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


@pytest.mark.parametrize("exercise", EXERCISES)
def test_generated_mutants_are_caught(exercise: str) -> None:
    right = reference(exercise)
    observe = ANSWERS[check.lesson_of[exercise]].OBSERVE[exercise]
    caught, survivors = 0, []
    for text in mutants(source(exercise)):
        mutant = function(text, exercise, home(exercise))
        if getattr(check, exercise)(mutant).state == "tried":
            caught += 1
        elif not equal_everywhere(right, mutant, observe):
            survivors.append(text)
    assert caught >= 8
    assert caught / (caught + len(survivors)) >= 0.95, survivors


def test_the_reference_is_not_the_learners() -> None:
    """After mine_or_reference the name holds the reference; checking it again must not count as solved."""
    for exercise in EXERCISES:
        result = getattr(check, exercise)(getattr(home(exercise), exercise))
        assert result.state == "open"
        assert "This is the reference answer" in result.sentence


# Odd answers, made of the right one of every exercise.


def forever(*_: Any, **__: Any) -> None:
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def raises(*_: Any, **__: Any) -> None:
    raise KeyError("spam")


def not_attempted(*_: Any, **__: Any) -> None:
    raise NotImplementedError


#: Exercises whose answer is what they change, not what they return.
IN_PLACE = {name for name in EXERCISES if name.endswith("_")}
TENSORS = {
    "pre_ln",
    "post_ln",
    "pre_ln_stack",
    "deepnorm",
    "decoder_layer",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
}


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
    assert give(raises) == ("tried", "Your function raised KeyError: 'spam'")
    state, sentence = give(chatty)
    assert state == "done"
    assert "lines, which were swallowed: take the print out." in sentence
    assert "did not return within 0.2 s" in judged(exercise, check.judges[exercise], forever, timeout=0.2).sentence
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
        assert "another data type" in give(lambda *a: right(*a).float())[1]
        assert "on another device" in give(lambda *a: right(*a).to("meta"))[1]
        assert "changed its input in place" in give(in_place)[1]


@pytest.mark.parametrize("exercise", EXERCISES)
def test_hard_coded_answers_do_not_pass(exercise: str) -> None:
    """Right at the first call, the same again at all others."""
    right, first = reference(exercise), []

    def hard_coded(*arguments: Any, **keywords: Any) -> Any:
        first.append(right(*arguments, **keywords) if not first else copy.deepcopy(first[0]))
        return first[-1]

    assert getattr(check, exercise)(hard_coded).state == "tried"


def test_checks_and_mutants_cover_what_they_say() -> None:
    made = mutants("def f(n, x):\n    y = n * 2\n    return g(x, y)")
    for expected in ("n / 2", "n * 3", "n + 1", "g(y, x)", "pass"):
        assert any(expected in text for text in made), expected
    for text in made:
        ast.parse(text)


def test_the_page_for_teachers_is_up_to_date() -> None:
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), "remake it with: python -m tests.checks.table"
