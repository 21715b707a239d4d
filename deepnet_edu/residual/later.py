"""PyTorch, but later: what a rule says of itself needs none of it, and importing it takes seconds."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


class Later:
    """Stands for a module that has not been imported yet.

    Args:
        name: of the module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # asked by those who look through all objects
            raise AttributeError(attribute)
        return getattr(import_module(self._name), attribute)


def arrive(names: dict[str, Any]) -> None:
    """Import the modules that are among a file's names, and put them there."""
    for name, value in list(names.items()):
        if isinstance(value, Later):
            names[name] = import_module(value._name)


if TYPE_CHECKING:
    import torch

    from deepnet_edu.residual import operations
else:
    torch, operations = Later("torch"), Later("deepnet_edu.residual.operations")

__all__ = ["Later", "arrive", "operations", "torch"]
