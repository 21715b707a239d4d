"""Explorers without a browser: what the dials say is what the picture shows, and nothing leaves the widget."""

import threading
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepnet_edu import predict
from deepnet_edu.explorers import (
    EXPLORERS,
    NAMES,
    BudgetExplorer,
    ConstantsExplorer,
    CostExplorer,
    Explorer,
    GameExplorer,
    MixingExplorer,
    PlansExplorer,
    RaceExplorer,
    SignalExplorer,
    TrainabilityExplorer,
    grid,
    measured,
)
from deepnet_edu.explorers.background import NAME, Background
from deepnet_edu.explorers.base import FAULT
from deepnet_edu.explorers.dials import Dial, spread
from deepnet_edu.explorers.settings import movable_constants
from deepnet_edu.messages import UserError
from deepnet_edu.planning import (
    GPUS,
    Span,
    count_parameters,
    rank_memory,
    timeline,
    training_days,
    training_flops,
    training_memory,
    training_money,
    training_time,
    utilisation_of,
)
from deepnet_edu.progress import ENVIRONMENT, read_scores
from deepnet_edu.residual import RESIDUALS, places
from deepnet_edu.scaling import deepnorm_constants

_numbers = count(1)


def said(explorer: Explorer) -> str:
    return explorer.value


def asked(explorer: Explorer, do: str, **content: Any) -> int:
    """As the page asks."""
    number = next(_numbers)
    explorer._asked(explorer, {"do": do, "number": number, **content}, [])
    assert explorer.shown["answered"] == number
    return number


def typed(explorer: Explorer, name: str, text: str) -> None:
    asked(explorer, "type", name=name, text=text)


def moved(explorer: Explorer, name: str, by: int = 1) -> None:
    """One stop on, or back at the end."""
    now = explorer.shown["dials"][name]["at"]
    stops = len(explorer.dials[name].fixed()["stops"])
    asked(explorer, "slide", name=name, stop=now + by if 0 <= now + by < stops else now - by)


def free_dial(explorer: Explorer) -> str:
    return next(name for name, dial in explorer.dials.items() if isinstance(dial, Dial) and not dial.disabled)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def test_every_explorer_has_the_name_by_which_it_is_asked_for() -> None:
    assert tuple(EXPLORERS) == NAMES == tuple(kind.name for kind in EXPLORERS.values())


@pytest.fixture(params=EXPLORERS)
def explorer(request: pytest.FixtureRequest) -> Explorer:
    return EXPLORERS[request.param]()


# --- all of them


def test_each_is_live_and_has_its_picture_beside_it(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr("deepnet_edu.explorers.base.display", lambda data, raw: shown.append(data))
    explorer._ipython_display_()
    live, still = shown
    assert live["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    assert live["text/plain"] == f"[explorer] {explorer.title}: {explorer.about}"
    assert 'src="data:image/png;base64,iVBOR' in still["text/html"]
    assert still["text/plain"].startswith("[picture] ")
    assert len(explorer.figure.alt) > 60
    assert "\n" not in explorer.figure.alt
    assert said(explorer) == ""
    assert explorer.fault is None


def test_each_dial_moves_the_picture_and_its_words_at_once(explorer: Explorer) -> None:
    for name, dial in explorer.dials.items():
        if not dial.disabled:
            before = explorer.shown
            moved(explorer, name)
            after = explorer.shown
            assert after["dials"][name]["at"] != before["dials"][name]["at"]
            assert (after["svg"], after["title"], after["note"]) != (
                before["svg"],
                before["title"],
                before["note"],
            ) or (
                name == "constants"  # α and β are free now, and what they were
            )
            assert after["alt"] == explorer.figure.alt
    assert explorer.fault is None
    explorer.close()


def test_each_says_what_it_shows(explorer: Explorer) -> None:
    """The page says one sentence, which a screen reader reads out, and longer ones that are folded."""
    assert explorer.shown["said"].endswith(".")
    assert explorer.shown["said"].count(". ") == 0
    assert 2 <= len(explorer.what) <= 4
    assert all(one[0].isupper() or one[0] in "“" for one in explorer.what)
    assert all(one[-1] in ".?" for one in explorer.what)
    explorer.close()


def test_presets_are_pictures_of_their_own_and_reset_comes_back(explorer: Explorer) -> None:
    opening = explorer.shown
    assert 2 <= len(explorer.presets) <= 4
    pictures = set()
    for name, settings in explorer.presets.items():
        asked(explorer, "preset", name=name)
        assert (
            explorer.state == settings
            or not settings
            or all(getattr(explorer, dial).value == value for dial, value in settings.items())
        )
        assert explorer.fault is None
        assert "refuse" not in said(explorer)
        pictures.add((explorer.shown["svg"], explorer.shown["title"]))
    assert len(pictures) == len(explorer.presets)
    moved(explorer, free_dial(explorer))
    asked(explorer, "reset")
    assert {key: explorer.shown[key] for key in ("svg", "said", "dials")} == {
        key: opening[key] for key in ("svg", "said", "dials")
    }
    explorer.close()


def test_the_state_in_an_address_and_the_line_of_code_show_the_same_again(explorer: Explorer) -> None:
    asked(explorer, "preset", name=list(explorer.presets)[-1])
    moved(explorer, free_dial(explorer))
    address = {name: str(value) for name, value in explorer.shown["state"].items()}
    assert address
    by_address = type(explorer)()
    asked(by_address, "restore", state=address)
    by_code = eval(explorer.shown["code"].split("; ")[1], {type(explorer).__name__: type(explorer)})
    for again in (by_address, by_code):
        assert again._values() == pytest.approx(explorer._values())
        assert again.shown["title"] == explorer.shown["title"]
        assert again.shown["state"] == explorer.shown["state"]
    for one in (explorer, by_address, by_code):
        one.close()


def test_an_address_of_someone_elses_making_is_refused_and_nothing_moves(explorer: Explorer) -> None:
    before = explorer._values()
    name = free_dial(explorer)
    for state in ({"nothing": "1"}, {name: "<script>"}, {name: "1e999"}, {"__class__": "x"}):
        asked(explorer, "restore", state=state)
        assert "refuse" in said(explorer)
        assert "<script>" not in said(explorer)
        assert explorer._values() == before
    with pytest.raises(UserError, match="nothing"):
        type(explorer)(nothing=1)
    with pytest.raises(UserError, match="out of range"):
        explorer.put(**{name: 1e9})
    assert explorer.fault is None
    explorer.close()


def test_whatever_a_page_asks_it_is_answered(explorer: Explorer) -> None:
    for content in ({}, {"do": "slide"}, {"do": "slide", "name": "no", "stop": 1}, {"do": "fit", "width": "x"}):
        asked(explorer, content.get("do", ""), **{key: value for key, value in content.items() if key != "do"})
    explorer.close()


def test_a_picture_takes_the_room_that_its_page_has(explorer: Explorer) -> None:
    before = explorer.backdrop
    asked(explorer, "fit", width=6.5, height=3.8)
    assert explorer.figure.room == (6.5, 3.8)
    assert explorer.backdrop != before
    assert 'viewBox="0 0 468 273.6"' in explorer.backdrop
    assert 'viewBox="0 0 468 273.6"' in explorer.shown["svg"]
    asked(explorer, "fit", width=1e9, height=-3)
    assert max(explorer.figure.room) <= 20
    explorer.close()


def test_what_cannot_be_is_refused_with_a_sentence_and_nothing_moves(explorer: Explorer) -> None:
    dials = [(name, dial) for name, dial in explorer.dials.items() if isinstance(dial, Dial)]
    for (name, dial), text in product(dials, ["0", "-1", "10,000", "inf", "nan", "many", "", "2.5.1"]):
        if text == "0" and dial.stops[0] == 0:  # no warm-up
            continue
        picture, value = explorer.shown["drawn"], dial.value
        typed(explorer, name, text)
        assert "refuse" in said(explorer)
        assert f"{dial.label} = {text or 'nothing'}" in said(explorer)
        assert "It stays" in said(explorer)
        assert (explorer.shown["drawn"], dial.value) == (picture, value)
        assert explorer.shown["dials"][name]["text"] == dial.written(value)
    assert explorer.fault is None


def test_a_typed_number_counts_as_it_is(explorer: Explorer) -> None:
    name = free_dial(explorer)
    dial = explorer.dials[name]
    assert isinstance(dial, Dial)
    between = (dial.stops[0] * dial.stops[1]) ** 0.5 if not dial.whole else dial.stops[1]
    typed(explorer, name, f"{between}")
    assert dial.value == pytest.approx(between)
    assert said(explorer) == "" or "measuring" in said(explorer)
    explorer.close()


def test_a_fault_is_said_in_the_explorer_and_the_next_move_tries_again(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = free_dial(explorer)
    with monkeypatch.context() as patched:
        patched.setattr(type(explorer), "view", lambda self, found: [][1])
        moved(explorer, name, -1)
        assert FAULT in said(explorer)
        assert "IndexError" in said(explorer)
        assert isinstance(explorer.fault, IndexError)
    moved(explorer, name)
    assert FAULT not in said(explorer)
    explorer.close()


def test_a_grid_cut_in_half_leaves_theory_and_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = tmp_path / "grid.npz"
    whole = grid.PATH.read_bytes()
    half.write_bytes(whole[: len(whole) // 2])
    load = grid.load
    monkeypatch.setattr(grid, "load", lambda: load(half))
    for kind in (SignalExplorer, TrainabilityExplorer, RaceExplorer):
        one = kind()
        assert "pictures show theory alone" in said(one)
        assert "python benchmarks/explorer_grid.py" in said(one)
        assert len(one.shown["svg"]) > 500
        assert one.fault is None
        one.close()


# --- the background


def test_a_held_key_ends_on_the_last_picture_and_leaves_no_thread() -> None:
    explorer = SignalExplorer("deepnorm", depth=12)
    explorer.put(constants="free")
    for _ in range(30):
        moved(explorer, "alpha")
    assert explorer.wait(20)
    fresh = SignalExplorer("deepnorm", depth=12)
    fresh.put(constants="free", alpha=explorer.alpha.value)
    assert fresh.wait(20)
    assert explorer.shown["dials"] == fresh.shown["dials"]
    assert explorer.shown["alt"] == fresh.shown["alt"]
    assert "measured just now" in explorer.figure.alt
    for thread in threads():
        thread.join(5)
    assert not threads()


def test_the_next_move_cancels_what_is_measured() -> None:
    stopped, shown = threading.Event(), []
    background, started = Background(), threading.Event()

    def endless(tick: measured.Tick) -> None:
        try:
            while True:
                started.set()
                tick(0.5)
        finally:
            stopped.set()

    background.start(endless, shown.append, lambda share: None, pytest.fail)
    assert started.wait(5)
    background.start(lambda tick: "new", shown.append, lambda share: None, pytest.fail)
    assert background.wait(5)
    assert stopped.wait(5)
    assert shown == ["new"]


def test_points_that_come_too_late_are_not_those_of_the_new_settings() -> None:
    explorer = SignalExplorer("deepnorm", depth=17)
    late = explorer.measurement()(lambda share: None)
    explorer.put(residual="post_ln")
    explorer.draw(late)
    assert explorer._view.measured is None
    explorer.close()


def test_two_explorers_at_once_measure_one_after_the_other() -> None:
    one, two = SignalExplorer("deepnorm", depth=20), SignalExplorer("post_ln", depth=25)
    assert one.wait(30)
    assert two.wait(30)
    for explorer in (one, two):
        assert "measured just now" in explorer.figure.alt
        assert said(explorer) == ""


def test_what_goes_wrong_in_the_background_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured.SignalMeter, "__call__", lambda self, settings, tick: 1 / 0)
    explorer = SignalExplorer("deepnorm", depth=13)
    assert explorer.wait(10)
    assert "ZeroDivisionError" in said(explorer)


# --- one by one


def test_signal_points_are_measured_only_at_exactly_the_recorded_settings() -> None:
    explorer = SignalExplorer("deepnorm", depth=100)
    assert f"circles: a real model of this depth, {grid.load().date}".lower() in explorer.figure.alt.lower()
    assert explorer.measurement() is None
    explorer.put(constants="free")
    typed(explorer, "alpha", "3.5")
    assert "not measured yet" in explorer.figure.alt
    assert explorer.measurement() is not None
    explorer.close()


def test_signal_shows_theory_of_its_settings() -> None:
    explorer = SignalExplorer("pre_ln", depth=40)
    typed(explorer, "gain", "0.5")
    expected = measured.by_layer(predict(measured.decoder("pre_ln", 40), measured.TOKENS, 0.5))
    view = explorer.view(None)
    np.testing.assert_allclose(view.theory["variance"], expected["variance"])
    explorer.close()


def test_signal_follows_the_papers_constants_and_its_split() -> None:
    explorer = SignalExplorer("deepnorm", depth=1000)
    paper = deepnorm_constants(decoder_layers=1000).decoder
    assert (explorer.alpha.value, explorer.beta.value) == (paper.alpha, paper.beta)
    assert explorer.alpha.disabled
    explorer.put(constants="tied")
    typed(explorer, "alpha", "2")
    assert explorer.beta.value == pytest.approx(1 / (2 * 2**0.5))
    assert explorer.beta.disabled
    explorer.put(residual="pre_ln")
    assert explorer.constants.disabled
    assert explorer.settings().alpha is None
    explorer.close()


def test_constants_shows_formula_numbers_and_code() -> None:
    explorer = ConstantsExplorer(12, 3)
    view = explorer.view(None)
    expected = deepnorm_constants(12, 3)
    assert [(one.alpha, one.beta) for one in view.stacks] == [
        (expected.encoder.alpha, expected.encoder.beta),
        (expected.decoder.alpha, expected.decoder.beta),
    ]
    assert "(12⁴·3)^(1/16)" in view.stacks[0].formula
    assert "deepnorm_constants(encoder_layers=12, decoder_layers=3)" in explorer.shown["extra"]
    for one in view.stacks:  # the point is where condition and split meet
        assert one.budget * 2 * one.beta**2 / one.alpha**2 == pytest.approx(1, rel=0.02)
        assert one.alpha**2 * one.beta**2 == pytest.approx(0.5, rel=0.02)
    explorer.put(architecture="encoder")
    assert explorer.depths() == (12, 0)
    assert explorer.decoder.disabled


def test_map_shows_the_runs_of_its_cell_alone() -> None:
    explorer = TrainabilityExplorer(depth=64, alpha=2.0)
    runs = grid.load().cell(64, 2.0)
    np.testing.assert_array_equal(explorer.view(None).loss, runs[0].loss)
    explorer.put(run=3)
    np.testing.assert_array_equal(explorer.view(None).loss, runs[2].loss)
    typed(explorer, "alpha", "2.1")
    assert explorer.view(None).loss is None
    assert "Nothing was measured here" in explorer.figure.alt


def test_race_takes_what_is_recorded_and_keeps_what_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = RaceExplorer("deepnorm", depth=100, rate=1e-3)
    assert explorer.measurement() is None
    found = explorer.view(None)
    assert found.measured is not None
    assert set(found.others) == {"post_ln", "pre_ln", "deepnorm_glm"}
    assert (found.bound[1:] >= found.measured[1:]).all()
    typed(explorer, "depth", "7")
    assert explorer.wait(30)
    assert "trained just now" in explorer.figure.alt
    monkeypatch.setattr("deepnet_edu.explorers.measured.race", pytest.fail)
    typed(explorer, "depth", "12")
    typed(explorer, "depth", "7")
    assert "trained just now" in explorer.figure.alt
    explorer.put(residual="pre_ln")
    assert "The theorem says nothing about this rule" in explorer.figure.alt
    explorer.close()


def test_cost_is_what_planning_says() -> None:
    explorer = CostExplorer(depth=100, d_model=64)
    explorer.put(checkpoints="root")
    view = explorer.view(None)
    config = measured.decoder("deepnorm", 100, 64)
    config = type(config)("decoder", "lm", 100, d_model=64, n_heads=4, d_ff=256, vocab_size=128, max_length=64)
    memory = training_memory(config, 4, 64, checkpoint_every=10)
    time = training_time(config, 4, 64, checkpoint_every=10)
    assert view.memory["activations"] == memory.activations
    assert sum(view.seconds.values()) == pytest.approx(time.total)
    assert view.seconds["products"] == time.floor
    explorer.put(precision="bfloat16")
    assert explorer.view(None).seconds is None
    typed(explorer, "width", "40")
    assert "a multiple of 16" in said(explorer)


def test_plans_are_what_planning_says() -> None:
    explorer = PlansExplorer(depth=100, d_model=64, pieces=2)
    typed(explorer, "shares", "4")
    view = explorer.view(None)
    config = type(measured.decoder("deepnorm", 100, 64))(
        "decoder", "lm", 100, d_model=64, n_heads=1, d_ff=256, vocab_size=32_000, max_length=64
    )
    ranks = rank_memory(config, 512, 64, data=4, pipeline=4, microbatches=8, device="cuda")
    assert [sum(memory.values()) for memory in view.memory] == [rank.total for rank in ranks]
    assert list(view.slots) == timeline("1f1b", 4, 8)
    typed(explorer, "pipeline", "1")
    assert len(explorer.view(None).memory) == 1
    typed(explorer, "shares", "3")
    assert "expected a multiple of 3" in said(explorer)
    typed(explorer, "width", "80")
    assert "a multiple of 64" in said(explorer)


def test_the_budget_is_what_planning_says() -> None:
    explorer = BudgetExplorer(depth=100, d_model=512, gpu="v100", price=1.63)
    typed(explorer, "count", "128")
    view = explorer.view(None)
    config = explorer.config()
    days = training_days(sum(training_flops(config, 1e11).values()), GPUS["v100"], 128, utilisation_of(config))
    money = training_money(days, 128, Span(1.63, 1.63, ""))
    assert view.ends[128] == ((days.low, money.low), (days.high, money.high))
    bills = [[bill for _, bill in ends] for ends in view.ends.values()]
    np.testing.assert_allclose(bills, [bills[0]] * len(bills))
    parameters = count_parameters(config)["all"]
    assert [*view.held.values()] == pytest.approx(
        [parameters * (a + b / 128) for a, b in ((16, 0), (4, 12), (2, 14), (0, 16))]
    )
    explorer.put(kind="encoder_decoder")
    assert (explorer.config().encoder_layers, explorer.config().decoder_layers) == (50, 50)
    typed(explorer, "width", "80")
    assert "a multiple of 64" in said(explorer)
    typed(explorer, "price", "nothing")
    assert "for one GPU" in said(explorer)


def test_the_game_doubles_the_depth_and_keeps_the_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".progress.json"
    monkeypatch.setenv(ENVIRONMENT, str(file))
    game = GameExplorer()
    game.put(residual="deepnorm", alpha=1.5, beta=0.47, rate=0.003)
    asked(game, "press", name="play")
    asked(game, "press", name="play")
    assert "wait for its end" in said(game)
    assert game.wait(60)
    assert game.rounds[0].learned, game.rounds
    assert (game.depth, game.best) == (16, 8)
    assert read_scores(file) == {"depth_game": 8}
    typed(game, "rate", "0.00001")
    asked(game, "press", name="play")
    assert game.wait(60)
    assert not game.rounds[1].learned
    assert game.depth == 16
    assert "not yet. Change something" in game.shown["said"]
    asked(game, "press", name="again")
    assert (game.depth, game.rounds, game.best) == (8, [], 8)
    assert GameExplorer().best == 8


def test_the_game_begins_where_post_ln_wins_its_first_rung_and_no_other() -> None:
    game = GameExplorer()
    assert game.residual.value == "post_ln"
    for learned in (True, False):
        game.play()
        assert game.wait(60)
        assert game.rounds[-1].learned is learned, game.rounds
    game.close()


def test_the_papers_constants_pass_rungs_of_the_game() -> None:
    """All eight were tried, with a learning rate of 1e-3: losses 1.01, 0.67, 0.44, 0.31, 0.25, 0.24, 0.30, 0.60."""
    game = GameExplorer(residual="deepnorm")
    for depth in (8, 16, 32, 64):
        paper = deepnorm_constants(decoder_layers=depth).decoder
        game.put(alpha=paper.alpha, beta=paper.beta)
        assert game.depth == depth
        game.play()
        assert game.wait(120)
        assert game.rounds[-1].learned, game.rounds
    game.close()


def test_stops_are_spread_by_ratio_and_keep_the_special_ones() -> None:
    stops = spread(1, 100, 3, 12)
    assert stops == [1, 10, 12, 100]


def test_mixing_is_by_formula_or_measured() -> None:
    explorer = MixingExplorer("pre_ln", 4)
    assert "By formula" in explorer.figure.alt
    assert explorer.measurement() is None
    explorer.put(residual="attention_residuals")
    assert explorer.wait()
    assert "measured just now" in explorer.figure.alt
    assert said(explorer) == ""
    assert np.tril(np.ones((9, 9))) == pytest.approx(np.asarray(explorer.figure._image.get_array()), abs=1e-3)
    explorer.close()


def test_what_may_be_moved_is_what_a_rule_has() -> None:
    """α as a buffer on the skip, which the measured model is given; β as the gain of the weights."""
    for name, rule in RESIDUALS.items():
        if "decoder" in rule.architectures:
            made = rule(next(places("decoder", 0, 2)), 1)
            has = {"alpha"} & dict(made.named_buffers()).keys()
            has |= {"beta"} if made.constants.get("beta") == made.gain("value") else set()
            assert set(movable_constants(name)) == has, name
