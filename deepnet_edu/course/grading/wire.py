"""What crosses between the judge and an answer that runs apart: numbers, texts, arrays, tensors, and lists of them.

Values travel as JSON with the arrays' bytes after it. Nothing that is read here can run code, whatever the other side
has written.
"""

import contextlib
import inspect
import json
import math
import socket
import struct
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepnet_edu.files import parse_json

#: Largest message in bytes; the largest that a judge asks for has less than a hundredth of it.
MOST = 256 * 2**20
_HEAD = struct.Struct(">QQ")
_DTYPES = {str(one): one for one in vars(torch).values() if isinstance(one, torch.dtype)}
_KINDS = "biufcU"


class NotPlainError(Exception):
    """A value that cannot cross: a module, a function, a tensor with a graph."""


def pack(value: Any) -> bytes:
    """A value as bytes.

    Raises:
        NotPlainError: it cannot cross.
    """
    blobs: list[bytes] = []
    try:
        text = json.dumps(_encoded(value, blobs)).encode()
    except RecursionError:
        raise NotPlainError("a value that holds itself") from None
    return b"".join([_HEAD.pack(len(text), sum(map(len, blobs))), text, *blobs])


def unpack(message: bytes) -> Any:
    """The value that was packed.

    Raises:
        ValueError: the bytes are not a message: their sender is not to be trusted.
    """
    try:
        size, rest = _HEAD.unpack(message[: _HEAD.size])
        text, blob = message[_HEAD.size : _HEAD.size + size], message[_HEAD.size + size :]
        if len(text) != size or len(blob) != rest:
            raise ValueError("cut short")
        return _decoded(parse_json(text.decode()), memoryview(blob))
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"not a message ({type(error).__name__})") from None
    except (struct.error, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a message ({type(error).__name__})") from None


def send(line: socket.socket, value: Any) -> None:
    """Send a value.

    Raises:
        NotPlainError: it cannot cross; nothing was sent.
        OSError: the other side is gone.
    """
    line.sendall(pack(value))


def receive(line: socket.socket) -> Any:
    """The next value.

    Raises:
        EOFError: the other side has ended.
        ValueError: what came is not a message, or too large.
        OSError: the line is broken, or it took longer than the line's time limit.
    """
    head = _read(line, _HEAD.size)
    size = sum(_HEAD.unpack(head))
    if size > MOST:
        raise ValueError(f"a message of {size:,} bytes")
    return unpack(head + _read(line, size))


def _read(line: socket.socket, size: int) -> bytes:
    parts, missing = [], size
    while missing:
        part = line.recv(min(missing, 2**20))
        if not part:
            raise EOFError
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _encoded(value: Any, blobs: list[bytes]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return _array(value, blobs)
    encode = _ENCODERS.get(type(value))  # of a subclass something would be lost: a hash of its own, names, a graph
    if encode is not None:
        return encode(value, blobs)
    raise NotPlainError(type(value).__name__)


def _array(value: Any, blobs: list[bytes]) -> Any:
    if type(value) is not np.ndarray and not isinstance(value, np.generic):
        raise NotPlainError(type(value).__name__)
    if value.dtype.kind not in _KINDS or (value.dtype.kind != "U" and value.dtype.itemsize > 16):
        raise NotPlainError(f"an array of {value.dtype}")
    name = "number" if isinstance(value, np.generic) else "array"
    whole = np.asarray(value)
    whole = whole.astype(whole.dtype.newbyteorder("="))
    return {name: [whole.dtype.str, [*whole.shape], _blob(whole.tobytes(), blobs)]}


def _tensor(value: Tensor, blobs: list[bytes]) -> Any:
    if value.requires_grad or value.device.type != "cpu" or value.layout != torch.strided:
        raise NotPlainError("a tensor with a graph, or of another kind")
    raw = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return {"tensor": [str(value.dtype), [*value.shape], _blob(raw.view(torch.uint8).numpy().tobytes(), blobs)]}


def _blob(data: bytes, blobs: list[bytes]) -> list[int]:
    start = sum(map(len, blobs))
    blobs.append(data)
    return [start, len(data)]


def _many(name: str) -> Callable[[Any, list[bytes]], Any]:
    return lambda value, blobs: {name: [_encoded(one, blobs) for one in value]}


_ENCODERS: dict[type, Callable[[Any, list[bytes]], Any]] = {
    str: lambda value, _: value,
    int: lambda value, _: {"int": hex(value)},
    float: lambda value, _: {"float": value.hex()},
    complex: lambda value, _: {"complex": [value.real.hex(), value.imag.hex()]},
    Fraction: lambda value, _: {"fraction": [hex(value.numerator), hex(value.denominator)]},
    Decimal: lambda value, _: {"decimal": str(value)},
    range: lambda value, _: {"range": [hex(one) for one in (value.start, value.stop, value.step)]},
    dict: lambda value, blobs: {"dict": [[_encoded(key, blobs), _encoded(one, blobs)] for key, one in value.items()]},
    Tensor: _tensor,
    torch.dtype: lambda value, _: {"dtype": str(value)},
    **{kind: _many(kind.__name__) for kind in (list, tuple, set, frozenset)},
}


def _decoded(node: Any, blob: memoryview) -> Any:
    if node is None or isinstance(node, bool | str):
        return node
    ((name, value),) = node.items()
    match name:
        case "int":
            return int(value, 16)
        case "float":
            return float.fromhex(value)
        case "complex":
            return complex(*map(float.fromhex, value))
        case "fraction":
            return Fraction(*(int(one, 16) for one in value))
        case "decimal":
            return Decimal(value)
        case "array" | "number":
            dtype, shape, where = value
            kind = np.dtype(dtype)
            if kind.kind not in _KINDS:
                raise ValueError("an array of something else")
            array = np.frombuffer(_part(blob, where, shape, kind.itemsize), kind).reshape(shape).copy()
            return array[()] if name == "number" else array
        case "tensor":
            dtype, shape, where = value
            raw = bytearray(_part(blob, where, shape, _DTYPES[dtype].itemsize))
            if not raw:
                return torch.empty(shape, dtype=_DTYPES[dtype])
            return torch.frombuffer(raw, dtype=_DTYPES[dtype]).reshape(shape)
        case "dict":
            return {_decoded(key, blob): _decoded(one, blob) for key, one in value}
        case "range":
            return range(*(int(one, 16) for one in value))
        case "dtype":
            return _DTYPES[value]
    return _SEVERAL[name](_decoded(one, blob) for one in value)


_SEVERAL: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


def _part(blob: memoryview, where: list[int], shape: list[int], itemsize: int) -> memoryview:
    start, size = where
    if min([0, start, size, *shape]) < 0 or start + size > len(blob) or math.prod(shape) * itemsize != size:
        raise ValueError("an array of another size")
    return blob[start : start + size]


def put(old: Any, new: Any) -> None:
    """Make ``old``, which the judge holds, what the answer has made of its own copy.

    Raises:
        NotPlainError: it has another shape now.
    """
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray) and old.shape == new.shape:
        old[...] = new
    elif isinstance(old, Tensor) and isinstance(new, Tensor) and old.shape == new.shape:
        with torch.no_grad():
            old.copy_(new)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) == len(new):
            for place, (one, other) in enumerate(zip(old, new, strict=True)):
                if pack(one) != pack(other):
                    with contextlib.suppress(NotPlainError):
                        put(one, other)
                        continue
                    old[place] = other
        else:
            old[:] = new
    elif isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        for one, other in zip(old, new, strict=True):
            if pack(one) != pack(other):
                put(one, other)
    elif isinstance(old, dict) and isinstance(new, dict):
        kept = dict(old)
        old.clear()
        old.update(new)
        for key in kept.keys() & new.keys():  # what others hold, too, stays the same object
            with contextlib.suppress(NotPlainError):
                put(kept[key], new[key])
                old[key] = kept[key]
    elif isinstance(old, set) and isinstance(new, set):
        old.clear()
        old.update(new)
    elif pack(old) != pack(new):
        raise NotPlainError(type(old).__name__)


def first_line(own: inspect.Signature | None) -> Any:
    """A signature as it crosses: names and kinds; of a default, that there is one, and its value where it is plain."""
    if own is None:
        return None
    parameters = []
    for name, one in own.parameters.items():
        default: list[Any] = []
        if one.default is not one.empty:
            default = [one.default]
            try:
                pack(default)
            except NotPlainError:
                default = [None]
        parameters.append([name, int(one.kind), default])
    return parameters


def signature(parameters: Any) -> inspect.Signature | None:
    """The other way.

    Raises:
        ValueError: that is not a signature.
    """
    if parameters is None:
        return None
    kinds = list(inspect._ParameterKind)
    try:
        return inspect.Signature(
            [
                inspect.Parameter(name, kinds[kind], **({"default": default[0]} if default else {}))
                for name, kind, default in parameters
            ]
        )
    except (TypeError, IndexError) as error:
        raise ValueError(f"not a signature: {error}") from None
