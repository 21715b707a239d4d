"""Is this machine ready? Each problem comes with the command that mends it."""

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepnet_edu.course.places import ROOT

Status = Literal["ok", "warning", "problem"]
#: A 1,000-layer lesson needs this much, lessons.md's limit.
NEEDED_MEMORY_GB = 4
NEEDED_DISK_GB = 1
MEND = "python install.py --again"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        status: ``"ok"``; ``"warning"``: lessons run, but look at it; ``"problem"``: lessons cannot run.
        found: what is there.
        mend: the command that mends it, empty if nothing has to be.
    """

    name: str
    status: Status
    found: str
    mend: str = ""


def examine(workspace: Path, constraints: Path = ROOT / "constraints.txt") -> list[Finding]:
    """Look at Python, torch, memory, disk, versions, JupyterLab and the workspace, which is created if missing."""
    looks: list[Callable[[], Finding]] = [
        _python,
        _torch,
        _compiler,
        _memory,
        lambda: _disk(workspace),
        lambda: _versions(constraints),
        _jupyterlab,
        lambda: _workspace(workspace),
    ]
    return [look() for look in looks]


def _python() -> Finding:
    version = platform.python_version()
    if tuple(map(int, version.split(".")[:2])) < (3, 11):
        return Finding("Python", "problem", f"{version}, needs 3.11 or newer", "python3.11 install.py")
    return Finding("Python", "ok", version)


def _torch() -> Finding:
    try:
        import torch
    except Exception as error:  # a broken wheel fails in many ways
        return Finding("PyTorch", "problem", f"cannot be imported: {error}", MEND)
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding("PyTorch", "ok", f"{torch.__version__} on {torch.cuda.get_device_name(0)}, {memory:.0f} GiB")
    if shutil.which("nvidia-smi"):
        return Finding(
            "PyTorch",
            "warning",
            f"{torch.__version__} does not see this machine's NVIDIA GPU",
            f"{sys.executable} -m pip uninstall torch && {MEND}",
        )
    return Finding("PyTorch", "ok", f"{torch.__version__} on the CPU")


def _compiler() -> Finding:
    """The fast path's compiled functions: nobody needs them, and with them a step takes three quarters of the time."""
    try:
        from deepnet_edu.fast import native
    except Exception as error:  # without torch there is nothing to look at
        return Finding("Compiled functions", "warning", f"cannot be looked at: {error}", MEND)
    library, reason = native.load()
    if library is not None:
        return Finding("Compiled functions", "ok", "the fast path has them")
    if platform.system() != "Linux" or "no C compiler" not in reason:
        return Finding("Compiled functions", "ok", f"none, deep models train a little slower: {reason}")
    return Finding(
        "Compiled functions", "warning", f"none, deep models train a little slower: {reason}", "apt install gcc"
    )


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (AttributeError, ValueError, OSError):
        return Finding("Memory", "ok", "size unknown on this system")
    if total < NEEDED_MEMORY_GB:
        return Finding(
            "Memory",
            "warning",
            f"{total:.1f} GiB, the 1,000-layer lessons take up to {NEEDED_MEMORY_GB}",
            "export DEEPNET_EDU_PROFILE=smoke   # the same lessons at a small size",
        )
    return Finding("Memory", "ok", f"{total:.1f} GiB")


def _disk(workspace: Path) -> Finding:
    folder = next((path for path in (workspace, *workspace.resolve().parents) if os.path.exists(path)), Path())
    try:
        free = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        return Finding(
            "Disk", "warning", f"cannot be looked at: {error.strerror}", "deepnet-edu doctor --workspace FOLDER"
        )
    if free < NEEDED_DISK_GB:
        return Finding(
            "Disk", "warning", f"{free:.1f} GiB free", "deepnet-edu lab --workspace FOLDER   # on another disk"
        )
    return Finding("Disk", "ok", f"{free:.0f} GiB free")


def _versions(constraints: Path) -> Finding:
    """Warn where an installed version differs from the tested one; a local build label (+cpu) is no difference."""
    if not constraints.exists():
        return Finding(
            "Versions", "warning", "constraints.txt not found, nothing to compare with", "git checkout constraints.txt"
        )
    missing = [name for name in _required() if not _installed(name)]
    if missing:
        return Finding("Versions", "problem", f"not installed: {', '.join(missing)}", MEND)
    different = []
    for line in constraints.read_text().splitlines():
        name, _, tested = line.partition("==")
        if line.startswith("#") or not tested:
            continue
        installed = _installed(name)
        if installed and installed.split("+")[0] != tested:
            different.append(f"{name} {installed} (tested: {tested})")
    if different:
        return Finding("Versions", "warning", ", ".join(different), MEND)
    return Finding("Versions", "ok", "as tested")


def _required() -> list[str]:
    """What the package itself asks for, extras left out."""
    requirements = importlib.metadata.requires("deepnet-edu") or []
    return [re.split(r"[^\w.-]", line)[0] for line in requirements if "extra ==" not in line]


def _installed(name: str) -> str:
    """The installed version, or nothing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _jupyterlab() -> Finding:
    try:
        version = importlib.metadata.version("jupyterlab")
        importlib.metadata.version("ipykernel")
    except importlib.metadata.PackageNotFoundError as error:
        return Finding("JupyterLab", "problem", f"{error.name} is not installed", MEND)
    return Finding("JupyterLab", "ok", version)


def _workspace(workspace: Path) -> Finding:
    from deepnet_edu.files import write_atomic

    name = f"Workspace {workspace}"
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        trial = workspace / ".doctor"
        write_atomic(trial, "can be written")
        trial.unlink()
    except OSError as error:
        return Finding(name, "problem", f"cannot be written: {error.strerror}", "deepnet-edu lab --workspace FOLDER")
    return Finding(name, "ok", "can be written")
