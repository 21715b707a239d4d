"""Checkpoints of many ranks, loadable under any other plan and by one process; see :mod:`.checkpoint`.

Instead of model.safetensors and optimizer.safetensors there is a file of each rank, with weights by the names of the
single process's model, and moments as ``exp_avg/NAME``. They count as written when all are.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deepnet_edu.files import digest, fault_point, folder_atomic
from deepnet_edu.parallel import storage
from deepnet_edu.training import checkpoint
from deepnet_edu.training.parallel import ParallelStep


def save(run: Path, step: ParallelStep, generator: torch.Generator, tokens: int, data: dict[str, Any]) -> Path:
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

        def finish() -> None:
            save_file({"data": generator.get_state()}, folder / "random.safetensors")
            state = {**checkpoint.state_of(step, tokens, data), "plan": step.plan.title, "updates": step.updates}
            (folder / checkpoint.STATE).write_text(json.dumps(state, indent=1))
            for file in (folder / "random.safetensors", folder / checkpoint.STATE):
                known[file.name] = (file.stat().st_size, digest(file))
            (folder / checkpoint.MANIFEST).write_text(json.dumps(known, indent=1))
            entered.close()
            checkpoint.prune(run, step.config.keep)

        ranks.on_first(finish, checkpoint.unwritten(path))
    return path


def load(path: Path, step: ParallelStep, generator: torch.Generator) -> dict[str, Any]:
    """As :func:`.checkpoint.load`, by all ranks at the same time, whoever wrote it: the first one verifies it.

    Raises:
        UserError: it is damaged, incomplete, of another configuration, or not one of ours; on all ranks.
    """
    state: dict[str, Any] = step.ranks.on_first(lambda: checkpoint.verified(path, step))
    tensors = {**step.tensors(), **step.moments()}
    step.ranks.together(lambda: storage.read(path, tensors), lambda why: checkpoint.unusable(path, why))
    step.updates = state["updates"] if "updates" in state else _updates(path)
    generator.set_state(load_file(path / "random.safetensors")["data"])
    step.scaler.load_state_dict(state["scaler"])
    step.count = state["step"]
    return state


def _temporary(entered: ExitStack, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return entered.enter_context(folder_atomic(path, "checkpoint"))


def _updates(path: Path) -> int:
    """The optimizer's own count, where one process wrote it."""
    with safe_open(path / "optimizer.safetensors", framework="pt") as file:
        return int(file.get_tensor("step/0").item()) if "step/0" in set(file.keys()) else 0
