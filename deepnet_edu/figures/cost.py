"""Explorer 5: where memory and time of a training step go: bars that follow on each other, and their sum."""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from deepnet_edu.figures.scene import Scene, Words, round_top

_TICKS = 5


@dataclass(frozen=True)
class CostView(Words):
    """What the picture shows.

    Attributes:
        memory: bytes by part, for the bars; its sum is the total.
        seconds: by part; None where no time is known.
    """

    memory: Mapping[str, float]
    seconds: Mapping[str, float] | None


class CostFigure(Scene[CostView]):
    """Two panels. Each bar begins where the one above ends, so that lengths add up, on a linear axis from 0.

    The axis ends at the next of 1, 2, 5, 10, … and its numbers follow.

    Args:
        memory: names of the parts.
        seconds: names of the parts.
    """

    def __init__(self, memory: tuple[str, ...], seconds: tuple[str, ...]) -> None:
        self._parts = {"memory (GB)": memory, "time of a step (s)": seconds}
        super().__init__()

    def build(self, figure: Figure) -> None:
        """Empty panels."""
        self._panels = []
        for ax, (unit, names) in zip(figure.subplots(1, 2), self._parts.items(), strict=True):
            labels = [*names, "together"]
            # Numbers are right of their bars.
            ax.set(xlim=(0, 1.2), ylim=(len(labels) - 0.4, -0.6))
            ax.set_xlabel(unit, labelpad=16)  # the axis has its numbers between
            ax.set_yticks(range(len(labels)), labels)
            ax.get_yticklabels()[-1].set_fontweight("bold")
            ax.set_xticks([i / _TICKS for i in range(_TICKS + 1)], [""] * (_TICKS + 1))
            ax.grid(axis="y", visible=False)
            bars = list(ax.barh(range(len(labels)), 1.0, color=["#0072B2"] * len(names) + ["black"], height=0.7))
            texts = [ax.text(0, i, "", va="center", fontsize=9.5) for i in range(len(labels))]
            below = ax.get_xaxis_transform()
            ticks = [
                ax.text(i / _TICKS, -0.03, "", transform=below, ha="center", va="top", fontsize=9.5)
                for i in range(_TICKS + 1)
            ]
            none = ax.text(0.5, 0.5, "", transform=ax.transAxes, ha="center", va="center", color="#555555")
            self.moves(*bars, *texts, *ticks, none)
            self._panels.append((names, bars, texts, ticks, none))

    def move(self, view: CostView) -> str:
        """Each bar as long as its part, from where the last one ended."""
        for (names, bars, texts, ticks, none), parts, scale in zip(
            self._panels, (view.memory, view.seconds), (1e9, 1.0), strict=True
        ):
            none.set(text="" if parts else "not measured\nin this precision")
            for artist in (*bars, *texts, *ticks):
                artist.set_visible(parts is not None)
            if parts is None:
                continue
            total = sum(parts.values()) / scale
            top, begin = round_top(total), 0.0
            for name, bar, text in zip((*names, ""), bars, texts, strict=True):
                value = parts[name] / scale if name else total
                begin = begin if name else 0.0
                bar.set(x=begin / top, width=value / top)
                begin += value
                text.set(text=short(value), x=begin / top + 0.015)
            for i, tick in enumerate(ticks):
                tick.set(text=short(top * i / _TICKS))
        total = sum(view.memory.values()) / 1e9
        largest = max(view.memory, key=lambda name: view.memory[name])
        time = "" if view.seconds is None else f", and a step {sum(view.seconds.values()):.2g} s"
        return (
            f"Bars by part, each from where the last one ends, and their sum. Together {total:.3g} GB, "
            f"most of it {largest}{time}."
        )


def short(value: float) -> str:
    """Three digits, or one of a small number."""
    return "0" if not value else f"{value:,.3g}" if value >= 1e-3 else f"{value:.1g}"
