"""What the code of a class uses and does, found without running it.

A few layers are compared with the plain path, not a thousand. They stand for the others only where code cannot tell
layers apart by anything but what was compared, and does nothing but compute: a ``write`` that prints, or appends to a
list, gives the right numbers by any path, and still has to run.
"""

import builtins
import math
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from dis import get_instructions
from functools import lru_cache
from itertools import chain
from operator import attrgetter, is_
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import torch

#: Where a layer begins to run: a call, a rule's verbs, and what Python asks for by itself.
ENTRIES = ("__call__", "forward", "start", "read", "write", "finish", "__getattr__", "__getattribute__")
#: Builtin functions that only compute, as classes do. Others print, read, look names up, or tell two objects apart.
_PURE = {"abs", "all", "any", "isinstance", "issubclass", "len", "max", "min", "pow", "round", "sorted", "sum"}
#: What PyTorch's own code looks into for every attribute.
_INSIDE = {"__dict__", "_buffers", "_modules", "_parameters"}
_CHANGES = {"STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "DELETE_GLOBAL", "IMPORT_NAME"}
_CHANGES_OUTSIDE = {"STORE_DEREF", "DELETE_DEREF"}  # of a variable that an outer function owns
_OURS = __name__.partition(".")[0]
_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_COMPILED = (BuiltinFunctionType, type(object.__init__), type(str.join))


class Code:
    """What one class is made of.

    Args:
        cls: the class.
        entries: the methods that are called from outside.

    Attributes:
        names: what its code looks up by name. Of an object of this class, it depends on the attributes among them.
        methods: what an object of this class gets from it; one that has such a thing of its own is like no other.
        trouble: what its code does or uses that a comparison cannot show, a clause; empty if nothing.
        spaces: the dictionaries of the class and of those it inherits from.
        uses: a dictionary elsewhere, and what its code finds there by which name.
        functions: all that were read.
    """

    def __init__(self, cls: type, entries: Iterable[str] = ENTRIES) -> None:
        self.spaces: list[Any] = [vars(c) for c in cls.__mro__ if c is not object]
        self.methods = {name for space in self.spaces for name, value in space.items() if callable(value)}
        self.names, self.trouble = set(entries), ""
        self.uses: list[tuple[Any, str]] = []
        self.functions: list[FunctionType] = []
        self._title, self._seen = cls.__name__, set[int]()
        for name in entries:
            self._inherited(name)

    def _inherited(self, name: str) -> None:
        """Look at all that the class has under a name: ``super()`` may ask any of those it inherits from."""
        for space in self.spaces:
            if name in space:
                self._look(name, space[name])

    def _look(self, name: str, value: Any) -> None:
        """Look at what code uses under a name."""
        if id(value) in self._seen or constant(value) or isinstance(value, (type, *_COMPILED)):
            return
        self._seen.add(id(value))
        if isinstance(value, property):
            self._look(name, value.fget)
        elif isinstance(value, classmethod | staticmethod):
            self._look(name, value.__func__)
        elif isinstance(value, FunctionType):
            self._function(value)
        elif not (isinstance(value, ModuleType) and (value is math or _package(vars(value)) in ("torch", _OURS))):
            self._refuse(f"uses {name}, a {type(value).__name__}")

    def _function(self, function: FunctionType) -> None:
        space, ours = function.__globals__, not _of_torch(function.__globals__)
        names, outer, changes = _read(function.__code__)
        self.functions.append(function)
        self.names |= names if ours else names - _INSIDE
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self._look(name, cell.cell_contents)
        for name in outer & space.keys():
            self.uses.append((space, name))
            if isinstance(space[name], ModuleType | type):
                self._parts_of(vars(space[name]), names)
            if ours:
                self._look(name, space[name])
        if not ours:  # PyTorch's own is taken as it is
            return
        for value in chain(function.__defaults__ or (), (function.__kwdefaults__ or {}).values()):
            self._look("a default", value)
        for name in changes | {name for name in names if name == "__dict__" or name.startswith("register_")}:
            self._refuse(f"changes {name}")
        for name in outer - space.keys() - _PURE:
            if not isinstance(getattr(builtins, name, None), type):
                self._refuse(f"calls {name}")
        for name in names:
            self._inherited(name)

    def _parts_of(self, module: Any, names: Iterable[str]) -> None:
        """Look at what was added to a module of PyTorch, and at all that a class of ours has."""
        ours = "__module__" in module and not _made_by_torch(module) and module["__module__"] != "builtins"
        for name in module.keys() & names:
            self.uses.append((module, name))
            value = module[name]
            if ours or (isinstance(value, FunctionType) and not _of_torch(value.__globals__)):
                self._look(name, value)

    def _refuse(self, what: str) -> None:
        self.trouble = self.trouble or f"the code of {self._title} {what}, which a comparison of numbers cannot show"


class Sources:
    """The code of some classes as it is now, and whether it still is."""

    def __init__(self, codes: Iterable[Code]) -> None:
        codes = list(codes)
        spaces = {id(space): space for code in codes for space in code.spaces}
        # All of a class counts, but torch.compile leaves marks of its own in PyTorch's.
        self._spaces = [space for space in spaces.values() if not _made_by_torch(space)]
        uses = [use for code in codes for use in code.uses]
        for code in codes:
            theirs = filter(_made_by_torch, code.spaces)
            uses += [(space, name) for space in theirs for name in {*(space.keys() & code.names), *ENTRIES}]
        self._uses = list({(id(space), name): (space, name) for space, name in uses}.values())
        inside = [value for space in self._spaces for value in space.values() if isinstance(value, FunctionType)]
        functions = {id(f): f for f in chain(inside, *(code.functions for code in codes))}
        self._functions = list(functions.values())
        self._cells = [cell for function in self._functions for cell in function.__closure__ or ()]
        self._before, self._made = self._found(), self._code()

    def hold(self) -> bool:
        """Whether no one has replaced a method, the code of a function, or what that uses."""
        try:
            now = self._found()
            return len(now) == len(self._before) and all(map(is_, now, self._before)) and self._code() == self._made
        except ValueError:  # a variable of an outer function is empty now
            return False

    def _found(self) -> list[Any]:
        uses = [space.get(name) for space, name in self._uses]
        cells = [cell.cell_contents for cell in self._cells]
        return [*chain.from_iterable(space.values() for space in self._spaces), *uses, *cells]

    def _code(self) -> list[Any]:
        return list(map(_MADE_OF, self._functions))


_MADE_OF = attrgetter("__code__", "__defaults__", "__kwdefaults__")


def constant(value: Any) -> bool:
    """Whether a value can be compared once and for all: it cannot be changed from elsewhere."""
    if isinstance(value, tuple | frozenset):
        return all(map(constant, value))
    if is_dataclass(value) and not isinstance(value, type):
        frozen = bool(value.__dataclass_params__.frozen)  # type: ignore[attr-defined]
        return frozen and all(constant(getattr(value, field.name)) for field in fields(value))
    return isinstance(value, _CONSTANTS)


@lru_cache(maxsize=1024)
def _read(code: CodeType) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """All names in a code and in those inside it, those of globals, and those that it changes."""
    names, outer, changes = set(code.co_names), set[str](), set[str]()
    for step in get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            outer.add(step.argval)
        elif step.opname in _CHANGES or (step.opname in _CHANGES_OUTSIDE and step.argval in code.co_freevars):
            changes.add(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            for found, more in zip((names, outer, changes), _read(inner), strict=True):
                found |= more
    return frozenset(names), frozenset(outer), frozenset(changes)


def _package(space: Any) -> str:
    """The package of a module, by the dictionary of its globals; what code takes from one of ours is read."""
    return str(space.get("__name__", "")).partition(".")[0]


def _of_torch(space: Any) -> bool:
    """Whether a dictionary of globals is of one of PyTorch's own modules."""
    return _package(space) == "torch"


def _made_by_torch(space: Any) -> bool:
    """Whether the dictionary of a class is of one of PyTorch's."""
    return str(space.get("__module__", "")).partition(".")[0] == "torch"
