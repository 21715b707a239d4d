"""Residual rules: the interface in ``base``, then a file per family. Every file of this folder is read."""

import importlib
import pkgutil

from deepnet_edu.residual.base import RESIDUALS, Place, Registry, Residual, Role, StackName, State

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["RESIDUALS", "Place", "Registry", "Residual", "Role", "StackName", "State"]
