"""``check``, through which notebooks call the judges by the name of an exercise."""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

from deepnet_edu.checks.base import (
    REFERENCES,
    Judge,
    Result,
    Trial,
    formula,
    judged,
)
from deepnet_edu.checks.forms import as_asked, giving, same_kind
from deepnet_edu.checks.names import lesson_of
from deepnet_edu.messages import unknown
from deepnet_edu.progress import LessonProgress, add, by_lesson, note, progress_file, read


class _Judges(Mapping[str, Judge]):
    """The judges by exercise. A lesson's are loaded when one of them is asked for."""

    def __getitem__(self, exercise: str) -> Judge:
        module = importlib.import_module(f"deepnet_edu.checks.lesson_{lesson_of()[exercise]}")
        return cast(Judge, module.JUDGES[exercise])

    def __contains__(self, exercise: object) -> bool:
        return exercise in lesson_of()

    def __iter__(self) -> Iterator[str]:
        return iter(lesson_of())

    def __len__(self) -> int:
        return len(lesson_of())


class Checks:
    """All exercises by name: ``check.<exercise>(function)`` returns a :class:`Result` and never raises.

    ``check.<exercise>(function, show_me=True)`` says the answer in words, too: the last rung of the ladder of hints.

    Raises:
        AttributeError: there is no such exercise; the sentence names the nearest.
    """

    def __init__(self) -> None:
        self.judges: Mapping[str, Judge] = _Judges()
        self.lesson_of: Mapping[str, str] = lesson_of()
        self._known: dict[str, dict[str, Any]] = {}  # of this kernel, for where no file keeps it
        self._examples: dict[str, list[Any]] = {}  # what each reference answer returns first
        self._given: dict[str, Any] = {}  # what each exercise's check has seen last

    def judge(self, exercise: str, function: Any) -> Result:
        """What the check of ``exercise`` finds, without noting it.

        Raises:
            AttributeError: there is no such exercise; the sentence names the nearest.
        """
        return self._attempt(exercise, function)[0]

    def answer(self, exercise: str, function: Any) -> Callable[..., Any] | None:
        """The function in the form in which the lesson continues with it, or None if its check does not pass.

        Where checks are withheld, any function that is not the stub counts.

        It is the function itself, unless it has to be called in another way than the exercise has it, keeps a cache, or
        gives another kind of result, such as a list for an array.

        Raises:
            AttributeError: there is no such exercise; the sentence names the nearest.
        """
        result, trial = self._attempt(exercise, function)
        if trial is None or result.state not in ("done", "noted"):
            return None
        examples = self._example(exercise)
        if trial.results and examples and not same_kind(trial.results[0], examples[0]):
            return giving(trial.function, examples[0])
        return trial.function

    def name_of(self, function: Callable[..., Any]) -> str:
        """The exercise that a function answers: that of its name, or just checked with it; else its own name."""
        name = str(getattr(function, "__name__", type(function).__name__))
        seen = (exercise for exercise, given in self._given.items() if given is function)
        return name if name in self.judges else next(seen, name)

    def in_form(self, exercise: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function as :meth:`answer` gives it, without checking whether it is right."""
        examples = self._example(exercise)
        function = as_asked(function, self._reference(exercise))
        return giving(function, examples[0]) if examples else function

    def _attempt(self, exercise: str, function: Any) -> tuple[Result, Trial | None]:
        if exercise not in self.judges:
            raise AttributeError(unknown("exercise", exercise, self.judges))
        trial = Trial(as_asked(function, self._reference(exercise)), exercise) if callable(function) else None
        return judged(exercise, self.judges[exercise], function, trial=trial), trial

    def _reference(self, exercise: str) -> Callable[..., Any] | None:
        """The reference answer, for its first line and the kind of its results alone."""
        with contextlib.suppress(ImportError, AttributeError):
            function = getattr(importlib.import_module(f"{REFERENCES}.lesson_{self.lesson_of[exercise]}"), exercise)
            return cast(Callable[..., Any], function)
        return None

    def _example(self, exercise: str) -> list[Any]:
        reference = self._reference(exercise)
        if exercise not in self._examples and reference is not None:
            trial = Trial(reference, exercise)
            judged(exercise, self.judges[exercise], lambda: None, trial=trial)
            self._examples[exercise] = trial.results
        return self._examples.get(exercise, [])

    def progress(self) -> list[LessonProgress]:
        """How far each lesson is: by the learner's file, or, where none is kept, by what this kernel has seen."""
        return by_lesson(self._states(), self.lesson_of)

    def _states(self) -> dict[str, dict[str, Any]]:
        file = progress_file()
        return read(file) if file and file.exists() else self._known

    def __getattr__(self, exercise: str) -> Callable[..., Result]:
        if exercise.startswith("_") or exercise not in self.judges:
            raise AttributeError(unknown("exercise", exercise, self.judges))

        def run(function: Any, *, show_me: bool = False) -> Result:
            self._given[exercise] = function
            result = self.judge(exercise, function)
            if result.state == "noted":
                return result
            add(self._known, exercise, result.state)
            if file := progress_file():
                # A progress file that cannot be written must not keep a learner from the answer.
                with contextlib.suppress(OSError):
                    note(file, exercise, result.state)
            lessons = {lesson.lesson: lesson for lesson in self.progress()}
            bar = lessons[self.lesson_of[exercise]].bar
            if show_me:
                return replace(result, bar=bar, formula=formula(self.judges[exercise]))
            again = result.state == "tried" and self._states().get(exercise, {}).get("attempts", 0) > 1
            ask = f"Stuck? check.{exercise}({exercise}, show_me=True) says the answer in words." if again else ""
            return replace(result, bar=bar, ask=ask)

        return run

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.judges})


check = Checks()
