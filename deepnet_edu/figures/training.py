"""Training runs as pictures."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepnet_edu.figures.style import designed, legend_below, line_style, new_figure, series_style
from deepnet_edu.profiles import History
from deepnet_edu.residual import DEFAULT, RESIDUALS

#: Controls are grey, and one that another covers still shows: the first is a broad band.
_CONTROLS: tuple[dict[str, Any], ...] = (
    {"color": "#BBBBBB", "linestyle": "-", "linewidth": 5},
    {"color": "#444444", "linestyle": (0, (1, 1)), "linewidth": 1.8},
    {"color": "#777777", "linestyle": (0, (6, 2, 1, 2)), "linewidth": 1.8},
)
#: Gradients below it are not drawn, and said to be below.
_FLOOR = 1e-12


@designed()
def training_race(
    runs: Mapping[str, History],
    *,
    chance: float,
    chance_label: str,
    steps: int,
    layers: int,
    controls: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Loss by step, and for the newest profile of each run its gradient and token similarity by layer.

    The axes are fixed by ``steps`` and ``layers``, so a picture that is redrawn while runs continue does not jump.

    Args:
        runs: histories by residual, finished or under way.
        chance: loss that knows nothing, nats per token; drawn as a thin line.
        chance_label: its name.
        steps: length of the runs.
        layers: depth of the stacks.
        controls: losses by step of control runs, by label; grey.
    """
    figure, (left, middle, right) = new_figure(3, width=11, height=4.3)
    _draw_controls(left, controls)
    left.axhline(chance, color="black", linewidth=0.8, label=chance_label)
    for residual, run in runs.items():
        style = {**line_style(residual), "label": RESIDUALS[residual].title}
        left.plot(run.loss, **style)
        if not run.profiles:
            continue
        profile = run.profiles[max(run.profiles)]
        if profile.gradient_norm is not None:
            # What has vanished has no value on the axis: the line ends, and a word says where it went.
            vanished = profile.gradient_norm < _FLOOR
            middle.semilogy(profile.depth, np.where(vanished, np.nan, profile.gradient_norm), **style)
            if vanished.any():
                word = f"{RESIDUALS[residual].title}: below $10^{{-12}}$ ↓"
                place = (0.02, 0.02 + 0.07 * len(middle.texts))
                middle.annotate(word, place, xycoords="axes fraction", fontsize=9, color=style["color"])
        if profile.token_similarity is not None:
            right.plot(profile.depth, profile.token_similarity, **style)
    left.set(
        xlim=(0, steps), ylim=(0, 1.35 * chance), xlabel="step", ylabel="loss (nats per token)", title="Does it learn?"
    )
    middle.set(xlim=(0, layers), ylim=(_FLOOR, 10), xlabel="layer", ylabel="gradient norm")
    middle.set_title("Does the gradient reach the bottom?")
    right.set(xlim=(0, layers), ylim=(-0.1, 1.05), xlabel="layer", ylabel="cosine between tokens")
    right.set_title("Are tokens still different?")
    middle.set_yscale("log")
    legend_below(figure, left)
    return figure


@designed()
def recorded_curves(
    runs: Sequence[Mapping[str, Any]],
    *,
    chance: Mapping[str, float],
    controls: Mapping[str, Sequence[float]] | None = None,
    live: Mapping[str, History] | None = None,
    smooth: int = 1,
) -> Figure:
    """Losses of a record, a thin line per seed; controls grey; what was trained just now thick.

    Args:
        runs: rows of a record with ``residual`` and ``loss``.
        chance: horizontal yardsticks, nats per token, by label.
        controls: losses by step, by label.
        live: runs of just now, finished or under way, by residual.
        smooth: each point is the mean of this many steps up to it.
    """

    def running(losses: Sequence[float]) -> list[float]:
        return [float(np.mean(losses[max(0, i + 1 - smooth) : i + 1])) for i in range(len(losses))]

    figure, (ax,) = new_figure(1, width=8, height=4.6)
    steps = max(len(row["loss"]) for row in runs)
    _draw_controls(ax, {label: running(losses) for label, losses in (controls or {}).items()})
    seen = set()
    for row in runs:
        style = {**line_style(row["residual"]), "linewidth": 1, "alpha": 0.8}
        label = None if row["residual"] in seen else f"{RESIDUALS[row['residual']].title}, from the record"
        seen.add(row["residual"])
        ax.plot(running(row["loss"]), label=label, **style)
    for label, value in chance.items():
        ax.axhline(value, color="black", linewidth=0.8)
        # Beside the axes: a label inside would hide the curves that end there.
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
        ax.annotate(label, (1, value), xytext=(4, 0), fontsize=9, annotation_clip=False, **place)
    for residual, run in (live or {}).items():
        style = {**line_style(residual), "linestyle": "-", "linewidth": 4, "alpha": 0.45}
        ax.plot(running(run.loss), label=f"{RESIDUALS[residual].title}, just now", **style)
    averaged = f", mean of {smooth} steps" if smooth > 1 else ""
    ax.set(xlim=(0, steps), xlabel="step", ylabel=f"loss (nats per token{averaged})")
    legend_below(figure, ax)
    return figure


def _draw_controls(ax: Axes, controls: Mapping[str, Sequence[float]] | None) -> None:
    """Losses by step, below everything that is drawn later."""
    for (label, losses), style in zip((controls or {}).items(), cycle(_CONTROLS), strict=False):
        ax.plot(losses, label=label, **style)


@designed()
def learning_rate_grid(runs: Sequence[Mapping[str, Any]], *, chance: float, last: int = 5) -> Figure:
    """Final loss of recorded runs against learning rate, and against warm-up: one point per seed.

    A rule is in a panel if it has more than one setting there.

    Args:
        runs: rows of a record with residual, learning_rate, warmup and loss.
        chance: loss that knows nothing, nats per token.
        last: number of last steps that are averaged.
    """
    figure, axes = new_figure(2, width=9, height=3.8)
    usual_rate, usual_warmup = 3e-4, 20
    for ax, name, fixed, value in (
        (axes[0], "learning_rate", "warmup", usual_warmup),
        (axes[1], "warmup", "learning_rate", usual_rate),
    ):
        for residual in dict.fromkeys(run["residual"] for run in runs):
            chosen = sorted(
                (run[name], float(np.mean(run["loss"][-last:])))
                for run in runs
                if run["residual"] == residual and run[fixed] == value
            )
            style = line_style(residual)
            x, y = zip(*chosen, strict=True)
            centre = {a: float(np.mean([b for c, b in chosen if c == a])) for a in x}
            if len(centre) == 1:
                continue
            ax.plot(x, y, "o", color=style["color"], alpha=0.6)
            ax.plot(list(centre), list(centre.values()), label=RESIDUALS[residual].title, **style)
        ax.axhline(chance, color="black", linewidth=0.8, label="knows nothing")
        ax.set(ylim=(0, 1.35 * chance), ylabel="loss at the end (nats per token)")
    axes[0].set_xscale("log")
    axes[0].set(xlabel="learning rate (warm-up 20 steps)")
    axes[1].set(xlabel="warm-up steps (learning rate 3e-4)")
    legend_below(figure, axes[0])
    return figure


@designed()
def loss_curves(losses: Mapping[str, Sequence[float]], *, chance: float, chance_label: str, steps: int) -> Figure:
    """Losses by step on fixed axes: the first as a broad band, the others as thin lines, so that equal ones both show.

    Args:
        losses: nats per token, by label, finished or under way.
        chance: loss that knows nothing, nats per token; a thin line.
        chance_label: its name.
        steps: length of the runs.
    """
    figure, (ax,) = new_figure(1, width=8, height=4.3)
    ax.axhline(chance, color="black", linewidth=0.8, label=chance_label)
    band = {**line_style(DEFAULT), "linewidth": 8, "alpha": 0.45}
    free = [style for style in map(series_style, range(len(losses) + 2)) if style["color"] != band["color"]]
    for i, (label, values) in enumerate(losses.items()):
        style = free[(i - 1) % len(free)] if i else band
        ax.plot(values, label=label, **style)
    ax.set(xlim=(0, steps), ylim=(0, 1.35 * chance), xlabel="step", ylabel="loss (nats per token)")
    legend_below(figure, ax)
    return figure
