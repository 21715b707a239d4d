"""Dials and a picture around figures: depth and α interactively.

    from deepnet_edu.explorers import SignalExplorer
    SignalExplorer(depth=400)

``EXPLORERS`` has them all by the name that ``deepnet-edu explore`` takes, ``NAMES`` the names alone. Classes are loaded
when they are first used: asking for names needs no PyTorch.
"""

from typing import TYPE_CHECKING, Any

from deepnet_edu.lazy import lazily

if TYPE_CHECKING:
    from deepnet_edu.explorers.base import Explorer
    from deepnet_edu.explorers.budget import BudgetExplorer
    from deepnet_edu.explorers.constants import ConstantsExplorer
    from deepnet_edu.explorers.cost import CostExplorer
    from deepnet_edu.explorers.game import GameExplorer
    from deepnet_edu.explorers.grid import Grid, load
    from deepnet_edu.explorers.mixing import MixingExplorer
    from deepnet_edu.explorers.plans import PlansExplorer
    from deepnet_edu.explorers.race import RaceExplorer
    from deepnet_edu.explorers.signal import SignalExplorer
    from deepnet_edu.explorers.trainability import TrainabilityExplorer

    EXPLORERS: dict[str, type[Explorer]]

#: The class of each explorer, by its name, in the order in which they are shown.
_CLASSES = {
    "signal": "SignalExplorer",
    "map": "TrainabilityExplorer",
    "constants": "ConstantsExplorer",
    "race": "RaceExplorer",
    "cost": "CostExplorer",
    "game": "GameExplorer",
    "plans": "PlansExplorer",
    "mixing": "MixingExplorer",
    "budget": "BudgetExplorer",
}
NAMES = tuple(_CLASSES)
#: The file of each name below.
_HOME = {
    **{name: name.removesuffix("Explorer").lower() for name in _CLASSES.values()},
    "Explorer": "base",
    "Grid": "grid",
    "load": "grid",
}

__all__ = [
    "EXPLORERS",
    "NAMES",
    "BudgetExplorer",
    "ConstantsExplorer",
    "CostExplorer",
    "Explorer",
    "GameExplorer",
    "Grid",
    "MixingExplorer",
    "PlansExplorer",
    "RaceExplorer",
    "SignalExplorer",
    "TrainabilityExplorer",
    "load",
]

_load = lazily(__name__, _HOME)


def __getattr__(name: str) -> Any:
    if name == "EXPLORERS":
        globals()[name] = {kind: _load(cls) for kind, cls in _CLASSES.items()}
        return globals()[name]
    return _load(name)
