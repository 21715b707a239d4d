"""Plain data from a file, checked against the types of a dataclass before anything uses them."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
    list: "a list",
    tuple: "a list",
    dict: "a table",
}


def from_dict(cls: type[T], content: Any) -> T:
    """A dataclass from a table that JSON or TOML holds.

    Args:
        cls: a dataclass whose fields are plain: numbers, text, booleans, None, lists, tables, and unions of them.
        content: of the table; keys that are no fields are refused.

    Raises:
        ValueError: it is no table, a field is missing or unknown, or a value is of another type. The message names the
            field, what was expected and what was found.
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


def _fits(value: Any, wanted: Any) -> bool:
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if origin in (list, Sequence):
        return isinstance(value, list) and all(_fits(one, inner[0]) for one in value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else list(inner)
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, wanted)


def _words(wanted: Any) -> str:
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        return " or ".join(map(_words, inner))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in (list, tuple, Sequence):
        return f"a list of {_words(inner[0])} each"
    if origin in (dict, Mapping):
        return "a table" if inner[1] is Any else f"a table of {_words(inner[1])} each"
    return _WORDS.get(wanted, getattr(wanted, "__name__", str(wanted)))


def shown(value: Any) -> str:
    """A value for a sentence: short, whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return "a number of very many digits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
