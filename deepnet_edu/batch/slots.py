"""Where runs run: a slot per GPU, or slots that share the CPU's cores."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from deepnet_edu.messages import UserError, shown
from deepnet_edu.planning.limits import refuse_beyond
from deepnet_edu.planning.memory import PROCESS


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time.

    Attributes:
        number: from 0 on.
        visible: what CUDA_VISIBLE_DEVICES says to the run; empty on the CPU.
        gpu: the GPU's number, None on the CPU.
        device: its name, or CPU.
        threads: how many the run may use.
    """

    number: int
    visible: str
    gpu: int | None
    device: str
    threads: int


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi lists it; ``visible`` names it in CUDA_VISIBLE_DEVICES."""

    index: int
    visible: str
    name: str


def ask_gpus(what: str) -> list[list[str]]:
    """A row per GPU of the fields that nvidia-smi is asked for; empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [[part.strip() for part in line.split(",")] for line in said.splitlines() if line.strip()]


def find_gpus() -> list[Gpu]:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES, which a cluster may have set, leaves to us."""
    rows = [row for row in ask_gpus("index,uuid,name") if len(row) == 3]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not rows or visible is None:
        return [Gpu(int(index), index, name) for index, _, name in rows]
    known = {key: Gpu(int(index), key, name) for index, uuid, name in rows for key in (index, uuid)}
    left = [one.strip() for one in visible.split(",") if one.strip() not in ("", "-1")]
    return [known.get(one, Gpu(n, one, "a part of a GPU")) for n, one in enumerate(left)]


def make_slots(gpus: str, count: int | None, found: Sequence[Gpu]) -> list[Slot]:
    """The slots of a batch.

    Args:
        gpus: ``"all"``, ``"none"``, or numbers such as ``"0,1"``.
        count: of slots; by default one per GPU, and one on the CPU. More than one per GPU share it.
        found: the GPUs that there are.

    Raises:
        UserError: a GPU that is not there, or no slot at all.
    """
    if count is not None and count < 1:
        raise UserError(f"--slots {count}: expected 1 or more.")
    if count is not None:
        refuse_beyond(f"PyTorch in each of --slots {count:,}", count * PROCESS, 0, "use fewer")
    known = {str(gpu.index): gpu for gpu in found}
    names = {"all": list(known), "none": []}.get(gpus, [one.strip() for one in gpus.split(",")])
    for name in names:
        if name not in known:
            there = f"expected some of {','.join(known)}" if known else "this machine has none: leave --gpus out"
            raise UserError(f"--gpus {gpus}: there is no GPU {shown(name)} here; {there}.")
    chosen = [known[name] for name in names]
    count = count or max(1, len(chosen))
    threads = max(1, cores() // count)
    if not chosen:
        return [Slot(number, "", None, "CPU", threads) for number in range(count)]
    each = [chosen[number % len(chosen)] for number in range(count)]
    return [Slot(number, gpu.visible, gpu.index, gpu.name, threads) for number, gpu in enumerate(each)]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
