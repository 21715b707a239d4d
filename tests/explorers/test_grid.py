"""The bundled grid: small, without pickles, complete, and what its functions find again."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from deepnet_edu import build_model, probe
from deepnet_edu.explorers import grid, measured
from deepnet_edu.explorers.settings import RaceSettings, SignalSettings
from deepnet_edu.messages import UserError
from deepnet_edu.model import random_batch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "explorer_grid.py"


def script() -> object:
    spec = importlib.util.spec_from_file_location("explorer_grid", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["explorer_grid"] = module
    spec.loader.exec_module(module)
    return module


def test_it_is_small_and_says_how_it_was_made() -> None:
    assert grid.PATH.stat().st_size < 2e6
    with np.load(grid.PATH, allow_pickle=False) as file:
        assert all(array.dtype.kind in "fU" for array in file.values())
    head = grid.load().head
    assert head["made_by"] == "python benchmarks/explorer_grid.py"
    assert head["seconds"] > 60
    assert {"date", "device", "versions", "map_recipe", "map_task", "shape", "seeds"} <= set(head)


def test_it_holds_what_its_script_says() -> None:
    found = grid.load()
    wanted = list(script().tasks())
    assert len(found.signals()) + len(found.races()) + len(found._maps) == len(wanted)
    for part, settings in wanted:
        if part == "signal":
            assert found.signal(SignalSettings(**settings)) is not None
        elif part == "race":
            assert found.race(RaceSettings(**settings)) is not None
        else:
            assert len(found.cell(settings["depth"], settings["alpha"])) == 3


@pytest.mark.parametrize("residual", ["post_ln", "nag"])
def test_a_signal_is_found_again(residual: str) -> None:
    settings = SignalSettings(residual, 24)
    for name, values in measured.SignalMeter()(settings).items():
        np.testing.assert_allclose(grid.load().signal(settings)[name], values, rtol=2e-3, atol=1e-4)


def test_what_was_added_later_has_its_own_date() -> None:
    found = grid.load()
    assert found.date_of(SignalSettings("post_ln", 24)) == found.date
    dates = {f"recorded {added['date']} on CPU" for added in found.head["added"]}
    assert found.date_of(SignalSettings("nag", 24)) in dates - {found.date}


def test_a_run_of_the_map_is_found_again() -> None:
    recorded = grid.load().cell(16, 2.0)[1]
    again = measured.map_run(16, 2.0, seed=1)
    np.testing.assert_allclose(recorded.loss, again.loss, rtol=0.02)
    assert recorded.outcome == again.outcome
    assert recorded.share == pytest.approx(again.share, rel=1e-3)


def test_a_race_is_found_again() -> None:
    settings = RaceSettings("deepnorm", 25, 1e-3, 100)
    np.testing.assert_allclose(grid.load().race(settings), measured.race(settings), rtol=0.02)


@pytest.mark.parametrize("constants", [{}, {"alpha": 1.7, "beta": 0.4}, {"alpha": 3.0}])
def test_a_kept_model_measures_as_a_new_one(constants: dict) -> None:
    measure = measured.SignalMeter()
    measure(SignalSettings(depth=20, alpha=0.9, beta=0.8, gain=2.0))
    found = measure(SignalSettings(depth=20, gain=1.3, **constants))
    model = build_model(measured.decoder("deepnorm", 20, **constants))
    measured.scale_branches(model, 1.3)
    batch = random_batch(model.config, measured.SEQUENCES, measured.TOKENS)
    for name, values in measured.by_layer(probe(model, batch)).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "text", "missing", "another"])
def test_a_damaged_grid_is_refused_with_a_sentence(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "grid.npz"
    content = grid.PATH.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        file.write_text("not a grid")
    elif damage == "another":
        np.savez(file, x=np.ones(3))
    with pytest.raises(UserError, match="pictures show theory alone"):
        grid.load(file)


def test_outcomes_follow_their_rules() -> None:
    def run(loss: float, similarity: float, nan: bool = False) -> str:
        losses = np.full(40, loss)
        losses[-1] = np.nan if nan else loss
        return measured.MapRun(losses, similarity, 0.5, 1.0).outcome

    assert run(0.5, 0.1) == "learned"
    assert run(2.7, 0.99) == "lost"
    assert run(2.7, 0.1) == run(1.5, 0.99) == "slow"
    assert run(0.5, 0.1, nan=True) == "diverged"
