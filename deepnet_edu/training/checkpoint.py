"""Checkpoints: whole or not there at all, verified before use, and nothing in them is code.

A folder ``step-00000120`` holds model.safetensors and optimizer.safetensors, both by the names of the model's
parameters, random.safetensors with the states of the random generators, state.json with everything else, and
manifest.json with the size and SHA-256 of each. Many ranks write others, :mod:`.shared_checkpoint`, which are read here
too.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from deepnet_edu.files import digest, fault_point, folder_atomic
from deepnet_edu.messages import UserError
from deepnet_edu.training.step import TrainStep, seed_of

FOLDER = "checkpoints"
MANIFEST, STATE = "manifest.json", "state.json"
VERSION = 1
#: A resumed run may have other values of these; of ``steps`` too, unless the schedule depends on it.
MAY_CHANGE = ("steps", "profile_every", "save_every", "keep")


class CheckpointError(UserError):
    """A checkpoint that cannot be used. The message says why, and what to type."""


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(path for path in (run / FOLDER).glob("step-*") if path.is_dir())


def save(run: Path, step: TrainStep, generator: torch.Generator, tokens: int, data: dict[str, Any]) -> Path:
    """Write a checkpoint, then remove those that ``keep`` does not want any more.

    Args:
        run: folder of the run.
        step: the training step, between two steps.
        generator: that the data are drawn from.
        tokens: that the run has read.
        data: the task's own state, plain JSON.

    Returns:
        The checkpoint's folder.

    Raises:
        UserError: the disk is full or cannot be written; earlier checkpoints are as they were.
    """
    path = path_of(run, step)
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with folder_atomic(path, "checkpoint") as folder:
            save_file(_owned(step.model.state_dict()), folder / "model.safetensors")
            fault_point("checkpoint: half written")
            save_file(_optimizer_state(step), folder / "optimizer.safetensors")
            save_file(_random_state(step.device, generator), folder / "random.safetensors")
            (folder / STATE).write_text(json.dumps(state_of(step, tokens, data), indent=1))
            files = {file.name: [file.stat().st_size, digest(file)] for file in sorted(folder.iterdir())}
            (folder / MANIFEST).write_text(json.dumps(files, indent=1))
    except OSError as error:
        raise unwritten(path)(error.strerror or str(error)) from None
    prune(run, step.config.keep)
    return path


def path_of(run: Path, step: TrainStep) -> Path:
    """Where the checkpoint of this moment goes."""
    return run / FOLDER / f"step-{step.count:08}"


def state_of(step: TrainStep, tokens: int, data: dict[str, Any]) -> dict[str, Any]:
    """state.json: everything that is no tensor."""
    return {
        "version": VERSION,
        "step": step.count,
        "tokens": tokens,
        "model": asdict(step.model.config),
        "train": asdict(step.config),
        "scaler": step.scaler.state_dict(),
        "data": data,
    }


def unwritten(path: Path) -> Callable[[str], UserError]:
    """Makes the sentence about a checkpoint that could not be written from the reason."""
    return lambda why: UserError(
        f"The checkpoint of step {int(path.name.removeprefix('step-'))} could not be written to {path.parent}: {why}. "
        "Earlier checkpoints are as they were: make room, then go on with resume=True (--resume)."
    )


def prune(run: Path, keep: int) -> None:
    """Remove all checkpoints but the last ``keep``."""
    for old in checkpoints(run)[:-keep]:
        # Never a folder of this name with half of its files in it.
        gone = old.with_name(f".{old.name}.gone.part")
        shutil.rmtree(gone, ignore_errors=True)
        old.rename(gone)
        shutil.rmtree(gone)


def load(path: Path, step: TrainStep, generator: torch.Generator) -> dict[str, Any]:
    """Verify a checkpoint, then put all of it into place.

    Args:
        path: a checkpoint's folder.
        step: of a model of the same configuration, before its first step.
        generator: that the data are drawn from.

    Returns:
        state.json.

    Raises:
        CheckpointError: it is damaged, incomplete, of another configuration, or not one of ours. Nothing was changed.
    """
    state = verified(path, step)
    try:
        random = load_file(path / "random.safetensors")
        _load_shared(path, step, state) if "plan" in state else _load_own(path, step)
    except SafetensorError as error:
        raise unusable(path, f"one of its files is no safetensors file ({error})") from None
    generator.set_state(random["data"])
    step.scaler.load_state_dict(state["scaler"])
    step.count = state["step"]
    if "cpu" not in random:  # ranks draw anew at every step
        torch.manual_seed(seed_of(step.config.seed, step.count, 0))
        return state
    torch.set_rng_state(random["cpu"])
    if step.device.type == "cuda" and "cuda" in random:
        torch.cuda.set_rng_state(random["cuda"], step.device)
    return state


def _load_shared(path: Path, step: TrainStep, state: dict[str, Any]) -> None:
    """Weights and moments that many ranks have written."""
    from deepnet_edu.parallel import storage  # takes long to load

    try:
        storage.read(path, {**_owned(step.model.state_dict()), **step.moments()})
    except (ValueError, OSError) as error:
        raise unusable(path, str(error)) from None
    step.updates = state["updates"]


def _load_own(path: Path, step: TrainStep) -> None:
    """Weights and moments that one process has written."""
    model, optimizer = (load_file(path / f"{name}.safetensors") for name in ("model", "optimizer"))
    wanted = _owned(step.model.state_dict())
    if {name: tensor.shape for name, tensor in model.items()} != {name: t.shape for name, t in wanted.items()}:
        raise unusable(path, "its weights are not those of this model")
    try:
        moments = _optimizer_moments(step, optimizer)
    except KeyError as error:
        raise unusable(path, f"the optimizer's {error} is missing") from None
    for name, tensor in model.items():
        wanted[name].copy_(tensor)
    for flat, moment in zip(step.flats, moments, strict=True):
        step.optimizer.state[flat.tensors[0]] = moment


def verified(path: Path, step: TrainStep) -> dict[str, Any]:
    """state.json of an undamaged checkpoint that ``step`` can go on from.

    Raises:
        CheckpointError: it is not.
    """
    state = _verified(path)
    _check_same(path, state["model"], asdict(step.model.config), (), "model")
    free = [name for name in MAY_CHANGE if name != "steps" or step.config.schedule != "cosine"]
    _check_same(path, state["train"], asdict(step.config), free, "training")
    return state


def _verified(path: Path) -> dict[str, Any]:
    """state.json, once sizes and hashes of all files have been found right."""
    try:
        files = json.loads((path / MANIFEST).read_text())
        if not isinstance(files, dict) or STATE not in files:
            raise ValueError("not a manifest")
        for name, (size, sha) in files.items():
            file = path / name
            if Path(name).name != name or not file.is_file():
                raise unusable(path, f"{name} is missing")
            if file.stat().st_size != size:
                raise unusable(path, f"{name} has {file.stat().st_size:,} bytes instead of {size:,}")
            if digest(file) != sha:
                raise unusable(path, f"{name} has changed since it was written: its SHA-256 is another")
        others = sorted(file.name for file in path.iterdir() if file.name not in (*files, MANIFEST))
        if others:
            raise unusable(path, f"{others[0]} does not belong there; nothing but the files of {MANIFEST} is read")
        state = json.loads((path / STATE).read_text())
        if state["version"] != VERSION:
            raise unusable(path, f"it is of version {state['version']}, this library reads version {VERSION}")
        return dict(state)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unusable(path, f"{MANIFEST} or {STATE} is missing or damaged ({error})") from None


def unusable(path: Path, why: str) -> CheckpointError:
    """The sentence, with the checkpoint before it where there is one."""
    earlier = [other for other in checkpoints(path.parent.parent) if other.name < path.name]
    offer = (
        f"The one before it is {earlier[-1]}: delete {path.name} and resume again."
        if earlier
        else "There is none before it: delete it and start the run anew."
    )
    return CheckpointError(f"The checkpoint {path} cannot be used: {why}. {offer}")


def _check_same(path: Path, saved: dict[str, Any], wanted: dict[str, Any], free: Any, what: str) -> None:
    wanted = json.loads(json.dumps(wanted))  # tuples become lists, as they did in the file
    for name in wanted:
        if name not in free and saved.get(name) != wanted[name]:
            raise CheckpointError(
                f"The checkpoint {path} is of another {what} configuration: {name}={saved.get(name)!r} there, "
                f"{wanted[name]!r} here. Resume with the same {name}, or start a new run in another folder."
            )


def _owned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the names that share another's memory, as tied embeddings do; safetensors holds each tensor once."""
    seen: set[tuple[int, torch.Size]] = set()
    found = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.shape)
        if key not in seen or not tensor.numel():
            found[name] = tensor
        seen.add(key)
    return found


def _optimizer_state(step: TrainStep) -> dict[str, Tensor]:
    """The moments by parameter, ``exp_avg/stack.layers.0.…``, and the count of each group."""
    names, found = step.names(), {}
    for i, flat in enumerate(step.flats):
        (buffer,) = flat.tensors
        for key, value in step.optimizer.state.get(buffer, {}).items():
            if value is None:
                continue
            if value.shape != buffer.shape:
                found[f"{key}/{i}"] = value
                continue
            for parameter, piece in flat.pieces({buffer: value}):
                found[f"{key}/{names[parameter]}"] = piece
    return found


def _optimizer_moments(step: TrainStep, saved: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The optimizer's state for each flat buffer, from what ``_optimizer_state`` made."""
    names = step.names()
    kinds = dict.fromkeys(name.partition("/")[0] for name in saved)
    found = []
    for i, flat in enumerate(step.flats):
        state = {}
        for kind in kinds:
            if f"{kind}/{i}" in saved:
                state[kind] = saved[f"{kind}/{i}"].to(step.device)
                continue
            pieces = [saved[f"{kind}/{names[parameter]}"].reshape(-1) for parameter in flat.parameters]
            state[kind] = torch.cat(pieces).to(step.device)
        found.append(state)
    return found


def _random_state(device: torch.device, generator: torch.Generator) -> dict[str, Tensor]:
    found = {"cpu": torch.get_rng_state(), "data": generator.get_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found
