"""Days and dollars of training runs on one plane, and explorer 8: what a run of one's own would cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepnet_edu.figures.moving import Moving
from deepnet_edu.figures.style import designed, legend_below, new_figure

#: Days that people have a word for.
SPANS = {"a day": 1, "a week": 7, "a month": 30, "a year": 365, "ten years": 3650}
_COLORS = ["#D55E00", "#0072B2", "#009E73", "#CC79A7", "#000000"]
_MARKS = "osD^v"
#: From the fastest run to the slowest: days and dollars of each.
Ends = tuple[tuple[float, float], tuple[float, float]]


def _name_days(ax: Axes, low: float, high: float, without: str = "") -> None:
    """A dotted line for each day, week, month and year between, with its name above the axes."""
    for word, days in SPANS.items():
        if low < days < high and word != without:
            ax.axvline(days, color="#777777", lw=1, ls=":", zorder=0)
            ax.text(
                days, 1.01, word, transform=ax.get_xaxis_transform(), fontsize=8.5, color="#555555", ha="center",
                va="bottom",
            )  # fmt: skip


def _money(dollars: float) -> str:
    """In thousands or millions, short; the sign is no formula's."""
    return rf"\${dollars / 1e6:.3g}M" if dollars >= 1e6 else rf"\${dollars / 1e3:.3g}k"


@designed()
def days_and_dollars(models: Mapping[str, Mapping[int, Ends]]) -> Figure:
    """A row for each model at the middle of its bill, and in it a bar for each number of GPUs, fastest run to slowest.

    Args:
        models: by name, and by number of GPUs, days and dollars of the fastest run and of the slowest.
    """
    figure, (ax,) = new_figure(1, width=8.8, height=5.0)
    counts = list(next(iter(models.values())))
    ends = [end for bars in models.values() for bar in bars.values() for end in bar]
    days, dollars = [day for day, _ in ends], [bill for _, bill in ends]
    left, right = min(days) / 1.6, max(days) * 100
    ax.set(
        xscale="log", yscale="log", xlim=(left, right), ylim=(min(dollars) / 1.5, max(dollars) * 1.6),
        xlabel="length of the run (days)", ylabel="bill (dollars)",
    )  # fmt: skip
    _name_days(ax, left, right)
    for model, bars in models.items():
        for i, count in enumerate(counts):
            (fast, cheap), (slow, dear) = bars[count]
            label = f"{count:,} GPUs" if model == next(iter(models)) else None
            style: dict[str, Any] = {
                "color": _COLORS[i % 5],
                "marker": _MARKS[i % 5],
                "ls": "-",
                "lw": 3,
                "ms": 5,
                "label": label,
            }
            ax.plot([fast, slow], [(cheap * dear) ** 0.5] * 2, **style)
        slowest, bill = max(bar[1][0] for bar in bars.values()), f"{_money(cheap)} to {_money(dear)}"
        ax.annotate(
            f"{model}: {bill}", (slowest, (cheap * dear) ** 0.5), (9, 0), textcoords="offset points", fontsize=8.5,
            va="center",
        )  # fmt: skip
    legend_below(figure, ax, columns=len(counts))
    return figure


@dataclass(frozen=True)
class BudgetView:
    """What the explorer shows.

    Attributes:
        title: model and run.
        held: bytes that a GPU holds of weights, gradients and optimizer, by what is shared among GPUs.
        capacity: bytes of a GPU.
        ends: days and dollars, for each number of GPUs.
        count: of GPUs that is chosen, one of them.
        note: one line.
    """

    title: str
    held: Mapping[str, float]
    capacity: float
    ends: Mapping[int, Ends]
    count: int
    note: str


class BudgetFigure(Moving[BudgetView]):
    """Left what a GPU holds, right days and dollars by the number of GPUs, on fixed logarithmic axes.

    Args:
        held: names of the bars.
        others: how many numbers of GPUs are shown besides the one that is chosen.
    """

    @designed()
    def __init__(self, held: Sequence[str], others: int) -> None:
        self.figure = Figure(figsize=(8.8, 4.4))
        left, right = self.figure.subplots(1, 2, width_ratios=(1, 1.25))
        super().__init__()
        self.figure.get_layout_engine().set(rect=(0, 0.1, 1, 0.8))  # type: ignore[union-attr, call-arg]
        self._held, self._low, self._high = list(held), 1e-2, 1e5
        rows = range(len(self._held))
        left.set(xscale="log", xlim=(self._low, self._high), ylim=(len(self._held) - 0.4, -0.6))
        left.set_xlabel("weights, gradients, optimizer on a GPU (GB)")
        left.set_yticks(list(rows), self._held)
        left.grid(axis="y", visible=False)
        bars = left.barh(rows, self._low, left=self._low, color="#0072B2", height=0.6)
        self._bars = list(bars)
        self._texts = [left.text(self._low, i, "", va="center", fontsize=9) for i in rows]
        self._line = left.axvline(1, color="#D55E00", lw=2.5, ls="--")
        self._said = left.text(1, -0.5, "", color="#D55E00", fontsize=9, ha="center", va="bottom")
        right.set(xscale="log", yscale="log", xlim=(1e-2, 1e5), ylim=(1e0, 1e10))
        right.set(xlabel="length of the run (days)", ylabel="bill (dollars)")
        _name_days(right, 1e-2, 1e5, without="a week")  # its name would touch the month's
        self._others = [right.plot([1, 1], [1, 1], color="#999999", ls="-", lw=2.5)[0] for _ in range(others)]
        self._names = [right.text(1, 1, "", fontsize=8, color="#555555", ha="center", va="top") for _ in range(others)]
        (self._chosen,) = right.plot([1, 1], [1, 1], color="#D55E00", ls="-", lw=4, marker="o", ms=6)
        self._label = right.text(1, 1, "", fontsize=10, weight="bold", ha="center", va="bottom")
        self._title = self.figure.text(0.01, 0.985, "", fontsize=12, weight="bold", va="top")
        self._note = self.figure.text(0.01, 0.015, "", fontsize=9)
        self.moves(*self._bars, *self._texts, self._line, self._said, *self._others, *self._names)
        self.moves(self._chosen, self._label, self._title, self._note)

    def move(self, view: BudgetView) -> None:
        """Bars end at what is held; the run lies at its days and dollars."""
        for bar, text, name in zip(self._bars, self._texts, self._held, strict=True):
            value = view.held[name] / 1e9
            end = min(max(value, self._low), self._high)
            bar.set_width(end - self._low)
            inside = end > 100 * self._low
            text.set(text=f"{value:,.3g}", x=end / 1.2 if inside else 1.2 * end, color="white" if inside else "black")
            text.set_horizontalalignment("right" if inside else "left")
        self._line.set_xdata([view.capacity / 1e9] * 2)
        self._said.set(text=f"a GPU: {view.capacity / 1e9:.0f} GB", x=view.capacity / 1e9)
        rest = [count for count in view.ends if count != view.count]
        for i, (line, text) in enumerate(zip(self._others, self._names, strict=True)):
            line.set_visible(i < len(rest))
            text.set_visible(i < len(rest))
            if i < len(rest):
                (fast, cheap), (slow, dear) = view.ends[rest[i]]
                line.set_data([fast, slow], [cheap, dear])
                text.set(text=f"{rest[i]:,}", x=(fast * slow) ** 0.5, y=cheap / 1.8)
        (fast, cheap), (slow, dear) = view.ends[view.count]
        self._chosen.set_data([fast, slow], [cheap, dear])
        self._label.set(text=f"{view.count:,} GPU{'s' * (view.count > 1)}", x=(fast * slow) ** 0.5, y=2 * dear)
        self._title.set(text=view.title)
        self._note.set(text=view.note)
        held = ", ".join(f"{value / 1e9:,.3g} GB {name}" for name, value in view.held.items())
        self.alt = (
            f"{view.title}: bars of what a GPU of {view.capacity / 1e9:.0f} GB must hold ({held}), and days against "
            f"dollars, {fast:.3g} to {slow:.3g} days and {cheap:,.0f} to {dear:,.0f} dollars on {view.count:,}; more "
            f"GPUs move it to the left at the same height. {view.note}"
        )
