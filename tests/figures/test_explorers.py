"""The explorers' figures by the data on their axes: fixed axes, moved lines, and a picture that equals a new one."""

import re
import xml.etree.ElementTree as ET
from io import BytesIO
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch, PathPatch
from PIL import Image

from deepnet_edu.explorers.constants import stack_choices
from deepnet_edu.figures.budget import BudgetFigure, BudgetView, days_and_dollars
from deepnet_edu.figures.constants import ConstantsFigure, ConstantsView
from deepnet_edu.figures.cost import CostFigure, CostView
from deepnet_edu.figures.game import GameFigure, GameView, Round
from deepnet_edu.figures.mixing import MixingFigure, MixingView
from deepnet_edu.figures.plans import PlanFigure, PlanView
from deepnet_edu.figures.race import RaceFigure, RaceView
from deepnet_edu.figures.scene import DARK, Scene, round_top, spread_apart
from deepnet_edu.figures.signal import PANELS, SignalFigure, SignalView
from deepnet_edu.figures.style import line_style, rule_styles
from deepnet_edu.figures.trainability import TrainabilityFigure, TrainabilityMap, TrainabilityView
from deepnet_edu.planning import timeline
from deepnet_edu.profiles import DepthMixing

MAP = TrainabilityMap(
    depths=[8, 64, 1000],
    alphas=[1.0, 2.0],
    learned=np.array([[3, 0, 0], [3, 2, 0]]),
    outcomes=[["", "lost", "lost"], ["", "slow", "diverged"]],
    seeds=3,
    paper=np.array([2.0, 3.4, 6.7]),
    edge=np.array([1.0, 1.5, 2.3]),
    chance=2.77,
    threshold=1.0,
    steps=4,
)


WORDS = ("title", "It shows something.", "by formula")


def signal_view(scale: float = 1.0, measured: bool = True) -> SignalView:
    theory = {"layer": np.array([1.0, 2, 4]), **{name: scale * np.array([0.1, 0.2, 0.4]) for name in PANELS}}
    return SignalView(*WORDS, "deepnorm", theory, theory if scale > 1 else None, theory if measured else None)


def map_view(depth: int = 64, loss: bool = True) -> TrainabilityView:
    return TrainabilityView(*WORDS, depth, 2.0, np.array([3.0, 2, 1, 0.5]) if loss else None, "run 1")


def race_view(scale: float = 1.0, others: bool = True) -> RaceView:
    update = scale * np.array([0.0, 0.1, 0.2])
    return RaceView(*WORDS, "deepnorm", 3 * update, update, {"post_ln": 2 * update} if others else {})


def cost_view(scale: float = 1.0, known: bool = True) -> CostView:
    return CostView(*WORDS, {"a": 1e9 * scale, "b": 2e9}, {"x": 1.0, "y": 0.5} if known else None)


def plan_view(schedule: str = "1f1b", ranks: int = 4, pieces: int = 4, scale: float = 1.0) -> PlanView:
    memory = [{"a": 2e9 * scale, "b": (ranks - rank) * 1e9} for rank in range(ranks)]
    return PlanView(*WORDS, memory, 8e9, timeline(schedule, ranks, pieces), 3.0 * pieces)


def budget_view(scale: float = 1.0, counts: tuple[int, ...] = (1, 8)) -> BudgetView:
    ends = {n: ((10 * scale / n, 100 * scale), (20 * scale / n, 200 * scale)) for n in (*counts, 4)}
    return BudgetView(*WORDS, {"a": 1e9 * scale, "b": 5e8}, 32e9, ends, 4)


def mixing_view(scale: float = 1.0) -> MixingView:
    weights = np.tril(np.ones((5, 5))) * scale
    return MixingView(*WORDS, DepthMixing("", weights, weights / 5, tuple(range(5))), "weights")


def game_view(*loss: float) -> GameView:
    return GameView(*WORDS, 16, loss, [Round(8, "a", True), Round(16, "b", False)], 8)


def constants_view(encoder: int, decoder: int) -> ConstantsView:
    return ConstantsView(*WORDS, stack_choices(encoder, decoder))


FIGURES: list[tuple[Scene, list]] = [
    (SignalFigure("Post-LN"), [signal_view(), signal_view(2.0), signal_view(0.5, measured=False)]),
    (TrainabilityFigure(MAP), [map_view(), map_view(1000), map_view(8, loss=False)]),
    (ConstantsFigure(), [constants_view(12, 0), constants_view(12, 3), constants_view(0, 1000)]),
    (RaceFigure(("deepnorm", "post_ln"), 2), [race_view(), race_view(5.0, others=False)]),
    (PlanFigure(("a", "b")), [plan_view(), plan_view("gpipe", 2), plan_view("interleaved", 8, 8, scale=9.0)]),
    (BudgetFigure(("a", "b"), 2), [budget_view(), budget_view(9.0), budget_view(0.5, (8,))]),
    (CostFigure(("a", "b"), ("x", "y")), [cost_view(), cost_view(30.0), cost_view(known=False)]),
    (MixingFigure(), [mixing_view(), mixing_view(0.5)]),
    (GameFigure((8, 16), 40, 2.77, 2.0), [game_view(), game_view(3.0, 2.0)]),
]
each_figure = pytest.mark.parametrize(("scene", "views"), FIGURES, ids=lambda value: type(value).__name__)


@each_figure
def test_a_moved_picture_is_that_of_a_new_figure(scene: Scene, views: list) -> None:
    """No trace of where the lines were, and the axes stay."""
    first, backdrop = scene.svg(views[0]), scene.backdrop
    limits = [(ax.get_xlim(), ax.get_ylim()) for ax in scene.figure.axes]
    for view in views[1:]:
        assert scene.svg(view) != first
        assert all(part in scene.alt for part in (view.title, view.said, view.note))
    assert scene.svg(views[0]) == first
    assert scene.backdrop == backdrop
    assert [(ax.get_xlim(), ax.get_ylim()) for ax in scene.figure.axes] == limits
    assert "base64" in first or "<path" in first


@each_figure
def test_both_layers_are_drawings_of_one_size_that_hurt_nobody_else_on_the_page(scene: Scene, views: list) -> None:
    layers = [ET.fromstring(text) for text in (scene.backdrop, scene.svg(views[-1]))]
    assert layers[0].get("viewBox") == layers[1].get("viewBox")
    assert not [one.tag for layer in layers for one in layer.iter() if one.tag.endswith("}style")]
    names = [one.get("id") for layer in layers for one in layer.iter() if one.get("id")]
    defined = [name for name in names if not re.fullmatch(r"[a-zA-Z]+[\w.]*_\d+", name)]
    assert defined
    other = type(scene).__new__(type(scene))
    other.__dict__.update(scene.__dict__ | {"_salt": "another", "_backdrop": ""})
    assert not set(defined) & set(re.findall(r'id="([^"]+)"', other.svg(views[-1]))) - {"figure_1"}


@each_figure
def test_written_text_is_where_matplotlib_puts_it(scene: Scene, views: list) -> None:
    """Text is laid out by the browser while sliders move: matplotlib's own box is about where it begins."""
    scene.svg(views[0])
    height = scene.figure.bbox.height
    found = [(float(x), float(y)) for x, y in re.findall(r'<text x="([\d.-]+)" y="([\d.-]+)"', scene.svg(views[0]))]
    for text in (one for one in scene._moving if hasattr(one, "get_text") and one.get_visible()):
        if "\n" in text.get_text() or not text.get_text():
            continue
        box = text.get_window_extent()
        x = {"left": box.x0, "center": (box.x0 + box.x1) / 2, "right": box.x1}[text.get_horizontalalignment()]
        assert any(abs(x - a) < 2 and height - box.y1 - 1 < b < height - box.y0 + 1 for a, b in found), text.get_text()


@each_figure
def test_a_still_picture_is_the_moved_one(scene: Scene, views: list) -> None:
    before = scene.svg(views[0])
    still = Image.open(BytesIO(scene.still(views[0])))
    assert still.width == int(96 * scene.room[0])
    assert scene.svg(views[0]) == before


@each_figure
@pytest.mark.parametrize("room", [(6.4, 3.8), (10.5, 4.2)])
def test_at_any_size_letters_have_nine_points_and_stay_in_the_picture(
    scene: Scene, views: list, room: tuple[float, float]
) -> None:
    before = scene.room
    try:
        scene.fit(*room)
        for view in views:
            svg = scene.backdrop + scene.svg(view)
            sizes = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", svg)]
            assert sizes
            assert min(size for size in sizes if size != 7) >= 9  # 7: powers of ten, of matplotlib
        for text in scene.figure.findobj(lambda one: hasattr(one, "get_text")):
            if text.get_visible() and text.get_text() and "mathdefault" not in text.get_text():
                box = text.get_window_extent()
                assert box.x0 >= -1, text.get_text()
                assert box.x1 <= scene.figure.bbox.width + 1, text.get_text()
    finally:
        scene.fit(*before)


# --- colours

#: What three kinds of colour-blind readers see, linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(color: object) -> np.ndarray:
    rgb = np.array(to_rgb(color))  # type: ignore[arg-type]
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(one: object, other: object, seen: list[list[float]]) -> float:
    """Difference of two colours as they are seen, in steps of CIELAB: 2 is just seen, 15 at a glance."""
    return float(np.linalg.norm(lab(np.array(seen) @ linear(one)) - lab(np.array(seen) @ linear(other))))


@each_figure
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_fills_of_one_picture_differ_for_colour_blind_readers(scene: Scene, views: list, theme: str) -> None:
    """By colour, at a glance, or by hatch."""
    scene.show(views[0])
    fills = {
        (patch.get_label(), patch.get_facecolor(), patch.get_hatch())
        for legend in scene.figure.legends
        for patch in legend.get_patches()
    }
    scene.fit(*scene.room)
    for (name, color, hatch), (other, second, more) in combinations(fills, 2):
        if hatch == more:
            pair = [DARK.get(hexed(one), hexed(one)) if theme == "dark" else one for one in (color, second)]
            for kind, seen in BLIND.items():
                assert apart(*pair, seen) > 15, (kind, name, other)


def hexed(color: object) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in to_rgb(color))  # type: ignore[arg-type]


@each_figure
def test_on_a_dark_page_every_colour_can_be_seen(scene: Scene, views: list) -> None:
    """Contrast with the page, as WCAG 2.2 defines it, of all that is drawn but fills of cells and quiet grids."""

    def luminance(color: str) -> float:
        return float(linear(color) @ [0.2126, 0.7152, 0.0722])

    page = luminance(DARK["#ffffff"])
    svg = scene.backdrop + scene.svg(views[0])
    drawn = set(re.findall(r"(?:stroke|fill): (?:var\(--c\w+, )?(#\w{6})", svg)) - {"#ffffff", "#f4f1ea", "#b9d3e6"}
    for color in drawn:
        seen = luminance(DARK.get(color, color))
        assert (max(seen, page) + 0.05) / (min(seen, page) + 0.05) >= 3, color


def test_no_two_rules_of_a_picture_share_a_colour() -> None:
    styles = rule_styles(["post_ln", "pre_ln", "deepnorm", "deepnorm_glm"])
    assert len({style["color"] for style in styles.values()}) == 4
    assert styles["post_ln"] == line_style("post_ln")


def test_axes_end_at_round_numbers_and_labels_keep_apart() -> None:
    assert [round_top(value) for value in (0.4, 1.0, 1.01, 34, 0)] == [0.5, 1.0, 2.0, 50.0, 1.0]
    placed = sorted(spread_apart([1.0, 1.1, 5.0], 1.0))
    assert placed[1] - placed[0] == pytest.approx(1.0)
    assert placed[2] == 5.0


# --- one by one


def test_signal_draws_theory_as_lines_and_measurement_as_circles() -> None:
    figure = SignalFigure("Post-LN").show(signal_view(2.0))
    for ax, (title, unit, limits) in zip(figure.axes, PANELS.values(), strict=True):
        reference, line, points = ax.lines
        assert (ax.get_title(loc="left"), ax.get_ylim()) == (f"{title}\n{unit}", limits)
        np.testing.assert_allclose(line.get_xdata(), [0.25, 0.5, 1])
        np.testing.assert_allclose(line.get_ydata(), [0.2, 0.4, 0.8])
        np.testing.assert_allclose(points.get_ydata(), [0.2, 0.8])
        np.testing.assert_allclose(reference.get_ydata(), line.get_ydata())
        assert points.get_linestyle() == "None"
        assert line.get_color() == line_style("deepnorm")["color"]
    reference, _, points = SignalFigure("Post-LN").show(signal_view(measured=False)).axes[0].lines
    assert not reference.get_visible()
    assert not points.get_visible()


def test_signal_keeps_what_leaves_its_axes_on_their_edge() -> None:
    ax = SignalFigure("Post-LN").show(signal_view(1e9)).axes[0]
    assert set(ax.lines[1].get_ydata()) == {PANELS["variance"][2][1]}


def test_the_map_has_its_cells_both_curves_the_marker_and_the_run() -> None:
    figure = TrainabilityFigure(MAP).show(map_view())
    left, right = figure.axes
    (mesh,) = left.collections
    assert list(np.asarray(mesh.get_array()).ravel()) == [3, 0, 0, 3, 2, 0]
    *signs, paper, edge, _, marker = left.lines
    np.testing.assert_allclose(2 ** paper.get_ydata(), MAP.paper)
    np.testing.assert_allclose(2 ** edge.get_ydata(), MAP.edge)
    assert (2 ** marker.get_xdata()[0], 2 ** marker.get_ydata()[0]) == (64, 2)
    assert [(sign.get_label(), len(sign.get_xdata())) for sign in signs] == [
        ("tokens nearly equal", 2), ("not yet", 1), ("diverged", 1)
    ]  # fmt: skip
    (legend,) = figure.legends
    assert [f"{n} of 3 learn" for n in range(4)] == [text.get_text() for text in legend.get_texts()][2:6]
    assert list(right.lines[-1].get_ydata()) == [3, 2, 1, 0.5]
    assert not TrainabilityFigure(MAP).show(map_view(loss=False)).axes[1].lines[-1].get_visible()


def test_constants_meet_where_condition_and_split_cross() -> None:
    left, right = ConstantsFigure().show(constants_view(12, 3)).axes
    for ax in (left, right):
        split, _, condition, point = ax.lines
        (x,), (y,) = point.get_xdata(), point.get_ydata()
        assert np.interp(x, split.get_xdata(), split.get_ydata()) == pytest.approx(y, rel=0.02)
        alphas, betas = condition.get_xdata(), condition.get_ydata()
        assert betas[0] / alphas[0] == pytest.approx(y / x, rel=0.01)
    encoder, _ = ConstantsFigure().show(constants_view(0, 12)).axes
    assert [text.get_text() for text in encoder.texts if text.get_visible()] == ["no encoder"]
    assert not [line for line in encoder.lines if line.get_visible()]


def test_a_race_shows_bound_points_and_others_by_their_names() -> None:
    figure = RaceFigure(("deepnorm", "post_ln"), 2)
    (ax,) = figure.show(race_view()).axes
    *_, others, bound, points = [line for line in ax.lines if line.get_visible()]
    np.testing.assert_allclose(bound.get_ydata(), [0.3, 0.6])
    np.testing.assert_allclose(points.get_ydata(), [0.1, 0.2])
    np.testing.assert_allclose(others.get_ydata(), [0.2, 0.4])
    assert ax.get_yscale() == "log"
    shown = {text.get_text(): text for text in ax.texts if text.get_visible()}
    assert set(shown) == {"Post-LN", "DeepNorm", "the theorem's bound", "two unrelated models"}
    assert shown["DeepNorm"].get_color() == points.get_color() == line_style("deepnorm")["color"]
    heights = sorted(np.log10(text.get_position()[1]) for text in shown.values())
    assert min(np.diff(heights)) > 0.2  # a line of text
    assert all(text.get_position()[0] > points.get_xdata()[-1] for text in shown.values())


def test_bars_of_cost_follow_on_each_other_on_a_linear_axis() -> None:
    memory, time = CostFigure(("a", "b"), ("x", "y")).show(cost_view()).axes
    for ax, parts, top in ((memory, [1, 2], 5), (time, [1, 0.5], 2)):
        assert ax.get_xscale() == "linear"
        begins, widths = zip(*((top * bar.get_x(), top * bar.get_width()) for bar in ax.patches), strict=True)
        np.testing.assert_allclose(widths, [*parts, sum(parts)])
        np.testing.assert_allclose(begins, [0, parts[0], 0])
        assert f"{top}" in [text.get_text() for text in ax.texts]
    _, time = CostFigure(("a", "b"), ("x", "y")).show(cost_view(known=False)).axes
    assert not [bar for bar in time.patches if bar.get_visible()]


def test_a_budget_has_what_a_gpu_holds_and_each_number_of_gpus_at_one_height() -> None:
    left, right = BudgetFigure(("a", "b"), 2).show(budget_view()).axes
    points, line = left.lines
    np.testing.assert_allclose(points.get_xdata(), [1, 0.5])
    assert line.get_xdata() == [32.0, 32.0]
    *_, one, eight, chosen = right.lines
    for line, count in ((one, 1), (eight, 8), (chosen, 4)):
        np.testing.assert_allclose(line.get_xdata(), [10 / count, 20 / count])
        np.testing.assert_allclose(line.get_ydata(), [100, 200])


def test_models_are_rows_at_their_bill_on_the_plane_of_days_and_dollars() -> None:
    runs = {"small": {8: ((1.0, 10e3), (4.0, 40e3))}, "large": {8: ((100.0, 1e6), (400.0, 4e6))}}
    (ax,) = days_and_dollars(runs).axes
    bars = [line for line in ax.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in bars] == [[1, 4], [100, 400]]
    assert [line.get_ydata()[0] for line in bars] == pytest.approx([20e3, 2e6])
    assert r"large: \$1M to \$4M" in [text.get_text() for text in ax.texts]
    assert [text.get_text() for text in ax.texts if "a " in text.get_text()] == ["a day", "a week", "a month", "a year"]


def test_the_game_shows_its_run_and_its_ladder() -> None:
    left, right = GameFigure((8, 16), 40, 2.77, 2.0).show(game_view(3.0, 2.0)).axes
    assert list(left.lines[-1].get_ydata()) == [3.0, 2.0]
    learned, failed, following = right.lines
    assert [list(line.get_ydata()) for line in (learned, failed, following)] == [[0], [1], [1, 1]]
    assert [label.get_text() for label in right.get_xticklabels()] == ["not yet", "learned"]
    assert min(text.get_position()[0] for text in left.texts) > 40  # no name on a line or a curve


def test_a_plan_has_a_bar_for_each_rank_and_a_box_for_each_micro_batch() -> None:
    left, right = PlanFigure(("a", "b")).show(plan_view()).axes

    def rectangles(patch: Patch) -> np.ndarray:
        assert isinstance(patch, PathPatch)
        return patch.get_path().vertices.reshape(-1, 5, 2)

    tops = [rectangles(bars)[:, :, 1].max(1) for bars in left.patches]
    np.testing.assert_allclose(tops, [[25] * 4, [75, 62.5, 50, 37.5]])
    forward, backward, *second = right.patches
    assert len(rectangles(forward)) == len(rectangles(backward)) == 16
    assert not any(boxes.get_visible() for boxes in second)
    assert rectangles(backward)[:, :, 0].max() == pytest.approx(1 + 3 / 4)
    interleaved = PlanFigure(("a", "b")).show(plan_view("interleaved", 4, 4)).axes[1].patches
    assert [len(rectangles(boxes)) for boxes in interleaved] == [16] * 4


@pytest.mark.parametrize("ranks", [1, 8])
def test_a_plan_fills_its_panels_whatever_the_number_of_ranks(ranks: int) -> None:
    left, _ = PlanFigure(("a", "b")).show(plan_view("gpipe", ranks, 8)).axes
    names = [text for text in left.texts if text.get_visible() and text.get_text() in map(str, range(8))]
    assert [text.get_text() for text in names[-ranks:]] == [str(rank) for rank in range(ranks)]
    assert [text.get_position()[0] for text in names[-ranks:]] == pytest.approx(
        [(r + 0.5) / ranks for r in range(ranks)]
    )
