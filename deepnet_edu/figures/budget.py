"""Days and dollars of training runs on one plane, and explorer 8: what a run of one's own would cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepnet_edu.figures.scene import Scene, Words
from deepnet_edu.figures.style import designed, legend_below, new_figure

#: Days that people have a word for.
SPANS = {"a day": 1, "a week": 7, "a month": 30, "a year": 365, "ten years": 3650}
_COLORS = ["#D55E00", "#0072B2", "#009E73", "#CC79A7", "#000000"]
_MARKS = "osD^v"
#: From the fastest run to the slowest: days and dollars of each.
Ends = tuple[tuple[float, float], tuple[float, float]]


def _name_days(ax: Axes, low: float, high: float, without: Sequence[str] = ()) -> None:
    """A dotted line for each day, week, month and year between, with its name above the axes."""
    for word, days in SPANS.items():
        if low < days < high and word not in without:
            ax.axvline(days, color="#777777", lw=1, ls=":", zorder=0)
            ax.text(
                days, 1.01, word, transform=ax.get_xaxis_transform(), fontsize=9, color="#555555", ha="center",
                va="bottom",
            )  # fmt: skip


def _money(dollars: float) -> str:
    """In thousands or millions, short, with a dollar sign that begins no formula."""
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
            f"{model}: {bill}", (slowest, (cheap * dear) ** 0.5), (9, 0), textcoords="offset points", fontsize=9,
            va="center",
        )  # fmt: skip
    legend_below(figure, ax, columns=len(counts))
    return figure


@dataclass(frozen=True)
class BudgetView(Words):
    """What the explorer shows.

    Attributes:
        held: bytes of weights, gradients and optimizer on one GPU, by what is shared.
        capacity: bytes of a GPU.
        ends: by number of GPUs, days and dollars of the fastest run and of the slowest.
        count: of GPUs that is chosen, one of them.
    """

    held: Mapping[str, float]
    capacity: float
    ends: Mapping[int, Ends]
    count: int


class BudgetFigure(Scene[BudgetView]):
    """Left what a GPU holds, a point for each way of sharing, right days and dollars by the number of GPUs; on fixed
    logarithmic axes.

    Args:
        held: names of the points.
        others: how many numbers of GPUs are shown besides the one that is chosen.
    """

    def __init__(self, held: Sequence[str], others: int) -> None:
        self._held, self._count = list(held), others
        super().__init__()

    def build(self, figure: Figure) -> None:
        """Empty axes."""
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        rows = range(len(self._held))
        left.set(xscale="log", xlim=(1e-2, 1e5), ylim=(len(self._held) - 0.4, -0.8))
        left.set_xlabel("held by each GPU (GB)")
        left.set_yticks(list(rows), self._held)
        (self._points,) = left.plot([], [], "o", color="#0072B2", ms=10)
        self._texts = [left.text(1, i - 0.18, "", ha="center", va="bottom", fontsize=9.5) for i in rows]
        self._line = left.axvline(1, color="#D55E00", lw=2, ls="--")
        above = left.get_xaxis_transform()
        self._said = left.text(1, 1.01, "", color="#D55E00", fontsize=9.5, ha="center", va="bottom", transform=above)
        right.set(xscale="log", yscale="log", xlim=(1e-2, 1e5), ylim=(1e0, 1e10))
        right.set(xlabel="length of the run (days)", ylabel="bill (dollars)")
        # Names that would touch their neighbours'.
        _name_days(right, 1e-2, 1e5, without=("a week",) if self.room[0] > 8 else ("a week", "a year"))
        others = range(self._count)
        self._others = [right.plot([1, 1], [1, 1], color="#999999", ls="-", lw=2.5)[0] for _ in others]
        self._names = [right.text(1, 1, "", fontsize=9, color="#555555", ha="center", va="top") for _ in others]
        (self._chosen,) = right.plot([1, 1], [1, 1], color="#D55E00", ls="-", lw=4, marker="o", ms=6)
        self._label = right.text(1, 1, "", fontsize=10, weight="bold", ha="center", va="bottom")
        self.moves(self._line, self._points, *self._texts, self._said, *self._others, *self._names)
        self.moves(self._chosen, self._label)

    def move(self, view: BudgetView) -> str:
        """Points where they are held; the run at its days and dollars."""
        gigabytes = [view.held[name] / 1e9 for name in self._held]
        inside = [min(max(value, 1.5e-2), 6e4) for value in gigabytes]
        self._points.set_data(inside, range(len(inside)))
        for text, value, x in zip(self._texts, gigabytes, inside, strict=True):
            text.set(text=f"{value:,.3g}", x=x)
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
        held = ", ".join(f"{value / 1e9:,.3g} GB {name}" for name, value in view.held.items())
        return (
            f"Points for what a GPU of {view.capacity / 1e9:.0f} GB must hold ({held}), and days against "
            f"dollars, {fast:.3g} to {slow:.3g} days and {cheap:,.0f} to {dear:,.0f} dollars on {view.count:,}; more "
            "GPUs move it to the left at the same height."
        )
