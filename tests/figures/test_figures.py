"""Figures by the data on their axes, not by their pixels."""

from collections.abc import Iterator

import matplotlib
import numpy as np
import pytest

from deepnet_edu.figures import (
    Picture,
    against_depth,
    learning_rate_grid,
    loss_curves,
    recorded_curves,
    residual_blocks,
    style,
    theory_and_measurement,
    training_race,
)
from deepnet_edu.figures.loss import LossFigure
from deepnet_edu.figures.plans import memory_against_ranks, pipeline_timelines
from deepnet_edu.figures.style import legend_below, line_style, new_figure
from deepnet_edu.planning import timeline
from deepnet_edu.profiles import Curve, DepthProfile, History
from deepnet_edu.residual import RESIDUALS


def history(values: list[float]) -> History:
    profile = DepthProfile(
        "x", token_similarity=np.array([0.1, 0.2]), gradient_norm=np.array([0.0, 1.0]), variance=np.ones(2)
    )
    return History("x", loss=values, profiles={0: profile})


def test_the_race_shows_its_runs_on_fixed_axes() -> None:
    runs = {"deepnorm": history([3.0, 2.0]), "post_ln": history([3.0])}
    figure = training_race(runs, chance=2.8, chance_label="ln 16", steps=10, layers=1, controls={"none": [3.1, 3.0]})
    left, middle, right = figure.axes
    drawn = {line.get_label(): line for line in left.lines}
    assert list(drawn["DeepNorm"].get_ydata()) == [3.0, 2.0]
    assert left.get_xlim() == (0, 10)
    assert list(drawn["none"].get_ydata()) == [3.1, 3.0]
    assert np.array_equal(middle.lines[0].get_ydata(), [np.nan, 1.0], equal_nan=True)  # zero is not drawn, but said
    assert [text.get_text() for text in middle.texts] == ["DeepNorm: below $10^{-12}$ ↓", "Post-LN: below $10^{-12}$ ↓"]
    assert list(right.lines[0].get_ydata()) == [0.1, 0.2]
    for ax in figure.axes:
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert ax.get_title()


def test_an_empty_race_has_the_same_axes() -> None:
    figure = training_race({}, chance=2.8, chance_label="ln 16", steps=10, layers=5)
    assert figure.axes[1].get_ylim() == (1e-12, 10)


def test_a_record_has_one_thin_line_per_seed() -> None:
    rows = [{"residual": "deepnorm", "loss": [3.0, 2.0]}, {"residual": "deepnorm", "loss": [3.0, 1.0]}]
    figure = recorded_curves(
        rows, chance={"ln 16": 2.8}, controls={"no layers": [3.0, 2.0]}, live={"deepnorm": history([3.0])}, smooth=2
    )
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    labels = list(lines)
    assert list(lines["no layers"].get_ydata()) == [3.0, 2.5]  # the mean of two steps
    assert sum("record" in label for label in labels) == 1  # two seeds, one entry in the legend
    assert "DeepNorm, just now" in labels
    assert "no layers" in labels


def test_the_grid_averages_seeds() -> None:
    rows = [
        {"residual": "post_ln", "learning_rate": 3e-4, "warmup": 20, "loss": [2.0] * 5},
        {"residual": "post_ln", "learning_rate": 3e-4, "warmup": 20, "loss": [3.0] * 5},
        {"residual": "post_ln", "learning_rate": 1e-4, "warmup": 20, "loss": [1.0] * 5},
    ]
    left, right = learning_rate_grid(rows, chance=2.8).axes
    mean = next(line for line in left.lines if line.get_label() == "Post-LN")
    assert list(mean.get_ydata()) == [1.0, 2.5]
    assert [line.get_label() for line in right.lines] == ["knows nothing"]  # one warm-up does not make a curve


def test_styles_tell_the_rules_apart_without_colour() -> None:
    styles = [line_style(residual) for residual in RESIDUALS]
    assert len({(style["color"], str(style["linestyle"])) for style in styles}) == len(styles)
    classic = [line_style(residual) for residual in ("post_ln", "pre_ln", "deepnorm")]
    assert len({style["color"] for style in classic}) == len({str(style["linestyle"]) for style in classic}) == 3


def test_blocks_carry_the_formula_of_the_rule() -> None:
    figure = residual_blocks(["deepnorm"])
    assert RESIDUALS["deepnorm"].formula in figure.axes[0].get_title()


def test_a_picture_is_a_png_with_alt_text() -> None:
    figure = residual_blocks()
    data = Picture(figure, 'three "blocks"')._repr_mimebundle_()
    assert data["text/html"].startswith('<img alt="three &quot;blocks&quot;" src="data:image/png;base64,iVBOR')
    assert data["text/plain"] == '[picture] three "blocks"'
    assert Picture(figure, "a").png == Picture(figure, "a").png
    with pytest.raises(ValueError, match="needs alt text"):
        Picture(figure, " ")


def test_theory_is_a_line_and_measurement_points_on_it() -> None:
    values = np.linspace(1, 5, 101)
    figure = theory_and_measurement(
        [Curve("both", values, values + 0.1), Curve("theory only", values)],
        xlabel="layer",
        ylabel="v",
        log=True,
        most=3,
    )
    (ax,) = figure.axes
    assert [line.get_label() for line in ax.lines] == ["both", "both", "theory only"]
    line, points, _ = ax.lines
    assert list(line.get_ydata()) == list(values)
    assert points.get_linestyle() == "None"
    assert 20 <= sum(y <= 3 for y in points.get_ydata()) <= 30  # of those in sight
    assert all(y == values[x] + 0.1 for x, y in zip(points.get_xdata(), points.get_ydata(), strict=True))
    assert ax.get_yscale() == "log"
    assert ax.get_ylim() == (0.5, 3)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["both", "theory only"]  # a line and its points share an entry
    assert legend.get_title().get_text() == "lines: theory; points: measured"


def test_against_depth_has_a_panel_per_quantity_and_the_rules_colours() -> None:
    panels = {"a": {"mine": [1.0, 2.0], "theirs": [3.0, 4.0]}, "b": {"mine": [5.0, 6.0], "theirs": [7.0, 8.0]}}
    figure = against_depth([12, 1000], panels, ylabels=["u", "v"], rules=["deepnorm", "post_ln"], log=[False, True])
    left, right = figure.axes
    assert [list(line.get_ydata()) for line in right.lines] == [[5.0, 6.0], [7.0, 8.0]]
    assert left.lines[0].get_color() == line_style("deepnorm")["color"]
    assert (left.get_yscale(), right.get_yscale(), left.get_xscale()) == ("linear", "log", "log")
    assert [label.get_text() for label in left.get_xticklabels()] == ["12", "1,000"]


def test_equal_losses_both_show() -> None:
    figure = loss_curves({"mine": [3.0, 2.0], "theirs": [3.0, 2.0]}, chance=2.8, chance_label="ln 16", steps=40)
    band, line = (drawn for drawn in figure.axes[0].lines if drawn.get_label() in ("mine", "theirs"))
    assert band.get_linewidth() > 2 * line.get_linewidth()
    assert figure.axes[0].get_xlim() == (0, 40)


def test_no_two_losses_share_colour_and_dash() -> None:
    losses = {str(i): [3.0, 2.0] for i in range(6)}
    lines = loss_curves(losses, chance=2.8, chance_label="ln 16", steps=40).axes[0].lines
    assert len({line.get_color() for line in lines if line.get_label() in losses}) == len(losses)


def test_names_of_yardsticks_stand_beside_the_axes() -> None:
    rows = [{"residual": "deepnorm", "loss": [3.0, 2.0]}]
    figure = recorded_curves(rows, chance={"ln 16": 2.8})
    figure.canvas.draw()
    (ax,) = figure.axes
    (name,) = ax.texts
    assert name.get_window_extent().x0 > ax.get_window_extent().x1


def test_timelines_have_a_row_for_each_rank_and_one_scale() -> None:
    figure = pipeline_timelines({name: timeline(name, 3, 6) for name in ("gpipe", "interleaved")})
    upper, lower = figure.axes
    assert upper.get_xlim() == lower.get_xlim() == (0, 24)
    assert [len(boxes.get_paths()) for boxes in upper.collections] == [18, 18]
    assert [len(boxes.get_paths()) for boxes in lower.collections] == [18] * 4
    assert sorted({text.get_text() for text in upper.texts}) == list("012345")
    assert [text.get_text() for text in figure.legends[0].texts][:2] == ["forward", "backward"]


def test_memory_against_ranks_has_its_curves_and_the_limit() -> None:
    (ax,) = memory_against_ranks([1, 2, 4], {"copies": [4e9] * 3, "shards": [4e9, 2e9, 1e9]}, limit=3e9).axes
    assert [list(line.get_ydata()) for line in ax.lines] == [[4, 4, 4], [4, 2, 1], [3, 3]]
    assert ax.get_xscale() == ax.get_yscale() == "log"


@pytest.mark.parametrize(("length", "columns"), [(5, 3), (40, 2), (60, 1)])
def test_a_legend_stays_within_its_figure(length: int, columns: int) -> None:
    figure, (ax,) = new_figure(1, width=8, height=4)
    for n in range(4):
        ax.plot([n], label=f"{n}" * length)
    legend_below(figure, ax)
    (legend,) = figure.legends
    assert legend._ncols == columns
    assert legend.get_window_extent().width <= figure.bbox.width


USERS = {
    "text.usetex": True,
    "font.family": ["serif"],
    "font.size": 22.0,
    "figure.dpi": 300.0,
    "figure.autolayout": True,
    "savefig.bbox": "tight",
    "axes.facecolor": "black",
    "axes.unicode_minus": False,
    "path.sketch": (1.0, 100.0, 2.0),
}


@pytest.fixture
def matplotlibrc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user's own, for their papers."""
    with matplotlib.rc_context(USERS):
        monkeypatch.setattr(matplotlib, "rcParamsOrig", matplotlib.rcParams.copy())
        style._users.cache_clear()
        yield
    style._users.cache_clear()


def some_pictures() -> list[bytes]:
    runs = {"deepnorm": history([3.0, 2.0]), "post_ln": history([3.0])}
    race = training_race(runs, chance=2.8, chance_label="ln 16", steps=10, layers=1)
    loss = LossFigure(10, 0.1, "alt", {"ln 16": 2.77})
    return [
        Picture(race, "alt").png,
        Picture(residual_blocks(), "alt").png,
        loss.png(History("x", loss=[3.0, 2.0], learning_rate=[0.1, 0.1])),
    ]


@pytest.fixture(scope="module")
def as_designed() -> list[bytes]:
    return some_pictures()


def test_a_users_matplotlibrc_changes_no_picture(as_designed: list[bytes], matplotlibrc: None) -> None:
    assert some_pictures() == as_designed


def test_a_lesson_begins_with_matplotlibs_own_settings(matplotlibrc: None) -> None:
    matplotlib.rcParams["font.size"] = 14.0  # what a program set stays
    style.use()
    changed = {name for name in USERS if matplotlib.rcParams[name] != matplotlib.rcParamsDefault[name]}
    assert changed == {"font.size"}
    assert matplotlib.rcParams["axes.grid"]
