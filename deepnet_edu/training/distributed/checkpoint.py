"""Checkpoints of many ranks, loadable under any other plan and by one process; see :mod:`.checkpoint`.

Instead of model.safetensors and optimizer.safetensors there is a file of each rank, with weights by the names of the
single process's model, and moments as ``exp_avg/NAME``. They count as written when all are.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from deepnet_edu.files import fault_point, folder_atomic
from deepnet_edu.training import checkpoint
from deepnet_edu.training.constants import constants_of
from deepnet_edu.training.distributed import storage
from deepnet_edu.training.distributed.step import ParallelStep
from deepnet_edu.training.integrity import MANIFEST, OPTIMIZER, RANDOM, STATE, SavedState, unusable


def save(
    run: Path,
    step: ParallelStep,
    generator: torch.Generator,
    tokens: int,
    data: dict[str, Any],
    reads: dict[str, Any] | None = None,
) -> Path:
    """As :func:`.checkpoint.save`, by all ranks at the same time; the first writes the manifest, last, and renames.

    Raises:
        UserError: it could not be written on some rank; on all of them, and earlier checkpoints are as they were.
    """
    path, ranks = checkpoint.path_of(run, step), step.ranks
    if ranks.on_first(path.exists):
        return path
    with ExitStack() as entered:
        folder = ranks.on_first(lambda: _temporary(entered, path), checkpoint.unwritten(path))
        tensors = {**step.tensors(), **step.moments()}
        files = ranks.together(lambda: storage.write(folder, tensors), checkpoint.unwritten(path))
        fault_point(f"checkpoint: written by {ranks.rank}")
        known = {name: facts for mine in ranks.gather(files) for name, facts in mine.items()}
        constants = _constants(step)

        def finish() -> None:
            checkpoint.write_tensors(folder / RANDOM, {"data": generator.get_state()})
            state = checkpoint.state_of(step, tokens, data, reads, constants)
            checkpoint.write_json(folder / STATE, {**state, "plan": step.plan.title, "updates": step.updates})
            for name in (RANDOM, STATE):
                known[name] = checkpoint.facts(folder / name)
            checkpoint.write_json(folder / MANIFEST, known)
            entered.close()

        ranks.on_first(finish, checkpoint.unwritten(path))
        ranks.on_first(lambda: checkpoint.prune(run, step.config.keep))
    return path


def load(
    path: Path,
    step: ParallelStep,
    generator: torch.Generator,
    reads: dict[str, Any] | None = None,
    place: Callable[[dict[str, Any]], None] | None = None,
) -> SavedState:
    """As :func:`.checkpoint.load`, by all ranks at the same time; the first one verifies it. It may be of another plan.

    Raises:
        UserError: it is damaged, incomplete, of another configuration, or not one of ours; on all ranks.
    """
    ranks = step.ranks
    held = ranks.gather(checkpoint.forms_of(step))  # as JSON, in which a shape is a list
    wanted = {name: (dtype, tuple(shape)) for forms in held for name, (dtype, shape) in forms.items()}
    constants = _constants(step)
    state = SavedState(
        **ranks.on_first(lambda: vars(checkpoint.verified(path, step, generator, wanted, constants, reads)))
    )
    if place is not None:
        ranks.together(lambda: place(state.data))
    tensors = {**step.tensors(), **step.moments()}
    ranks.together(lambda: storage.read(path, tensors), lambda why: unusable(path, why))
    step.updates = _updates(path) if state.updates is None else state.updates
    generator.set_state(load_file(path / RANDOM)["data"])
    step.scaler.load_state_dict(state.scaler)
    step.count = state.step
    return state


def _constants(step: ParallelStep) -> dict[str, float | str]:
    """Constants of all ranks, of which each holds some layers."""
    return {name: value for mine in step.ranks.gather(constants_of(step.model)) for name, value in mine.items()}


def _temporary(entered: ExitStack, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return entered.enter_context(folder_atomic(path, "checkpoint"))


def _updates(path: Path) -> int:
    """The optimizer's own count, where one process wrote it."""
    with safe_open(path / OPTIMIZER, framework="pt") as file:
        return int(file.get_tensor("step/0").item()) if "step/0" in set(file.keys()) else 0
