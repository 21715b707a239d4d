"""What an earlier version has written is read: the file of a run, with options that are gone, and a checkpoint."""

import json
import shutil
from pathlib import Path

import pytest

from deepnet_edu import ModelConfig, TrainConfig, build_model, train
from deepnet_edu.data import TokenMap
from deepnet_edu.experiment.config import find_run, is_ours
from deepnet_edu.messages import UserError
from deepnet_edu.planning import find_shape
from deepnet_edu.training.integrity import CheckpointError

BEFORE = Path(__file__).with_name("before")
CONFIG = ModelConfig("decoder", "lm", 2, d_model=8, n_heads=2, d_ff=16, vocab_size=7, residual="deepnorm")
RECIPE = TrainConfig(steps=6, warmup=2, learning_rate=1e-2, save_every=3, keep=9)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BEFORE / "run", tmp_path / "run"))


def test_a_checkpoint_is_resumed_to_the_same_end(run: Path) -> None:
    history = train(build_model(CONFIG), TokenMap(7, 6, 4), RECIPE, out=run, resume=True, progress=False)
    assert history.loss == pytest.approx(json.loads((BEFORE / "expected.json").read_text())["loss"], rel=1e-5)


def test_an_option_that_is_gone_and_was_used_is_named(run: Path) -> None:
    state = run / "checkpoints" / "step-00000003" / "state.json"
    state.write_text(state.read_text().replace('"stochastic_depth": 0.0', '"stochastic_depth": 0.5'))
    with pytest.raises(CheckpointError, match="state.json"):  # it is not what the manifest says
        train(build_model(CONFIG), TokenMap(7, 6, 4), RECIPE, out=run, resume=True, progress=False)


def test_a_file_of_a_run_with_options_that_are_gone(tmp_path: Path) -> None:
    file = Path(shutil.copy(BEFORE / "run.toml", tmp_path / "run.toml"))
    assert find_run(str(file)) == find_run("laptop-1000")
    assert is_ours(tmp_path)
    file.write_text(file.read_text().replace("tf32 = false", "tf32 = true"))
    with pytest.raises(UserError, match="tf32=True is an option of an earlier version: leave it out"):
        find_run(str(file))


def test_a_shape_with_an_option_that_is_gone(tmp_path: Path) -> None:
    text = (BEFORE / "run.toml").read_text()
    model = text[text.index("[model]\n") + len("[model]\n") : text.index("[train]")]
    (tmp_path / "mine.toml").write_text(model)
    assert find_shape(str(tmp_path / "mine.toml")).decoder_layers == 1000
    (tmp_path / "mine.toml").write_text(model.replace("stochastic_depth = 0.0", "stochastic_depth = 0.1"))
    with pytest.raises(UserError, match="stochastic_depth=0.1 is an option of an earlier version"):
        find_shape(str(tmp_path / "mine.toml"))
