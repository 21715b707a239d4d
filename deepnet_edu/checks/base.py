"""What every check shares: a judge is run on a learner's function, safely, and what it finds becomes a card.

A *judge* is a function ``judge(trial)`` for one exercise. It calls the learner's function through the trial and climbs
three rungs: shape and type; properties on random inputs; value against an independent formula. It never imports a
solution: expected values come from formulas written beside it. The first paragraph of its docstring is the answer in
words, for a learner who asks for it.
"""

import contextlib
import ctypes
import io
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch

from deepnet_edu.checks.forms import untouched
from deepnet_edu.checks.result import Result
from deepnet_edu.checks.trial import GaveUp, Misconception, NotAttempted, NotRight, Trial
from deepnet_edu.checks.values import describe

Judge = Callable[[Trial], None]

TIMEOUT_S = 10.0
REFERENCES = "deepnet_edu.course.references"
MANY_LINES = 200


class GradedLaterError(Exception):
    """Raised by the judge of a course that withholds its checks."""


def later(trial: Trial) -> None:
    """This course withholds its checks."""
    if untouched(trial.function, trial.exercise):
        raise NotAttempted
    raise GradedLaterError


class _Swallowed(io.TextIOBase):
    """Takes what a learner's function prints: counted, not kept."""

    lines = 0

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        return len(text)


def judged(
    exercise: str, judge: Judge, function: Any, timeout: float = TIMEOUT_S, trial: Trial | None = None
) -> Result:
    """Run a judge on a learner's function. Never raises, prints nothing of the learner's, gives up after ``timeout`` s.

    The function runs in a thread of its own, so that one which never returns can be left; on the CPU and without
    touching PyTorch's global random state. One limit: a single call into C that never returns and never lets another
    thread run, such as sum(itertools.count()), holds the whole kernel.

    Args:
        exercise: its name.
        judge: the exercise's.
        function: the learner's.
        timeout: in seconds.
        trial: of the function in the form that the exercise asks for; by default of the function as it is.
    """
    if not callable(function):
        sentence = f"Pass the function itself, not what it returns: check.{exercise}({exercise})."
        return Result(exercise, "tried", sentence, got=describe(function))
    if str(getattr(function, "__module__", "")).startswith(REFERENCES):
        # A lesson that continued with the reference has put it under the learner's name.
        sentence = "This is the reference answer: run the cell with your own function first, then this one."
        return Result(exercise, "open", sentence)
    results: list[Result] = []
    printed = _Swallowed()
    attempt = trial or Trial(function, exercise)

    def work() -> None:
        with contextlib.suppress(GaveUp):
            results.append(_verdict(exercise, judge, attempt))

    thread = threading.Thread(target=work, daemon=True)
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[]),
        ):
            warnings.simplefilter("ignore")
            torch.default_generator.manual_seed(0)
            thread.start()
            thread.join(timeout)
    finally:
        if thread.is_alive():  # too slow, or the learner has interrupted the kernel
            _stop(thread)
    if not results:
        sentence = f"Your function did not return within {timeout:g} s: does a loop never end?"
        return Result(exercise, "tried", sentence)
    if results[0].state == "done" and printed.lines > MANY_LINES:
        sentence = f"It also printed {printed.lines:,} lines, which are not shown: remove the print."
        return Result(exercise, "done", sentence)
    return results[0]


def _verdict(exercise: str, judge: Judge, trial: Trial) -> Result:
    wrong: NotRight | None
    try:
        judge(trial)
        wrong = trial.verdict()
    except NotAttempted:
        return Result(exercise, "open", "Replace the line that raises NotImplementedError, then run this cell again.")
    except GradedLaterError:
        return Result(exercise, "noted", "Your teacher's copy of the course checks it later.")
    except Exception as error:  # an odd answer that the judge did not foresee must not end the notebook
        wrong = trial.verdict(error) or NotRight("The answer is of a kind that this exercise cannot use.")
    if wrong is None:
        return Result(exercise, "done")
    return Result(
        exercise, "tried", wrong.sentence, wrong.expected, wrong.got, wrong.difference, wrong.rung, wrong.call
    )


def formula(judge: Judge) -> str:
    """The answer in words: the first paragraph of the judge's docstring, on one line."""
    return " ".join((judge.__doc__ or "").strip().split("\n\n")[0].split())


def _stop(thread: threading.Thread) -> None:
    """Throw GaveUp into the thread. It arrives at the next Python instruction; a loop in C ends with the kernel."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(GaveUp))


__all__ = ["Judge", "Misconception", "NotRight", "Result", "Trial", "formula", "judged", "later"]
