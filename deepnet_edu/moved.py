"""Modules that were elsewhere, by their former names: what learners have written still works.

``import deepnet_edu.models`` is ``import deepnet_edu.model``: the same module, not a copy. The package itself uses the
names of today alone; a test holds that.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

#: Former name → today's, below ``deepnet_edu``; what was inside is found inside.
MOVED = {
    "attention": "model.attention",
    "compiled": "model.compiled",
    "config": "model.config",
    "embedding": "model.embedding",
    "generation": "model.generation",
    "initialization": "model.initialization",
    "models": "model",
    "parallel": "training.distributed",
    "record": "profiles",
    "stack": "model.stack",
    "training.presets": "experiment.presets",
    "training.sources": "experiment.data",
    "transformer": "model.layer",
}


def name_today(name: str) -> str | None:
    """The full name that a module has now, or None if it always had this one.

    Args:
        name: likewise, such as ``"deepnet_edu.models.base"``.
    """
    package, _, inside = name.partition(".")
    parts = inside.split(".")
    for length in (2, 1):
        former = ".".join(parts[:length])
        if package == "deepnet_edu" and former in MOVED:
            return ".".join([package, MOVED[former], *parts[length:]])
    return None


class _Moved:
    """Finds a module by its former name, and gives the one of today."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name_today(name) else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(name_today(spec.name) or "")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # Python has just put the spec of the former name there.
        module.__spec__ = module.__spec__ and module.__spec__.loader_state


def install() -> None:
    """Let former names be found, before Python looks for their files."""
    if not any(type(finder) is _Moved for finder in sys.meta_path):
        sys.meta_path.insert(0, _Moved())
