"""Residual rules: the interface in ``base``, then a file per family. Every file of this folder is read, but for
``operations``, which loads PyTorch: that waits until a rule computes."""

import importlib
import pkgutil

from deepnet_edu.residual.base import (
    EVERYWHERE,
    ONE_STACK,
    BranchSlot,
    Calibrated,
    Projected,
    Residual,
    Role,
    Saved,
    Scheduled,
    Signal,
    State,
    itself,
    modules_inside,
    through,
)
from deepnet_edu.residual.place import Architecture, Norm, Place, StackName, place_at, places, sublayer_kinds
from deepnet_edu.residual.registry import DEFAULT, RESIDUALS, Registry

for _module in pkgutil.iter_modules(__path__):
    if _module.name != "operations":
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "DEFAULT",
    "EVERYWHERE",
    "ONE_STACK",
    "RESIDUALS",
    "Architecture",
    "BranchSlot",
    "Calibrated",
    "Norm",
    "Place",
    "Projected",
    "Registry",
    "Residual",
    "Role",
    "Saved",
    "Scheduled",
    "Signal",
    "StackName",
    "State",
    "itself",
    "modules_inside",
    "place_at",
    "places",
    "sublayer_kinds",
    "through",
]
