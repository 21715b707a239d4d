"""How a lesson continues with a learner's answers: in this notebook, in a later lesson, in a process of its own."""

import linecache
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from IPython import get_ipython

from deepnet_edu.checks import check
from deepnet_edu.checks.base import REFERENCES
from deepnet_edu.course.cells import needed_for
from deepnet_edu.messages import unknown


class WithheldError(Exception):
    """A lesson cannot continue: the answer is not right yet, and this course withholds the reference answers."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback."""
        return [str(self)]


def mine_or_reference(function: Callable[..., Any], name: str = "") -> Callable[..., Any]:
    """The learner's function if its check passes, else the reference answer, so that the lesson continues either way.

    A function that wants to be called otherwise than the exercise has it, or that gives another kind of result, is put
    into the form with which the lesson continues.

    Args:
        function: what an exercise asked for.
        name: of the exercise; by default the function's own, or of the exercise whose check has just seen it.

    Raises:
        AttributeError: no exercise has this name; the sentence names the nearest.
        WithheldError: the answer is not right, and this course withholds the reference answers.
    """
    name = name or check.name_of(function)
    answer = check.answer(name, function)
    if answer is not None:
        return answer
    reference = getattr(_references(name, "correct it, run its check again, and then this cell"), name)
    print(f"{name}: continuing with the reference answer until yours is right.")
    return cast(Callable[..., Any], reference)


def _references(exercise: str, remedy: str) -> ModuleType:
    module = f"{REFERENCES}.lesson_{check.lesson_of[exercise]}"
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
    raise WithheldError(f"{exercise}: this course withholds the answers, and the lesson needs yours: {remedy}.")


def earlier(name: str) -> Callable[..., Any]:
    """Your own answer to an exercise of an earlier lesson, if it is in your copy of that lesson in the folder of
    this notebook and its check passes; else the reference answer. It prints which.

    Of your copy only that is run which defines the function and what it uses.

    Args:
        name: of the exercise.

    Raises:
        AttributeError: no exercise has this name; the sentence names the nearest.
        WithheldError: there is no right answer of yours, and this course withholds the reference answers.
    """
    if name not in check.judges:
        raise AttributeError(unknown("exercise", name, check.judges))
    import nbformat  # here, since it takes longer to import than PyTorch, and every lesson begins with this module

    lesson = check.lesson_of[name]
    for path in sorted(Path.cwd().glob(f"{lesson}_*.ipynb")):
        try:
            cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        except Exception:  # not a notebook
            continue
        source = needed_for(name, cells)
        answer = check.answer(name, _Elsewhere(name, source)) if source else None
        if answer is not None:
            print(f"{name}: your own, from {path.stem}.")
            return answer
    reference = getattr(_references(name, f"solve it in lesson {lesson}, in the folder of this notebook"), name)
    print(f"{name}: the reference answer; yours will be taken from lesson {lesson} once it is right.")
    return cast(Callable[..., Any], reference)


def shipped(name: str) -> str:
    """Source of the answer to an exercise for a process of its own: yours with all of this notebook that it uses, else
    the reference answer's.

    Yours is tried first: run in an empty module it has to pass its check.

    Args:
        name: of the exercise; the notebook has the function that it continues with under this name.

    Raises:
        AttributeError: no exercise has this name; the sentence names the nearest.
        WithheldError: yours cannot run there, and this course withholds the reference answers.
    """
    if name not in check.judges:
        raise AttributeError(unknown("exercise", name, check.judges))
    reference = f"from {REFERENCES}.lesson_{check.lesson_of[name]} import {name}"
    space = get_ipython().user_ns
    # What IPython compiled is here, too, where a program runs the cells and keeps no history of them.
    compiled = ["".join(entry[2]) for file, entry in linecache.cache.items() if _is_cell(file) and len(entry) > 2]
    if str(getattr(space.get(name), "__module__", "")).startswith(REFERENCES):
        return reference
    alone = _Elsewhere(name, needed_for(name, [*compiled, *space["In"]]))
    if check.judge(name, alone).state in ("done", "noted"):
        own = f"from deepnet_edu.checks import check\n\n{name} = check.in_form({name!r}, {name})"
        return f"{alone.source}\n\n\n{own}"
    why = f" ({alone.trouble})" if alone.trouble else ""
    _references(name, f"it cannot run outside this notebook{why}")
    print(f"{name}: yours cannot run outside this notebook{why}, so the other process takes the reference answer.")
    return reference


def _is_cell(file: str) -> bool:
    """Whether IPython, or its kernel, compiled a cell under this name."""
    return file.startswith("<ipython-input-") or "/ipykernel_" in file.replace("\\", "/")


class _Elsewhere:
    """A function from its source, which is run in an empty module when the function is called for the first time: so
    that the caller can give up.

    Attributes:
        source: of the module.
        trouble: why it cannot be run, or empty.
    """

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source, self.trouble = name, source, ""
        self._function: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """As the function is called."""
        try:
            if self._function is None:
                space: dict[str, Any] = {"__name__": "__main__"}
                exec(compile(self.source, f"<{self.name}>", "exec"), space)
                self._function = check.in_form(self.name, space[self.name])
            return self._function(*arguments, **keywords)
        except Exception as error:
            self.trouble = f"{type(error).__name__}: {error}"
            raise
