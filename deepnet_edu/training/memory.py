"""A run that has come to the end of a device's memory: what the formula says, and the setting that would fit."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from deepnet_edu.messages import UserError
from deepnet_edu.model import Batch, Model
from deepnet_edu.planning import Plan, explain, rank_memory
from deepnet_edu.training.config import TrainConfig

#: Of the message of PyTorch's allocator on the CPU, which raises a plain RuntimeError.
_ON_CPU = "not enough memory"
_ADVICE = "checkpoint_every='auto', or fewer sequences in a batch and accumulate=2."


class OutOfMemory(UserError):
    """The device's memory is full. The message says what the formula says, and what to type."""


@contextmanager
def answered(model: Model, config: TrainConfig, batch: Batch, plan: Plan | None = None) -> Iterator[None]:
    """While entered, running out of memory is answered by what :mod:`deepnet_edu.planning` knows; of a rank of a plan,
    by what else the plan could be.

    Raises:
        OutOfMemory: instead of PyTorch's error, which stays its cause.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or _ON_CPU in str(error):
            known = _known(model, config, batch) if plan is None else _known_of_rank(model, config, batch, plan)
            raise OutOfMemory(f"Out of memory. {known}") from error
        raise


def _known(model: Model, config: TrainConfig, batch: Batch) -> str:
    """What the formula says of this step, as far as it knows such a model."""
    first = next(iter(model.own_stacks().values()), None)
    device = next(model.parameters()).device
    sequences, tokens, source_tokens = lengths(model, batch)
    try:
        return explain(
            model.config,
            sequences,
            tokens,
            limit(device),
            accumulate=config.accumulate,
            source_tokens=source_tokens,
            checkpoint_every=0 if first is None else first.checkpoint_every,
            recompute="all" if first is None else first.mode.recompute,
            keep_attention=config.keep_attention,
            path="plain" if config.offload or config.compile != "no" or first is None else first.mode.path,
            precision=config.planned,
            device=device.type,
            offload=config.offload,
        )
    except ValueError:  # a model with a part of another author, or float64 beside autocast
        return f"Try {_ADVICE}"


def _known_of_rank(model: Model, config: TrainConfig, batch: Batch, plan: Plan) -> str:
    """What the formula says of the fullest rank of a plan, and which plan would do for as many."""
    sequences, tokens, source_tokens = lengths(model, batch)
    how: dict[str, Any] = {
        "source_tokens": source_tokens,
        "checkpoint_every": config.checkpoint_every,
        "precision": config.planned,
        "device": (device := next(model.parameters()).device).type,
    }
    memory = limit(device) // (1 if device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", plan.ranks)))
    said, advice = f"It was a rank of the plan {plan.title}", f"Try more shards or stages, {_ADVICE}"
    try:
        need = max(rank.total for rank in rank_memory(model.config, sequences, tokens, **asdict(plan), **how))
        said += f", which needs {need / 1e9:.2g} GB by formula, of {memory / 1e9:.2g} GB"
        better, why = Plan.auto(model.config, plan.ranks, memory, sequences=sequences, tokens=tokens, **how)
        if better != plan:
            advice = f"--plan {better.title} would do: {why}"
    except ValueError:  # a batch of another length than planned, or a model with a part of another author
        pass
    except UserError as nothing:
        advice = str(nothing)
    return f"{said}. {advice}"


def lengths(model: Model, batch: Batch) -> tuple[int, int, int]:
    """Sequences, tokens (of the target where there are two languages; patches of an image), and the source's or 0."""
    inputs = batch.inputs
    if inputs.ndim == 4:
        side = model.config.patch_size
        return len(inputs), (inputs.shape[2] // side) * (inputs.shape[3] // side), 0
    if batch.target_inputs is not None:
        return len(inputs), batch.target_inputs.shape[1], inputs.shape[1]
    return len(inputs), inputs.shape[1], 0


def free(device: torch.device) -> int:
    """Bytes that this process could have of the device: free, or PyTorch's already; on a CPU all."""
    if device.type != "cuda":
        return limit(device)
    return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))


def limit(device: torch.device) -> int:
    """Bytes that the device has; of the machine's memory, what the container may use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no such file, or "max"
        return min(there, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return there
