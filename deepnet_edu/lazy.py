"""Names of a module that are loaded when they are first used (PEP 562): who needs others does not wait for them."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(module: str, homes: Mapping[str, str], package: str | None = None) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module.

    Args:
        module: its ``__name__``.
        homes: the module in which each name is defined, below the package.
        package: by default the module itself, which is one.

    Returns:
        A function that loads a name and keeps it in the module; it raises AttributeError for one that is not there.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package or module}.{homes[name]}"), name)
        setattr(sys.modules[module], name, value)
        return value

    return load
