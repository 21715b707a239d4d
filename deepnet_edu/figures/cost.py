"""Explorer 5: where memory and time of a training step go, a bar for each part."""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from deepnet_edu.figures.moving import Moving
from deepnet_edu.figures.style import designed

_GB = (1e-3, 1e4)
_SECONDS = (1e-4, 1e3)
_COLORS = ["#0072B2", "#56B4E9", "#009E73", "#E69F00", "#CC79A7", "#999999"]


@dataclass(frozen=True)
class CostView:
    """What the picture shows.

    Attributes:
        title: shape and recipe.
        memory: bytes by part, for the bars; its sum is the total.
        seconds: by part; None where no time is known.
        floor: seconds of the matrix products alone.
        note: one line.
    """

    title: str
    memory: Mapping[str, float]
    seconds: Mapping[str, float] | None
    floor: float
    note: str


class CostFigure(Moving[CostView]):
    """Two panels of bars on fixed logarithmic axes, the total at the bottom of each.

    Args:
        memory: names of the parts.
        seconds: names of the parts.
    """

    @designed()
    def __init__(self, memory: tuple[str, ...], seconds: tuple[str, ...]) -> None:
        self.figure = Figure(figsize=(8.8, 4.3))
        axes = self.figure.subplots(1, 2)
        super().__init__()
        self.figure.get_layout_engine().set(rect=(0, 0.07, 1, 0.83))  # type: ignore[union-attr, call-arg]
        self._bars = []
        for ax, names, limits, unit in zip(
            axes, (memory, seconds), (_GB, _SECONDS), ("memory (GB)", "time of a step (s)"), strict=True
        ):
            labels = [*names, "together"]
            ax.set(xscale="log", xlim=limits, xlabel=unit, ylim=(len(labels) - 0.4, -0.6))
            ax.set_yticks(range(len(labels)), labels)
            ax.grid(axis="y", visible=False)
            colors = [*(_COLORS * 2)[: len(names)], "#000000"]
            bars = ax.barh(range(len(labels)), limits[0], left=limits[0], color=colors, height=0.7)
            texts = [ax.text(limits[0], i, "", va="center", fontsize=9) for i in range(len(labels))]
            self.moves(*bars, *texts)
            self._bars.append((list(names), list(bars), texts, limits))
        self._floor = self.moves(axes[1].axvline(1, color="#D55E00", lw=2.5, ls="--"))
        self._said = self.moves(axes[1].text(1, -0.55, "", color="#D55E00", fontsize=9, ha="center", va="bottom"))
        self._title = self.moves(self.figure.text(0.01, 0.985, "", fontsize=12, weight="bold", va="top"))
        self._note = self.moves(self.figure.text(0.01, 0.015, "", fontsize=9))

    def move(self, view: CostView) -> None:
        """Each bar ends at its part."""
        for (names, bars, texts, (low, high)), parts, scale in zip(
            self._bars, (view.memory, view.seconds), (1e9, 1.0), strict=True
        ):
            values = [] if parts is None else [parts[name] / scale for name in names]
            values = [*values, sum(values)] if values else [0.0] * len(bars)
            for bar, text, value in zip(bars, texts, values, strict=True):
                end = min(max(value, low), high)
                bar.set_width(end - low)
                text.set(
                    text=_short(value) if value else ("0" if parts else ""),
                    x=1.15 * end if end < high / 20 else end / 6,
                )
                text.set_color("black" if end < high / 20 else "white")
        for artist in (self._floor, self._said):
            artist.set_visible(view.seconds is not None)
        self._floor.set_xdata([view.floor] * 2)
        self._said.set(x=view.floor, text="floor: products alone")
        self._title.set(text=view.title)
        self._note.set(text=view.note)
        total = sum(view.memory.values()) / 1e9
        largest = max(view.memory, key=lambda name: view.memory[name])
        time = (
            "" if view.seconds is None else f", and a step {sum(view.seconds.values()):.2g} s, floor {view.floor:.2g} s"
        )
        self.alt = f"{view.title}: bars by part. Together {total:.3g} GB, most of it {largest}{time}. {view.note}"


def _short(value: float) -> str:
    return f"{value:.3g}" if value >= 1e-3 else f"{value:.1g}"


def cost(view: CostView) -> Figure:
    """One picture of a step's cost."""
    return CostFigure(tuple(view.memory), tuple(view.seconds or ("products",))).show(view)
