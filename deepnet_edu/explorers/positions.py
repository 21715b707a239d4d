"""What the dials of a page without a kernel can be set to: as many positions as a page has room for.

A sheet has the values of each dial that moves; one that it leaves out stays at what the explorer begins with. A page
has all combinations of each of its sheets. Which rules and depths were measured, the records say.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from deepnet_edu.explorers import EXPLORERS, budget, constants, cost, game, mixing, plans
from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Choice
from deepnet_edu.explorers.grid import load
from deepnet_edu.explorers.settings import MapRun, Tick, tied_beta
from deepnet_edu.figures.game import GameView, Round
from deepnet_edu.residual import DEFAULT

Sheet = Mapping[str, Sequence[Any]]
#: From one layer to the deepest, those that were measured among them, for signals and costs.
_DEPTHS = (6, 8, 12, 16, 24, 32, 50, 70, 100, 140, 200, 280, 400, 500, 700, 1000, 1400, 2000)
_FEW_DEPTHS = (12, 50, 100, 200, 400, 1000, 2000)


#: What a page opens with, where that is not what the explorer does: α can be moved at once.
_OPENING: dict[str, dict[str, Any]] = {"signal": {"residual": DEFAULT, "constants": "tied", "alpha": 2.0}}
_ABOUT = {
    "signal": "choose rule, depth, α, β and gain; see what becomes of a signal, in theory and measured.",
    "game": "choose α for a stack and register it; a recorded run shows whether it learns, and the depth doubles.",
}
#: What a page leaves out, a sentence.
LEFT_OUT = {
    "signal": "Width is 32 here, and α can be moved in DeepNorm.",
    "race": "All runs of this page were recorded: four rules, seven depths.",
    "mixing": "Rules without a formula are left out: the course measures them.",
    "game": "Rounds are the first runs behind the cells of the map.",
}


def recorded(name: str) -> Explorer:
    """An explorer that measures nothing and shows what the records have; of the game, one that looks runs up."""
    kind = RecordedGame if name == "game" else EXPLORERS[name]
    changes = {"measurement": lambda self: None, "unmeasured": "none recorded for these settings", "in_address": True}
    # By its own name, since the line of code for a notebook has it.
    made: Explorer = type(EXPLORERS[name].__name__, (kind,), changes)(**_OPENING.get(name, {}))
    return made


def about(name: str) -> str:
    """What a page is for, a sentence."""
    said = _ABOUT.get(name, EXPLORERS[name].about)
    return said[0].upper() + said[1:]


def sheets(name: str) -> list[Sheet]:
    """The positions of one explorer's page."""
    return _SHEETS[name]()


def _options(choice: Choice) -> list[Any]:
    return [value for _, value in choice.options]


def _near(stops: Sequence[float], *wanted: float) -> list[float]:
    """Those of the stops that are nearest, by ratio, to what is wanted."""
    return sorted({min(stops, key=lambda stop: abs(np.log(stop / one))) for one in wanted})


def _signal() -> list[Sheet]:
    from deepnet_edu.explorers.signal import ALPHAS, BETAS, SignalExplorer

    rules = _options(SignalExplorer().residual)
    alphas = [*_near(ALPHAS, *np.geomspace(0.5, 16, 31)), 2.0, 4.0]
    return [
        {"residual": rules, "depth": _DEPTHS, "constants": ["own"], "gain": [0.5, 1.0, 2.0, 3.0]},
        {"residual": [DEFAULT], "depth": _DEPTHS, "constants": ["tied"], "alpha": alphas, "gain": [1.0, 3.0]},
        {
            "residual": [DEFAULT],
            "depth": _FEW_DEPTHS,
            "constants": ["free"],
            "alpha": [*_near(ALPHAS, *np.geomspace(0.5, 16, 11)), 2.0],
            "beta": _near(BETAS, *np.geomspace(0.03, 3, 9), 1.0),
        },
    ]


def _map() -> list[Sheet]:
    grid = load()
    return [{"depth": grid.depths, "alpha": grid.alphas, "run": [seed + 1 for seed in grid.seeds]}]


def _constants() -> list[Sheet]:
    kinds = ["decoder", "encoder", "encoder_decoder"]
    return [{"architecture": kinds, "encoder": constants.DEPTHS, "decoder": constants.DEPTHS}]


def _race() -> list[Sheet]:
    runs = load().races()
    kept = {"residual": "residual", "depth": "depth", "rate": "learning_rate", "warmup": "warmup"}
    return [{dial: list(dict.fromkeys(getattr(run, one) for run in runs)) for dial, one in kept.items()}]


def _cost() -> list[Sheet]:
    common = {"depth": _DEPTHS, "checkpoints": ["none", "root", "each"], "width": [32, 64, 128, 256, 512, 1024]}
    return [
        {**common, "batch": [1, 4, 16, 64], "precision": ["float32"]},
        {**common, "depth": _FEW_DEPTHS, "batch": [4, 64], "precision": _options(cost.CostExplorer().precision)},
    ]


def _game() -> list[Sheet]:
    return [{"alpha": load().alphas}]


def _plans() -> list[Sheet]:
    common: Sheet = {
        "depth": [100, 400, 1000, 2000],
        "width": [256, 512, 1024],
        "shares": [1, 2, 8],
        "gigabytes": [24, 80],
        "kind": ["data", "shard"],
        "checkpoints": [0, "auto"],
    }
    schedules = _options(plans.PlansExplorer().schedule)
    return [{**common, "pipeline": plans.POWERS, "pieces": [1, 4], "schedule": schedules}]


def _mixing() -> list[Sheet]:
    explorer = mixing.MixingExplorer()
    known = []
    for rule in _options(explorer.residual):
        explorer.residual.value = rule
        if explorer.formula() is not None:
            known.append(rule)
    explorer.close()
    return [{"residual": known, "depth": mixing.DEPTHS, "shades": ["weights", "shares"]}]


def _budget() -> list[Sheet]:
    return [
        {
            "depth": [15, 48, 100, 200, 400, 1000],
            "width": [512, 1024, 4096, 8192],
            "billions": [10, 100, 1000, 5000],
            "count": [1, 8, 64, 256, 1024, 8192],
            "price": [1, 2.5, 5],
            "gpu": _options(budget.BudgetExplorer().gpu)[::2],
        }
    ]


_SHEETS: dict[str, Callable[[], list[Sheet]]] = {
    "signal": _signal,
    "map": _map,
    "constants": _constants,
    "race": _race,
    "cost": _cost,
    "game": _game,
    "plans": _plans,
    "mixing": _mixing,
    "budget": _budget,
}


class RecordedGame(game.GameExplorer):
    """The game with the runs of the map: DeepNorm, α by hand and β = 1/(√2·α), seed 0."""

    what = (
        "Each round is a recorded run of a real stack of the depth marked by the dotted line: DeepNorm with "
        "β = 1/(√2·α), 40 steps, the stack alone. The mean of its last five losses must be below the dashed green "
        "line; then the depth doubles.",
        "“Not yet” means that these 40 steps were too few or did not help: a slow run is not a dead one. Look at the "
        "curve: is it still falling, or has it been at 2.77, a uniform guess, from the start?",
        "In the course the same game trains a stack of yours, with other rules, any β and any learning rate.",
    )
    presets: ClassVar[Any] = {
        "α = 1": {"residual": DEFAULT},
        "α = 2": {"residual": DEFAULT, "alpha": 2.0},
        "α = 16": {"residual": DEFAULT, "alpha": 16.0},
    }

    def __init__(self) -> None:
        self.ladder = load().depths
        super().__init__(residual=DEFAULT)
        play, again = self.fixed["buttons"]
        register = {**play, "label": "Register", "about": "Look up the recorded run of this depth and α"}
        self.fixed = {**self.fixed, "buttons": [register, again]}

    def follow(self) -> None:
        """β follows from α."""
        super().follow()
        self.beta.value = tied_beta(float(self.alpha.value))

    def view(self, measured: Any) -> GameView:
        """As in the game, for which there is one thing less to choose here."""
        view = super().view(measured)
        return replace(view, said="Choose α and register it.") if not self.rounds else view

    def measurement(self) -> Callable[[Tick], Any] | None:
        """Nothing is trained."""
        return None

    # --- all that can happen

    def recorded_run(self, depth: int, alpha: float) -> MapRun:
        """The run of a round."""
        return load().cell(depth, alpha)[0]

    def after(self, depth: int, alpha: float) -> None:
        """Be where a game is after the round at this depth with this α, all rounds below it learned."""
        run = self.recorded_run(depth, alpha)
        self.restart()
        self._loss = list(run.loss)
        learned = bool(run.final_loss < game.GOAL)
        beta = tied_beta(alpha)
        chosen = f"DeepNorm, α = {alpha:.3g}, β = {beta:.3g}, learning rate 0.001"
        reached = self.ladder.index(depth)
        below = [Round(one, "", True) for one in self.ladder[:reached]]
        self.rounds = [*below, Round(depth, f"{chosen}: loss {run.final_loss:.2f}", learned)]
        self.best = max((one.depth for one in self.rounds if one.learned), default=0)
        self.depth = self.ladder[min(reached + learned, len(self.ladder) - 1)]

    def rounds_of(self) -> Iterator[tuple[int, float]]:
        """Depth and α of all rounds that were recorded."""
        yield from ((depth, alpha) for depth in self.ladder for alpha in load().alphas)
