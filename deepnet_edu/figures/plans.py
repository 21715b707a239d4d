"""Plans for many GPUs: who works when, and what each holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch

from deepnet_edu.figures.scene import Scene, Words, boxes, key_below
from deepnet_edu.figures.style import designed, legend_below, new_figure, series_style
from deepnet_edu.planning.pipeline import Slot, length

#: Forward and backward, of a rank's first stage and of its second.
_COLORS = {(False, 0): "#0072B2", (True, 0): "#E69F00", (False, 1): "#56B4E9", (True, 1): "#F0D58C"}
_HATCH = {(False, 0): "", (True, 0): "", (False, 1): "--", (True, 1): "--"}
_INK = {(False, 0): "white", (True, 0): "black", (False, 1): "black", (True, 1): "black"}
_NAMES = {
    (False, 0): "forward",
    (True, 0): "backward",
    (False, 1): "forward, 2nd stage of the rank",
    (True, 1): "backward, 2nd stage of the rank",
}
_HEIGHT = 0.84
#: A box that takes less of the axis than this has no room for its number.
_NARROW = 0.012
#: Of the explorer: the most bars and rows.
MOST = 8
#: Colour and hatch of a part; neighbours differ in both.
_PARTS = [("#009E73", ""), ("#A6DCC8", "//"), ("#000000", ""), ("#CC79A7", "xx"), ("#777777", "\\\\")]


def _kind(slot: Slot, ranks: int) -> tuple[bool, int]:
    return slot.action.backward, min(slot.action.stage // ranks, 1)


def _box(slot: Slot, scale: float = 1.0) -> list[tuple[float, float]]:
    low, high = slot.rank - _HEIGHT / 2, slot.rank + _HEIGHT / 2
    left, right = slot.start / scale, slot.end / scale
    return [(left, low), (left, high), (right, high), (right, low)]


@designed()
def pipeline_timelines(panels: Mapping[str, Sequence[Slot]], *, numbers: bool = True, unit: str = "") -> Figure:
    """Which rank works on which micro-batch when: a panel for each schedule, a row for each rank, one scale of time.

    Args:
        panels: by title, slots of :func:`~deepnet_edu.planning.timeline` or measured ones.
        numbers: whether each box that has the room says which micro-batch it is, counted from 0.
        unit: of the time; by default that of :func:`~deepnet_edu.planning.timeline`.
    """
    rows = [1 + max(slot.rank for slot in slots) for slots in panels.values()]
    figure = Figure(figsize=(8.4, 0.9 + sum(0.34 * n + 0.75 for n in rows)))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    end = max(length(slots) for slots in panels.values())
    handles: dict[tuple[bool, int], PolyCollection] = {}
    for ax, (title, slots), ranks in zip(axes, panels.items(), rows, strict=True):
        for kind, color in _COLORS.items():
            boxes = [_box(slot) for slot in slots if _kind(slot, ranks) == kind]
            if boxes:
                drawn = PolyCollection(boxes, facecolors=color, edgecolors="white", lw=0.8)
                ax.add_collection(drawn)
                handles.setdefault(kind, drawn)
        for slot in slots if numbers else ():
            if slot.end - slot.start < _NARROW * end:
                continue
            ax.text(
                (slot.start + slot.end) / 2,
                slot.rank,
                str(slot.action.microbatch),
                ha="center",
                va="center",
                fontsize=10.5,
                color=_INK[_kind(slot, ranks)],
            )
        ax.set(xlim=(0, end), ylim=(ranks - 0.5, -0.5), title=title, ylabel="rank")
        ax.set_yticks(range(ranks))
        ax.grid(visible=False)
    axes[-1].set_xlabel(unit or "time (a forward pass of a rank's layers over one micro-batch = 1)")
    labels = [_NAMES[kind] for kind in handles]
    figure.legend(list(handles.values()), labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


@designed()
def memory_against_ranks(ranks: Sequence[int], curves: Mapping[str, Sequence[float]], limit: float = 0.0) -> Figure:
    """Bytes of the fullest rank against the number of ranks, both logarithmic.

    Args:
        ranks: how many.
        curves: bytes, by label.
        limit: bytes of one GPU, drawn as a line; 0 for none.
    """
    figure, (ax,) = new_figure(1, width=8, height=4.2)
    for i, (label, values) in enumerate(curves.items()):
        ax.plot(ranks, [value / 1e9 for value in values], marker="osD^v"[i % 5], label=label, **series_style(i))
    if limit:
        ax.axhline(limit / 1e9, color="#555555", linestyle=":", linewidth=1.5)
        ax.annotate(
            f"a GPU of {limit / 1e9:.0f} GB", (ranks[0], limit / 1e9), (2, 4), textcoords="offset points", fontsize=9
        )
    ax.set(xscale="log", yscale="log", xlabel="GPUs", ylabel="memory of the fullest GPU (GB)")
    ax.set_xticks(ranks, [str(n) for n in ranks])
    low, high = ax.get_ylim()
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low <= tick <= high]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    legend_below(figure, ax)
    return figure


@dataclass(frozen=True)
class PlanView(Words):
    """What the explorer shows.

    Attributes:
        memory: bytes by part, for each rank of the pipeline, at most eight.
        capacity: bytes of a GPU.
        slots: the timeline.
        ideal: how long it would be if no rank waited.
    """

    memory: Sequence[Mapping[str, float]]
    capacity: float
    slots: Sequence[Slot]
    ideal: float


class PlanFigure(Scene[PlanView]):
    """Left a bar for each rank of the pipeline, in shares of a GPU's memory; right who works when.

    Both panels are divided among the ranks that there are.

    Args:
        parts: of the memory, from the bottom up.
    """

    def __init__(self, parts: tuple[str, ...]) -> None:
        self._parts = parts
        super().__init__()

    def build(self, figure: Figure) -> None:
        """Empty axes, and fills that a colour-blind reader can tell apart by their hatches."""
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
        left.set(xlim=(0, 1), ylim=(0, 150), xlabel="")
        left.set_ylabel("share of a GPU's memory (%)")
        left.set_xlabel("rank of the pipeline", labelpad=20)
        left.set_xticks([])
        left.grid(axis="x", visible=False)
        left.axhline(100, color="#D55E00", lw=2, ls="--", zorder=3)
        right.set(xlim=(0, 2), ylim=(1, 0), xlabel="time / time without waiting", ylabel="")
        right.set_ylabel("rank of the pipeline", labelpad=20)
        right.set_yticks([])
        right.grid(visible=False)
        right.axvline(1, color="#D55E00", lw=2, ls="--", zorder=3)
        self._bars = [_fill(left, part, *fill) for part, fill in zip(self._parts, _PARTS, strict=False)]
        self._work = {kind: _fill(right, _NAMES[kind], color, _HATCH[kind]) for kind, color in _COLORS.items()}
        handles = [*self._bars, *self._work.values()]
        key_below(figure, handles, most=5)
        below, beside = left.get_xaxis_transform(), right.get_yaxis_transform()
        self._ends = [left.text(0, 0, "", ha="center", va="bottom", fontsize=9) for _ in range(MOST)]
        self._ranks = [left.text(0, -0.03, str(i), transform=below, ha="center", va="top") for i in range(MOST)]
        self._rows = [right.text(-0.02, 0, str(i), transform=beside, ha="right", va="center") for i in range(MOST)]
        self.moves(*handles, *self._ends, *self._ranks, *self._rows)

    def move(self, view: PlanView) -> str:
        """Bars and boxes where the plan has them."""
        ranks = len(view.memory)
        centres = [(rank + 0.5) / ranks for rank in range(ranks)]
        half = min(0.4 / ranks, 0.15)
        floor = [0.0] * ranks
        for artist, part in zip(self._bars, self._parts, strict=True):
            tops = [low + 100 * memory[part] / view.capacity for low, memory in zip(floor, view.memory, strict=True)]
            artist.set_path(boxes((x - half, a, x + half, b) for x, a, b in zip(centres, floor, tops, strict=True)))
            floor = tops
        totals = [sum(memory.values()) / 1e9 for memory in view.memory]
        for rank, texts in enumerate(zip(self._ends, self._ranks, self._rows, strict=True)):
            for text in texts:
                text.set_visible(rank < ranks)
            if rank < ranks:
                texts[0].set(text=f"{totals[rank]:.3g}", x=centres[rank], y=min(floor[rank], 140) + 1)
                texts[1].set(x=centres[rank])
                texts[2].set(y=centres[rank])
        for kind, artist in self._work.items():
            artist.set_linewidth(0.4 if len(view.slots) < 300 else 0)
            slots = [slot for slot in view.slots if _kind(slot, ranks) == kind]
            artist.set_path(
                boxes(
                    (
                        slot.start / view.ideal,
                        centres[slot.rank] - half,
                        slot.end / view.ideal,
                        centres[slot.rank] + half,
                    )
                    for slot in slots
                )
            )
            artist.set_visible(bool(slots))
        last = length(view.slots) / view.ideal
        return (
            f"Bars of memory for {ranks} ranks, from {min(totals):.3g} to {max(totals):.3g} of "
            f"{view.capacity / 1e9:.3g} GB, and a timeline that takes {last:.2f} times as long as without waiting."
        )


def _fill(ax: Axes, label: str, color: str, hatch: str) -> PathPatch:
    patch = PathPatch(boxes([]), fc=color, ec="white", lw=0.4, hatch=hatch or None, label=label)
    ax.add_patch(patch)
    return patch
