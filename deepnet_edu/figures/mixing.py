"""The depth-mixing matrix as a picture: rule beside rule, or one of them with its last row."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepnet_edu.figures.scene import Scene, Words
from deepnet_edu.figures.style import designed
from deepnet_edu.messages import unknown
from deepnet_edu.profiles import Array, DepthMixing

Quantity = Literal["weights", "shares"]
#: What the shades are.
SHADES = {"weights": "weight / largest of its row", "shares": "share of the variance that is read"}


@designed()
def mixing_matrices(matrices: Sequence[DepthMixing], quantity: Quantity = "weights", columns: int = 6) -> Figure:
    """A panel for each matrix: rows are the sub-layers that read, columns the outputs that they read, the input first.

    Args:
        matrices: from :func:`~deepnet_edu.probing.depth_mixing` or :func:`~deepnet_edu.theory.mixing_matrix`.
        quantity: ``"weights"``, absolute and over the largest of their row, or ``"shares"`` of the variance.
        columns: panels in a row of the picture.

    Raises:
        ValueError: no matrix, or no such quantity.
    """
    if not matrices:
        raise ValueError("There is no matrix to draw: give one or more.")
    wide = min(columns, len(matrices))
    figure = Figure(figsize=(1.75 * wide + 0.9, 1.95 * ceil(len(matrices) / wide) + 0.4))
    axes = figure.subplots(ceil(len(matrices) / wide), wide, squeeze=False)
    for ax, one in zip(axes.flat, matrices, strict=False):
        image = ax.imshow(shown(one, quantity), **_LOOK, extent=(0, 1, 1, 0))
        ax.set_title(one.label, fontsize=9)
        ax.grid(False)
        ax.set_xticks([])
        ax.set_yticks([])
    for ax in axes.flat[len(matrices) :]:
        ax.set_axis_off()
    figure.supxlabel("whose output: the input, then all sub-layers", fontsize=9)
    figure.supylabel("which sub-layer reads it", fontsize=9)
    figure.colorbar(image, ax=list(axes.flat), label=SHADES[quantity], fraction=0.03, aspect=30)
    return figure


def shown(matrix: DepthMixing, quantity: Quantity) -> Array:
    """The shades of a matrix, 0 to 1.

    Raises:
        ValueError: no such quantity.
    """
    if quantity not in get_args(Quantity):
        raise ValueError(unknown("quantity", quantity, get_args(Quantity)))
    return np.abs(matrix.relative) if quantity == "weights" else matrix.shares


_LOOK = {"cmap": "Blues", "vmin": 0.0, "vmax": 1.0, "interpolation": "nearest", "aspect": "auto"}


@dataclass(frozen=True)
class MixingView(Words):
    """What the picture shows.

    Attributes:
        matrix: all rows.
        quantity: of its shades.
    """

    matrix: DepthMixing
    quantity: Quantity


class MixingFigure(Scene[MixingView]):
    """The matrix, and beside it what the output is made of."""

    def build(self, figure: Figure) -> None:
        """Axes, the bar of shades, and no points yet."""
        left, key, right = figure.subplots(1, 3, width_ratios=(1, 0.05, 1.1))
        self._image = left.imshow(np.zeros((2, 2)), **_LOOK | {"interpolation": "none"}, extent=(0, 1, 1, 0))
        _ends(left)
        left.set(xlabel="whose output", ylabel="which sub-layer reads it")
        left.grid(False)
        key.imshow(np.linspace(1, 0, 64)[:, None], **_LOOK | {"interpolation": "none"}, extent=(0, 1, 0, 1))
        key.grid(False)
        key.set_xticks([])
        key.yaxis.tick_right()
        right.set(xlim=(-0.02, 1.02), ylim=(1e-4, 1.2), yscale="log", ylabel="share of the output's variance")
        right.set_xticks([0, 0.5, 1], ["input", "middle", "last"])
        (self._last,) = right.plot([], [], "o", ms=4, color="#0072B2")
        right.set_title("What is the output made of?", fontsize=11, loc="left")
        left.set_title("Who reads whom?", fontsize=11, loc="left")
        self.moves(self._image, self._last)

    def move(self, view: MixingView) -> str:
        """Shades, and the last row's shares."""
        last = view.matrix.shares[-1]
        self._image.set_data(shown(view.matrix, view.quantity))
        self._last.set_data(np.linspace(0, 1, len(last)), np.clip(last, 1e-4, None))
        tenth = max(1, len(last) // 10)
        return (
            f"A lower triangle, who reads against whose output, shaded by {SHADES[view.quantity]}. Of "
            f"the output's variance {last[0]:.2g} is the input's, {last[1 : 1 + tenth].sum():.2g} the lowest tenth's "
            f"of the sub-layers, {last[-tenth:].sum():.2g} the highest tenth's."
        )


def _ends(ax: Axes) -> None:
    ax.set_xticks([0, 1], ["input", "last"])
    ax.set_yticks([0, 1], ["first", "output"])
