"""The explorers' figures by the data on their axes: fixed axes, moved lines, and a picture that equals a new one."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from deepnet_edu.explorers.constants import stack_choices
from deepnet_edu.figures.budget import BudgetFigure, BudgetView, days_and_dollars
from deepnet_edu.figures.constants import ConstantsFigure, ConstantsView, constants
from deepnet_edu.figures.cost import CostFigure, CostView, cost
from deepnet_edu.figures.game import GameView, Round, game
from deepnet_edu.figures.moving import Moving
from deepnet_edu.figures.picture import DPI
from deepnet_edu.figures.plans import PlanFigure, PlanView, plans
from deepnet_edu.figures.race import RaceFigure, RaceView, race
from deepnet_edu.figures.signal import PANELS, SignalFigure, SignalView, signal
from deepnet_edu.figures.style import line_style
from deepnet_edu.figures.trainability import TrainabilityFigure, TrainabilityMap, TrainabilityView, trainability
from deepnet_edu.planning import timeline

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


def signal_view(scale: float = 1.0, measured: bool = True) -> SignalView:
    theory = {"layer": np.array([1.0, 2, 4]), **{name: scale * np.array([0.1, 0.2, 0.4]) for name in PANELS}}
    return SignalView("deepnorm", "title", "verdict", theory, theory if measured else None, "somewhere")


def map_view(depth: int = 64, loss: bool = True) -> TrainabilityView:
    return TrainabilityView(depth, 2.0, np.array([3.0, 2, 1, 0.5]) if loss else None, "here", "run 1", "recorded")


def race_view(scale: float = 1.0, others: bool = True) -> RaceView:
    update = scale * np.array([0.0, 0.1, 0.2])
    return RaceView("deepnorm", "title", 3 * update, update, {"post_ln": 2 * update} if others else {}, "recorded")


def cost_view(scale: float = 1.0, known: bool = True) -> CostView:
    return CostView("title", {"a": 1e9 * scale, "b": 2e9}, {"x": 1.0, "y": 0.5} if known else None, 1.0, "note")


def plan_view(schedule: str = "1f1b", ranks: int = 4, pieces: int = 4, scale: float = 1.0) -> PlanView:
    memory = [{"a": 2e9 * scale, "b": (ranks - rank) * 1e9} for rank in range(ranks)]
    return PlanView("title", memory, 8e9, timeline(schedule, ranks, pieces), 3.0 * pieces, "note")


def budget_view(scale: float = 1.0, counts: tuple[int, ...] = (1, 8)) -> BudgetView:
    ends = {n: ((10 * scale / n, 100 * scale), (20 * scale / n, 200 * scale)) for n in (*counts, 4)}
    return BudgetView("title", {"a": 1e9 * scale, "b": 5e8}, 32e9, ends, 4, "note")


FIGURES: list[tuple[type[Moving] | Moving, list]] = [
    (SignalFigure(), [signal_view(), signal_view(2.0), signal_view(0.5, measured=False)]),
    (TrainabilityFigure(MAP), [map_view(), map_view(1000), map_view(8, loss=False)]),
    (ConstantsFigure(), [ConstantsView("t", stack_choices(N, M)) for N, M in ((12, 0), (12, 3), (0, 1000))]),
    (RaceFigure(("deepnorm", "post_ln"), 2), [race_view(), race_view(5.0, others=False)]),
    (PlanFigure(("a", "b")), [plan_view(), plan_view("gpipe", 2), plan_view("interleaved", 8, 8, scale=9.0)]),
    (BudgetFigure(("a", "b"), 2), [budget_view(), budget_view(9.0), budget_view(0.5, (8,))]),
    (CostFigure(("a", "b"), ("x", "y")), [cost_view(), cost_view(30.0), cost_view(known=False)]),
]


@pytest.mark.parametrize(("moving", "views"), FIGURES, ids=lambda value: type(value).__name__)
def test_a_moved_picture_is_that_of_a_new_figure(moving: Moving, views: list) -> None:
    """No trace of where the lines were, and the axes stay."""
    first = moving.png(views[0])
    limits = [(ax.get_xlim(), ax.get_ylim()) for ax in moving.figure.axes]
    for view in views[1:]:
        assert moving.png(view) != first
        assert moving.alt
    assert moving.png(views[0]) == first
    assert [(ax.get_xlim(), ax.get_ylim()) for ax in moving.figure.axes] == limits
    for ax in moving.figure.axes:
        assert ax.get_xlabel() or [label.get_text() for label in ax.get_xticklabels()]


@pytest.mark.parametrize(("moving", "views"), FIGURES, ids=lambda value: type(value).__name__)
def test_what_pillow_writes_stands_where_matplotlib_puts_it(moving: Moving, views: list) -> None:
    """Text is drawn by another library while sliders move: seen from afar both pictures are one."""
    quick = Image.open(BytesIO(moving.png(views[0])))
    saved = BytesIO()
    for artist in moving._moving:
        artist.set_animated(False)
    moving.figure.savefig(saved, dpi=DPI)
    for artist in moving._moving:
        artist.set_animated(True)
    slow = Image.open(saved).convert("RGB")
    assert quick.size == slow.size
    small = [np.asarray(picture.convert("L").reduce(12), float) for picture in (quick, slow)]
    assert np.abs(small[0] - small[1]).max() < 45  # text that is missing or elsewhere makes 60 and more


def test_signal_draws_theory_as_lines_and_measurement_as_circles() -> None:
    figure = signal(signal_view())
    for ax, (title, unit, limits) in zip(figure.axes, PANELS.values(), strict=True):
        line, points = ax.lines
        assert (ax.get_title(), ax.get_ylabel(), ax.get_ylim()) == (title, unit, limits)
        np.testing.assert_allclose(line.get_xdata(), [0.25, 0.5, 1])
        np.testing.assert_allclose(line.get_ydata(), [0.1, 0.2, 0.4])
        np.testing.assert_allclose(points.get_ydata(), [0.1, 0.2, 0.4])
        assert points.get_linestyle() == "None"
        assert line.get_color() == line_style("deepnorm")["color"]
    assert not signal(signal_view(measured=False)).axes[0].lines[1].get_visible()
    texts = [text.get_text() for text in figure.texts]
    assert "lines: theory · circles: somewhere" in texts


def test_signal_keeps_what_leaves_its_axes_on_their_edge() -> None:
    ax = signal(signal_view(1e9)).axes[0]
    assert set(ax.lines[0].get_ydata()) == {PANELS["variance"][2][1]}


def test_the_map_has_its_cells_both_curves_the_marker_and_the_run() -> None:
    figure = trainability(MAP, map_view())
    left, right = figure.axes
    (mesh,) = left.collections
    assert list(np.asarray(mesh.get_array()).ravel()) == [3, 0, 0, 3, 2, 0]
    paper, edge, marker = left.lines
    np.testing.assert_allclose(2 ** paper.get_ydata(), MAP.paper)
    np.testing.assert_allclose(2 ** edge.get_ydata(), MAP.edge)
    assert (2 ** marker.get_xdata()[0], 2 ** marker.get_ydata()[0]) == (64, 2)
    assert sorted(text.get_text() for text in left.texts) == ["!", "·", "×", "×"]
    assert list(right.lines[-1].get_ydata()) == [3, 2, 1, 0.5]
    assert not trainability(MAP, map_view(loss=False)).axes[1].lines[-1].get_visible()


def test_constants_meet_where_condition_and_split_cross() -> None:
    left, right = constants(ConstantsView("t", stack_choices(12, 3))).axes
    for ax in (left, right):
        split, _, condition, point = ax.lines
        (x,), (y,) = point.get_xdata(), point.get_ydata()
        assert np.interp(x, split.get_xdata(), split.get_ydata()) == pytest.approx(y, rel=0.02)
        alphas, betas = condition.get_xdata(), condition.get_ydata()
        assert betas[0] / alphas[0] == pytest.approx(y / x, rel=0.01)
    only = constants(ConstantsView("t", stack_choices(0, 12)))
    assert [text.get_text() for text in only.axes[0].texts if text.get_visible()][-1] == "no encoder"


def test_a_race_shows_bound_points_and_others() -> None:
    (ax,) = race(race_view()).axes
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(lines["the theorem's bound"].get_ydata(), [0.3, 0.6])
    np.testing.assert_allclose(lines["measured"].get_ydata(), [0.1, 0.2])
    np.testing.assert_allclose(lines["Post-LN, recorded"].get_ydata(), [0.2, 0.4])
    assert ax.get_yscale() == "log"


def test_cost_has_a_bar_per_part_their_sum_and_the_floor() -> None:
    memory, time = cost(cost_view()).axes
    ends = [bar.get_x() + bar.get_width() for bar in memory.patches]
    np.testing.assert_allclose(ends, [1, 2, 3])
    np.testing.assert_allclose([bar.get_x() + bar.get_width() for bar in time.patches], [1, 0.5, 1.5])
    assert time.lines[0].get_xdata() == [1.0, 1.0]
    assert not cost(cost_view(known=False)).axes[1].lines[0].get_visible()


def test_a_budget_has_what_a_gpu_holds_and_each_number_of_gpus_at_one_height() -> None:
    left, right = BudgetFigure(("a", "b"), 2).show(budget_view()).axes
    np.testing.assert_allclose([bar.get_x() + bar.get_width() for bar in left.patches], [1, 0.5])
    assert left.lines[0].get_xdata() == [32.0, 32.0]
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
    rounds = [Round(8, "a", True), Round(16, "b", False)]
    left, right = game(GameView(16, [3.0, 2.0], rounds, 8, "t")).axes
    assert list(left.lines[-1].get_ydata()) == [3.0, 2.0]
    alive, dead, following = right.lines
    assert (list(alive.get_ydata()), list(dead.get_ydata()), list(following.get_ydata())) == ([0], [1], [1, 1])


def test_a_plan_has_a_bar_for_each_rank_and_a_box_for_each_micro_batch() -> None:
    left, right = plans(plan_view()).axes
    tops = [[max(y for _, y in path.vertices) for path in bars.get_paths()] for bars in left.collections]
    np.testing.assert_allclose(tops, [[25] * 4, [75, 62.5, 50, 37.5]])
    forward, backward, *second = right.collections
    assert len(forward.get_paths()) == len(backward.get_paths()) == 16
    assert not any(len(boxes.get_paths()) for boxes in second)
    ends = [max(x for x, _ in path.vertices) for path in backward.get_paths()]
    assert max(ends) == pytest.approx(1 + 3 / 4)
    interleaved = plans(plan_view("interleaved", 4, 4)).axes[1].collections
    assert [len(boxes.get_paths()) for boxes in interleaved] == [16] * 4
