"""Parameters of a notebook, and values for them as people type them."""

import ast
import json
import math
from collections.abc import Mapping
from typing import Any

from deepnet_edu.course.places import PROFILES
from deepnet_edu.messages import UserError, shown, unknown

_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


def defaults_of(notebook: str, file: str, source: str | None) -> dict[str, str]:
    """Names and defaults of the parameters, as they stand in their cell.

    Args:
        notebook: its name, and that of its file, for the sentence.
        file: likewise.
        source: of the cell tagged ``parameters``; None where there is none.

    Raises:
        UserError: there is no such cell, or it is not Python.
    """
    if source is None:
        raise UserError(f"{notebook} has no parameters: give the cell that holds them the tag parameters.")
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # Python gives up in many ways
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else " that can be read"
        raise UserError(f"{file}: the cell tagged parameters is no Python{where}.") from None
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = ast.get_source_segment(source, node.value) or ""
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            found[node.target.id] = ast.get_source_segment(source, node.value) or ""
    return found


def split(text: str) -> list[str]:
    """At the commas that stand outside of brackets and quotes; at all of them where one of those does not close."""
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


def value_of(who: str, defaults: Mapping[str, str], name: str, text: str) -> Any:
    """A value as the type of the parameter's default.

    Args:
        who: the notebook, for the sentence.
        defaults: from :func:`defaults_of`.
        name: of the parameter.
        text: what was typed.

    Raises:
        UserError: there is no such parameter, or the value is of another type.
    """
    if name not in defaults:
        raise UserError(f"{who}: {unknown('parameter', name, defaults)}")
    if name == "PROFILE" and text not in PROFILES:
        raise UserError(f"{who}: {unknown('PROFILE', text, PROFILES)}")
    try:
        default = ast.literal_eval(defaults[name])
    except Exception:  # computed in the notebook, as PROFILE is
        default = None
    example = defaults[name]
    if isinstance(default, tuple):  # JSON, in which parameters travel, has none
        default, example = list(default), str(list(default))
    kind = type(default)
    if kind is str:
        return text
    try:
        value = ast.literal_eval(text)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is float and not math.isfinite(value):  # 1e309, which is no number that anybody means
            value = text
    except Exception:  # what people type fails in many ways
        value = text
    if default is not None and type(value) is not kind:
        expected = _KINDS.get(kind, f"a {kind.__name__}")
        raise UserError(f"{who}: {name}={shown(text)} does not fit: expected {expected}, as in {name}={example}.")
    if not _travels(value):
        raise UserError(
            f"{who}: {name}={shown(text)} would change on its way into the notebook: expected numbers, texts, lists "
            "such as [1, 2] in place of tuples, or dicts such as {'a': 1} whose keys are texts."
        )
    return value


def _travels(value: Any) -> bool:
    """Whether a value comes out of JSON as it went in."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError, RecursionError):
        return False
