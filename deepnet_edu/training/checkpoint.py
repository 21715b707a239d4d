"""Checkpoints: whole or not there at all, verified before use, and nothing in them is code.

A folder ``step-00000120`` holds model.safetensors and optimizer.safetensors, both by the names of the model's
parameters, random.safetensors with the states of the random generators, state.json with everything else, and
manifest.json with the size and SHA-256 of each. Many ranks write others, :mod:`.shared_checkpoint`, which are read here
too. What is checked before use is in :mod:`.integrity`.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from deepnet_edu import files
from deepnet_edu.fields import without_former
from deepnet_edu.files import digest, fault_point, folder_atomic, remedy
from deepnet_edu.messages import UserError
from deepnet_edu.model.config import DEFAULTS, FORMER
from deepnet_edu.training import config
from deepnet_edu.training.constants import check_constants, constants_of
from deepnet_edu.training.integrity import (
    FOLDER,
    MANIFEST,
    MODEL,
    OPTIMIZER,
    RANDOM,
    STATE,
    VERSION,
    CheckpointError,
    Form,
    SavedState,
    check_generator,
    check_random,
    check_same,
    check_scaler,
    check_tensors,
    checkpoints,
    read_state,
    unfit,
    unusable,
)
from deepnet_edu.training.moments import by_buffer, by_parameter
from deepnet_edu.training.step import FIRST_SCALE, TrainStep, seed_of

__all__ = ["CheckpointError", "checkpoints", "load", "path_of", "prune", "save", "verified"]

#: A resumed run may have other values of these; of ``steps`` too, unless the schedule depends on it.
MAY_CHANGE = ("steps", "profile_every", "save_every", "keep")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def save(
    run: Path,
    step: TrainStep,
    generator: torch.Generator,
    tokens: int,
    data: dict[str, Any],
    reads: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint, then remove those that ``keep`` does not want any more.

    Args:
        run: folder of the run.
        step: the training step, between two steps.
        generator: that the data are drawn from.
        tokens: that the run has read.
        data: the task's own state, plain JSON.
        reads: what the data are, plain JSON.

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
            write_tensors(folder / MODEL, step.tensors())
            fault_point("checkpoint: half written")
            write_tensors(folder / OPTIMIZER, by_parameter(step))
            write_tensors(folder / RANDOM, _random_state(step.device, generator))
            write_json(folder / STATE, state_of(step, tokens, data, reads, constants_of(step.model)))
            write_json(folder / MANIFEST, {file.name: facts(file) for file in sorted(folder.iterdir())})
    except OSError as error:
        raise unwritten(path)(error.strerror or str(error)) from None
    prune(run, step.config.keep)
    return path


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file.

    Raises:
        OSError: it cannot be written; safetensors has an error of its own for that.
    """
    files.write_point(path)
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        number = _OS_ERROR.search(str(error))
        raise OSError(int(number[1]) if number else 0, str(error), str(path)) from None


def write_json(path: Path, content: Any) -> None:
    """A JSON file.

    Raises:
        OSError: it cannot be written.
    """
    files.write_point(path)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def facts(file: Path) -> tuple[int, str]:
    """What the manifest says of a file: its size and SHA-256."""
    return file.stat().st_size, digest(file)


def path_of(run: Path, step: TrainStep) -> Path:
    """Where the checkpoint of this moment goes."""
    return run / FOLDER / f"step-{step.count:08}"


def state_of(
    step: TrainStep, tokens: int, data: dict[str, Any], reads: dict[str, Any] | None, constants: dict[str, float | str]
) -> dict[str, Any]:
    """state.json: everything that is not a tensor, see :class:`~deepnet_edu.training.integrity.SavedState`."""
    return {
        "version": VERSION,
        "step": step.count,
        "tokens": tokens,
        "model": asdict(step.model.config),
        "train": asdict(step.config),
        "scaler": step.scaler.state_dict(),
        "data": data,
        "reads": reads,
        "constants": constants,
    }


def unwritten(path: Path) -> Callable[[str], UserError]:
    """Makes the sentence about a checkpoint that could not be written from the reason."""
    return lambda why: UserError(
        f"The checkpoint of step {int(path.name.removeprefix('step-'))} could not be written to {path.parent}: {why}. "
        f"Earlier checkpoints are as they were: {remedy(why)}, then resume with resume=True (--resume)."
    )


def prune(run: Path, keep: int) -> None:
    """Remove all checkpoints but the last ``keep``.

    Raises:
        UserError: one cannot be removed.
    """
    try:
        for old in checkpoints(run)[:-keep]:
            # Never a folder of this name with half of its files in it.
            old.rename(old.with_name(f".{old.name}.gone.part"))
        tidy(run)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(
            f"The checkpoint is written, but an older one cannot be removed ({error.filename}: {why}): {remedy(why)}, "
            "then resume with resume=True (--resume)."
        ) from None


def tidy(run: Path) -> None:
    """Remove what killed processes have left half written or half removed. Only the holder of the run's lock may.

    Raises:
        OSError: it cannot be removed.
    """
    for left in (run / FOLDER).glob(".step-*.part"):
        left.unlink() if left.is_symlink() or not left.is_dir() else shutil.rmtree(left)


def load(
    path: Path,
    step: TrainStep,
    generator: torch.Generator,
    reads: dict[str, Any] | None = None,
    place: Callable[[dict[str, Any]], None] | None = None,
) -> SavedState:
    """Verify a checkpoint, then put all of it into place.

    Args:
        path: a checkpoint's folder.
        step: of a model of the same configuration, before its first step.
        generator: that the data are drawn from.
        reads: what the data are; None: not compared.
        place: puts the data back to their place, or raises, before anything else is changed.

    Returns:
        state.json.

    Raises:
        CheckpointError: it is damaged, incomplete, of another configuration, or not one of ours. Nothing was changed.
    """
    state = verified(path, step, generator, forms_of(step), constants_of(step.model), reads)
    random = load_file(path / RANDOM)
    apply = _shared(path, step, state) if state.plan is not None else _own(path, step, state)
    if place is not None:
        place(state.data)
    apply()
    generator.set_state(random["data"])
    step.scaler.load_state_dict(state.scaler)
    step.count = state.step
    if "cpu" not in random:  # ranks draw again at every step
        torch.manual_seed(seed_of(step.config.seed, step.count, 0))
        return state
    torch.set_rng_state(random["cpu"])
    if step.device.type == "cuda" and "cuda" in random:
        torch.cuda.set_rng_state(random["cuda"], step.device)
    return state


def forms_of(step: TrainStep) -> dict[str, Form]:
    """Type and shape of each weight and moment that a checkpoint of ``step`` has; of a rank, of what it holds."""
    found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in step.tensors().items()}
    names = step.names()
    for flat in step.flats:
        for parameter in flat.parameters:
            for kind in step.kinds:
                found[f"{kind}/{names[parameter]}"] = parameter.dtype, tuple(parameter.shape)
    return found


def verified(
    path: Path,
    step: TrainStep,
    generator: torch.Generator,
    wanted: dict[str, Form],
    constants: dict[str, float | str],
    reads: dict[str, Any] | None = None,
) -> SavedState:
    """state.json of an undamaged checkpoint that ``step`` can continue from, once all of it was checked.

    Args:
        path: of the checkpoint.
        step: the one that will continue from it.
        generator: that the data are drawn from.
        wanted: the weights and moments that it must have.
        constants: that were set by hand in the model, of all ranks.
        reads: what the data are; None: not compared.

    Raises:
        CheckpointError: it is not one.
    """
    state = read_state(path)
    # A checkpoint from before a setting existed was of a model with its default.
    try:
        shape, recipe = without_former(state.model, FORMER), without_former(state.train, config.FORMER)
    except ValueError as error:
        raise unfit(path, str(error).rstrip(".")) from None
    check_same(path, {**DEFAULTS, **shape}, asdict(step.model.config), (), "model")
    free = [name for name in MAY_CHANGE if name != "steps" or step.config.schedule != "cosine"]
    check_same(path, {**config.DEFAULTS, **recipe}, asdict(step.config), free, "training")
    if state.reads is not None and reads is not None:
        check_same(path, {name: state.reads.get(name) for name in reads}, reads, (), "data")
    if state.constants is not None:
        check_constants(path, state.constants, constants)
    check_scaler(path, state.scaler, step.scaler.state_dict())
    moments = check_tensors(path, wanted, len(step.flats) if step.sees_all else None)
    if step.kinds and not moments and not _never_updated(step, state):
        raise unusable(path, "it has no state of the optimizer")
    random = {"data": generator.get_state()} | ({} if state.plan is not None else {"cpu": torch.get_rng_state()})
    check_random(path, {name: (torch.uint8, tuple(now.shape)) for name, now in random.items()}, "cuda")
    saved = load_file(path / RANDOM)
    for name in random:
        check_generator(path, name, saved[name])
    if "cuda" in saved and (saved["cuda"].dtype, saved["cuda"].shape) != (torch.uint8, (16,)):
        raise unusable(path, f"{RANDOM}: cuda is not the state of a random generator")
    return state


def _never_updated(step: TrainStep, state: SavedState) -> bool:
    """Whether every step so far overflowed in fp16, each halving the scale, so that there are no moments yet."""
    return state.scaler.get("scale") == FIRST_SCALE * 0.5**state.step if step.scaler.is_enabled() else False


def _shared(path: Path, step: TrainStep, state: SavedState) -> Callable[[], None]:
    """Reads weights and moments that many ranks have written."""
    from deepnet_edu.training.distributed import storage  # takes long to load

    def apply() -> None:
        try:
            storage.read(path, {**step.tensors(), **step.moments()})
        except (ValueError, OSError) as error:
            raise unusable(path, str(error)) from None
        assert state.updates is not None
        step.updates = state.updates

    return apply


def _own(path: Path, step: TrainStep, state: SavedState) -> Callable[[], None]:
    """Puts weights and moments into place that one process has written, which are read now."""
    model, optimizer = (load_file(path / name) for name in (MODEL, OPTIMIZER))
    for name, count in optimizer.items():
        if name.startswith("step/") and not _possible(count.item(), step, state):
            raise unusable(path, f"{OPTIMIZER}: {name} is {count.item():g} after {state.step} steps")
    moments = by_buffer(step, optimizer)

    def apply() -> None:
        wanted = step.tensors()
        for name, tensor in model.items():
            wanted[name].copy_(tensor)
        for flat, moment in zip(step.flats, moments, strict=True):
            step.optimizer.state[flat.tensors[0]] = moment

    return apply


def _possible(updates: float, step: TrainStep, state: SavedState) -> bool:
    """Whether the optimizer may have updated so often: at every step but those that a loss scale skipped."""
    return 0 <= updates <= state.step and updates % 1 == 0 if step.scaler.is_enabled() else updates == state.step


def _random_state(device: torch.device, generator: torch.Generator) -> dict[str, Tensor]:
    found = {"cpu": torch.get_rng_state(), "data": generator.get_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found
