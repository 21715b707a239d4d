"""PyTorch, loaded when something of it is first used: what a rule says of itself needs none of it."""

import sys
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING


def lazily(name: str) -> ModuleType:
    """The module of this name; where nobody has imported it yet, its code runs when it is first asked for an attribute.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}: install it, or run install.py again.", name=name)
    spec.loader = LazyLoader(spec.loader)
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    import torch

    from deepnet_edu.residual import operations
else:
    torch, operations = lazily("torch"), lazily("deepnet_edu.residual.operations")

__all__ = ["lazily", "operations", "torch"]
