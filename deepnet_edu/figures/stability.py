"""Runs that learned and runs that did not: the table of verdicts, and the instruments that tell causes apart."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deepnet_edu.figures.style import designed, legend_below
from deepnet_edu.residual import RESIDUALS

_BLUE, _PALE, _GREY, _ORANGE, _EMPTY = "#0072B2", "#A6D1EC", "#E4E4E4", "#E69F00", "#FFFFFF"
_STACKS = {"decoder": "decoder", "encoder_decoder": "encoder-decoder"}
#: What a probe says before training, as it is drawn.
_START = {"PASS": ("pass", _BLUE), "UNSURE": ("unsure", _GREY), "FAIL": ("fail", _ORANGE)}
#: Where a number that is 0 lies on a logarithmic axis.
_FLOOR = 1e-19


@designed()
def verdict_table(rows: Sequence[Mapping[str, Any]], first: Sequence[str] = ()) -> Figure:
    """Rules from top to bottom; for each architecture the verdict before training, and a cell for each learning rate.

    Blue: all runs of the cell learned, pale blue: some of them, grey: all stood still, orange: some broke and none
    learned; the numbers are runs that learned, of all. An empty cell was not run.

    Args:
        rows: with rule, architecture, learning_rate, seed, verdict, share_learned and outcome.
        first: rules at the top, in this order; the others follow by how much they learned.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("There is no run to draw: give rows of a record, as kit.Results('verdict_table').runs.")

    def learned(rule: str) -> float:
        return max(row["share_learned"] for row in rows if row["rule"] == rule)

    rules = [rule for rule in first if any(row["rule"] == rule for row in rows)]
    rules += sorted({row["rule"] for row in rows} - {*rules}, key=lambda rule: (-learned(rule), rule))
    columns: list[tuple[str, float | None]] = []
    for stack in _STACKS:
        rates = sorted({row["learning_rate"] for row in rows if row["architecture"] == stack})
        columns += [(stack, None), *((stack, rate) for rate in rates)] if rates else []
    figure = Figure(figsize=(2.2 + 0.78 * len(columns), 1.1 + 0.235 * len(rules)))
    ax = figure.add_subplot()
    for y, rule in enumerate(rules):
        for x, (stack, rate) in enumerate(columns):
            same = [row for row in rows if (row["rule"], row["architecture"]) == (rule, stack)]
            text, color = _start(same) if rate is None else _cell(r for r in same if r["learning_rate"] == rate)
            ax.fill_between([x, x + 0.94], y, y + 0.88, color=color, linewidth=0)
            white = color == _BLUE
            ax.text(x + 0.47, y + 0.44, text, ha="center", va="center", fontsize=9, color="white" if white else "black")
    ax.set(xlim=(0, len(columns)), ylim=(len(rules), 0))
    ax.set_yticks([y + 0.44 for y in range(len(rules))], [RESIDUALS[rule].title for rule in rules], fontsize=9)
    heads = ["at start" if rate is None else f"{rate:g}" for _, rate in columns]
    ax.set_xticks([x + 0.47 for x in range(len(columns))], heads, fontsize=9)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)
    for stack, title in _STACKS.items():
        places = [x for x, (of, _) in enumerate(columns) if of == stack]
        if places:
            height = -0.25 - 0.9
            middle = (places[0] + places[-1] + 0.94) / 2
            ax.text(middle, height, f"{title}: learning rate", ha="center", va="bottom", fontsize=9, weight="bold")
            if places[0]:
                ax.axvline(places[0] - 0.03, color="black", linewidth=0.8)
    return figure


def _start(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """What the probe said: of several seeds the worst."""
    said = {row["verdict"] for row in rows}
    worst = next((one for one in ("FAIL", "UNSURE", "PASS") if one in said), None)
    return _START[worst] if worst else ("", _EMPTY)


def _cell(rows: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """Text and colour for the runs of one learning rate."""
    outcomes = [row["outcome"] for row in rows]
    learned, n = outcomes.count("learned"), len(outcomes)
    if not n:
        return "", _EMPTY
    if learned:
        return f"{learned}/{n}", _BLUE if learned == n else _PALE
    return (f"broke {outcomes.count('broke')}/{n}", _ORANGE) if "broke" in outcomes else (f"0/{n}", _GREY)


@designed()
def instruments(runs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Five instruments side by side, a row for each run, so that what is odd about one stands out.

    Arrows lead from the start of training to its end. On logarithmic axes a value of 0 lies on the line at the left.

    Args:
        runs: by name, each with loss (by step), chance, gradient [[first, last layer] at the start, at the end],
            similarity [start, end], update (by step) and moved.

    Raises:
        ValueError: there are no runs.
    """
    if not runs:
        raise ValueError("There is no run to draw: give at least one.")
    figure = Figure(figsize=(11, 1.5 + 0.34 * len(runs)))
    axes = [figure.add_subplot(1, 5, i + 1) for i in range(5)]
    for ax in axes:
        ax.set(ylim=(len(runs) - 0.4, -0.6))
        ax.set_yticks(range(len(runs)), list(runs) if ax is axes[0] else [""] * len(runs))
        ax.tick_params(axis="y", length=0)
    loss, gradient, similarity, update, moved = axes
    for y, run in enumerate(runs.values()):
        _arrow(loss, run["loss"][0], run["loss"][-1], y)
        first, last = (max(float(one or 0), _FLOOR) for one in run["gradient"][0])
        gradient.plot([first, last], [y, y], color=_GREY, zorder=1)
        gradient.plot(first, y, "o", color=_BLUE, label="first layer" if not y else None)
        gradient.plot(last, y, "D", color=_ORANGE, markersize=9, mfc="none", mew=2, label="" if y else "last layer")
        start, end = run["similarity"]
        _arrow(similarity, start, end, y)
        update.plot(run["update"][0], y, "o", color=_BLUE)
        moved.plot(max(run["moved"], 1e-4), y, "o", color=_BLUE)
    loss.axvline(next(iter(runs.values()))["chance"], color="black", linewidth=0.8)
    loss.set(xlim=(0, None), xlabel="nats per token", title="loss\n(line: chance)")
    gradient.set(xscale="log", xlim=(_FLOOR / 3, 30), xlabel="norm", title="gradient before\nthe first step")
    gradient.axvline(_FLOOR, color="black", linewidth=0.8)
    gradient.set_xticks([_FLOOR, 1e-14, 1e-9, 1e-4, 10], ["0", "$10^{-14}$", "$10^{-9}$", "$10^{-4}$", "10"])
    gradient.minorticks_off()
    legend_below(figure, gradient)
    similarity.set(xlim=(-0.1, 1.1), xlabel="cosine", title="token similarity\nat the top")
    update.set(xscale="log", xlim=(1e-5, 10), xlabel="change of the logits", title="first update")
    moved.set(xscale="log", xlim=(5e-5, 5), xlabel="‖Δθ‖/‖θ‖", title="how far the\nstack moved")
    moved.axvline(1e-4, color="black", linewidth=0.8)
    moved.set_xticks([1e-4, 1e-3, 1e-2, 1e-1, 1], ["0", "$10^{-3}$", "$10^{-2}$", "$10^{-1}$", "1"])
    moved.minorticks_off()
    return figure


def _arrow(ax: Any, start: float, end: float, y: int) -> None:
    """From the start to the end, which are told apart by their marks even where they are close."""
    end = float(np.nan_to_num(end, nan=start))
    ax.plot(start, y, "o", color=_BLUE, mfc="none")
    ax.annotate("", (end, y), (start, y), arrowprops={"arrowstyle": "-|>", "color": _BLUE, "shrinkA": 3, "shrinkB": 0})
    ax.plot(end, y, "|", color=_BLUE, markersize=9)
