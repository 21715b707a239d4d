"""A figure as a notebook output: a PNG with alt text, and the alt text alone where no pictures are shown."""

import base64
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from deepnet_edu.figures.style import designed

DPI = 96
COLORS = 128


@designed()
def draw(figure: Figure) -> Image.Image:
    """The figure in pixels, drawn once, where savefig draws twice."""
    canvas, dpi = figure.canvas, figure.dpi
    figure.set_dpi(DPI)
    agg = FigureCanvasAgg(figure)
    agg.draw()
    figure.set_canvas(canvas)
    figure.set_dpi(dpi)
    return Image.fromarray(np.asarray(agg.buffer_rgba())).convert("RGB")


def with_palette(picture: Image.Image | bytes) -> bytes:
    """A PNG with a palette: line drawings become three times smaller, and notebooks are kept in git."""
    image = picture if isinstance(picture, Image.Image) else Image.open(BytesIO(picture)).convert("RGB")
    packed = BytesIO()
    image.quantize(COLORS, dither=Image.Dither.NONE).save(packed, "png", optimize=True)
    return packed.getvalue()


class Picture:
    """What a lesson shows. Needs no kernel to be seen again, and its text form never changes with the data.

    Args:
        figure: drawn at once; later changes to it do not show. Or a PNG, taken as it is.
        alt: one or two sentences for a reader who cannot see it.

    Raises:
        ValueError: alt is empty.
    """

    def __init__(self, figure: Figure | bytes, alt: str) -> None:
        if not alt.strip():
            raise ValueError('A picture needs alt text: Picture(figure, alt="what it shows").')
        if isinstance(figure, Figure):
            figure = with_palette(draw(figure))
        self.png = figure
        self.alt = alt

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        # As HTML, because no notebook front end gives an image/png output an alt text.
        source = f"data:image/png;base64,{base64.b64encode(self.png).decode()}"
        return {
            "text/html": f'<img alt="{escape(self.alt)}" src="{source}">',
            "text/plain": f"[picture] {self.alt}",
        }
