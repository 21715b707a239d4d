"""What is known of every exercise: its reference answer, and the answers of answers_NN.py."""

import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

from deepnet_edu.checks import check
from tests.checks.mutants import function

LESSONS = sorted(set(check.lesson_of.values()))
ANSWERS = {lesson: import_module(f"tests.checks.answers_{lesson}") for lesson in LESSONS}
REFERENCES = {lesson: import_module(f"deepnet_edu.course.references.lesson_{lesson}") for lesson in LESSONS}
EXERCISES = list(check.judges)
RIGHT = [(name, answer) for answers in ANSWERS.values() for name, answer in answers.RIGHT]
WRONG = [row for answers in ANSWERS.values() for row in answers.WRONG]


def fresh(lesson: str) -> ModuleType:
    """A lesson's module of answers that was not used yet: some wrong ones are right at their first call alone."""
    spec = find_spec(f"tests.checks.answers_{lesson}")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def home(exercise: str) -> ModuleType:
    """The module that holds its reference answer."""
    return REFERENCES[check.lesson_of[exercise]]


def source(exercise: str) -> str:
    """Of its reference answer."""
    return inspect.getsource(getattr(home(exercise), exercise))


def reference(exercise: str) -> Callable[..., Any]:
    """Its reference answer, as if a learner had written it."""
    return function(source(exercise), exercise, home(exercise))
