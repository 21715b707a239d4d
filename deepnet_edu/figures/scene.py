"""Pictures that follow a slider, as SVG: axes are drawn once, and only what moves is drawn again.

SVG is as sharp on any screen, takes any width, and its colours are the page's own, so it can be dark.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from itertools import count, pairwise
from math import floor, log10
from typing import Any, Generic, TypeVar

import matplotlib
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from deepnet_edu.figures.picture import draw, with_palette
from deepnet_edu.figures.style import designed

#: Inches of a picture until it is told what room it has.
WIDTH, HEIGHT = 8.8, 4.4
#: Colours on a dark page, by those on a white one. Others stay as they are.
DARK = {
    "#444444": "#c4c4c4", "#666666": "#a6a6a6",
    "#000000": "#e6e6e6", "#ffffff": "#1b1b1b", "#333333": "#d0d0d0", "#555555": "#b8b8b8", "#777777": "#9a9a9a",
    "#999999": "#a0a0a0", "#b0b0b0": "#808080", "#d55e00": "#ff8a3d", "#0072b2": "#4a9fe0", "#009e73": "#35d6a6",
    "#cc79a7": "#e29cc3", "#e69f00": "#f2b632", "#56b4e9": "#8fd0f7", "#00694d": "#4fd6ad", "#8a5f00": "#e0b050",
    "#f4f1ea": "#2b2926", "#b9d3e6": "#31536b", "#5f9fc9": "#5297c6", "#0a5a94": "#a8dcff",
}  # fmt: skip
_STYLED = re.compile(r": (#[0-9a-f]{6})")
_ATTRIBUTE = re.compile(r'fill="(#[0-9a-f]{6})"')
_POWER = re.compile(r"\^\(([^)]*)\)")
_ANCHORS = {"left": "start", "center": "middle", "right": "end"}
#: From where matplotlib puts a line of text down to its baseline, in heights of its letters.
_DROP = {"top": 0.93, "center": 0.34, "baseline": 0.0, "bottom": -0.24, "center_baseline": 0.34}
_NUMBERS = count()
#: Axes that are narrower than this share of the picture, as a scale of shades, go with those on their left.
_SLIM = 0.1
#: Points around a panel that is cut out.
_ROUND = 3.0


@dataclass(frozen=True)
class Words:
    """What every view says, besides what it draws.

    Attributes:
        title: the settings.
        said: what the picture shows, one sentence.
        note: where it comes from.
    """

    title: str
    said: str
    note: str


View = TypeVar("View", bound=Words)


class Scene(ABC, Generic[View]):
    """A figure that shows one view after another. Subclasses make the axes in :meth:`build` and move them in
    :meth:`move`; titles and sentences are the page's.

    Attributes:
        figure: what is shown now.
        alt: the same in words.
        room: width and height in inches.
    """

    figure: Figure
    alt: str = ""
    room: tuple[float, float] = (WIDTH, HEIGHT)

    def __init__(self) -> None:
        # Names inside one picture must not be those of another on the same page.
        self._salt = f"{type(self).__name__}{next(_NUMBERS)}"
        self.fit(*self.room)

    @abstractmethod
    def build(self, figure: Figure) -> None:
        """Make the axes and all that is in them."""

    @abstractmethod
    def move(self, view: View) -> str:
        """Put what moves where ``view`` has it.

        Returns:
            A description of the picture, besides the view's own words.
        """

    def fit(self, width: float, height: float) -> None:
        """Make the picture again for this much room, in inches: letters keep their size in points."""
        self.room = width, height
        self._moving: list[Artist] = []
        self._backdrop = ""
        self.figure = Figure(figsize=self.room, dpi=72)  # a point is a unit of SVG
        FigureCanvasAgg(self.figure)
        with designed():
            self.figure.set_layout_engine("constrained")
            self.build(self.figure)

    def moves(self, *artists: Any) -> Any:
        """Say that these are drawn again for each view. Returns the first."""
        for artist in artists:
            artist.set_animated(True)
            self._moving.append(artist)
        return artists[0]

    @property
    def backdrop(self) -> str:
        """All that never moves, as SVG."""
        if not self._backdrop:
            self._backdrop = self._svg(self.figure.draw)
            self.figure.set_layout_engine("none")  # what was laid out stays
        return self._backdrop

    @property
    def panels(self) -> list[dict[str, Any]]:
        """Where the picture can be cut apart for a narrow page: ``box``, as a viewBox of SVG, of each panel from left
        to right and down, then of each entry of the legend, whose ``key`` is true."""
        assert self.backdrop
        found: list[Bbox] = []
        for ax in self.figure.axes:
            box = ax.get_tightbbox()
            assert box is not None
            slim = ax.get_position().width < _SLIM and found
            found = [*found[:-1], Bbox.union([found[-1], box])] if slim else [*found, box]
        words = [(text, one) for one in self.figure.legends for text in one.get_texts()]
        for text, legend in words:
            handle = (legend.handlelength + legend.handletextpad) * float(text.get_fontsize())
            box = text.get_window_extent()
            found.append(Bbox.from_extents(box.x0 - handle, box.y0, box.x1, box.y1))
        width, height = map(float, self.figure.bbox.size)
        cut = []
        for i, box in enumerate(found):
            left, right = max(0.0, box.x0 - _ROUND), min(width, box.x1 + _ROUND)
            low, high = max(0.0, box.y0 - _ROUND), min(height, box.y1 + _ROUND)
            place = (left, height - high, right - left, high - low)
            cut.append({"box": [round(one, 1) for one in place], "key": i >= len(found) - len(words)})
        return cut

    def svg(self, view: View) -> str:
        """What moves, as SVG of the same size, to be laid over the backdrop."""
        assert self.backdrop  # which lays the axes out
        self._move(view)
        shown = [artist for artist in self._moving if artist.get_visible()]
        # Matplotlib lays text out glyph by glyph, 0.1 ms each; a browser does it by itself.
        words = [artist for artist in shown if isinstance(artist, Text)]

        def drawn(renderer: RendererSVG) -> None:
            for artist in shown:
                if artist not in words:
                    artist.draw(renderer)

        return self._svg(drawn, "".join(_written(text, float(self.figure.bbox.height)) for text in words))

    def show(self, view: View) -> Figure:
        """The figure of a view, for a notebook or a test."""
        with designed():
            self._move(view)
            for artist in self._moving:
                artist.set_animated(False)
        return self.figure

    def still(self, view: View) -> bytes:
        """The picture of a view as PNG, for where nothing moves."""
        png = with_palette(draw(self.show(view)))
        for artist in self._moving:
            artist.set_animated(True)
        return png

    def _move(self, view: View) -> None:
        self.alt = f"{view.title.rstrip('.')}. {self.move(view)} {view.said} {view.note}"

    @designed()
    def _svg(self, drawn: Any, more: str = "") -> str:
        file = StringIO()
        width, height = map(float, self.figure.bbox.size)
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": self._salt}):
            renderer = RendererSVG(width, height, file, metadata={"Date": None})
            drawn(renderer)
            renderer.finalize()
        # Matplotlib's head sets a style for the whole page; the stylesheet of explorers has the same.
        inside = file.getvalue().split("</defs>", 1)[1].rsplit("</svg>", 1)[0]
        inside = _STYLED.sub(lambda found: f": {_themed(found[1])}", inside + more)
        inside = _ATTRIBUTE.sub(lambda found: f'style="fill: {_themed(found[1])}"', inside)
        head = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" aria-hidden="true"'
        return f'<svg {head} viewBox="0 0 {width:g} {height:g}">{inside}</svg>'


def _themed(color: str) -> str:
    return f"var(--c{color[1:]}, {color})" if color in DARK else color


def dark_colors() -> str:
    """Declarations for the stylesheet of a dark page."""
    return " ".join(f"--c{light[1:]}: {dark};" for light, dark in DARK.items())


def _written(text: Text, height: float) -> str:
    """SVG of text where matplotlib would draw it, to a point or two."""
    x, y = text.get_transform().transform(text.get_position())
    size = float(text.get_fontsize())
    lines = text.get_text().split("\n")
    spacing = text._linespacing  # type: ignore[attr-defined]
    step = size * (1.25 if spacing == "normal" else spacing)
    above = {"bottom": len(lines) - 1, "baseline": len(lines) - 1, "center": (len(lines) - 1) / 2}
    first = height - y + _DROP[text.get_verticalalignment()] * size
    first -= step * above.get(text.get_verticalalignment(), 0)
    style = f"font-size: {size:g}px; text-anchor: {_ANCHORS[text.get_horizontalalignment()]}"
    style += f"; fill: {to_hex(text.get_color())}" + ("; font-weight: bold" if text.get_fontweight() == "bold" else "")
    turned = f' transform="rotate({-text.get_rotation():g} {x:.2f} {height - y:.2f})"' if text.get_rotation() else ""
    return "".join(
        f'<text x="{x:.2f}" y="{first + i * step:.2f}" style="{style}"{turned}>{_raised(escape(line))}</text>'
        for i, line in enumerate(lines)
    )


def _raised(line: str) -> str:
    """``x^(1/4)`` with its power raised."""
    return _POWER.sub(r'<tspan dy="-0.45em" font-size="75%">\1</tspan><tspan dy="0.34em">​</tspan>', line)


Box = tuple[float, float, float, float]


def boxes(corners: Iterable[Box]) -> Path:
    """One path of rectangles, each from (left, bottom) to (right, top)."""
    points: list[tuple[float, float]] = []
    for left, bottom, right, top in corners:
        points += [(left, bottom), (left, top), (right, top), (right, bottom), (left, bottom)]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * (len(points) // 5)
    return Path(points, codes) if points else Path([(0.0, 0.0)])


def key_below(figure: Figure, handles: Sequence[Artist], most: int = 9) -> None:
    """One legend below the axes, with as many columns, at most ``most``, as the figure is wide enough for."""
    for columns in range(min(most, len(handles)), 0, -1):
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, fontsize=9, frameon=False, columnspacing=1.3
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()


def round_top(most: float) -> float:
    """The least of 1, 2, 5, 10, 20, … that is not below ``most``: the end of an axis that begins at 0."""
    power = 10.0 ** floor(log10(most)) if most > 0 else 1.0
    return next(top * power for top in (1, 2, 5, 10) if top * power >= most * (1 - 1e-9))


def spread_apart(heights: Sequence[float], least: float) -> list[float]:
    """Heights of labels that are wanted at ``heights``, moved so that no two are nearer than ``least``."""
    placed = list(heights)
    order = sorted(range(len(placed)), key=lambda i: placed[i])
    for _ in range(20):
        for below, above in pairwise(order):
            if (gap := placed[above] - placed[below]) < least:
                placed[below] -= (least - gap) / 2
                placed[above] += (least - gap) / 2
    return placed
