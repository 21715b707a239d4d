"""Where runs run: a slot per GPU, or slots that share the CPU's cores."""

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deepnet_edu.messages import UserError, shown
from deepnet_edu.planning.limits import refuse_beyond
from deepnet_edu.planning.memory import PROCESS

#: For nvidia-smi to answer: a driver that has not been used lately takes some seconds for each GPU.
DRIVER_S = 20


@dataclass(frozen=True)
class DeviceSlot:
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
    """A row per GPU of the fields that nvidia-smi is asked for; empty where there is none, or where it fails."""
    return _ask_driver(what)[0]


def driver_fault() -> str:
    """What nvidia-smi says where it fails: its last line. Empty where it works, finds no GPU, or is not installed."""
    return _ask_driver("index")[1]


def torch_fault() -> str:
    """Why this environment's PyTorch can use no NVIDIA GPU, whatever the driver says; empty if nothing is known."""
    build = importlib.metadata.version("torch").partition("+")[2]
    return f"this PyTorch is built without CUDA ({build})" if build in ("cpu", "xpu") or "rocm" in build else ""


def _ask_driver(what: str) -> tuple[list[list[str]], str]:
    """The rows that nvidia-smi prints, and what it says if it fails."""
    if shutil.which("nvidia-smi") is None:
        return [], ""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=DRIVER_S)
    except subprocess.TimeoutExpired:
        return [], f"it has not answered within {DRIVER_S} s"
    except OSError as error:
        return [], str(error.strerror)
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode:
        fault = said[-1][:200] if said else f"it ended with status {done.returncode}"
        return [], "" if "No devices were found" in fault else fault
    return [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines() if line.strip()], ""


def find_gpus() -> list[Gpu]:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES, which a cluster may have set, leaves to us."""
    rows = [row for row in ask_gpus("index,uuid,name") if len(row) == 3]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not rows or visible is None:
        return [Gpu(int(index), index, name) for index, _, name in rows]
    known = {key: Gpu(int(index), key, name) for index, uuid, name in rows for key in (index, uuid)}
    left = [one.strip() for one in visible.split(",")]
    ends = (n for n, one in enumerate(left) if one in ("", "-1") or (one.isdecimal() and one not in known))
    left = left[: next(ends, len(left))]  # CUDA, too, reads no further than to the first that is not there
    return [known.get(one, Gpu(n, one, "a part of a GPU")) for n, one in enumerate(left)]


def usable_gpus(gpus: str, say: Callable[[str], None]) -> list[Gpu]:
    """The GPUs that runs can use; why there are none is said, or refused where some are asked for by number.

    Args:
        gpus: ``"all"``, ``"none"``, or numbers such as ``"0,1"``.
        say: told why the runs are on the CPU although there is an NVIDIA driver.

    Raises:
        UserError: numbers were asked for, and the driver fails or this PyTorch is built without CUDA.
    """
    if gpus == "none":
        return []
    found = find_gpus()
    fault = torch_fault() if found else driver_fault()
    if not fault:
        return found
    why = f"{len(found)} GPU{'s' * (len(found) > 1)} cannot be used: {fault}" if found else f"nvidia-smi fails: {fault}"
    if gpus != "all":
        raise UserError(f"--gpus {gpus}: {why}. Fix that, or run on the CPU with --gpus none.")
    say(f"{why}. The batch runs on the CPU; --gpus none asks for that.")
    return []


def make_slots(gpus: str, count: int | None, found: Sequence[Gpu]) -> list[DeviceSlot]:
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
            none = "CUDA_VISIBLE_DEVICES leaves" if "CUDA_VISIBLE_DEVICES" in os.environ else "this machine has"
            there = f"expected some of {','.join(known)}" if known else f"{none} none: leave --gpus out"
            raise UserError(f"--gpus {gpus}: there is no GPU {shown(name)} here; {there}.")
    chosen = [known[name] for name in names]
    count = count or max(1, len(chosen))
    threads = max(1, cores() // count)
    if not chosen:
        return [DeviceSlot(number, "", None, "CPU", threads) for number in range(count)]
    each = [chosen[number % len(chosen)] for number in range(count)]
    return [DeviceSlot(number, gpu.visible, gpu.index, gpu.name, threads) for number, gpu in enumerate(each)]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
