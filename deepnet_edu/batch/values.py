"""Values for a notebook's parameters, as people type them."""

import ast
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepnet_edu.batch.notebook import Notebook
from deepnet_edu.batch.parameters import defaults
from deepnet_edu.batch.state import nested
from deepnet_edu.course.places import PROFILES
from deepnet_edu.messages import UserError, shown, unknown

_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


def defaults_of(notebook: Notebook) -> dict[str, tuple[str, type | None]]:
    """Names of the parameters, each with its default, as written, and the type of that.

    Raises:
        UserError: there is no cell of parameters, or it is not Python.
    """
    if (source := notebook.parameters) is None:
        raise UserError(f"{notebook.name} has no parameters: give the cell that holds them the tag parameters.")
    try:
        return defaults(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # Python gives up in many ways
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else " that can be read"
        raise UserError(f"{notebook.path.name}: the cell tagged parameters is not Python{where}.") from None


def split(text: str) -> list[str]:
    """Split at the commas outside of brackets and quotes; at all of them where one of those does not close."""
    values, depth, quote, before = [""], 0, "", ""
    for letter in text:
        if quote:
            quote = "" if letter == quote and before != "\\" else quote
        elif letter in "'\"" and (depth > 0 or not values[-1].strip()):  # that in don't is none
            quote = letter
        else:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0 and not quote:
            values.append("")
        else:
            values[-1] += letter
        before = letter
    return text.split(",") if depth or quote else values


def value_of(who: str, known: Mapping[str, tuple[str, type | None]], name: str, text: str) -> Any:
    """A value as the type of the parameter's default.

    Args:
        who: the notebook, for the sentence.
        known: from :func:`defaults_of`.
        name: of the parameter.
        text: what was typed.

    Raises:
        UserError: there is no such parameter, or the value is of another type.
    """
    if name not in known:
        raise UserError(f"{who}: {unknown('parameter', name, known)}")
    if name == "PROFILE" and text not in PROFILES:
        raise UserError(f"{who}: {unknown('PROFILE', text, PROFILES)}")
    example, kind = known[name]
    if kind in (str, Path):
        return text
    try:
        value = ast.literal_eval(text)
        if kind is float and type(value) is int:
            value = float(value)
        if kind is float and not math.isfinite(value):  # 1e309, which is not a number that anybody means
            value = text
    except Exception:  # what people type fails in many ways
        value = text
    if kind not in (None, type(None)) and type(value) is not kind:
        if example.startswith("("):  # JSON, in which parameters travel, has no tuples
            example = f"[{example[1:-1]}]"
        expected = _KINDS.get(kind, f"a {kind.__name__}")
        raise UserError(f"{who}: {name}={shown(text)} does not fit: expected {expected}, as in {name}={example}.")
    if not _travels(value):
        raise UserError(
            f"{who}: {name}={shown(text)} would change on its way into the notebook: expected finite numbers, texts, "
            "lists such as [1, 2] in place of tuples, or dicts such as {'a': 1} whose keys are texts."
        )
    return value


def _travels(value: Any) -> bool:
    """Whether a value comes out of JSON as it went in; JSON has no infinite numbers."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value) and not nested(value)
    except (TypeError, ValueError, RecursionError):
        return False
