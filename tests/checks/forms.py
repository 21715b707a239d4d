"""A right answer in every form in which people write one, as source: it is appended to the cell that defines it.

python -m tests.checks.forms    # those of each exercise, and what its check says
"""

import inspect
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepnet_edu.checks import Trial, check
from deepnet_edu.checks.values import as_array, is_number

#: Forms of the function. NAME is the exercise's, SIG its parameters, ARGS what hands them on, WORK the same function
#: under another name, BARE the parameters under other names and GIVEN what hands those on.
WRITTEN = {
    "lambda": "NAME = lambda SIG: WORK(ARGS)",
    "other names": "NAME = lambda BARE: WORK(GIVEN)",
    "alias": "def my_answer(SIG):\n    return WORK(ARGS)\n\nNAME = my_answer",
    "partial": "from functools import partial\n\nNAME = partial(NAME)",
    "cached": "from functools import cache\n\nNAME = cache(NAME)",
    "decorated": (
        "def plainly(function):\n    def inner(*given, **named):\n        return function(*given, **named)"
        "\n\n    return inner\n\n\nNAME = plainly(NAME)"
    ),
    "object": (
        "class AnswerTo_NAME:\n    def __call__(self, SIG):\n        return WORK(ARGS)\n\n\nNAME = AnswerTo_NAME()"
    ),
    "helper": "def helps_NAME(SIG):\n    return WORK(ARGS)\n\n\ndef NAME(SIG):\n    return helps_NAME(ARGS)",
    "keywords": "def NAME(*, SIG):\n    return WORK(ARGS)",
}
_GIVEN = "from tests.checks.forms import {0}\n\nNAME = lambda SIG: {0}(WORK(ARGS))"
#: Forms of what it returns, for functions of numbers and arrays.
RETURNED = {
    name: _GIVEN.format(name)
    for name in (
        "as_python",
        "as_numpy",
        "as_numpy_single",
        "as_tensor",
        "as_single_tensor",
        "as_fraction",
        "as_decimal",
    )
}
#: The whole of it in float32.
INSIDE = {
    "single inside": (
        "from tests.checks.forms import from_single, to_single\n\n"
        "NAME = lambda SIG: from_single(WORK(*map(to_single, (ARGS_TUPLE))), (ARGS_TUPLE))"
    )
}


def written(name: str, source: str, form: str, function: Callable[..., Any]) -> str:
    """``source``, which defines the function ``name``, with the form appended."""
    text = {**WRITTEN, **RETURNED, **INSIDE}[form]
    signature = inspect.signature(function)
    names = list(signature.parameters)
    other = [
        f"a{i}" + ("" if one.default is one.empty else f"={one.default!r}")
        for i, one in enumerate(signature.parameters.values())
    ]
    work = f"work_of_{name}"
    parts = {
        "ARGS_TUPLE": ", ".join(names) + ",",
        "NAME": name,
        "SIG": str(signature)[1:-1],
        "ARGS": ", ".join(names),
        "WORK": work,
        "BARE": ", ".join(other),
        "GIVEN": ", ".join(f"a{i}" for i in range(len(names))),
    }
    for mark, meant in parts.items():
        text = text.replace(mark, meant)
    return f"{source}\n\n\n{work} = {name}\n{text}\n"


class _Watching(Trial):
    """Remembers what the judge gives."""

    given: list[Any]

    def change(self, *arguments: Any, **keywords: Any) -> Any:
        self.given = [*getattr(self, "given", []), *arguments, *keywords.values()]
        return super().change(*arguments, **keywords)


def forms(exercise: str) -> list[str]:
    """The forms that an exercise's answer can have: what changes its arguments or returns functions has no numbers."""
    trial = _Watching(check._reference(exercise) or print, exercise)
    check.judges[exercise](trial)
    example = trial.results[0] if trial.results else None
    number = is_number(example) or isinstance(example, np.ndarray) or (_numbers(example) and not _whole(example))
    if isinstance(example, Tensor) and example.requires_grad:
        number = False
    single = (number or isinstance(example, Tensor)) and not any(map(callable, trial.given))
    return [*WRITTEN, *(RETURNED if number else {}), *(INSIDE if single else {})]


def _numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(is_number, value))


def _whole(value: Any) -> bool:
    return all(isinstance(one, int) for one in value)


def _each(one: Callable[[float], Any]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        return one(value) if is_number(value) else [convert(item) for item in value]

    return convert


def _but_none(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same, where an answer may be that there is no number."""
    return lambda value: None if value is None else convert(value)


@_but_none
def as_python(value: Any) -> Any:
    """Python's numbers; a list of them."""
    return value.tolist() if hasattr(value, "tolist") else value


#: There is no fraction for infinity.
as_fraction = _but_none(_each(lambda x: Fraction(float(x)) if isfinite(x) else float(x)))
as_decimal = _but_none(_each(lambda x: Decimal(float(x))))


@_but_none
def as_numpy(value: Any) -> Any:
    """NumPy's, in float64."""
    return as_array(value)[()]


@_but_none
def as_numpy_single(value: Any) -> Any:
    """NumPy's, in float32."""
    return as_array(value).astype(np.float32)[()]


@_but_none
def as_tensor(value: Any) -> Tensor:
    """A tensor in float64."""
    return torch.tensor(as_array(value))


@_but_none
def as_single_tensor(value: Any) -> Tensor:
    """A tensor in float32, PyTorch's default."""
    return torch.tensor(as_array(value), dtype=torch.float32)


def to_single(value: Any) -> Any:
    """Numbers, arrays and tensors in float32; all else as it is."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value.astype(np.float32)
    return np.float32(value) if isinstance(value, float) else value


def from_single(value: Any, arguments: tuple[Any, ...]) -> Any:
    """A tensor in the data type of the tensors that were given; all else as it is."""
    given = [one.dtype for one in arguments if isinstance(one, Tensor) and one.is_floating_point()]
    return value.to(given[0]) if given and isinstance(value, Tensor) else value
