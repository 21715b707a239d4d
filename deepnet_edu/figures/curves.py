"""Theory as lines, measurement as points on them; whole stacks against their depth."""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deepnet_edu.figures.style import control_style, designed, legend_below, line_style, new_figure, series_style
from deepnet_edu.profiles import Curve

POINTS = 25
MARKERS = "os^Dv"


@designed()
def theory_and_measurement(
    curves: Sequence[Curve],
    *,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    log_x: bool = False,
    most: float | None = None,
) -> Figure:
    """One line per theory and about 25 points per measurement, in one colour and with one entry in the legend.

    Args:
        curves: what to draw; each with theory, measurement, or both.
        xlabel: what x is: of curves without one, what 0, 1, 2, … count.
        ylabel: what the values are, with their unit if they have one.
        log: logarithmic y axis.
        log_x: logarithmic x axis.
        most: upper end of the y axis; what grows beyond leaves the picture.
    """
    figure, (ax,) = new_figure(1, width=8, height=4.6)
    for i, curve in enumerate(curves):
        style = series_style(i)
        if curve.theory is not None:
            x = np.arange(len(curve.theory)) if curve.x is None else curve.x
            ax.plot(x, curve.theory, label=curve.label, **style)
        if curve.measured is not None:
            inside = len(curve.measured) if most is None else int(np.sum(curve.measured <= most))
            every = max(1, ceil(inside / POINTS))
            x = np.arange(len(curve.measured)) if curve.x is None else curve.x
            ax.plot(
                x[::every],
                curve.measured[::every],
                MARKERS[i % len(MARKERS)],
                color=style["color"],
                alpha=0.6,
                label=curve.label,
            )
    if all(curve.x is None for curve in curves):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if log:
        ax.set_yscale("log")
    if log_x:
        ax.set_xscale("log")
    if most is not None:
        drawn = [values for curve in curves for values in (curve.theory, curve.measured) if values is not None]
        least = min(float(values.min()) for values in drawn)
        ax.set_ylim(least / 2 if log else least, most)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    legend_below(figure, ax, title="lines: theory; points: measured")
    return figure


@designed()
def against_depth(
    depths: Sequence[int],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    ylabels: Sequence[str],
    rules: Sequence[str],
    log: Sequence[bool] | None = None,
) -> Figure:
    """Quantities of whole stacks against their depth, a panel per quantity, a line per kind of stack.

    Args:
        depths: of the stacks, on a logarithmic axis.
        panels: by title, the values by label, one for each depth.
        ylabels: of the panels, with units.
        rules: residual rule of each label, for its colour and dashes.
        log: which panels have a logarithmic y axis; none by default.
    """
    figure, axes = new_figure(len(panels), width=11, height=4)
    for n, (ax, (title, lines)) in enumerate(zip(axes, panels.items(), strict=True)):
        for rule, (label, values) in zip(rules, lines.items(), strict=True):
            ax.plot(depths, values, marker="o", label=label, **line_style(rule))
        ax.set_xscale("log")
        ax.set_xticks(depths, [f"{depth:,}" for depth in depths])
        ax.minorticks_off()
        if log and log[n]:
            ax.set_yscale("log")
        ax.set(xlabel="layers", ylabel=ylabels[n])
        ax.set_title(title, fontsize=11)
    legend_below(figure, axes[0])
    return figure


@designed()
def growth_against_depth(
    depths: Sequence[int], panels: Mapping[str, Mapping[str, tuple[Sequence[float], float | None]]], *, ylabel: str
) -> Figure:
    """How quantities grow with depth, relative to the shallowest stack: four panels with logarithmic axes, on which a
    power of depth has the same slope everywhere. A row is as high as its values need.

    Points are measured; the thin line through the first is the power of depth that was predicted. Each has its label at
    its end. What has no prediction is dotted and grey.

    Args:
        depths: of the stacks, from the shallowest.
        panels: by title, row by row: by label the values, one for each depth, and the predicted power or None.
        ylabel: what is drawn, in a word.
    """
    shown = [[np.asarray(values) / values[0] for values, _ in lines.values()] for lines in panels.values()]
    rows = [np.log10(np.concatenate(shown[start : start + 2])) for start in (0, 2)]
    decades = [max(1.0, row.max() - row.min()) + 0.3 for row in rows]
    figure = Figure(figsize=(8, 1.6 + 1.2 * sum(decades)))
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=decades)
    for ax, row, height in zip(axes[:, 0], rows, decades, strict=True):
        middle = (row.max() + row.min()) / 2
        ax.set_ylim(10 ** (middle - height / 2), 10 ** (middle + height / 2))
    x = np.array(depths, dtype=float)
    for ax, (title, lines) in zip(axes.flat, panels.items(), strict=True):
        for i, (label, (values, power)) in enumerate(lines.items()):
            relative = np.asarray(values) / values[0]
            color = series_style(i + 1)["color"] if power is not None else control_style(0)["color"]
            if power is None:
                ax.plot(x, relative, marker=".", **control_style(0))
            else:
                ax.plot(x, (x / x[0]) ** power, color=color, linestyle="-", linewidth=1.2)
                ax.plot(x, relative, marker="os^"[i % 3], markersize=7, linestyle="none", color=color)
            place = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
            ax.annotate(label, (x[-1], relative[-1]), **place, color=color, fontsize=10)
        ax.set_title(title, fontsize=11)
    for ax in axes.flat:
        # Labels are to the right of the last point.
        ax.set(xscale="log", yscale="log", xlim=(x[0] * 0.85, x[-1] * (x[-1] / x[0]) ** 0.45))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.set_xticks(depths, [f"{depth:,}" for depth in depths])
        ax.minorticks_off()
    for ax in axes[1]:
        ax.set_xlabel("layers")
    for ax in axes[:, 0]:
        ax.set_ylabel(f"{ylabel} / {ylabel} at {depths[0]} layers")
    figure.suptitle("points: measured, with their slope; thin lines: predicted", fontsize=10)
    return figure
