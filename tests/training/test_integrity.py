"""Checkpoints that were forged, with a manifest that agrees: a sentence that names file and field, no harm."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from deepnet_edu import ModelConfig, TrainConfig, build_model, train
from deepnet_edu.data import PackedText, PythonDocs, TokenMap
from deepnet_edu.files import digest
from deepnet_edu.model import Model
from deepnet_edu.training.checkpoint import CheckpointError, checkpoints

MODEL = ModelConfig("decoder", "lm", 1, d_model=8, n_heads=2, d_ff=8, vocab_size=16, max_length=16)
RECIPE: dict[str, Any] = {"steps": 4, "save_every": 2, "precision": "fp32"}


def run(out: Path, task: Any = None, model: Model | None = None, **changes: Any) -> Model:
    model = model or build_model(MODEL)
    config = TrainConfig(**{**RECIPE, **changes})
    train(model, task or TokenMap(batch_size=2), config, out=out, resume=True, progress=False)
    return model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("original") / "run"
    run(out)
    return out


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """A run of 4 steps with checkpoints of steps 2 and 4."""
    return Path(shutil.copytree(original, tmp_path / "run"))


def agree(path: Path) -> None:
    """A manifest that lists what is there."""
    listed = {
        file.name: (file.stat().st_size, digest(file))
        for file in path.iterdir()
        if file.name != "manifest.json" and file.is_file()
    }
    (path / "manifest.json").write_text(json.dumps(listed))


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink()
    }


def refused(saved: Path, match: str, **changes: Any) -> str:
    """It is, by one line that names the checkpoint and the one before it, with nothing changed."""
    before, model = content(saved), build_model(MODEL)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=match) as error:
        run(saved, model=model, **{"steps": 6, **changes})
    assert content(saved) == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    said = str(error.value)
    assert "\n" not in said
    assert "step-00000004" in said
    return said


STATES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no version": (lambda s: s.pop("version"), "is of version None"),
    "version 2": (lambda s: s.update(version=2), "is of version 2, and this library reads version 1"),
    "version true": (lambda s: s.update(version=True), "version: expected a whole number"),
    "no model": (lambda s: s.pop("model"), "state.json: model is missing"),
    "no step": (lambda s: s.pop("step"), "state.json: step is missing"),
    "no tokens": (lambda s: s.pop("tokens"), "state.json: tokens is missing"),
    "no data": (lambda s: s.pop("data"), "state.json: data is missing"),
    "no scaler": (lambda s: s.pop("scaler"), "state.json: scaler is missing"),
    "no train": (lambda s: s.pop("train"), "state.json: train is missing"),
    "step -5": (lambda s: s.update(step=-5), "state.json: step=-5: expected 0 or more"),
    "step 7.5": (lambda s: s.update(step=7.5), "state.json: step: expected a whole number, found 7.5"),
    "step 3": (lambda s: s.update(step=3), "state.json: step=3, and the folder is named step-00000004"),
    "step text": (lambda s: s.update(step="4"), "state.json: step: expected a whole number, found '4'"),
    "step large": (lambda s: s.update(step=10**30), "state.json: step=10{30}: expected 0 or more"),
    "tokens -1": (lambda s: s.update(tokens=-1), "state.json: tokens=-1"),
    "tokens null": (lambda s: s.update(tokens=None), "state.json: tokens: expected a whole number"),
    "model a list": (lambda s: s.update(model=[]), "state.json: model: expected a table"),
    "train null": (lambda s: s.update(train=None), "state.json: train: expected a table"),
    "data a list": (lambda s: s.update(data=[1]), "state.json: data: expected a table"),
    "data of others": (lambda s: s.update(data={"epoch": 1}), "it is of data that remember their place"),
    "scaler of fp16": (lambda s: s.update(scaler={"scale": 1.0}), "state.json: scaler="),
    "plan alone": (lambda s: s.update(plan="data=2"), "plan and updates: expected both or neither"),
    "updates beyond": (lambda s: s.update(plan="data=2", updates=9), "updates=9: expected 4 at most"),
    "constants in a list": (lambda s: s.update(constants={"alpha": [2]}), "state.json: constants: expected a table"),
    "another field": (lambda s: s.update(x=1), "'x' is not a field"),
    "a list": (lambda s: s.clear(), "is of version None"),
}


def test_a_checkpoint_from_before_a_setting_existed(saved: Path) -> None:
    """It is of a model with the setting's default, and of no other."""
    last = checkpoints(saved)[-1]
    state = json.loads((last / "state.json").read_text())
    for name in ("n_kv_heads", "bias", "head"):
        del state["model"][name]
    (last / "state.json").write_text(json.dumps(state))
    agree(last)
    with pytest.raises(CheckpointError, match=r"bias=True there, False here"):
        run(saved, model=build_model(replace(MODEL, bias=False)), steps=6)
    run(saved, model=build_model(MODEL), steps=6)


@pytest.mark.parametrize("what", STATES)
def test_a_field_of_another_type_or_range(what: str, saved: Path) -> None:
    act, reason = STATES[what]
    last = checkpoints(saved)[-1]
    state = json.loads((last / "state.json").read_text())
    act(state)
    (last / "state.json").write_text(json.dumps(state))
    agree(last)
    refused(saved, reason)


@pytest.mark.parametrize("name", ["state.json", "manifest.json"])
@pytest.mark.parametrize(
    "text", ["", "[]", "null", '"text"', "[" * 100_000, '{"step": ' + "9" * 5000 + "}", "\x00\x00", "{", '{"a": [1]}']
)
def test_a_book_that_is_something_else(name: str, text: str, saved: Path) -> None:
    last = checkpoints(saved)[-1]
    (last / name).write_text(text)
    if name == "state.json":
        agree(last)
    refused(saved, rf"{name}|is of version None")


@pytest.mark.parametrize(
    "listed",
    [
        {"../../metrics.csv": [1, "x"]},
        {"model.safetensors": ["1", "x"]},
        {"model.safetensors": [1]},
        {"": [0, ""]},
        {"..": [0, ""]},
        {"a\x00b": [0, ""]},
        {"manifest.json": [1, "x"]},
        {"model.safetensors": [10**30, "x"]},
    ],
)
def test_a_manifest_that_lists_what_it_may_not(listed: dict[str, Any], saved: Path) -> None:
    path = checkpoints(saved)[-1] / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **listed}))
    refused(saved, "cannot be used")


def test_pipes_and_links_are_not_read(saved: Path) -> None:
    last = checkpoints(saved)[-1]
    for name in ("model.safetensors", "state.json", "manifest.json"):
        aside = saved.parent / name
        (last / name).rename(aside)
        os.mkfifo(last / name)
        refused(saved, f"{name}.*not a regular file")
        (last / name).unlink()
        (last / name).symlink_to(aside)
        refused(saved, name)
        (last / name).unlink()
        aside.rename(last / name)
    run(saved, steps=6)


def test_a_folder_renamed_to_a_later_step(saved: Path) -> None:
    last = checkpoints(saved)[-1]
    last.rename(last.with_name("step-00000009"))
    with pytest.raises(CheckpointError, match="step=4, and the folder is named step-00000009"):
        run(saved, steps=20)


def test_other_folders_are_not_checkpoints(saved: Path) -> None:
    for name in ("step-", "step-x", "step-00000003.old", "step--0000001"):
        (saved / "checkpoints" / name).mkdir()
    assert [path.name for path in checkpoints(saved)] == ["step-00000002", "step-00000004"]
    run(saved, steps=6)


Tensors = dict[str, torch.Tensor]
MOMENT = "exp_avg/stack.layers.0.feed_forward.branch.outer.weight"


def first(tensors: Tensors, start: str) -> str:
    return next(name for name in sorted(tensors) if name.startswith(start) and tensors[name].ndim == 2)


def change(file: str, start: str, how: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        tensors = load_file(path / file)
        name = first(tensors, start) if start not in tensors else start
        new = how(tensors.pop(name))
        if new is not None:
            tensors[name] = new.contiguous()
        save_file(tensors, path / file)

    return act


def add(file: str) -> Callable[[Path], None]:
    return lambda path: save_file({**load_file(path / file), "extra": torch.zeros(1)}, path / file)


def empty(file: str) -> Callable[[Path], None]:
    return lambda path: save_file({}, path / file)


TENSORS: dict[str, tuple[Callable[[Path], None], str]] = {
    "short moment": (change("optimizer.safetensors", "exp_avg/", lambda t: t[:1]), r"exp_avg/.* is float32\[1, 8\]"),
    "long moment": (change("optimizer.safetensors", "exp_avg_sq/", lambda t: torch.cat([t, t])), "exp_avg_sq/.* there"),
    "turned moment": (change("optimizer.safetensors", "exp_avg/", lambda t: t.reshape(-1)), "exp_avg/"),
    "float64 moment": (change("optimizer.safetensors", "exp_avg/", lambda t: t.double()), "exp_avg/.* is float64"),
    "no moment": (change("optimizer.safetensors", "exp_avg/", lambda t: None), "lacks the tensor 'exp_avg/"),
    "moment too many": (add("optimizer.safetensors"), "optimizer.safetensors has a tensor 'extra'"),
    "no optimizer state": (empty("optimizer.safetensors"), "it has no state of the optimizer"),
    "no step": (change("optimizer.safetensors", "step/0", lambda t: None), "lacks the tensor 'step/0'"),
    "step of two": (change("optimizer.safetensors", "step/0", lambda t: t.repeat(2)), r"step/0 is float32\[2\] there"),
    "step whole": (change("optimizer.safetensors", "step/0", lambda t: t.long()), "step/0 is int64"),
    "step 9": (change("optimizer.safetensors", "step/0", lambda t: t + 5), "step/0 is 9 after 4 steps"),
    "step nan": (change("optimizer.safetensors", "step/0", lambda t: t * torch.nan), "step/0 is nan after 4"),
    "float16 weights": (change("model.safetensors", "head", lambda t: t.half()), "head.weight is float16.* float32"),
    "short weights": (change("model.safetensors", "head", lambda t: t[:1]), r"head.weight is float32\[1, 8\] there"),
    "no weights": (change("model.safetensors", "head", lambda t: None), "lacks the tensor 'head.weight'"),
    "weights too many": (add("model.safetensors"), "model.safetensors has a tensor 'extra'"),
    "no tensor at all": (empty("model.safetensors"), "model.safetensors lacks the tensor"),
    "random of floats": (
        change("random.safetensors", "cpu", lambda t: t.float()),
        "random.safetensors: cpu is float",
    ),
    "random too short": (change("random.safetensors", "cpu", lambda t: t[:-8]), "random.safetensors: cpu is uint8"),
    "random data": (change("random.safetensors", "data", lambda t: t[:16]), "random.safetensors: data is uint8"),
    "random zeros": (change("random.safetensors", "data", lambda t: t * 0), "data is not the state of a random gen"),
    "no random": (change("random.safetensors", "data", lambda t: None), "random.safetensors lacks 'data'"),
    "no random cpu": (change("random.safetensors", "cpu", lambda t: None), "random.safetensors lacks 'cpu'"),
    "random too many": (add("random.safetensors"), "random.safetensors has 'extra'"),
    "a file too few": (lambda path: (path / "optimizer.safetensors").unlink(), "manifest.json: .* is not listed"),
    "no file of states": (lambda path: (path / "random.safetensors").unlink(), "random.safetensors is not listed"),
}


@pytest.mark.parametrize("what", TENSORS)
def test_a_tensor_of_another_form(what: str, saved: Path) -> None:
    """Moments that were too short made the fused AdamW write beyond them."""
    act, reason = TENSORS[what]
    last = checkpoints(saved)[-1]
    act(last)
    agree(last)
    assert "step-00000002" in refused(saved, reason)


def test_whole_files_of_something_else_are_not_to_be_deleted(saved: Path) -> None:
    """The advice to delete is for damage, and not for a checkpoint of another model or precision."""
    for model in (build_model(MODEL).double(), torch.nn.Module()):
        if isinstance(model, Model):
            with pytest.raises(CheckpointError, match="undamaged") as error:
                run(saved, model=model, steps=6)
            assert "delete" not in str(error.value)


def test_a_compiled_model_has_the_checkpoints_of_its_model(tmp_path: Path, original: Path) -> None:
    compiled = torch.compile(build_model(MODEL), backend="eager")
    train(compiled, TokenMap(batch_size=2), TrainConfig(**RECIPE), out=tmp_path, progress=False)  # type: ignore[arg-type]
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, plain = (load_file(checkpoints(folder)[-1] / name) for folder in (tmp_path, original))
        assert ours.keys() == plain.keys()
    run(tmp_path, steps=6)


@pytest.mark.parametrize(
    ("before", "now", "name"),
    [
        (PythonDocs(16, 2), PythonDocs(8, 2), "length=16 there, 8 here"),
        (PythonDocs(16, 2), PythonDocs(16, 4), "batch_size=2 there, 4 here"),
        (PythonDocs(16, 2), TokenMap(128, 16, 2), "vocab_size=None there, 128 here"),
        (TokenMap(16, 16, 2), TokenMap(8, 16, 2), "vocab_size=16 there, 8 here"),
        (
            PackedText(["a word " * 60], length=4, batch_size=2),
            PackedText(["a word " * 60], length=4, batch_size=3),
            "b",
        ),
        (PackedText(["a word " * 60], length=4), PackedText(["a work " * 60], length=4), "text="),
    ],
)
def test_other_data_do_not_go_on(before: Any, now: Any, name: str, tmp_path: Path) -> None:
    from dataclasses import replace

    model = replace(MODEL, vocab_size=300)
    train(build_model(model), before, TrainConfig(steps=2), out=tmp_path, progress=False)
    with pytest.raises(CheckpointError, match=f"of another data configuration: .*{name}"):
        train(build_model(model), now, TrainConfig(steps=3), out=tmp_path, resume=True, progress=False)


def test_a_checkpoint_that_does_not_say_its_data_is_used_and_that_is_said(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = checkpoints(saved)[-1]
    state = json.loads((last / "state.json").read_text())
    del state["reads"], state["constants"]
    (last / "state.json").write_text(json.dumps(state))
    agree(last)
    run(saved, steps=6)
    assert "does not say which data it is of" in capsys.readouterr().err


def test_fp16_before_its_first_update_has_no_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps whose gradients overflow only halve the scale; a checkpoint of them is a good one."""
    monkeypatch.setattr("deepnet_edu.training.step.FIRST_SCALE", 2.0**120)
    monkeypatch.setattr("deepnet_edu.training.checkpoint.FIRST_SCALE", 2.0**120)
    run(tmp_path, precision="fp16", steps=2)
    assert not load_file(checkpoints(tmp_path)[-1] / "optimizer.safetensors")
    run(tmp_path, precision="fp16", steps=4)
    last = checkpoints(tmp_path)[-1]
    state = json.loads((last / "state.json").read_text())
    for name, value in (("scale", -1.0), ("scale", float("inf")), ("growth_factor", 3.0), ("_growth_tracker", -2)):
        forged = {**state, "scaler": {**state["scaler"], name: value}}
        (last / "state.json").write_text(json.dumps(forged))
        agree(last)
        with pytest.raises(CheckpointError, match=rf"state.json: scaler.{name}="):
            run(tmp_path, precision="fp16", steps=6)


def test_files_can_be_read_by_whoever_may_read_the_folder(saved: Path) -> None:
    last = checkpoints(saved)[-1]
    assert {file.stat().st_mode & 0o777 for file in last.iterdir()} == {0o644}
    assert last.stat().st_mode & 0o777 == 0o755


def test_what_a_killed_process_left_is_removed(saved: Path) -> None:
    folder = saved / "checkpoints"
    shutil.copytree(checkpoints(saved)[0], folder / ".step-00000001.gone.part")
    (folder / ".step-00000007.abc.part").mkdir()
    run(saved)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000004"]


def test_a_checkpoint_behind_a_link_is_pruned_and_what_it_points_to_stays(saved: Path, tmp_path: Path) -> None:
    old = checkpoints(saved)[0]
    old.rename(tmp_path / "elsewhere")
    old.symlink_to(tmp_path / "elsewhere")
    run(saved, steps=6, keep=1)
    assert [path.name for path in checkpoints(saved)] == ["step-00000006"]
    assert (tmp_path / "elsewhere" / "model.safetensors").exists()


# Of many ranks, whose files hold pieces


def cut_in_two(path: Path) -> list[Path]:
    """The same checkpoint as two ranks would have written it: each has half of the rows, where there are two."""
    tensors = {**load_file(path / "model.safetensors"), **load_file(path / "optimizer.safetensors")}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("step/")}
    files = []
    for rank in range(2):
        mine, places = {}, {}
        for name, tensor in tensors.items():
            half = len(tensor) // 2
            piece = tensor[half:] if rank else tensor[:half]
            mine[name] = piece.contiguous()
            places[name] = {"saved_offsets": [rank * half] + [0] * (tensor.ndim - 1)}
        files.append(path / f"shard-0000{rank + 1}-model-00001-of-00001.safetensors")
        save_file(mine, files[-1], metadata={"DCP_SHARDING_INFO": json.dumps(places)})
    for name in ("model.safetensors", "optimizer.safetensors"):
        (path / name).unlink()
    save_file({"data": load_file(path / "random.safetensors")["data"]}, path / "random.safetensors")
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "plan": "shard=2", "updates": state["step"]}))
    agree(path)
    return files


def edit(file: Path, how: Callable[[Tensors, dict[str, Any]], Any]) -> None:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        places = json.loads(opened.metadata()["DCP_SHARDING_INFO"])
    tensors = load_file(file)
    how(tensors, places)
    save_file(tensors, file, metadata={"DCP_SHARDING_INFO": json.dumps(places)})
    agree(file.parent)


HEAD = "head.weight"
PIECES: dict[str, tuple[Callable[[Tensors, dict[str, Any]], Any], str]] = {
    "rows missing": (lambda t, _: t.update({HEAD: t[HEAD][1:].contiguous()}), r"head.weight is float32\[15, 8\] there"),
    "a gap": (
        lambda t, p: (t.update({HEAD: t[HEAD][2:].contiguous()}), p.update({HEAD: {"saved_offsets": [10, 0]}})),
        "of head.weight 112 numbers are there, of 128",
    ),
    "a piece missing": (lambda t, _: t.pop(HEAD), "shard-.*head.weight"),
    "another type": (lambda t, _: t.update({HEAD: t[HEAD].double()}), "head.weight is float64"),
    "a piece elsewhere": (lambda _, p: p.update({HEAD: {"saved_offsets": [99, 0]}}), "head.weight"),
    "a negative place": (lambda _, p: p.update({HEAD: {"saved_offsets": [-1, 0]}}), "head.weight' begins at"),
    "too many dimensions": (lambda _, p: p.update({HEAD: {"saved_offsets": [0]}}), "head.weight' begins at"),
    "a place of text": (lambda _, p: p.update({HEAD: {"saved_offsets": "x"}}), "DCP_SHARDING_INFO: expected"),
    "one more": (lambda t, p: (t.update(x=torch.ones(1)), p.update(x={"saved_offsets": [0]})), "has a tensor 'x'"),
}


def test_pieces_make_a_whole(saved: Path, original: Path) -> None:
    cut_in_two(checkpoints(saved)[-1])
    run(saved, steps=5)
    assert (saved / "checkpoints" / "step-00000005" / "optimizer.safetensors").exists()


@pytest.mark.parametrize("what", PIECES)
def test_pieces_of_another_form(what: str, saved: Path) -> None:
    how, reason = PIECES[what]
    edit(cut_in_two(checkpoints(saved)[-1])[1], how)
    refused(saved, reason)
