"""Pictures that follow a slider: the axes are drawn once, and only what moves is drawn again."""

import struct
import zlib
from functools import cache
from typing import Any, Generic, TypeVar

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.text import Text
from PIL import Image, ImageDraw, ImageFont

from deepnet_edu.figures.picture import DPI
from deepnet_edu.figures.style import designed

View = TypeVar("View")
#: Anchors of Pillow by alignments of matplotlib.
_ACROSS = {"left": "l", "center": "m", "right": "r"}
_UP = {"top": "a", "center": "m", "baseline": "s", "bottom": "d"}


class Moving(Generic[View]):
    """A figure that shows one view after another. Subclasses make the axes, and move artists in :meth:`move`.

    Drawing three panels takes matplotlib about 80 ms, moving their lines over a kept background a tenth of that. Plain
    text that moves is drawn by Pillow, which takes 0.5 ms for a line where matplotlib takes 6.

    Attributes:
        figure: what is shown now.
        alt: the same in words.
    """

    figure: Figure
    alt: str = ""

    def __init__(self) -> None:
        self.figure.set_dpi(DPI)
        self._canvas = FigureCanvasAgg(self.figure)
        self._moving: list[Artist] = []
        self._background: Any = None

    def moves(self, *artists: Any) -> Any:
        """Say that these artists are drawn anew for each view. Returns the first."""
        for artist in artists:
            artist.set_animated(True)
            self._moving.append(artist)
        return artists[0]

    def move(self, view: View) -> None:
        """Put the artists where ``view`` has them."""
        raise NotImplementedError

    @designed()
    def show(self, view: View) -> Figure:
        """The figure of a view, for a notebook or a test."""
        self.move(view)
        for artist in self._moving:
            artist.set_animated(False)
        return self.figure

    @designed()
    def png(self, view: View) -> bytes:
        """The picture of a view, as PNG."""
        self.move(view)
        if self._background is None:
            self._canvas.draw()
            self.figure.set_layout_engine("none")  # what was laid out stays
            self._background = self._canvas.copy_from_bbox(self.figure.bbox)
        self._canvas.restore_region(self._background)
        shown = [artist for artist in self._moving if artist.get_visible()]
        plain = [artist for artist in shown if isinstance(artist, Text) and "$" not in artist.get_text()]
        for artist in shown:
            if artist not in plain:
                self.figure.draw_artist(artist)
        image = Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB")
        pen = ImageDraw.Draw(image)
        for text in plain:
            _write(pen, text, image.height)
        return _packed(image)


@cache
def _font(properties: FontProperties, pixels: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont(properties), pixels)


def _write(pen: ImageDraw.ImageDraw, text: Text, height: int) -> None:
    """Draw ``text`` where matplotlib would, to a pixel or two; it is not turned and has no box."""
    x, y = text.get_transform().transform(text.get_position())
    pen.text(
        (x, height - y),
        text.get_text(),
        fill=to_hex(text.get_color()),
        font=_font(text.get_fontproperties(), float(text.get_fontsize()) * DPI / 72),
        anchor=_ACROSS[text.get_horizontalalignment()] + _UP[text.get_verticalalignment()],
        align=text.get_horizontalalignment(),
    )


def _packed(image: Image.Image) -> bytes:
    """PNG of an RGB picture without filters at level 1: a third larger than the best compression and ten times as
    quick. Pillow tries all filters, which gain nothing for lines on white and take as long again."""
    row = 1 + 3 * image.width  # a byte for the row's filter, 0 for none
    rows = b"\0" + image.tobytes("raw", "RGB", row)[:-1]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
