"""The judges of the learners' answers, a module per lesson, and ``check``, through which notebooks call them.

    from deepnet_edu.checks import check
    check.variance_by_depth(variance_by_depth)

What a check finds is noted in the learner's progress file, where there is one.
"""

import contextlib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from deepnet_edu.checks.base import Judge, Misconception, NotRight, Result, Trial, judged
from deepnet_edu.messages import unknown
from deepnet_edu.progress import LessonProgress, add, by_lesson, note, progress_file, read


class Checks:
    """All exercises by name: ``check.<exercise>(function)`` returns a :class:`Result` and never raises.

    Raises:
        AttributeError: there is no such exercise; the sentence names the nearest.
    """

    def __init__(self) -> None:
        self.judges: dict[str, Judge] = {}
        self.lesson_of: dict[str, str] = {}
        self._known: dict[str, dict[str, Any]] = {}  # of this kernel, for where no file keeps it

    def add(self, lesson: str, judges: dict[str, Judge]) -> None:
        """Register a lesson's judges by the name of the function that the exercise asks for. A name is taken once."""
        for exercise, judge in judges.items():
            if exercise in self.judges:
                raise ValueError(f"The exercise {exercise!r} of lesson {lesson} exists in {self.lesson_of[exercise]}.")
            self.judges[exercise], self.lesson_of[exercise] = judge, lesson

    def judge(self, exercise: str, function: Any) -> Result:
        """What the check of ``exercise`` finds, without noting it."""
        if exercise not in self.judges:
            raise AttributeError(unknown("exercise", exercise, self.judges))
        return judged(exercise, self.judges[exercise], function)

    def progress(self) -> list[LessonProgress]:
        """How far each lesson is: by the learner's file, or where none is kept by what this kernel has seen."""
        file = progress_file()
        return by_lesson(read(file) if file and file.exists() else self._known, self.lesson_of)

    def __getattr__(self, exercise: str) -> Callable[[Any], Result]:
        if exercise.startswith("_") or exercise not in self.judges:
            raise AttributeError(unknown("exercise", exercise, self.judges))

        def run(function: Any) -> Result:
            result = self.judge(exercise, function)
            add(self._known, exercise, result.state)
            if file := progress_file():
                # A progress file that cannot be written must not keep a learner from the answer.
                with contextlib.suppress(OSError):
                    note(file, exercise, result.state)
            lessons = {lesson.lesson: lesson for lesson in self.progress()}
            return replace(result, bar=lessons[self.lesson_of[exercise]].bar)

        return run

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.judges})


check = Checks()
for _module in pkgutil.iter_modules(__path__):
    if _module.name.startswith("lesson_"):
        check.add(_module.name.removeprefix("lesson_"), importlib.import_module(f"{__name__}.{_module.name}").JUDGES)

__all__ = ["Misconception", "NotRight", "Result", "Trial", "check"]
