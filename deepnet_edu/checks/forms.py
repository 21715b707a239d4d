"""A right answer in any form, wrapped so that it is called, and returns its result, as the exercise has it.

Lambdas, partials, callable objects and decorated functions are functions. What else a lesson could stumble over is
adapted here, for the check and for the lesson: other names of the parameters, parameters by keyword alone,
a cache that needs arguments with a hash, a list where the lesson continues with an array.
"""

from collections.abc import Callable
from functools import partial, update_wrapper
from inspect import Signature, signature, unwrap
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepnet_edu.checks.values import as_array, is_number

Function = Callable[..., Any]


def as_asked(function: Function, asked: Function | None) -> Function:
    """``function``, to be called as ``asked`` is: itself where it can be.

    Args:
        function: a learner's.
        asked: the reference answer; None where there is none.
    """
    function = _without_cache(function)
    own = signature_of(function)
    wanted = signature_of(asked) if asked else None
    if own is None or wanted is None or _takes(own, wanted):
        return function
    every = dict.fromkeys(wanted.parameters)
    if not (binds(own, tuple(every), {}) or binds(own, (), every)):
        return function  # it takes other arguments, which its check says

    def answer(*arguments: Any, **keywords: Any) -> Any:
        """The learner's answer, called as it wants to be."""
        given, named = _way(own, wanted, arguments, keywords)
        return function(*given, **named)

    answer.__signature__ = wanted  # type: ignore[attr-defined]
    return update_wrapper(answer, function)


def giving(function: Function, example: Any) -> Function:
    """``function``, whose results are turned into the kind that ``example`` is.

    A function that calls itself by its name, which is this one's then, gets its own kind of result.
    """
    within = False

    def answer(*arguments: Any, **keywords: Any) -> Any:
        """The learner's answer, in the form in which the lesson continues with it."""
        nonlocal within
        if within:
            return function(*arguments, **keywords)
        within = True
        try:
            return alike(function(*arguments, **keywords), example)
        finally:
            within = False

    return update_wrapper(answer, function)


def alike(value: Any, example: Any) -> Any:
    """``value`` as a number, array, list, tuple or dictionary of them, as ``example`` is; anything else as it is."""
    if same_kind(value, example):
        return value
    if is_number(example):
        if not is_number(value):
            return value
        value = value.detach() if isinstance(value, Tensor) else value  # PyTorch warns of a number with a graph
        if isinstance(example, Tensor):
            return torch.tensor(float(value), dtype=example.dtype)
        return int(value) if _is_whole(example) and float(value).is_integer() else float(value)
    if isinstance(example, np.ndarray):
        return as_array(value) if isinstance(value, np.ndarray | Tensor | list | tuple) else value
    if isinstance(example, Tensor):
        if isinstance(value, np.ndarray | list | tuple) and not any(isinstance(one, Tensor) for one in value):
            return torch.as_tensor(as_array(value), dtype=example.dtype)
        return value
    if isinstance(example, list | tuple) and isinstance(value, np.ndarray | Tensor | list | tuple):
        inside = list(example) + [example[-1]] * (len(value) - len(example)) if example else [None] * len(value)
        return type(example)(alike(one, model) for one, model in zip(value, inside, strict=False))
    if isinstance(example, dict) and isinstance(value, dict):
        return {name: alike(one, example.get(name)) for name, one in value.items()}
    return value


def same_kind(value: Any, example: Any) -> bool:
    """Whether :func:`alike` would leave it as it is."""
    if is_number(example):
        if isinstance(example, Tensor) or not is_number(value):
            return isinstance(value, Tensor)
        return _is_whole(value) if _is_whole(example) else isinstance(value, int | float | np.floating)
    if isinstance(example, np.ndarray):
        return isinstance(value, np.ndarray) and value.dtype == example.dtype
    if isinstance(example, Tensor):
        return isinstance(value, Tensor)
    if isinstance(example, list | tuple):
        return type(value) is type(example) and all(map(same_kind, value, example))
    if isinstance(example, dict) and isinstance(value, dict):
        return all(same_kind(one, example.get(name)) for name, one in value.items())
    return True


def untouched(function: Any, name: str) -> bool:
    """Whether a function is the stub: all that it does is raise NotImplementedError with its own name.

    Args:
        function: as the learner's notebook has it.
        name: of the exercise.
    """
    code = getattr(function, "__code__", None)
    return code is not None and code.co_names == ("NotImplementedError",) and name in code.co_consts


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer)


def signature_of(function: Function) -> Signature | None:
    """None where Python cannot tell."""
    try:
        return signature(function)
    except (TypeError, ValueError):
        return None


def home_of(function: Function) -> str:
    """The file, or the notebook's cell, that a function was written in; empty where Python cannot tell."""
    function = unwrap(function)
    while isinstance(function, partial):
        function = unwrap(function.func)
    own = function if hasattr(function, "__code__") else vars(type(function)).get("__call__")
    return str(getattr(getattr(own, "__code__", None), "co_filename", ""))


def _without_cache(function: Function) -> Function:
    """A cache would refuse lists and arrays, and would skip the second of two calls that are to change something."""
    while hasattr(function, "cache_info") and hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    if isinstance(function, partial) and hasattr(function.func, "cache_info"):
        return partial(_without_cache(function.func), *function.args, **function.keywords)
    return function


def _takes(own: Signature, wanted: Signature) -> bool:
    """Whether a function can be called in each way in which the one that was asked for can."""
    named = dict.fromkeys(wanted.parameters)
    needed = {name: None for name, one in wanted.parameters.items() if one.default is one.empty}
    return all(binds(own, tuple(one), {}) and binds(own, (), one) for one in (named, needed))


def _way(
    own: Signature, wanted: Signature, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The first way to give these arguments that a function takes: as they are, all by name, all in order; then both
    with the defaults of the one that was asked for."""
    try:
        given = wanted.bind(*arguments, **keywords)
    except TypeError:
        return arguments, keywords
    by_name = dict(given.arguments)
    given.apply_defaults()
    all_named = dict(given.arguments)  # with the defaults that the exercise has, and a learner may have left out
    in_order = all_in_order = tuple(all_named.values())
    if list(by_name) == list(all_named)[: len(by_name)]:
        in_order = in_order[: len(by_name)]
    for way in ((arguments, keywords), ((), by_name), (in_order, {}), ((), all_named), (all_in_order, {})):
        if binds(own, *way):
            return way
    return arguments, keywords


def binds(own: Signature, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    """Whether a function of this signature can be called so."""
    try:
        own.bind(*arguments, **keywords)
    except TypeError:
        return False
    return True
