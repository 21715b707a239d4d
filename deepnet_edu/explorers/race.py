"""Explorer 4: the update race."""

from collections.abc import Callable
from typing import Any

import numpy as np

from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Dial, choice, rules, spread
from deepnet_edu.explorers.grid import Grid
from deepnet_edu.explorers.settings import RACE_STEPS, RaceSettings, Tick, race_sum
from deepnet_edu.figures.race import RaceFigure, RaceView
from deepnet_edu.profiles import Array
from deepnet_edu.residual import DEFAULT, RESIDUALS

DEPTHS = [int(depth) for depth in spread(2, 1000, 30, 12, 25, 50, 100, 200, 400)]
RATES = spread(1e-5, 1e-2, 37, 1e-4, 3e-4, 1e-3, 3e-3)
WARMUPS = [0, 100, 1000, 4000]


def bound_constant(grid: Grid | None) -> float:
    """What the theorem leaves open, as the largest ratio of ‖ΔF‖ to its sum after the first step over all recorded
    DeepNorm runs: so the bound is one for them by construction, and a test for everything else."""
    if grid is None:
        return 1.0
    ratios = []
    for settings in grid.races():
        total, found = race_sum(settings), grid.race(settings)
        if settings.residual == DEFAULT and total is not None and found is not None:
            ratios.append(float(found[1] / total[1]))
    return max(ratios, default=1.0)


class RaceExplorer(Explorer):
    """Rule, depth, learning rate and warm-up → ‖ΔF‖ in the first steps, on the bound."""

    name = "race"
    title = "The update race"
    about = "choose rule, depth, learning rate and warm-up; see how far the first steps move the answers."

    def __init__(self, residual: str = DEFAULT, depth: int = 1000) -> None:
        said: dict[str, Any] = {"changed": self.refresh, "refuse": self.refuse}
        self.residual = choice("rule", rules(), residual, self.refresh)
        self.depth = Dial("depth (layers)", DEPTHS, depth, whole=True, **said)
        self.rate = Dial("learning rate", RATES, 1e-3, note="a learning rate is positive", **said)
        self.warmup = Dial("warm-up (steps)", WARMUPS, 0, whole=True, **said)
        self._runs: dict[RaceSettings, Array] = {}
        self._constant: float | None = None
        super().__init__([self.residual, self.depth, self.rate, self.warmup], RaceFigure(self._recorded(), RACE_STEPS))

    def settings(self, residual: str | None = None) -> RaceSettings:
        """What the dials say, for this rule or another."""
        return RaceSettings(
            residual or self.residual.value, int(self.depth.value), float(self.rate.value), int(self.warmup.value)
        )

    def _recorded(self) -> tuple[str, ...]:
        """The rules of which there are recorded races, which are drawn beside the chosen one's."""
        return (*dict.fromkeys(settings.residual for settings in self.grid.races()),) if self.grid else ()

    def _known(self, settings: RaceSettings) -> Array | None:
        recorded = self.grid.race(settings) if self.grid else None
        return self._runs.get(settings) if recorded is None else recorded

    def view(self, measured: Any) -> RaceView:
        """The bound at once, points where they are known."""
        settings = self.settings()
        if measured is not None:
            self._runs[measured[0]] = measured[1]
        found = self._known(settings)
        if self._constant is None:
            self._constant = bound_constant(self.grid)
        total = race_sum(settings)
        known = {rule: self._known(self.settings(rule)) for rule in self._recorded() if rule != settings.residual}
        others = {rule: run for rule, run in known.items() if run is not None}
        source = "not measured yet"
        if found is not None and settings in self._runs:
            source = "circles: a real model, trained just now, seed 0"
        elif found is not None and self.grid:
            source = f"circles: a real model, {self.grid.date}"
        if total is None:
            source += " · the theorem says nothing of this rule"
        warm = f"warm-up {settings.warmup:,} steps" if settings.warmup else "no warm-up"
        return RaceView(
            settings.residual,
            f"{RESIDUALS[settings.residual].title}, {settings.depth:,} layers, Adam {settings.learning_rate:g}, {warm}",
            None if total is None else np.asarray(self._constant * total),
            found,
            others,
            source,
        )

    def measurement(self) -> Callable[[Tick], Any] | None:
        """A real model, where neither the grid nor this kernel has it."""
        settings = self.settings()
        if self._known(settings) is not None:
            return None

        def raced(tick: Tick) -> Any:
            from deepnet_edu.explorers.measured import race

            return settings, race(settings, tick)

        return raced
