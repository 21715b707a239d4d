"""Is this machine ready? Each problem comes with the command that fixes it."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepnet_edu.course.places import CLONE, PAGES, ROOT

Status = Literal["ok", "warning", "problem"]
#: A 1,000-layer lesson needs this much, lessons.md's limit.
NEEDED_MEMORY_GB = 4
NEEDED_DISK_GB = 1
MEND = "python install.py --again"


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        name: what.
        status: ``"ok"``; ``"warning"``: lessons run, but look at it; ``"problem"``: lessons cannot run.
        found: what is there.
        mend: the command that fixes it, empty if nothing has to be done.
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


def _again(*packages: str) -> str:
    """The command that installs packages again; without a clone there is no install.py."""
    return MEND if CLONE else f"{sys.executable} -m pip install --force-reinstall {' '.join(packages)}"


def _python() -> Finding:
    version = platform.python_version()
    if tuple(map(int, version.split(".")[:2])) < (3, 11):
        return Finding("Python", "problem", f"{version}, needs 3.11 or newer", "python3.11 install.py")
    return Finding("Python", "ok", version)


def _torch() -> Finding:
    try:
        import torch
    except Exception as error:  # a broken wheel fails in many ways
        return Finding("PyTorch", "problem", f"cannot be imported: {error}", _again("torch"))
    from deepnet_edu.model.torch_versions import wrong

    if said := wrong(torch.__version__):
        mend = _again("torch") if CLONE else f"{sys.executable} -m pip install --upgrade torch"
        return Finding("PyTorch", "problem", f"{torch.__version__}: {said}", mend)
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding("PyTorch", "ok", f"{torch.__version__} on {torch.cuda.get_device_name(0)}, {memory:.0f} GiB")
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("PyTorch", "ok", f"{torch.__version__} on the CPU")
    if said := _driver_problem(tool):
        return Finding(
            "PyTorch",
            "warning",
            f"{torch.__version__} on the CPU, since the NVIDIA driver does not work. nvidia-smi says: {said}",
            "nvidia-smi   # restart the machine, or install its driver again, until this lists the GPU",
        )
    if torch.version.cuda is None:
        return Finding(
            "PyTorch",
            "warning",
            f"{torch.__version__}, a build for the CPU alone, does not see this machine's NVIDIA GPU",
            f"{sys.executable} -m pip uninstall torch && {_again('torch')}",
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and not re.match(r"\d|GPU-|MIG-", hidden):
        found = f"{torch.__version__} on the CPU, since CUDA_VISIBLE_DEVICES={hidden!r} hides this machine's NVIDIA GPU"
        return Finding("PyTorch", "warning", found, "unset CUDA_VISIBLE_DEVICES")
    try:
        torch.cuda.init()
        said = "no GPU that PyTorch can use"
    except Exception as error:  # the reason, in PyTorch's own words
        said = str(error).strip().splitlines()[0]
    return Finding(
        "PyTorch",
        "warning",
        f"{torch.__version__} does not see this machine's NVIDIA GPU: {said}",
        "nvidia-smi   # PyTorch's CUDA " + f"{torch.version.cuda} needs a driver at least as new",
    )


def _driver_problem(tool: str) -> str:
    """What nvidia-smi says where the driver does not work; empty if it does."""
    try:
        done = subprocess.run([tool, "-L"], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0 and done.stdout.strip():
        return ""
    return " ".join((done.stdout + done.stderr).split()) or f"nothing, with exit status {done.returncode}"


def _compiler() -> Finding:
    """The fast path's compiled functions: not needed, but with them a step takes three quarters of the time."""
    try:
        from deepnet_edu.model.paths import native

        compiler = native()
    except Exception as error:  # without torch there is nothing to look at
        return Finding("Compiled functions", "warning", f"cannot be checked: {error}", _again("torch"))
    if compiler is None:
        return Finding("Compiled functions", "ok", "none: the fast path is not installed")
    library, reason = compiler.load()
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
            "Disk", "warning", f"cannot be checked: {error.strerror}", "deepnet-edu doctor --workspace FOLDER"
        )
    if free < NEEDED_DISK_GB:
        return Finding(
            "Disk", "warning", f"{free:.1f} GiB free", "deepnet-edu lab --workspace FOLDER   # on another disk"
        )
    return Finding("Disk", "ok", f"{free:.0f} GiB free")


def _versions(constraints: Path) -> Finding:
    """Warn where an installed version differs from the tested one; a local build label (+cpu) does not count."""
    missing = [name for name in _required() if not _installed(name)]
    if missing:
        return Finding("Versions", "problem", f"not installed: {', '.join(missing)}", _again(*missing))
    if strange := _from_pythonpath():
        return Finding("Versions", "warning", f"PYTHONPATH has others than the tested: {strange}", "unset PYTHONPATH")
    if not constraints.exists():
        if not CLONE:
            return Finding("Versions", "ok", "all that is needed; which ones were tested, a clone of the project knows")
        return Finding(
            "Versions", "warning", "constraints.txt not found, nothing to compare with", "git checkout constraints.txt"
        )
    different = []
    for line in constraints.read_text(encoding="utf-8").splitlines():
        name, _, tested = line.partition("==")
        if line.startswith("#") or not tested:
            continue
        installed = _installed(name)
        if installed and installed.split("+")[0] != tested:
            different.append(f"{name} {installed} (tested: {tested})")
    if different:
        return Finding("Versions", "warning", ", ".join(different), MEND)
    return Finding("Versions", "ok", "as tested")


def _from_pythonpath() -> str:
    """Packages of the course that PYTHONPATH brings from somewhere else, with where that is."""
    folders = [os.path.abspath(one) for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    found = []
    for name in ("torch", "numpy", "matplotlib", "IPython", "ipykernel", "ipywidgets", "jupyterlab", "nbformat"):
        spec = importlib.util.find_spec(name)
        for folder in folders:
            if spec and spec.origin and os.path.abspath(spec.origin).startswith(os.path.join(folder, name)):
                found.append(f"{name} from {folder}")
    return ", ".join(dict.fromkeys(found))


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
        return Finding("JupyterLab", "problem", f"{error.name} is not installed", _again(str(error.name)))
    if problem := _kernel_problem():
        return problem
    for kind, folder in _jupyter_folders().items():
        above = next((path for path in (folder, *folder.parents) if path.exists()), folder)
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            found = f"{version}; {folder} cannot be written, so what it keeps there is lost when it ends"
            return Finding("JupyterLab", "warning", found, f"export {kind}=FOLDER   # one that you may write")
    return Finding("JupyterLab", "ok", version)


def _jupyter_folders() -> dict[str, Path]:
    """Where Jupyter writes, by the variable that says so."""
    from jupyter_core import paths

    return {
        "JUPYTER_CONFIG_DIR": Path(paths.jupyter_config_dir()),
        "JUPYTER_DATA_DIR": Path(paths.jupyter_data_dir()),
        "JUPYTER_RUNTIME_DIR": Path(paths.jupyter_runtime_dir()),
    }


def _kernel_problem() -> Finding | None:
    """Whether the kernel python3, which lessons ask for, is another Python than this one, or none at all."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
        command = spec.argv[0]
    except NoSuchKernel:
        mend = f"{shlex.quote(sys.executable)} -m ipykernel install --sys-prefix"
        return Finding("JupyterLab", "problem", "there is no kernel python3", mend)
    except (OSError, ValueError, IndexError, AttributeError) as error:
        return Finding("JupyterLab", "problem", f"the kernel python3 cannot be read: {error}", _again("ipykernel"))
    own = {sys.executable, "python", "python3", f"python3.{sys.version_info[1]}"}  # Jupyter takes its own for the names
    if command in own:
        return None
    ask = [command, "-c", "import sys, ipykernel, deepnet_edu; print(sys.prefix)"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, errors="replace", timeout=60)
        if done.returncode == 0 and os.path.realpath(done.stdout.strip()) == os.path.realpath(sys.prefix):
            return None
    except (OSError, subprocess.TimeoutExpired):
        pass  # it is not a Python that could run a lesson
    folder = Path(spec.resource_dir)
    listed = [Path(one) for one in os.environ.get("JUPYTER_PATH", "").split(os.pathsep) if one]
    mend = f"mv {shlex.quote(str(folder))} {shlex.quote(f'{folder}.away')}"
    if any(folder.resolve().is_relative_to(one.resolve()) for one in listed):
        mend = f"unset JUPYTER_PATH   # or: {mend}"
    found = f"the kernel python3 of {folder} starts {command}, and hides the one of {sys.prefix}"
    return Finding("JupyterLab", "problem", found, mend)


def _workspace(workspace: Path) -> Finding:
    from deepnet_edu import progress
    from deepnet_edu.course.workspace import trouble

    name = f"Workspace {workspace}"
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=workspace) as trial:  # under a name that nothing has
            trial.write(b"can be written")
            trial.flush()
    except OSError as error:
        return Finding(name, "problem", f"cannot be written: {error.strerror}", "deepnet-edu lab --workspace FOLDER")
    copies = [*sorted(workspace.glob("[0-9][0-9]_*.ipynb")), *(workspace / page for page in PAGES)]
    for copy in copies:
        if sentence := trouble(copy):
            mend = f"mv {shlex.quote(str(copy))} {shlex.quote(f'{copy}.mine')} && deepnet-edu lab"
            return Finding(name, "warning", sentence, mend)
    file = workspace / progress.FILE
    if sentence := progress.trouble(file):
        return Finding(name, "warning", sentence, f"mv {shlex.quote(str(file))} {shlex.quote(f'{file}.mine')}")
    return Finding(name, "ok", "can be written")
