"""Explorer 4: the update race."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Choice, Dial, rules, spread
from deepnet_edu.explorers.grid import Grid
from deepnet_edu.explorers.settings import RACE_STEPS, RaceSettings, Tick, race_sum
from deepnet_edu.figures.race import RaceFigure, RaceView
from deepnet_edu.figures.style import FIRST
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
    about = "choose rule, depth, learning rate and warm-up; see how far the first steps move the outputs."
    what = (
        "How far the model's outputs on one batch have moved since initialisation, after each of the first steps of "
        "Adam; only the matrices of the stack are trained, as in the theorem. The axis is logarithmic.",
        "The dashed line is the right-hand side of Theorem 4.2 for steps of fixed size. Its one free constant is the "
        "smallest that holds for the first step of all recorded DeepNorm runs. For Post-LN it is a comparison: its "
        "points may be above.",
        "At the grey line, √2, outputs have moved as far as those of two unrelated models are apart: then nothing of "
        "the initial model is left.",
    )
    presets: ClassVar[Any] = {
        "Post-LN at 100 layers": {"residual": FIRST[0], "depth": 100},
        "DeepNorm at 100": {"depth": 100},
        "DeepNorm at 1,000": {},
        "… ten times the rate": {"rate": 1e-3},
    }

    def __init__(self, residual: str = DEFAULT, depth: int = 1000, **more: Any) -> None:
        self.residual = Choice("rule", rules(), DEFAULT)
        self.depth = Dial("depth (layers)", DEPTHS, 1000, whole=True)
        self.rate = Dial("learning rate", RATES, 1e-4, note="a learning rate is positive")
        self.warmup = Dial("warm-up (steps)", WARMUPS, 0, whole=True)
        self._runs: dict[RaceSettings, Array] = {}
        self._constant: float | None = None
        given = {"residual": residual, "depth": depth, **more}
        super().__init__(["residual", "depth", "rate", "warmup"], RaceFigure(self._recorded(), RACE_STEPS), given)

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
        source, said = "Not measured yet.", "Not measured yet."
        if found is not None:
            source = f"Large points: a real model, {self.grid.date}." if self.grid else ""
            if settings in self._runs:
                source = "Large points: a real model, trained just now, seed 0."
            said = f"After the first step the outputs have moved by {found[1]:.2g}"
            said += "." if total is None else f", the bound is {self._constant * total[1]:.2g}."
        if total is None:
            source += " The theorem says nothing about this rule."
        warm = f"warm-up {settings.warmup:,} steps" if settings.warmup else "no warm-up"
        return RaceView(
            f"{RESIDUALS[settings.residual].title}, {settings.depth:,} layers, Adam {settings.learning_rate:g}, {warm}",
            said,
            f"{source} Small points: other rules at the same settings, recorded." if others else source,
            settings.residual,
            None if total is None else np.asarray(self._constant * total),
            found,
            others,
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
