"""A checkpoint is looked through before anything of it is used: each file, each field, and the form of each tensor."""

import json
import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from deepnet_edu.fields import check, from_dict
from deepnet_edu.files import digest, parse_json, read_json
from deepnet_edu.messages import UserError, shown

FOLDER = "checkpoints"
MANIFEST, STATE = "manifest.json", "state.json"
MODEL, OPTIMIZER, RANDOM = "model.safetensors", "optimizer.safetensors", "random.safetensors"
VERSION = 1
_NAME = re.compile(r"step-(\d{8,18})")
_MOST = 10**18

#: Type and shape of a tensor.
Form = tuple[torch.dtype, tuple[int, ...]]
#: What PyTorch's distributed checkpoint says of pieces, in the head of a file.
_CUT = "DCP_SHARDING_INFO"
#: As safetensors writes them.
_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


class CheckpointError(UserError):
    """A checkpoint that cannot be used. The message says why, and what to type."""


@dataclass(frozen=True)
class SavedState:
    """state.json: everything that is not a tensor.

    Attributes:
        version: of the format.
        step: that many steps are done.
        tokens: that the run has read.
        model: the fields of ModelConfig.
        train: the fields of TrainConfig.
        scaler: of the loss, in fp16; else empty.
        data: the task's place in its data.
        reads: what the data are, see :func:`~deepnet_edu.experiment.data.identity`; None where an earlier version of
            this library did not keep it.
        plan: of the ranks that wrote it; None for one process.
        updates: of the weights, where many ranks wrote it.
        constants: of residual rules that were set in the built model, by name; None as for ``reads``.
    """

    version: int
    step: int
    tokens: int
    model: dict[str, Any]
    train: dict[str, Any]
    scaler: dict[str, float]
    data: dict[str, Any]
    reads: dict[str, Any] | None = None
    plan: str | None = None
    updates: int | None = field(default=None)
    constants: dict[str, float | str] | None = None

    def __post_init__(self) -> None:
        for name in ("step", "tokens", "updates"):
            if not 0 <= (value := getattr(self, name) or 0) <= _MOST:
                raise ValueError(f"{name}={shown(value)}: expected 0 or more")
        if (self.plan is None) != (self.updates is None):
            raise ValueError("plan and updates: expected both or neither")
        if self.updates is not None and self.updates > self.step:
            raise ValueError(f"updates={self.updates}: expected {self.step} at most, the steps")


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = [(step_of(path), path) for path in (run / FOLDER).glob("step-*") if path.is_dir()]
    return [path for step, path in sorted(found, key=lambda one: (one[0] or 0, one[1])) if step is not None]


def step_of(path: Path) -> int | None:
    """The step that a checkpoint's folder is named after; None for another name."""
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else None


def read_state(path: Path) -> SavedState:
    """state.json of a checkpoint whose files are all there and as they were written.

    Raises:
        CheckpointError: one of them is not, or a field is of another type or out of its range.
    """
    _check_files(path)
    try:
        content = read_json(path / STATE, links=False)
        if isinstance(content, dict) and content.get("version") != VERSION:
            found = shown(content.get("version"))
            raise CheckpointError(
                f"The checkpoint {path} is of version {found}, and this library reads version {VERSION}: "
                "resume with the version of deepnet_edu that wrote it."
            )
        state = from_dict(SavedState, content)
        if state.step != step_of(path):
            raise ValueError(f"step={state.step}, and the folder is named {path.name}")
    except (OSError, ValueError) as error:
        raise unusable(path, f"{STATE}: {_reason(error)}") from None
    return state


def _check_files(path: Path) -> None:
    try:
        files = read_json(path / MANIFEST, links=False)
        check(files, dict[str, tuple[int, str]], "its content")
        for name, (size, sha) in files.items():
            if Path(name).name != name or name == MANIFEST:
                raise ValueError(f"{shown(name)} is not a name of a file of a checkpoint")
            try:
                found = (path / name).lstat()
            except OSError:
                raise unusable(path, f"{name} is missing") from None
            if not stat.S_ISREG(found.st_mode):
                raise unusable(path, f"{name} is not a regular file")
            if found.st_size != size:
                raise unusable(path, f"{name} has {found.st_size:,} bytes instead of {shown(size)}")
            if digest(path / name) != sha:
                raise unusable(path, f"{name} has changed since it was written: its SHA-256 is another")
        others = sorted(file.name for file in path.iterdir() if file.name not in (*files, MANIFEST))
        if others:
            raise unusable(path, f"{others[0]} does not belong there; only the files of {MANIFEST} are read")
        missing = [name for name in (STATE, RANDOM) if name not in files]
        if missing or not ({MODEL, OPTIMIZER} <= files.keys() or any(name.startswith("shard-") for name in files)):
            raise ValueError(f"{(missing or [f'{MODEL} or {OPTIMIZER}'])[0]} is not listed")
    except (OSError, ValueError) as error:
        raise unusable(path, f"{MANIFEST}: {_reason(error)}") from None


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def check_tensors(path: Path, wanted: Mapping[str, Form], groups: int | None) -> bool:
    """See that the files of a checkpoint hold these weights and moments, in their form, and nothing else.

    Args:
        path: of the checkpoint.
        wanted: by name; moments as ``exp_avg/NAME``.
        groups: for how many groups of parameters one process counts its updates; None for any number.

    Returns:
        Whether there are moments: there are none before the first update.

    Raises:
        CheckpointError: it does not; the first tensor that differs is named.
    """
    found, shared = _whole(path), not (path / MODEL).exists()
    moments = any("/" in tensor for tensor in found)
    expected = {tensor: form for tensor, form in wanted.items() if moments or "/" not in tensor}
    if moments and not shared and any(tensor.startswith("exp_avg/") for tensor in wanted):
        counts = sum(tensor.startswith("step/") for tensor in found) if groups is None else groups
        expected |= {f"step/{i}": (torch.float32, ()) for i in range(max(counts, 1))}
    for tensor in sorted(expected.keys() - found.keys()):
        raise unfit(path, f"{OPTIMIZER if '/' in tensor else MODEL} lacks the tensor {shown(tensor)}")
    for tensor, (name, form) in found.items():
        if tensor not in expected:
            raise unfit(path, f"{name} has a tensor {shown(tensor)}, and this model has none")
        if form != expected[tensor]:
            raise unfit(path, f"{name}: {tensor} is {_shown(form)} there, and {_shown(expected[tensor])} here")
    return moments


def check_random(path: Path, wanted: Mapping[str, Form], optional: str = "") -> None:
    """The same for the states of random generators.

    Raises:
        CheckpointError: one is missing, or of another type or size.
    """
    found = {tensor: form for tensor, (form, _) in _pieces_of(path, RANDOM).items()}
    for name in sorted((found.keys() ^ wanted.keys()) - {optional}):
        raise unusable(path, f"{RANDOM} {'lacks' if name in wanted else 'has'} {shown(name)}")
    for name, form in wanted.items():
        if found[name] != form:
            raise unusable(path, f"{RANDOM}: {name} is {_shown(found[name])}, and {_shown(form)} is expected")


def _pieces(path: Path) -> dict[str, dict[str, tuple[Form, list[int]]]]:
    """Parts of tensors by file and tensor, and from which index on each is."""
    names = sorted(file.name for file in path.glob("*.safetensors") if file.name != RANDOM)
    return {name: _pieces_of(path, name) for name in names}


def _pieces_of(path: Path, name: str) -> dict[str, tuple[Form, list[int]]]:
    found: dict[str, tuple[Form, list[int]]] = {}
    try:
        with safe_open(path / name, framework="pt") as file:
            cut = parse_json((file.metadata() or {}).get(_CUT, "{}"))
            check(cut, dict[str, dict[str, list[int]]], _CUT)
            for tensor in file.keys():  # noqa: SIM118
                piece = file.get_slice(tensor)
                shape = tuple(piece.get_shape())
                first = cut.get(tensor, {}).get("saved_offsets") or [0] * len(shape)
                if len(first) != len(shape) or any(number < 0 for number in first):
                    raise ValueError(f"{shown(tensor)} begins at {first} of {len(shape)} dimensions")
                found[tensor] = ((_TYPES.get(piece.get_dtype(), torch.complex32), shape), first)
    except (SafetensorError, OSError) as error:
        raise unusable(path, f"{name} is not a safetensors file ({error})") from None
    except ValueError as error:
        raise unusable(path, f"{name}: {error}") from None
    return found


def _whole(path: Path) -> dict[str, tuple[str, Form]]:
    """The tensors that the pieces of many ranks make together, with the first file that has a piece.

    Raises:
        CheckpointError: pieces are missing, or of two types.
    """
    found: dict[str, tuple[str, Form]] = {}
    numbers: dict[str, int] = {}
    for name, pieces in _pieces(path).items():
        for tensor, ((kind, shape), first) in pieces.items():
            ends = tuple(a + b for a, b in zip(first, shape, strict=True))
            place, (same, before) = found.get(tensor, (name, (kind, ends)))
            if same != kind or len(before) != len(ends):
                raise unusable(path, f"{name}: {tensor} is {_shown((kind, shape))}, and not as in {place}")
            found[tensor] = (place, (kind, tuple(map(max, before, ends))))
            numbers[tensor] = numbers.get(tensor, 0) + math.prod(shape)
    for tensor, (place, (_, shape)) in found.items():
        if numbers[tensor] != math.prod(shape):
            raise unusable(path, f"{place}: of {tensor} {numbers[tensor]:,} numbers are there, of {math.prod(shape):,}")
    return found


def _shown(form: Form) -> str:
    return f"{str(form[0]).removeprefix('torch.')}{list(form[1])}"


def check_generator(path: Path, name: str, saved: torch.Tensor) -> None:
    """See that a saved state of a random generator of the CPU is one.

    Raises:
        CheckpointError: it is not.
    """
    try:
        torch.Generator().set_state(saved)
    except RuntimeError:
        raise unusable(path, f"{RANDOM}: {name} is not the state of a random generator") from None


def check_scaler(path: Path, saved: Mapping[str, float], wanted: Mapping[str, float]) -> None:
    """See that a saved loss scale is one that this run may have: the scale itself moves, all else stays.

    Raises:
        CheckpointError: it is not.
    """
    if saved.keys() != wanted.keys():
        raise unusable(path, f"{STATE}: scaler={shown(dict(saved))}: expected {', '.join(wanted) or 'nothing'}")
    for name, value in saved.items():
        within = {"scale": 0 < value < 1e38, "_growth_tracker": value in range(10**6)}
        if not within.get(name, value == wanted[name]):
            raise unusable(path, f"{STATE}: scaler.{name}={shown(value)} is not a value that a run has")


def check_same(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any], free: Any, what: str) -> None:
    """See that a configuration is that of the checkpoint.

    Args:
        path: of the checkpoint.
        saved: as the checkpoint has it.
        wanted: of this run.
        free: names that may differ.
        what: the configuration is of.

    Raises:
        CheckpointError: it is another; the first name that differs is named.
    """
    wanted = json.loads(json.dumps(wanted))  # tuples become lists, as they did in the file
    for name in wanted:
        there, here = saved.get(name), wanted[name]
        if name not in free and (there != here or isinstance(there, bool) != isinstance(here, bool)):
            raise CheckpointError(
                f"The checkpoint {path} is of another {what} configuration: {name}={shown(there)} there, "
                f"{shown(here)} here. Resume with the same {name}, or start a new run in another folder."
            )


def unusable(path: Path, why: str) -> CheckpointError:
    """The sentence for a damaged checkpoint, with the one before it where there is one."""
    offer = (
        f"The one before it is {earlier}: delete {path.name} and resume again."
        if (earlier := _before(path))
        else "There is none before it: start the run again in another folder."
    )
    return CheckpointError(f"The checkpoint {path} cannot be used: {why}. {offer}")


def unfit(path: Path, why: str) -> CheckpointError:
    """The sentence for one whose files are as they were written, but not of this model, optimizer or data."""
    earlier = _before(path)
    return CheckpointError(
        f"The checkpoint {path} does not fit this run: {why}. Its files are undamaged: resume with the model, the "
        "optimizer and the data that wrote it" + (f"; the one before it is {earlier}." if earlier else ".")
    )


def _before(path: Path) -> Path | None:
    """The checkpoint before this one."""
    known, earlier = step_of(path), None
    for other in checkpoints(path.parent.parent):
        if known is not None and (step_of(other) or 0) < known:
            earlier = other
    return earlier
