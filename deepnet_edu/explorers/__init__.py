"""Sliders and a picture around figures: depth and α under the finger.

    from deepnet_edu.explorers import SignalExplorer
    SignalExplorer(depth=400)

``EXPLORERS`` has them all by the name that ``deepnet-edu explore`` takes.
"""

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

EXPLORERS: dict[str, type[Explorer]] = {
    kind.name: kind
    for kind in (
        SignalExplorer,
        TrainabilityExplorer,
        ConstantsExplorer,
        RaceExplorer,
        CostExplorer,
        GameExplorer,
        PlansExplorer,
        MixingExplorer,
        BudgetExplorer,
    )
}

__all__ = [
    "EXPLORERS",
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
