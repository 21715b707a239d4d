"""Plain data from a file, settings and arguments, checked against the types that they are declared with before anything
uses them."""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache, wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from deepnet_edu.messages import shown

T = TypeVar("T")
P = ParamSpec("P")
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
    list: "a list",
    tuple: "a list",
    dict: "a table",
    Callable: "a function",
    Iterable: "a list",
}
#: The same as Python writes them.
_IN_PYTHON = {**_WORDS, bool: "True or False", NoneType: "None", dict: "a dict"}
#: What makes an object of a class, by the class's name: what to type where another was given.
_MADE_BY = {
    "Batch": "Batch(inputs, targets)",
    "BytePairs": "BytePairs.train(text, vocab_size)",
    "Generator": "torch.Generator().manual_seed(0)",
    "Model": "build_model(config)",
    "ModelConfig": "ModelConfig('decoder', 'lm', 12, d_model=64, n_heads=4, d_ff=256, vocab_size=128)",
    "Plan": "Plan(data=2)",
    "Tensor": "torch.tensor([[1, 2, 3]])",
    "Task": "PythonDocs(), or any object with a method batch(generator) that returns a Batch",
    "TrainConfig": "TrainConfig(steps=100)",
}


@dataclass(frozen=True)
class Range:
    """The numbers that an argument may be, never infinite, as a part of its type: ``Annotated[float, Range(0, 1)]``.

    Attributes:
        least, most: the ends, both included.
        open: whether ``most`` itself is too much.
    """

    least: float = -1e100
    most: float = 1e100
    open: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a number is one of these."""
        return bool(self.least <= value < self.most if self.open else self.least <= value <= self.most)

    def __str__(self) -> str:
        return f"from {self.least:g} to {'less than ' if self.open else ''}{self.most:g}"


#: What arguments of formulas may be. Larger ones overflow, and arrays of more entries fill the memory.
Count = Annotated[int, Range(1, 1e7)]
Several = Annotated[int, Range(2, 1e7)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Number = Annotated[float, Range()]
Positive = Annotated[float, Range(1e-100, 1e100)]
NotNegative = Annotated[float, Range(0, 1e100)]
Share = Annotated[float, Range(0, 1)]
Correlation = Annotated[float, Range(-1, 1)]


def from_dict(cls: type[T], content: Any) -> T:
    """A dataclass from a table that JSON or TOML holds.

    Args:
        cls: a dataclass whose fields are plain: numbers, text, booleans, None, lists, tables, and unions of them.
        content: of the table; keys that are not fields are refused.

    Raises:
        ValueError: it is not a table, a field is missing or unknown, or a value is of another type. The message names
            the field, what was expected and what was found.
    """
    if not isinstance(content, dict):
        raise ValueError(f"expected a table of fields, found {shown(content)}")
    known = {one.name: one for one in fields(cls) if one.init}  # type: ignore[arg-type]
    types = get_type_hints(cls)
    for name in content:
        if name not in known:
            raise ValueError(f"{name!r} is not a field")
    for name, one in known.items():
        if name in content:
            check(content[name], types[name], name)
        elif one.default is MISSING and one.default_factory is MISSING:
            raise ValueError(f"{name} is missing")
    return cls(**content)


def without_former(content: Mapping[str, Any], former: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in a file without options of an earlier version, where they said what is done now.

    Args:
        content: by name.
        former: such options, and what is done now.

    Raises:
        ValueError: one says something else.
    """
    for name, now in former.items():
        if content.get(name, now) != now:
            raise ValueError(f"{name}={shown(content[name])} is an option of an earlier version: leave it out.")
    return {name: value for name, value in content.items() if name not in former}


def whole_number(text: str) -> int | None:
    """The whole number that a text writes in digits from 0 to 9; None where it is another text, or has more than 18."""
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None


def check(value: Any, wanted: Any, name: str) -> None:
    """See that a value is of a type.

    Args:
        value: as JSON or TOML gave it.
        wanted: a type, for example ``dict[str, int | None]``; whole numbers are numbers, booleans are not.
        name: that the message gives the value.

    Raises:
        ValueError: it is not.
    """
    if not _fits(value, wanted):
        raise ValueError(f"{name}: expected {_words(wanted)}, found {shown(value)}")


def check_argument(value: Any, wanted: Any, name: str) -> None:
    """See that an argument is of a type; a wrong word for a ``Literal`` is left to the caller to name the nearest.

    Raises:
        ValueError: it is not.
    """
    left = get_origin(wanted) is Literal and isinstance(value, str)
    if not left and not _fits(value, wanted):
        raise ValueError(f"{name}={shown(value)}: expected {_words(wanted, _IN_PYTHON)}.")


def _plain(value: Any) -> Any:
    """NumPy's number as Python's; anything else as it is."""
    if type(value) in (int, float, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def check_whole(name: str, value: Any, least: int = 1, most: int | None = None, otherwise: str = "") -> None:
    """See that a value is a whole number; True is one to Python, not to us.

    Args:
        name: that the message gives the value.
        value: as it was given.
        least: of the numbers that it may be.
        most: likewise, None where there is no end.
        otherwise: what else the value might have been, ``" or 'auto'"``, for the sentence.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name}={shown(value)}: expected a whole number, {least} or more{otherwise}.")
    if most is not None and int(value) > most:
        raise ValueError(f"{name}={shown(value)}: expected {most:,} at most.")


def check_fields(settings: Any, leave: Iterable[str] = ()) -> None:
    """See that each field of a frozen dataclass holds what its type says; NumPy's numbers become Python's.

    A wrong word for a ``Literal`` is left to the class, which can name the nearest.

    Args:
        settings: the dataclass.
        leave: fields that the class checks itself, with a sentence of its own.

    Raises:
        ValueError: one holds something else.
    """
    for name, wanted in _hints(settings.__class__).items():
        value = getattr(settings, name, None)
        if name == "_":
            continue
        if (plain := _plain(value)) is not value:
            object.__setattr__(settings, name, plain)
        if name not in leave or not isinstance(value, Real | str):
            check_argument(value, wanted, name)


def checked(**prepare: Callable[[Any], Any]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A function whose arguments are checked against their types before it begins: for what users call, not for loops.

    Args:
        prepare: by argument, what makes of the value given the one that is checked and used.

    A wrong word for a ``Literal`` is left to the function, which can name the nearest.

    Raises:
        ValueError: at a call, where an argument is of another type or out of its :class:`Range`.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:  # too many, too few: Python says it best
                return function(*args, **kwargs)
            hints = _hints(function)
            for name, value in bound.arguments.items():
                if name in prepare:
                    bound.arguments[name] = value = prepare[name](value)
                if signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD and name in hints:
                    check_argument(value, hints[name], name)
                    bound.arguments[name] = _plain(value)
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


@cache
def _hints(of: Any) -> dict[str, Any]:
    return get_type_hints(of, include_extras=True)


def _fits(value: Any, wanted: Any) -> bool:
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return True
    if origin is Annotated:
        return _fits(value, inner[0]) and all(one.holds(value) for one in inner[1:] if isinstance(one, Range))
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is list:
        return isinstance(value, list) and all(_fits(one, inner[0]) for one in value)
    if origin is Sequence:
        return (
            isinstance(value, Sequence) and not isinstance(value, bytes) and all(_fits(one, inner[0]) for one in value)
        )
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else list(inner)
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if origin is Iterable:
        return _iterable(value)
    if wanted is float and isinstance(value, int) and abs(value) > sys.float_info.max:
        return False
    if wanted in (int, float):
        return isinstance(value, Integral if wanted is int else Real) and not isinstance(value, bool)
    if isinstance(wanted, TypeVar):
        return True
    return isinstance(value, origin or wanted)


def _iterable(value: Any) -> bool:
    """Whether it can be read item by item; what the items are only the reader sees."""
    try:
        iter(value)
    except TypeError:
        return False
    return not isinstance(value, Mapping | bytes)


def _words(wanted: Any, words: Mapping[Any, str] = _WORDS) -> str:
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        return " or ".join(_words(one, words) for one in inner)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is Annotated:
        return " ".join([_words(inner[0], words), *(str(one) for one in inner[1:] if isinstance(one, Range))])
    if origin in (list, tuple, Sequence):
        return f"a list of {_words(inner[0], words)} each"
    if origin in (dict, Mapping):
        table = words[dict]
        return table if inner[1] is Any else f"{table} of {_words(inner[1], words)} each"
    name = getattr(wanted, "__name__", str(wanted))
    made = f", for example {_MADE_BY[name]}" if name in _MADE_BY else ""
    return words.get(origin or wanted, f"a {name}{made}")
