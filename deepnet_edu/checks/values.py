"""Values of learners' answers: as arrays, compared at the precision that they have, and as text."""

import re
from collections.abc import Mapping
from decimal import Decimal
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray[Any, Any]

#: Precision of a Python number, relative to the value: a float may come from a float32 tensor.
TOLERANCE = 1e-6
#: A value that is right to this precision, and not to its own, was rounded.
ROUNDED = 1e-3
#: Some hundred roundings of each data type, relative to the value.
_PRECISION = {4: 1e-5, 2: 2e-2}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def is_number(value: Any) -> bool:
    """Whether it is one real number: of Python, NumPy or PyTorch, a Fraction or a Decimal; True is not."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and value.dtype != torch.bool and not value.is_complex()
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iufO"
    return isinstance(value, Number | Decimal | np.number) and not isinstance(
        value, bool | complex | np.complexfloating
    )


def as_array(value: Any) -> Array:
    """In float64; lists and tuples may hold tensors.

    Raises:
        TypeError, ValueError: it holds something that is not a real number, or rows of different lengths.
    """
    if isinstance(value, Tensor) and not value.is_complex():
        return np.asarray(value.detach().cpu().double().numpy())
    if isinstance(value, list | tuple):
        return np.asarray([as_array(one) for one in value], dtype=float)
    if np.asarray(value).dtype.kind in "USc":  # NumPy would read a text, and drop what is imaginary
        raise TypeError("no real number")
    return np.asarray(value, dtype=float)


def precision(value: Any) -> float:
    """The precision that a value can have, relative to itself: that of the coarsest data type in it; 0 in float64."""
    if isinstance(value, list | tuple):
        return max(map(precision, value), default=0.0)
    if isinstance(value, Tensor):
        return _PRECISION.get(value.element_size(), 0.0) if value.is_floating_point() else 0.0
    if isinstance(value, np.floating | np.ndarray) and value.dtype.kind == "f":
        return _PRECISION.get(value.dtype.itemsize, 0.0)
    return 0.0


def close(a: Array, b: Array, tolerance: float) -> bool:
    """Whether ``a`` is ``b`` up to ``tolerance``, relative to the largest finite value of ``b``; inf is inf."""
    if a.shape != b.shape:
        return False
    finite = np.abs(b[np.isfinite(b)])
    scale = max(float(finite.max(initial=0.0)), 1e-6)
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def same(a: Any, b: Any) -> bool:
    """Whether nothing of it has changed: values, and whether tensors want a gradient. Modules are left out."""
    if isinstance(a, Tensor):
        return a.requires_grad == b.requires_grad and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, int | float | str):
        return bool(a == b or a != a)  # NaN equals no number
    return True  # functions cannot be compared


def same_module(a: nn.Module, b: nn.Module) -> bool:
    """Whether nothing of it has changed: parameters, what is trained, buffers, mode, and settings such as ε."""

    def parts(module: nn.Module) -> list[dict[str, Any]]:
        return [dict(module.named_parameters()), dict(module.named_buffers())]

    def settings(module: nn.Module) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in vars(one).items() if isinstance(value, int | float | str | tuple)}
            for one in module.modules()
        ]

    return settings(a) == settings(b) and same(parts(a), parts(b))


def describe(value: Any) -> str:
    """A value's type and shape, for a learner who gave something other than what was asked for."""
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}, {value.dtype}"
    if isinstance(value, np.ndarray):
        return f"array of shape {value.shape}"
    try:
        return f"{type(value).__name__} {short(repr(value))}"
    except Exception:  # a learner's own class may stumble over itself
        return type(value).__name__


def argument(value: Any) -> str:
    """An argument of a call, as short as a card needs it."""
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    if isinstance(value, int | str | bool | None):
        return repr(value)
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"{'tensor' if isinstance(value, Tensor) else 'array'}{list(value.shape)}".replace(" ", "")
    if isinstance(value, list | tuple) and len(value) <= 6 and all(is_number(one) for one in value):
        inside = ", ".join(map(argument, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if is_number(value):
        return f"{float(value):.6g}"
    return getattr(value, "__name__", type(value).__name__).lower().replace("<lambda>", "f")


def show(expected: Array, got: Array) -> tuple[str, str]:
    """Both as text, with as many digits as make them differ."""
    for digits in (4, 6, 8, 10, 12, 17):
        texts = _text(expected, digits), _text(got, digits)
        if texts[0] != texts[1]:
            break
    return texts


def _text(value: Array, digits: int) -> str:
    finite = np.abs(value[np.isfinite(value)])
    # Beside numbers that can be read without a power of ten the small ones may be seen as 0.
    plain = value.size > 1 and bool(1e-2 < finite.max(initial=0.0) < 1e4)
    return short(
        np.array2string(value, precision=digits, suppress_small=plain, threshold=8, edgeitems=3, separator=", ")
    )


def short(text: str, limit: int = 160) -> str:
    """One line without escape codes."""
    text = " ".join(_ESCAPES.sub("", text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
