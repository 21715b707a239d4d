"""One attempt at an exercise, in the hands of its judge: safe calls, three rungs, and the sentence that teaches.

A value that is not right does not end the attempt at once. The judge continues, since one point tells little: a known
misconception is named only if it gives the learner's value at every point at which the judge knows it, and else a
property that does not hold says more than that a number is wrong.
"""

import copy
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from deepnet_edu.checks.forbidden import refused
from deepnet_edu.checks.forms import binds, home_of, signature_of
from deepnet_edu.checks.values import (
    ROUNDED,
    TOLERANCE,
    Array,
    argument,
    as_array,
    close,
    describe,
    is_number,
    precision,
    same,
    same_module,
    short,
    show,
)

#: The rungs, as the card names the one that failed.
TYPE = "type and shape"
PROPERTY = "a property; type and shape are right"
VALUE = "the value; type, shape and properties are right"
_CUT = "do not use .detach(), .data, .item() or torch.no_grad() on the way."
_IN_PLACE = (
    "The value is right, but no gradient can come back through it: something was changed in place, as by y /= z or "
    "y[i] = z, that the backward pass still needs."
)
_NAN = "The answer is not a number: 0/0, ∞ - ∞ and the root or logarithm of less than 0 give NaN."
_SHAPES_MEET = ("The size of tensor a", "could not be broadcast", "shapes cannot be multiplied")


class NotRight(Exception):
    """Raised inside a judge by the trial; becomes a Result with state ``"tried"``."""

    def __init__(
        self,
        sentence: str,
        expected: str = "",
        got: str = "",
        difference: float | None = None,
        rung: str = TYPE,
        call: str = "",
    ) -> None:
        super().__init__(sentence)
        self.sentence, self.expected, self.got, self.difference = sentence, expected, got, difference
        self.rung, self.call = rung, call


class NotAttempted(Exception):
    """The stub's line that raises NotImplementedError is still there."""


class GaveUp(BaseException):
    """Thrown into a learner's function that does not return. No ``except Exception`` of theirs stops it."""


@dataclass(frozen=True)
class Misconception:
    """A wrong answer that people give: what it computes, and what to say to a learner who gives it."""

    value: Any
    sentence: str


class Trial:
    """One attempt at an exercise, in the hands of its judge.

    Args:
        function: the learner's.
        exercise: its name.

    Attributes:
        results: what its first call returned, once there was one.
    """

    def __init__(self, function: Callable[..., Any], exercise: str = "") -> None:
        self.function, self.exercise = function, exercise
        self.results: list[Any] = []
        self._call = ""
        self._wrong: NotRight | None = None  # the first value that was wrong
        self._matched: list[str] = []  # sentences of misconceptions that give the learner's value at some point …
        self._refuted: set[str] = set()  # … and of those that do not at another
        self._forbidden: NotRight | None = None

    def call(self, *arguments: Any, **keywords: Any) -> Any:
        """What the learner's function returns for these arguments, which it must leave as they are.

        Raises:
            NotRight: it raised, returned None, or changed an argument in place.
        """
        before = copy.deepcopy((arguments, keywords))
        result = self.change(*arguments, **keywords)
        if result is None:
            raise self._not_right("Your function returns nothing: is there a return at its end?", got="None")
        if inspect.isgenerator(result):
            raise self._not_right("Your function yields its answer piece by piece: return it whole.", got="a generator")
        if not same((arguments, keywords), before):
            raise self._not_right(
                "Your function changed its input in place: the caller still needs it, work on a new tensor."
            )
        if not self.results:
            self.results.append(result)
        return result

    def change(self, *arguments: Any, **keywords: Any) -> Any:
        """The same for a function whose work is to change its arguments; what it returns need not matter.

        Raises:
            NotRight: it raised, or cannot be called so.
        """
        given = [*map(argument, arguments), *(f"{name}={argument(value)}" for name, value in keywords.items())]
        self._call = f"{self.exercise or 'f'}({', '.join(given)})"
        signature = signature_of(self.function)
        if signature is not None and not binds(signature, arguments, keywords):
            raise self._not_right(
                "Your function takes other arguments than the exercise's: keep its first line.",
                got=short(str(signature)),
            )
        try:
            result = self.function(*arguments, **keywords)
        except NotImplementedError as error:
            # As the stub raises it; PyTorch has uses of its own for this error.
            if str(error) in ("", self.exercise, getattr(self.function, "__name__", "")):
                raise NotAttempted from None
            raise self._raised(error) from None
        except (NotRight, GaveUp, NotAttempted):
            raise
        except SystemExit:
            raise self._not_right(
                "Your function ended the program, as sys.exit does: return the answer instead."
            ) from None
        except BaseException as error:
            raise self._raised(error) from None
        if self._forbidden:
            raise self._forbidden
        if inspect.iscoroutine(result):
            result.close()
            raise self._not_right("Your function is asynchronous: begin it with def alone.", got="a coroutine")
        return result

    def _raised(self, error: BaseException) -> NotRight:
        """What it raised, why, in the common cases, and the learner's own line."""
        if isinstance(error, OverflowError):
            why = "a number on the way is too large for a float, though the answer is not: combine before you multiply."
        elif any(text in str(error) for text in _SHAPES_MEET):
            why = f"{short(str(error))}: where a dimension was summed away, keepdim=True keeps it."
        else:
            why = short(str(error))
        frames = traceback.extract_tb(error.__traceback__)
        own = home_of(self.function)
        line = next((frame.line for frame in reversed(frames) if frame.filename == own and frame.line), "")
        where = f" The line: {short(line, 80)}" if line else ""
        return self._not_right(f"Your function raised {type(error).__name__}: {why}{where}")

    def _not_right(self, sentence: str, expected: str = "", got: str = "", rung: str = TYPE) -> NotRight:
        return NotRight(sentence, expected, got, rung=rung, call=self._call)

    @contextmanager
    def without(self, *names: str, autograd: bool = False) -> Iterator[None]:
        """While it holds, the learner's function may not use PyTorch's functions of these names.

        Args:
            names: such as ``"layer_norm"``, wherever torch has it.
            autograd: forbid backward passes, too.
        """
        with refused(names, self.forbid, autograd):
            yield

    def forbid(self) -> NotRight:
        """What to raise where the learner uses what the exercise forbids; it counts even where they catch it."""
        self._forbidden = self._not_right("That is the function that you are to write: compute it yourself.")
        return self._forbidden

    @contextmanager
    def keeping(self, *modules: nn.Module) -> Iterator[None]:
        """What the learner's function must leave as they are: values, ``requires_grad``, mode and settings."""
        before = copy.deepcopy(modules)
        yield
        if not all(map(same_module, modules, before)):
            raise self._not_right("Your function changed a module that it should only use: leave it as it is.")

    def like(self, got: Any, expected: Any, shape_sentence: str = "") -> None:
        """The first rung: type, shape, data type and device of ``expected``.

        A number may be of Python, NumPy or PyTorch, an array a list or tensor.
        """
        if is_number(expected):
            if not is_number(got):
                raise self._not_right("The answer is one number.", expected="a number", got=describe(got))
            return
        if isinstance(expected, Tensor):
            if not isinstance(got, Tensor):
                raise self._not_right("The answer is a tensor.", describe(expected), describe(got))
            if got.device != expected.device:
                said = "The answer is not on the input's device."
                raise self._not_right(said, str(expected.device), str(got.device))
            if got.dtype != expected.dtype:
                said = "The answer does not have the input's data type: do not convert it."
                raise self._not_right(said, str(expected.dtype), str(got.dtype))
        elif not isinstance(got, np.ndarray | list | tuple | Tensor):
            raise self._not_right("The answer is an array.", describe(np.asarray(expected)), describe(got))
        try:
            got_shape, expected_shape = as_array(got).shape, as_array(expected).shape
        except (TypeError, ValueError):
            raise self._not_right(
                "Not everything in the answer is a number.", describe(as_array(expected)), describe(got)
            ) from None
        if got_shape != expected_shape:
            said = shape_sentence or "The shape is wrong."
            raise self._not_right(said, f"shape {expected_shape}", f"shape {got_shape}")

    def equal(
        self,
        got: Any,
        expected: Any,
        misconceptions: Sequence[Misconception] = (),
        sentence: str = "",
        tolerance: float = TOLERANCE,
        shape_sentence: str = "",
    ) -> None:
        """Type, shape and value. A wrong value is noted, and said at the end of the attempt.

        Args:
            got: the learner's.
            expected: by a formula of the judge's own. Whole numbers must be exact.
            misconceptions: wrong values that people give for it.
            sentence: what to say where none of them fits: what was compared, never the formula.
            tolerance: relative to ``expected``; what comes in a coarser data type is judged at its own precision.
            shape_sentence: what to say to another shape.
        """
        self.like(got, expected, shape_sentence)
        a, b = as_array(got), as_array(expected)
        exact = np.asarray(expected).dtype.kind in "iub" if not isinstance(expected, Tensor) else False
        allowed = max(1e-12 if exact else tolerance, precision(got))
        right = close(a, b, allowed)
        offered: dict[str, bool] = {}
        for one in misconceptions:
            value = as_array(one.value)
            # Where it gives the right value, too, this point says nothing about it.
            if not close(value, b, allowed):
                offered[one.sentence] = offered.get(one.sentence, False) or close(a, value, max(allowed, TOLERANCE))
        self._matched += [one for one, fits in offered.items() if fits]
        self._refuted |= {one for one, fits in offered.items() if not fits}
        if right or self._wrong:
            return
        said = sentence or "For these arguments the value is wrong."
        if not isinstance(expected, Tensor) and np.isnan(a).any() and np.isfinite(b).all():
            said = _NAN
        elif close(a, b, ROUNDED):
            said = "Nearly: something is rounded on the way, or a small term is wrong."
        finite = np.isfinite(a).all() and np.isfinite(b).all()
        difference = float(np.max(np.abs(a - b))) if finite and a.size else None
        self._wrong = NotRight(said, *show(b, a), difference, VALUE, self._call)

    def gradients(
        self, answer: Callable[[], Tensor], right: Callable[[], Tensor], operands: Mapping[str, Tensor]
    ) -> None:
        """A property: what comes back through the learner's answer is what comes back through the written-out rule.

        Where a value was wrong, that is what is said.

        Args:
            answer: calls the learner's function on the operands.
            right: the same by the rule.
            operands: leaves that want a gradient, by the names that the learner knows.
        """
        if self._wrong:
            return
        got, wanted = answer(), right()
        self.like(got, wanted)
        if not got.requires_grad:
            raise self._not_right(f"No gradient passes through your answer: {_CUT}", rung=PROPERTY)
        draw = torch.Generator().manual_seed(0)
        weights = torch.randn(wanted.shape, generator=draw, dtype=wanted.dtype)
        leaves = list(operands.values())
        try:
            found = torch.autograd.grad((got * weights).sum(), leaves, allow_unused=True)
        except RuntimeError:
            raise self._not_right(_IN_PLACE, rung=PROPERTY) from None
        for name, leaf, mine, theirs in zip(
            operands, leaves, found, torch.autograd.grad((wanted * weights).sum(), leaves), strict=True
        ):
            mine = torch.zeros_like(leaf) if mine is None else mine
            if not close(as_array(mine), as_array(theirs), 1e-5):
                said = f"The gradient that comes back to {name} is wrong: {_CUT}"
                raise NotRight(said, *show(as_array(theirs), as_array(mine)), rung=PROPERTY, call=self._call)

    def require(self, holds: bool, sentence: str, expected: str = "", got: str = "", rung: str = PROPERTY) -> None:
        """A property, or what ``rung`` says: where it does not hold, the sentence is said."""
        if not holds:
            raise NotRight(sentence, expected, got, rung=rung, call=self._call)

    def fail(self, sentence: str) -> NoReturn:
        """Say the sentence."""
        raise NotRight(sentence, rung=PROPERTY, call=self._call)

    def verdict(self, later: Exception | None = None) -> NotRight | None:
        """What to say at the end of the attempt: None where all was right.

        Args:
            later: what ended the judge early.
        """
        wrong = self._wrong
        if wrong is None:
            return later if isinstance(later, NotRight) else None
        named = [sentence for sentence in self._matched if sentence not in self._refuted]
        if named:
            wrong.sentence = named[0]
        elif isinstance(later, NotRight) and later.rung == PROPERTY and wrong.sentence != _NAN:
            return later
        return wrong


__all__ = ["PROPERTY", "TYPE", "VALUE", "Array", "GaveUp", "Misconception", "NotAttempted", "NotRight", "Trial"]
