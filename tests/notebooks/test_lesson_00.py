"""What lesson 00 claims, held against its committed record: three seeds and the controls.

And a thousand layers, live, for seven steps; `make course` runs the lesson at that depth.
"""

from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepnet_edu import ModelConfig, TrainConfig, build_model, train
from deepnet_edu.course.kit import Results
from deepnet_edu.data import TokenMap

RECORD = Results("lesson_00")


def ends(**wanted: Any) -> list[float]:
    return [float(np.mean(run["loss"][-5:])) for run in RECORD.select(**wanted)]


MAP = {"task": "token_map", "layers": 1000, "parameters": "stack", "learning_rate": 3e-4, "warmup": 20}


def config(rule: str, layers: int) -> ModelConfig:
    shape = RECORD.head["shape"]
    return ModelConfig("decoder", "lm", decoder_layers=layers, vocab_size=16, residual=rule, **shape)


def test_token_map_three_seeds() -> None:
    deepnorm, post_ln, pre_ln = (ends(**MAP, residual=rule) for rule in ("deepnorm", "post_ln", "pre_ln"))
    assert len(deepnorm) == len(post_ln) == len(pre_ln) == 3
    assert max(deepnorm) < 1.0
    assert all(abs(loss - log(16)) < 0.1 for loss in post_ln)


def test_within_the_forty_steps_of_the_live_run() -> None:
    for run in RECORD.select(**MAP, residual="deepnorm"):
        assert np.mean(run["loss"][35:40]) < 1.0
    for run in RECORD.select(**MAP, residual="post_ln"):
        assert abs(np.mean(run["loss"][35:40]) - log(16)) < 0.1


def test_tokens_at_init_three_seeds() -> None:
    for run in RECORD.select(**MAP, residual="deepnorm"):
        assert run["at_init"]["token_similarity"][-1] < 0.1
    for run in RECORD.select(**MAP, residual="post_ln"):
        assert run["at_init"]["token_similarity"][-1] > 0.99


def test_previous_token_below_the_floor_of_no_attention() -> None:
    wanted = {"task": "previous_token", "layers": 1000, "parameters": "stack", "residual": "deepnorm"}
    assert len(ends(**wanted)) == 3
    assert max(ends(**wanted)) < log(16) - 0.1
    for run in RECORD.select(**wanted):
        assert np.mean(run["loss"][51:56]) < log(16) - 0.05  # what the live run shows


def test_post_ln_over_the_grid() -> None:
    grid = RECORD.select(task="token_map", parameters="stack", residual="post_ln")
    recipes = {(run["learning_rate"], run["warmup"]) for run in grid}
    assert len(recipes) >= 6
    assert len({warmup for _, warmup in recipes}) >= 3
    for rate, warmup in recipes:
        seeds = [run["seed"] for run in grid if (run["learning_rate"], run["warmup"]) == (rate, warmup)]
        assert sorted(seeds) == ([0] if rate == 3e-3 else [0, 1, 2])


def test_pre_ln_with_a_learning_rate_of_its_own_is_still_behind() -> None:
    wanted = {"task": "token_map", "layers": 1000, "parameters": "stack"}
    own = ends(**wanted, residual="pre_ln", learning_rate=1e-3)
    assert len(own) == 3
    assert max(own) < min(ends(**MAP, residual="pre_ln"))
    assert min(own) > max(ends(**wanted, residual="deepnorm", learning_rate=1e-3))


def test_it_is_the_upper_layers_matrices_that_bring_post_ln_down_to_chance() -> None:
    (everything,) = RECORD.select(**MAP, residual="post_ln", seed=0)
    for part, learns in {
        "last norm": False,
        "norms": False,
        "matrices": True,
        "matrices of the upper 100 layers": True,
        "matrices of the lower 900 layers": False,
    }.items():
        (run,) = RECORD.select(**MAP | {"parameters": part}, residual="post_ln")
        apart = np.mean(run["loss"][37:40]) - np.mean(everything["loss"][37:40])
        assert apart < 0.01 if learns else apart > 0.05


@pytest.mark.parametrize("task", ["token_map", "previous_token", "text"])
def test_there_are_controls_without_layers_at_several_rates(task: str) -> None:
    runs = RECORD.select(task=task, layers=0)
    assert len({run["learning_rate"] for run in runs}) == 3


def test_frozen_stacks_stand_beside() -> None:
    assert RECORD.select(task="token_map", layers=1000, parameters="ends")
    assert RECORD.select(task="text", layers=100, parameters="ends")


def test_the_record_says_where_it_comes_from() -> None:
    for name in ("what", "command", "date", "device", "versions", "shape", "initialisation", "optimizer"):
        assert RECORD.head[name]
    assert "remake with: python benchmarks/lesson_00.py" in RECORD.source()
    assert all(run["peak_memory_gib"] < 4 for run in RECORD.runs)


def test_one_recorded_run_can_be_repeated() -> None:
    """The short control without layers, again: the same losses."""
    (run,) = RECORD.select(task="token_map", layers=0, seed=1, learning_rate=3e-3)
    model = build_model(config("none", layers=0), seed=1)
    settings = TrainConfig(steps=20, learning_rate=3e-3, warmup=20, parameters="ends", seed=1)
    assert train(model, TokenMap(), settings, progress=False).loss == pytest.approx(run["loss"][:20], abs=2e-3)


def test_a_thousand_layers_learn_and_post_ln_does_not() -> None:
    """The lesson's race without its warm-up, as the record has it too: seven steps tell them apart."""
    last = {}
    for rule in ("deepnorm", "post_ln"):
        model = build_model(config(rule, layers=1000), seed=0)
        settings = TrainConfig(steps=7, learning_rate=3e-4, warmup=0, parameters="stack", seed=0)
        last[rule] = np.mean(train(model, TokenMap(), settings, progress=False).loss[-3:])
    assert last["deepnorm"] < log(16) - 0.3
    assert last["post_ln"] > log(16) - 0.1


def test_a_missing_record_or_run_says_what_to_type() -> None:
    with pytest.raises(FileNotFoundError, match=r"python benchmarks/lesson_99.py"):
        Results("lesson_99")
    with pytest.raises(ValueError, match="no run with .*'residual': 'x'.*python benchmarks/lesson_00.py"):
        RECORD.select(residual="x")


def test_the_profile_record_makes_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "few.py").write_text(
        "import pathlib\n(pathlib.Path(__file__).parent / 'results' / 'few.json').write_text('{\"runs\": [1]}')"
    )
    monkeypatch.setattr("deepnet_edu.course.kit.BENCHMARKS", tmp_path)
    monkeypatch.setattr("deepnet_edu.course.kit.RECORDS", tmp_path / "results")
    with pytest.raises(FileNotFoundError):
        Results("few")
    monkeypatch.setenv("DEEPNET_EDU_PROFILE", "record")
    assert Results("few").runs == [1]
