"""One look for all figures: a palette that colour-blind readers can tell apart, and a line style per rule besides."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepnet_edu.residual import RESIDUALS

# Okabe and Ito's palette, https://jfly.uni-koeln.de/color/.
_COLORS = ["#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
_DASHES = ["--", "-.", "-", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
#: The rules that are compared everywhere have the first colours.
FIRST = ("post_ln", "pre_ln", "deepnorm")
#: Grey and dots of controls: fine and dark, wide and light, and with dashes between.
_DOTS = [("#444444", (0, (1, 1))), ("#8a8a8a", (0, (1.5, 3))), ("#666666", (0, (5, 1.5, 1, 1.5, 1, 1.5)))]


_LOOK: Any = {
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 2,
    "figure.constrained_layout.use": True,
}
#: Settings that say where and how pictures are shown, and not what they look like.
_SHOWN = (
    "animation", "backend", "date.epoch", "docstring", "figure.max_open", "figure.raise", "interactive", "keymap",
    "macosx", "savefig.directory", "timezone", "tk.", "toolbar", "webagg",
)  # fmt: skip


@cache
def _users() -> dict[str, Any]:
    """What the user's matplotlibrc changes of the look, by name."""
    own: Any = matplotlib.rcParamsOrig
    default: Any = matplotlib.rcParamsDefault
    return {name: own[name] for name in own if not name.startswith(_SHOWN) and own[name] != default[name]}


def _look() -> Any:
    """The course's settings, and matplotlib's own in place of the user's matplotlibrc: text by a LaTeX that may be
    missing, fonts, margins. What a program has set since then stays."""
    now: Any = matplotlib.rcParams
    default: Any = matplotlib.rcParamsDefault
    return {name: default[name] for name, value in _users().items() if now[name] == value} | _LOOK


@contextmanager
def designed() -> Iterator[None]:
    """Figures made or drawn inside have the course's look; also a decorator, ``@designed()``."""
    with matplotlib.rc_context(_look()):
        yield


def use() -> None:
    """Make the course's look the default of every figure of this process, so that a learner's own ones have it too."""
    matplotlib.rcParams.update({**_look(), "axes.prop_cycle": cycler(color=_COLORS, linestyle=_DASHES)})


def line_style(residual: str) -> dict[str, Any]:
    """Colour and dashes of a rule, the same in every figure, and different for every two rules."""
    names = [*FIRST, *(name for name in RESIDUALS if name not in FIRST)]
    i = names.index(residual)
    n = len(_COLORS)
    return {"color": _COLORS[i % n], "linestyle": _DASHES[(i + i // n) % len(_DASHES)], "linewidth": 2}


def rule_styles(residuals: Sequence[str]) -> dict[str, dict[str, Any]]:
    """:func:`line_style` of the rules of one picture. Of two that have one colour there the later gets a free one."""
    styles: dict[str, dict[str, Any]] = {}
    for residual in residuals:
        style, taken = line_style(residual), {one["color"] for one in styles.values()}
        if style["color"] in taken:
            style["color"] = next((color for color in _COLORS if color not in taken), style["color"])
        styles[residual] = style
    return styles


def series_style(i: int) -> dict[str, Any]:
    """Colour and dashes of the i-th of several curves that are not rules."""
    return {"color": _COLORS[i % len(_COLORS)], "linestyle": _DASHES[i % len(_DASHES)], "linewidth": 2}


def control_style(i: int) -> dict[str, Any]:
    """Grey dots for the i-th control of a picture: controls are not rules, and differ among themselves."""
    color, dots = _DOTS[i % len(_DOTS)]
    return {"color": color, "linestyle": dots, "linewidth": (1.5, 2.5, 1.5)[i % len(_DOTS)]}


def new_figure(columns: int, width: float = 10, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure with a row of axes, in inches; not known to pyplot, so nothing has to be closed."""
    with designed():
        figure = Figure(figsize=(width, height))
        return figure, [figure.add_subplot(1, columns, i + 1) for i in range(columns)]


def legend_below(figure: Figure, ax: Axes, columns: int = 3, title: str | None = None) -> None:
    """One legend for the whole figure, made from ``ax``, below the axes: it never covers a curve.

    It has fewer columns where the figure is too narrow for its labels. What has the same label shares an entry.
    """
    entries: dict[Any, list[Any]] = {}
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
        entries.setdefault(label, []).append(handle)
    handles: Any = [tuple(drawn) if len(drawn) > 1 else drawn[0] for drawn in entries.values()]
    look: Any = {"loc": "outside lower center", "fontsize": 9, "title": title, "title_fontsize": 9, "frameon": False}
    for fewer in range(columns, 0, -1):
        legend = figure.legend(handles, list(entries), ncols=fewer, **look)
        if fewer == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
