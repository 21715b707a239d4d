"""A right answer is right in every form, and a lesson can continue with each of them."""

from typing import Any

import pytest

from deepnet_edu.checks import check
from deepnet_edu.checks.forms import same_kind
from deepnet_edu.checks.trial import Trial
from deepnet_edu.course import kit
from tests.checks.answers import EXERCISES, RIGHT, home, reference, source
from tests.checks.coincidences import coincidences
from tests.checks.forms import forms, written
from tests.checks.mutants import function

CASES = [(exercise, form) for exercise in EXERCISES for form in forms(exercise)]


@pytest.mark.parametrize(("exercise", "form"), CASES)
def test_a_right_answer_is_right_in_every_form(exercise: str, form: str) -> None:
    text = written(exercise, source(exercise), form, getattr(home(exercise), exercise))
    answer = function(text, exercise, home(exercise))
    result = getattr(check, exercise)(answer)
    assert result.state == "done", result
    assert_goes_on(exercise, answer)


@pytest.mark.parametrize(("exercise", "answer"), RIGHT)
def test_a_lesson_goes_on_with_other_right_answers(exercise: str, answer: Any) -> None:
    assert_goes_on(exercise, answer)


def assert_goes_on(exercise: str, answer: Any) -> None:
    """The lesson gets the learner's answer, called and giving results as the reference is and does."""
    taken = kit.mine_or_reference(answer, exercise)
    assert not taken.__module__.startswith("deepnet_edu.course.references")
    mine, theirs = Trial(taken, exercise), Trial(reference(exercise), exercise)
    for trial in (mine, theirs):
        check.judges[exercise](trial)
        assert trial.verdict() is None
    if theirs.results:
        got, example = mine.results[0], theirs.results[0]
        if exercise == "cached_attention":  # its cache is the answer's own: no one else reads it
            got, example = got[0], example[0]
        assert same_kind(got, example)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_each_misconception_has_values_of_its_own(exercise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No two of them, and none and the right answer, are equal at all test points; at none are two equal."""
    points: list[tuple[Any, list[Any]]] = []
    equal = Trial.equal

    def watched(self: Trial, got: Any, expected: Any, misconceptions: Any = (), *rest: Any, **more: Any) -> None:
        points.append((expected, list(misconceptions)))
        equal(self, got, expected, misconceptions, *rest, **more)

    monkeypatch.setattr(Trial, "equal", watched)
    trial = Trial(reference(exercise), exercise)
    check.judges[exercise](trial)
    found = coincidences(points)
    assert not found, "\n".join(found)
