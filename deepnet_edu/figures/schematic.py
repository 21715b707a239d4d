"""The blocks as drawings, formula beside them."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from deepnet_edu.figures.style import designed, line_style, new_figure
from deepnet_edu.residual import RESIDUALS

#: Per rule: what is on the branch from the bottom up, what on the skip, what after the sum.
_PARTS: dict[str, tuple[list[str], str, list[str]]] = {
    "post_ln": (["F"], "", ["LN"]),
    "pre_ln": (["LN", "F"], "", []),
    "deepnorm": (["F, weights × β"], "× α", ["LN"]),
}


@designed()
def residual_blocks(residuals: Sequence[str] = ("post_ln", "pre_ln", "deepnorm")) -> Figure:
    """One block per rule: the stream goes up on the left, the branch F on the right.

    Args:
        residuals: rules to draw, of ``"post_ln"``, ``"pre_ln"``, ``"deepnorm"``.
    """
    figure, axes = new_figure(len(residuals), width=9, height=3.6)
    for ax, residual in zip(axes, residuals, strict=True):
        _block(ax, residual)
    return figure


def _block(ax: Axes, residual: str) -> None:
    branch, skip, after = _PARTS[residual]
    color = line_style(residual)["color"]
    rule = RESIDUALS[residual]
    arrow = {"arrowstyle": "-|>", "color": "black", "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
    ax.set(xlim=(0, 10), ylim=(0, 10))
    ax.axis("off")
    ax.set_title(f"{rule.title}\n{rule.formula}", fontsize=11, color=color)

    def box(x: float, y: float, text: str, width: float = 2.6, filled: bool = False) -> None:
        ax.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - 0.55),
                width,
                1.1,
                boxstyle="round,pad=0.1",
                ec=color,
                fc=color if filled else "white",
                lw=2,
                zorder=3,
            )
        )
        ax.text(x, y, text, ha="center", va="center", fontsize=11, color="white" if filled else "black", zorder=4)

    ax.text(3, 0.2, "x", ha="center", fontsize=13, style="italic")
    ax.annotate("", (3, 6.1), (3, 0.9), arrowprops=arrow)  # the stream up to the sum
    ax.plot([3, 7.2, 7.2], [1.5, 1.5, 2], color="black", ls="-", lw=1.6)
    ax.annotate("", (3.45, 6.5), (7.2, 6.5), arrowprops=arrow)
    ax.plot([7.2, 7.2], [2, 6.5], color="black", ls="-", lw=1.6)
    heights = [4.0] if len(branch) == 1 else [2.9, 5.0]
    for text, y in zip(branch, heights, strict=True):
        box(7.2, y, text, width=2.6 if len(text) < 4 else 4.6, filled=text == "LN")
    if skip:
        box(3, 3.8, skip)
    ax.text(3, 6.5, "+", ha="center", va="center", fontsize=15, bbox={"boxstyle": "circle,pad=0.15", "fc": "white"})
    top = 7.0
    for text in after:
        ax.annotate("", (3, 7.7), (3, top), arrowprops=arrow)
        box(3, 8.3, text, filled=True)
        top = 8.95
    ax.annotate("", (3, 9.9), (3, top), arrowprops=arrow)
