"""Sweeps as pictures: a metric against the parameter that was swept, a line for each setting of the others."""

import math
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import groupby
from typing import Any

import numpy as np

from deepnet_edu.batch.report.summary import SEED, Estimate, Group, is_number, numbers_of
from deepnet_edu.figures.picture import Picture, draw
from deepnet_edu.figures.style import designed, legend_below, new_figure, series_style

_MARKS = "os^Dv"


def swept(groups: Sequence[Group]) -> list[str]:
    """Parameters that take two values or more, the seed aside."""
    names = dict.fromkeys(name for group in groups for name in group.parameters if name != SEED)
    return [name for name in names if len({repr(group.parameters.get(name)) for group in groups}) > 1]


def sweep_pictures(groups: Sequence[Group]) -> Iterator[Picture | str]:
    """One per notebook, metric and parameter that was swept, with words for a reader who cannot see it.

    What matplotlib cannot draw, such as numbers at the end of what a float holds, comes as words alone.
    """
    for (notebook, profile), several in groupby(groups, key=lambda group: (group.notebook, group.profile)):
        together = list(several)
        names = swept(together)
        for metric in numbers_of(together):
            for name in names:
                lines = _lines(together, metric, name, [other for other in names if other != name])
                if any(len(line) > 1 for line in lines.values()):
                    yield _drawn(f"{notebook} ({profile})", metric, name, lines)


Line = list[tuple[Any, Estimate]]


def _lines(groups: Sequence[Group], metric: str, name: str, others: Sequence[str]) -> dict[str, Line]:
    lines: dict[str, Line] = {}
    codes = {group.code for group in groups}
    for group in groups:
        found = group.metric(metric)
        if found is not None and name in group.parameters:
            label = ", ".join(f"{other} = {group.parameters.get(other)}" for other in others)
            if len(codes) > 1:
                label += f" (code {group.code})"
            lines.setdefault(label, []).append((group.parameters[name], found))
    return lines


def _drawn(title: str, metric: str, name: str, lines: dict[str, Line]) -> Picture | str:
    try:
        with np.errstate(over="ignore"):
            return _picture(title, metric, name, lines)
    except Exception as error:  # matplotlib fails in many ways, and the report has more to show
        return f"{_words(title, metric, name, lines)} It cannot be drawn ({error})."


@designed()
def _picture(title: str, metric: str, name: str, lines: dict[str, Line]) -> Picture:
    figure, (ax,) = new_figure(1, 6.4, 3.6)
    values = list({repr(x): x for line in lines.values() for x, _ in line}.values())  # a list cannot be a key
    numbers = all(map(is_number, values))
    places = {repr(x): float(x) if numbers else i for i, x in enumerate(values)}
    for i, (label, line) in enumerate(lines.items()):
        line = sorted(line, key=lambda point: places[repr(point[0])])
        ax.errorbar(
            [places[repr(x)] for x, _ in line],
            [found.mean for _, found in line],
            yerr=[math.nan if found.half_width is None else found.half_width for _, found in line],
            label=_no_formula(label),
            marker=_MARKS[i // 7 % len(_MARKS)],
            capsize=3,
            **series_style(i),
        )
    if not numbers:
        ax.set_xticks(range(len(values)), [_no_formula(str(value)) for value in values])
    elif len(values) > 2 and min(values) > 0 and max(values) >= 10 * min(values):
        ax.set_xscale("log")
        ax.set_xticks([*places.values()], [f"{value:g}" for value in values])
        ax.minorticks_off()
    ax.set_xlabel(_no_formula(name))
    ax.set_ylabel(_no_formula(metric))
    ax.set_title(_no_formula(title), fontsize=10)
    if any(lines):
        legend_below(figure, ax)
    drawn = BytesIO()
    draw(figure).save(drawn, "png")  # without a palette, which takes longer than drawing
    return Picture(drawn.getvalue(), _words(title, metric, name, lines))


def _no_formula(text: str) -> str:
    """matplotlib would set text between dollars as a formula."""
    return text[:60].replace("$", r"\$")


def _words(title: str, metric: str, name: str, lines: dict[str, Line]) -> str:
    said = []
    for label, line in list(lines.items())[:6]:
        (first, begin), (last, end) = line[0], line[-1]
        said.append(f"{label and label + ': '}{begin.mean:.4g} at {first} to {end.mean:.4g} at {last}")
    rest = f"; and {len(lines) - 6} lines more" if len(lines) > 6 else ""
    return f"{title}: {metric} against {name}. {'; '.join(said)}{rest}."
