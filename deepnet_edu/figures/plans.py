"""Plans for many GPUs: who works when, and what each holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from deepnet_edu.figures.moving import Moving
from deepnet_edu.figures.style import designed, legend_below, new_figure, series_style
from deepnet_edu.planning.pipeline import Slot, length

#: Forward and backward, of a rank's first stage and of its second.
_COLORS = {(False, 0): "#0072B2", (True, 0): "#E69F00", (False, 1): "#56B4E9", (True, 1): "#F0D58C"}
_INK = {(False, 0): "white", (True, 0): "black", (False, 1): "black", (True, 1): "black"}
_NAMES = {
    (False, 0): "forward",
    (True, 0): "backward",
    (False, 1): "forward, second stage of the rank",
    (True, 1): "backward, second stage of the rank",
}
_HEIGHT = 0.84
#: A box that takes less of the axis than this has no room for its number.
_NARROW = 0.012
#: Of the explorer: at most so many bars and rows.
MOST = 8
_PARTS = ["#009E73", "#A6DCC8", "#000000", "#CC79A7", "#999999"]


def _kind(slot: Slot, ranks: int) -> tuple[bool, int]:
    return slot.action.backward, min(slot.action.stage // ranks, 1)


def _box(slot: Slot, scale: float = 1.0) -> list[tuple[float, float]]:
    low, high = slot.rank - _HEIGHT / 2, slot.rank + _HEIGHT / 2
    left, right = slot.start / scale, slot.end / scale
    return [(left, low), (left, high), (right, high), (right, low)]


@designed()
def pipeline_timelines(panels: Mapping[str, Sequence[Slot]], *, numbers: bool = True, unit: str = "") -> Figure:
    """Who works on which micro-batch when: a panel for each schedule, a row for each rank, one scale of time.

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
class PlanView:
    """What the explorer shows.

    Attributes:
        title: model and plan.
        memory: bytes by part, for each rank of the pipeline, at most eight.
        capacity: bytes of a GPU.
        slots: the timeline, and ``ideal``, how long it would be if nobody waited.
        ideal: see there.
        note: one line.
    """

    title: str
    memory: Sequence[Mapping[str, float]]
    capacity: float
    slots: Sequence[Slot]
    ideal: float
    note: str


class PlanFigure(Moving[PlanView]):
    """Left a bar for each rank of the pipeline, in shares of a GPU's memory; right who works when.

    Args:
        parts: of the memory, from the bottom up.
    """

    @designed()
    def __init__(self, parts: tuple[str, ...]) -> None:
        self.figure = Figure(figsize=(8.8, 4.6))
        left, right = self.figure.subplots(1, 2, width_ratios=(1, 1.5))
        super().__init__()
        self.figure.get_layout_engine().set(rect=(0, 0.12, 1, 0.79))  # type: ignore[union-attr, call-arg]
        self._parts = parts
        left.set(xlim=(-0.6, MOST - 0.4), ylim=(0, 150), xlabel="rank of the pipeline")
        left.set_ylabel("share of a GPU's memory (%); above: GB")
        left.set_xticks(range(MOST))
        left.grid(axis="x", visible=False)
        left.axhline(100, color="#D55E00", lw=2, ls="--", zorder=3)
        right.set(
            xlim=(0, 2), ylim=(MOST - 0.5, -0.5), xlabel="time / time without waiting", ylabel="rank of the pipeline"
        )
        right.set_yticks(range(MOST))
        right.grid(visible=False)
        self._bars = [
            self.moves(PolyCollection([], facecolors=color, label=part))
            for part, color in zip(parts, _PARTS, strict=False)
        ]
        self._work = {
            kind: self.moves(PolyCollection([], facecolors=color, edgecolors="white", lw=0.3, label=_NAMES[kind]))
            for kind, color in _COLORS.items()
        }
        for ax, artists in ((left, self._bars), (right, list(self._work.values()))):
            for artist in artists:
                ax.add_collection(artist, autolim=False)
        right.axvline(1, color="#D55E00", lw=2, ls="--", zorder=3)
        handles = [*self._bars, *list(self._work.values())[:2]]
        self.figure.legend(
            handles, [str(one.get_label()) for one in handles], loc="lower center", bbox_to_anchor=(0.5, 0.05), ncols=7,
            fontsize=8, frameon=False,
        )  # fmt: skip
        self._ends = [self.moves(left.text(i, 0, "", ha="center", va="bottom", fontsize=8)) for i in range(MOST)]
        self._title = self.moves(self.figure.text(0.01, 0.985, "", fontsize=12, weight="bold", va="top"))
        self._note = self.moves(self.figure.text(0.01, 0.015, "", fontsize=9))

    def move(self, view: PlanView) -> None:
        """Bars and boxes where the plan has them."""
        ranks = len(view.memory)
        floor = [0.0] * ranks
        for artist, part in zip(self._bars, self._parts, strict=True):
            boxes = []
            for rank, memory in enumerate(view.memory):
                top = floor[rank] + 100 * memory[part] / view.capacity
                boxes.append(
                    [(rank - 0.4, floor[rank]), (rank - 0.4, top), (rank + 0.4, top), (rank + 0.4, floor[rank])]
                )
                floor[rank] = top
            artist.set_verts(boxes)
        for rank, text in enumerate(self._ends):
            total = sum(view.memory[rank].values()) / 1e9 if rank < ranks else 0.0
            text.set(text=f"{total:.3g}" if rank < ranks else "", y=min(floor[rank], 140) + 1 if rank < ranks else 0)
            text.set_visible(rank < ranks)
        for kind, artist in self._work.items():
            artist.set_linewidth(0.3 if len(view.slots) < 300 else 0)
            artist.set_verts([_box(slot, view.ideal) for slot in view.slots if _kind(slot, ranks) == kind])
        self._title.set(text=view.title)
        self._note.set(text=view.note)
        totals = [sum(memory.values()) / 1e9 for memory in view.memory]
        last = length(view.slots) / view.ideal
        self.alt = (
            f"{view.title}: bars of memory for {ranks} ranks, from {min(totals):.3g} to {max(totals):.3g} of "
            f"{view.capacity / 1e9:.3g} GB, and a timeline that takes {last:.2f} times as long as without waiting. "
            f"{view.note}"
        )


def plans(view: PlanView) -> Figure:
    """One picture of a plan."""
    return PlanFigure(tuple(view.memory[0])).show(view)
