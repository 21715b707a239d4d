"""Runs that are killed, damaged, interrupted and resumed: the same bits, or one sentence and nothing lost."""

import errno
import json
import os
import pickle
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from threading import RLock

import pytest
import torch
from tqdm.auto import tqdm

from deepnet_edu import ModelConfig, TrainConfig, build_model, train
from deepnet_edu.data import TokenMap
from deepnet_edu.files import KILL_AT
from deepnet_edu.messages import UserError
from deepnet_edu.model import Model
from deepnet_edu.training import Interrupted, checkpoint
from deepnet_edu.training.checkpoint import CheckpointError, checkpoints

POINTS = ["checkpoint: half written", "checkpoint: before", "checkpoint: during", "checkpoint: after"]
KILLS = 20
#: With dropout, so that a random state that is lost shows.
MODEL = ModelConfig("decoder", "lm", 2, d_model=16, n_heads=2, d_ff=32, vocab_size=16, dropout=0.1, max_length=16)
RECIPE = TrainConfig(steps=40, learning_rate=1e-3, schedule="inverse_sqrt", warmup=10, accumulate=2, save_every=3)


def run(out: Path, resume: bool = True, **changes) -> Model:
    """Train, or resume."""
    model, recipe = build_model(MODEL), replace(RECIPE, **changes)
    train(model, TokenMap(batch_size=2), recipe, out=out, resume=resume, progress=False)
    return model


def whole(**changes) -> Model:
    """A run that is not stopped, and is kept nowhere."""
    model = build_model(MODEL)
    train(model, TokenMap(batch_size=2), replace(RECIPE, save_every=0, **changes), progress=False)
    return model


def killed(out: Path, after: float | None = None, **environment: str) -> bool:
    """Whether a run of its own process, forked from this one, was killed before it was done."""
    child = os.fork()
    if not child:
        tqdm.set_lock(RLock())  # forked processes share tqdm's lock, and who is killed never gives it back
        os.environ.update(environment)
        run(out)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.fixture(scope="module")
def uninterrupted() -> Model:
    return whole()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("original") / "run"
    run(out)
    return out


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """A finished run with checkpoints of steps 36, 39 and 40."""
    return Path(shutil.copytree(original, tmp_path / "run"))


def same(a: Model, b: Model) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("point", POINTS)
def test_killed_inside_a_save_and_resumed(point: str, tmp_path: Path, uninterrupted: Model) -> None:
    assert killed(tmp_path / "run", **{KILL_AT: point})
    found = [path.name for path in checkpoints(tmp_path / "run")]
    assert found == ([] if point in POINTS[:2] else ["step-00000003"])
    assert same(run(tmp_path / "run"), uninterrupted)
    assert not list((tmp_path / "run" / "checkpoints").glob("*.part"))


def test_killed_twenty_times_at_random_and_resumed(tmp_path: Path, uninterrupted: Model) -> None:
    out, draw = tmp_path / "run", random.Random(0)
    kills = 0
    while kills < KILLS:
        if killed(out, after=draw.uniform(0.005, 0.15)):
            kills += 1
        else:  # it was done before: once more from the beginning
            assert same(run(out), uninterrupted)
            shutil.rmtree(out)
    assert same(run(out), uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(number: int, tmp_path: Path, uninterrupted: Model) -> None:
    def ask(history) -> None:
        if len(history.loss) == 5:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"after 5 steps.*resume=True") as stopped:
        train(build_model(MODEL), TokenMap(batch_size=2), RECIPE, out=tmp_path, on_step=ask, progress=False)
    assert stopped.value.checkpoint == checkpoints(tmp_path)[-1]
    assert signal.getsignal(number) is before
    assert same(run(tmp_path), uninterrupted)


def test_a_second_ctrl_c_stops_now(tmp_path: Path) -> None:
    def ask(_history) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(build_model(MODEL), TokenMap(batch_size=2), RECIPE, out=tmp_path, on_step=ask, progress=False)


def test_only_the_last_checkpoints_stay(saved: Path) -> None:
    assert [path.name for path in checkpoints(saved)] == ["step-00000036", "step-00000039", "step-00000040"]


def test_a_longer_run_goes_on(saved: Path) -> None:
    assert same(run(saved, steps=46), whole(steps=46))


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def pickled(file: Path) -> None:
    """A pickle in its place, and a manifest that agrees."""
    file.write_bytes(pickle.dumps({"weights": print}))
    files = json.loads((file.parent / "manifest.json").read_text())
    files[file.name] = [file.stat().st_size, checkpoint.digest(file)]
    (file.parent / "manifest.json").write_text(json.dumps(files))


DAMAGE = {
    "a flipped byte": (flipped, "SHA-256"),
    "cut short": (lambda file: os.truncate(file, file.stat().st_size - 7), r"bytes instead of"),
    "missing": (lambda file: file.unlink(), "is missing"),
    "a pickle": (pickled, "not a safetensors file"),
    "another file": (lambda file: file.with_name("model.pt").write_bytes(b"x"), r"model\.pt does not belong"),
}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "random.safetensors"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_with_the_reason_and_the_one_before_is_offered(
    damage: str, name: str, saved: Path, uninterrupted: Model
) -> None:
    act, reason = DAMAGE[damage]
    last = checkpoints(saved)[-1]
    act(last / name)
    with pytest.raises(CheckpointError, match=rf"{reason}.*one before it is .*step-00000039"):
        run(saved)
    shutil.rmtree(last)
    assert same(run(saved), uninterrupted)


@pytest.mark.parametrize("name", ["manifest.json", "state.json"])
def test_damaged_books_are_refused(name: str, saved: Path) -> None:
    (checkpoints(saved)[-1] / name).write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot be used.*one before it"):
        run(saved)


def test_another_configuration_is_refused_by_the_name_that_differs(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"another training configuration: learning_rate=0\.001 there, 0\.002"):
        run(saved, learning_rate=2e-3)
    other = build_model(replace(MODEL, d_ff=16))
    with pytest.raises(CheckpointError, match="another model configuration: d_ff=32 there, 16 here"):
        train(other, TokenMap(batch_size=2), RECIPE, out=saved, resume=True, progress=False)


def with_alpha(factor: float) -> Model:
    """α of the second layer's feed-forward, set by hand in the built model."""
    model = build_model(MODEL)
    model.rules()[3].get_buffer("alpha").mul_(factor)
    return model


def test_constants_that_were_set_by_hand_are_set_again_or_the_run_does_not_go_on(tmp_path: Path, saved: Path) -> None:
    def go(model: Model, out: Path, steps: int = 6) -> Model:
        recipe = replace(RECIPE, steps=steps)
        train(model, TokenMap(batch_size=2), recipe, out=out, resume=True, progress=False)
        return model

    by_hand, whole_run = tmp_path / "by_hand", tmp_path / "whole"
    go(with_alpha(2.0), by_hand)
    twice, thrice = (with_alpha(factor).rules()[3].current("alpha") for factor in (2.0, 3.0))
    name = r"stack\.layers\.1\.ffn\.residual\.alpha'"
    with pytest.raises(CheckpointError, match=rf"{name} is {twice} there, the formula's here.*set them in the"):
        go(build_model(MODEL), by_hand, 9)
    with pytest.raises(CheckpointError, match=rf"{name} is {twice} there, {thrice} here"):
        go(with_alpha(3.0), by_hand, 9)
    with pytest.raises(CheckpointError, match=rf"{name} is the formula's there, {twice} here"):
        go(with_alpha(2.0), saved, 60)
    assert same(go(with_alpha(2.0), by_hand, 9), go(with_alpha(2.0), whole_run, 9))


def test_a_constant_that_became_a_tensor_of_several_numbers_is_kept_too(tmp_path: Path) -> None:
    def edited(last: float) -> Model:
        model = build_model(MODEL)
        model.rules()[0].alpha = torch.tensor([1.5] * (MODEL.d_model - 1) + [last])
        return model

    def go(model: Model, steps: int) -> None:
        train(model, TokenMap(batch_size=2), replace(RECIPE, steps=steps), out=tmp_path, resume=True, progress=False)

    go(edited(1.0), 3)
    with pytest.raises(CheckpointError, match=r"alpha' is '\(16,\) [0-9a-f]+…?.* there, '\(16,\) "):
        go(edited(2.0), 6)
    with pytest.raises(CheckpointError, match=r"alpha' is '\(16,\) .* there, the formula's here"):
        go(build_model(MODEL), 6)
    go(edited(1.0), 6)


def test_a_run_is_never_overwritten(saved: Path) -> None:
    with pytest.raises(UserError, match=r"holds a run already.*--resume"):
        run(saved, resume=False)
    with pytest.raises(UserError, match=r"resume=True needs the folder.*out="):
        train(build_model(MODEL), TokenMap(), RECIPE, resume=True)


def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Model
) -> None:
    write = checkpoint.save_file

    def full(tensors, path) -> None:
        if len(checkpoints(tmp_path)) == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError, match=r"step 9 could not be written.*No space left.*--resume"):
        run(tmp_path)
    monkeypatch.undo()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003", "step-00000006"]
    assert same(run(tmp_path), uninterrupted)


def test_sgd_and_fp16_resume_to_the_same_bits(tmp_path: Path) -> None:
    for i, changes in enumerate([{"optimizer": "sgd"}, {"precision": "fp16"}, {"precision": "bf16"}]):
        run(tmp_path / str(i), steps=4, **changes)
        assert same(run(tmp_path / str(i), steps=8, **changes), whole(steps=8, **changes))


def test_tied_embeddings_are_saved_once_and_come_back(tmp_path: Path) -> None:
    config = replace(MODEL, shared_embeddings=True)
    models = []
    for steps in (4, 8, 8):
        model = build_model(config)
        recipe, out = replace(RECIPE, steps=steps), tmp_path / ("two" if len(models) < 2 else "one")
        train(model, TokenMap(batch_size=2), recipe, out=out, resume=True, progress=False)
        models.append(model)
    assert same(models[1], models[2])
