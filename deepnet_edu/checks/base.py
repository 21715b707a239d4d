"""What every check shares: calling a learner's function safely, comparing, and the sentence that teaches.

A *judge* is a function ``judge(trial)`` for one exercise. It calls the learner's function through the trial, climbs
three rungs (shape and type; properties on random inputs; value against an independent formula) and stops at the first
that does not hold. It never imports a solution: expected values come from formulas written beside it.
"""

import contextlib
import copy
import ctypes
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NoReturn

import numpy as np
import torch

from deepnet_edu.progress import State

Judge = Callable[["Trial"], None]

TIMEOUT_S = 10.0
REFERENCES = "deepnet_edu.course.references"
MANY_LINES = 200
_SYMBOLS = {"open": "○", "tried": "✗", "done": "✓"}
_WORDS = {"open": "Not attempted yet", "tried": "Not yet", "done": "Right"}
# Mid-tones that can be read on white and on black.
_COLORS = {"open": "#7f7f7f", "tried": "#d1495b", "done": "#2a9d5c"}


@dataclass(frozen=True)
class Result:
    """What a check found. Shows itself as a card in a notebook and as plain text in a terminal.

    Attributes:
        exercise: name of the function that was asked for.
        state: ``"open"``: not attempted; ``"tried"``: not right yet; ``"done"``.
        sentence: what to know next, one sentence.
        expected: the value that was expected, as text, or empty.
        got: the value that came, as text, or empty.
        difference: largest absolute difference, or None where there is none.
        bar: how far the lesson is, drawn and in words, or empty.
    """

    exercise: str
    state: State
    sentence: str = ""
    expected: str = ""
    got: str = ""
    difference: float | None = None
    bar: str = ""

    def __repr__(self) -> str:
        lines = [f"{_SYMBOLS[self.state]} {self.exercise}: {_WORDS[self.state]}. {self.sentence}".rstrip()]
        lines += [f"  {name}: {value}" for name, value in self._rows()]
        lines += [f"  {self.bar}"] if self.bar else []
        return "\n".join(lines)

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("expected", self.expected), ("got     ", self.got)]
        if self.difference is not None:
            rows.append(("largest difference", f"{self.difference:.3g}"))
        return [(name, value) for name, value in rows if value]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        color = _COLORS[self.state]
        rows = "".join(
            f"<tr><td>{name.strip()}</td><td><code>{escape(value)}</code></td></tr>" for name, value in self._rows()
        )
        table = f"<table>{rows}</table>" if rows else ""
        bar = f'<br><small style="opacity: 0.75">{escape(self.bar)}</small>' if self.bar else ""
        html = (
            f'<div style="border-left: 4px solid {color}; padding: 0.3em 0.8em; margin: 0.3em 0">'
            f'<b style="color: {color}">{_SYMBOLS[self.state]} {_WORDS[self.state]}</b> '
            f"<code>{escape(self.exercise)}</code><br>{escape(self.sentence)}{table}{bar}</div>"
        )
        return {"text/html": html, "text/plain": repr(self)}


class NotRight(Exception):
    """Raised inside a judge by the trial; becomes a Result with state ``"tried"``."""

    def __init__(self, sentence: str, expected: str = "", got: str = "", difference: float | None = None) -> None:
        super().__init__(sentence)
        self.sentence, self.expected, self.got, self.difference = sentence, expected, got, difference


class _NotAttempted(Exception):
    pass


class _Swallowed(io.TextIOBase):
    """Where a learner's prints go: counted, not kept."""

    lines = 0

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        return len(text)


class _GaveUp(BaseException):
    """Thrown into a learner's function that does not return. No ``except Exception`` of theirs stops it."""


@dataclass(frozen=True)
class Misconception:
    """A wrong answer that people give: what it computes, and what to say to who gave it."""

    value: Any
    sentence: str


class Trial:
    """One attempt at an exercise, in the hands of its judge.

    Args:
        function: the learner's.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def call(self, *arguments: Any, **keywords: Any) -> Any:
        """What the learner's function returns for these arguments, which it must leave as they are.

        Raises:
            NotRight: it raised, returned None, or changed an argument in place.
        """
        before = copy.deepcopy((arguments, keywords))
        result = self.change(*arguments, **keywords)
        if result is None:
            raise NotRight("Your function returns nothing: is there a return at its end?", got="None")
        if not _same((arguments, keywords), before):
            raise NotRight("Your function changed its input in place: the caller still needs it, work on a new tensor.")
        return result

    def change(self, *arguments: Any, **keywords: Any) -> Any:
        """The same for a function whose work is to change its arguments; what it returns need not matter.

        Raises:
            NotRight: it raised.
        """
        try:
            return self.function(*arguments, **keywords)
        except NotImplementedError as error:
            # As the stub raises it; PyTorch has uses of its own for this error.
            if str(error) in ("", getattr(self.function, "__name__", "")):
                raise _NotAttempted from None
            raise NotRight(f"Your function raised NotImplementedError: {_short(str(error))}") from None
        except SystemExit:
            raise NotRight("Your function ended the program, as sys.exit does: return the answer instead.") from None
        except Exception as error:
            raise NotRight(f"Your function raised {type(error).__name__}: {_short(str(error))}") from None

    def like(self, got: Any, expected: Any, shape_sentence: str = "") -> None:
        """The first rung: type, shape, data type and device of ``expected``.

        A Python number, a NumPy number and a tensor without dimensions all count as a number.
        """
        if _is_number(expected):
            if not _is_number(got):
                raise NotRight("The answer is one number.", expected="a number", got=_describe(got))
            return
        if isinstance(expected, torch.Tensor):
            if not isinstance(got, torch.Tensor):
                raise NotRight("The answer is a tensor.", expected=_describe(expected), got=_describe(got))
            if got.device != expected.device:
                raise NotRight("The answer is on another device than the input.", str(expected.device), str(got.device))
            if got.dtype != expected.dtype:
                raise NotRight(
                    "The answer has another data type than the input: do not convert it.",
                    expected=str(expected.dtype),
                    got=str(got.dtype),
                )
        elif not isinstance(got, np.ndarray | list | tuple | torch.Tensor):
            raise NotRight("The answer is an array.", expected=_describe(np.asarray(expected)), got=_describe(got))
        got_shape, expected_shape = np.shape(_array(got)), np.shape(_array(expected))
        if got_shape != expected_shape:
            said = shape_sentence or "The shape is another one."
            raise NotRight(said, f"shape {expected_shape}", f"shape {got_shape}")

    def equal(
        self,
        got: Any,
        expected: Any,
        misconceptions: Sequence[Misconception] = (),
        sentence: str = "The value is another one.",
        tolerance: float = 1e-9,
        shape_sentence: str = "",
    ) -> None:
        """Type, shape and value; where the value is that of a known misconception, its sentence is the one to say."""
        self.like(got, expected, shape_sentence)
        a, b = _array(got), _array(expected)
        if _close(a, b, tolerance):
            return
        said = next((m.sentence for m in misconceptions if _close(a, _array(m.value), max(tolerance, 1e-6))), sentence)
        difference = float(np.max(np.abs(a - b))) if np.isfinite(a).all() else None
        raise NotRight(said, _show(b), _show(a), difference)

    def require(self, holds: bool, sentence: str, expected: str = "", got: str = "") -> None:
        """A property: where it does not hold, the sentence is said."""
        if not holds:
            raise NotRight(sentence, expected, got)

    def fail(self, sentence: str) -> NoReturn:
        """Say the sentence."""
        raise NotRight(sentence)


def judged(exercise: str, judge: Judge, function: Any, timeout: float = TIMEOUT_S) -> Result:
    """Run a judge on a learner's function. Never raises, prints nothing of the learner's, gives up after ``timeout`` s.

    The function runs in a thread of its own, so that one which never returns can be left; on the CPU and without
    touching PyTorch's global random state. One limit: a single call into C that never returns and never lets another
    thread run, such as sum(itertools.count()), holds the whole kernel.
    """
    if not callable(function):
        sentence = f"Pass the function itself, not what it returns: check.{exercise}({exercise})."
        return Result(exercise, "tried", sentence, got=_describe(function))
    if str(getattr(function, "__module__", "")).startswith(REFERENCES):
        # A lesson that went on with the reference has put it under the learner's name.
        sentence = "This is the reference answer: run the cell with your own function first, then this one."
        return Result(exercise, "open", sentence)
    results: list[Result] = []
    printed = _Swallowed()

    def work() -> None:
        with contextlib.suppress(_GaveUp):
            results.append(_verdict(exercise, judge, function))

    thread = threading.Thread(target=work, daemon=True)
    try:
        with contextlib.redirect_stdout(printed), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            thread.start()
            thread.join(timeout)
    finally:
        if thread.is_alive():  # too slow, or the learner has interrupted the kernel
            _stop(thread)
    if not results:
        sentence = f"Your function did not return within {timeout:g} s: is there a loop without end?"
        return Result(exercise, "tried", sentence)
    if results[0].state == "done" and printed.lines > MANY_LINES:
        sentence = f"It also printed {printed.lines:,} lines, which were swallowed: take the print out."
        return Result(exercise, "done", sentence)
    return results[0]


def _verdict(exercise: str, judge: Judge, function: Callable[..., Any]) -> Result:
    try:
        judge(Trial(function))
    except _NotAttempted:
        return Result(exercise, "open", "Replace the line that raises NotImplementedError, then run this cell again.")
    except NotRight as wrong:
        return Result(exercise, "tried", wrong.sentence, wrong.expected, wrong.got, wrong.difference)
    except Exception as error:  # an odd answer that the judge did not foresee must not end the notebook
        return Result(
            exercise, "tried", f"The check could not use your answer ({type(error).__name__}: {_short(str(error))})."
        )
    return Result(exercise, "done")


def _stop(thread: threading.Thread) -> None:
    """Throw _GaveUp into the thread. It arrives at the next Python instruction; a loop in C ends with the kernel."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_GaveUp))


def _array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, torch.Tensor):
        return np.asarray(value.detach().cpu().double().numpy())
    return np.asarray(value, dtype=float)


def _close(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], tolerance: float) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))


def _is_number(value: Any) -> bool:
    if isinstance(value, torch.Tensor | np.ndarray):
        return value.ndim == 0
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return True  # functions and modules cannot be compared


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"tensor of shape {tuple(value.shape)}, {value.dtype}"
    if isinstance(value, np.ndarray):
        return f"array of shape {value.shape}"
    try:
        return f"{type(value).__name__} {_short(repr(value))}"
    except Exception:  # a learner's own class may stumble over itself
        return type(value).__name__


def _show(value: np.ndarray[Any, Any]) -> str:
    return _short(np.array2string(value, precision=4, threshold=8, edgeitems=3, separator=", ").replace("\n", " "))


def _short(text: str, limit: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
