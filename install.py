"""Set up .venv with everything the course needs. Python's own library only; `make` calls this, and so may you.

    python install.py            for learners
    python install.py --dev      and the tools that the tests need
    python install.py --again    although nothing seems to have changed

A second call with nothing changed returns at once. To start afresh: delete .venv.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "deepnet_edu_installed.json"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description="Set up .venv for deepnet_edu.")
    parser.add_argument("--dev", action="store_true", help="also install what the tests need")
    parser.add_argument("--again", action="store_true", help="install although nothing seems to have changed")
    arguments = parser.parse_args()
    if sys.version_info < (3, 11):
        sys.exit(
            f"deepnet_edu needs Python 3.11 or newer, this is {platform.python_version()}: run python3.11 install.py."
        )

    wanted = fingerprint()
    done = json.loads(STAMP.read_text()) if STAMP.exists() else {}
    dev = arguments.dev or bool(done.get("dev"))
    if done == {"fingerprint": wanted, "dev": dev} and not arguments.again:
        return
    # Until everything is installed again, nothing counts as installed.
    STAMP.unlink(missing_ok=True)
    if not has_pip():
        print("Creating .venv …", flush=True)
        create_venv()
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    # torch first and alone: whatever is installed next finds it and does not choose another build.
    print("Installing PyTorch …", flush=True)
    index = torch_index()
    # PyTorch's own index may lack the pinned versions of what torch depends on; those come with the course.
    pip("install", *constraints, *index, *(["--no-deps"] if index else []), "torch")
    print("Installing JupyterLab and the course …", flush=True)
    pip("install", *constraints, "--editable", f"{ROOT}[dev]" if dev else str(ROOT))
    STAMP.write_text(json.dumps({"fingerprint": wanted, "dev": dev}))


def has_pip() -> bool:
    """Whether .venv is whole: one whose creation was interrupted, or whose Python has gone, has no working pip."""
    return PYTHON.exists() and subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode == 0


def create_venv() -> None:
    """As `python -m venv` does: with links where the system has them."""
    try:
        venv.create(VENV, with_pip=True, symlinks=os.name != "nt", clear=True)
    except subprocess.CalledProcessError:
        sys.exit(
            "This Python cannot make virtual environments: on Debian and Ubuntu, apt install python3-venv, then again."
        )


def fingerprint() -> str:
    """Changes when the interpreter or what is to be installed does."""
    parts = [platform.python_version().encode()]
    parts += [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def torch_index() -> list[str]:
    """Where pip should look for torch.

    On Linux the ordinary index holds the CUDA build, several GB that a machine without an NVIDIA GPU cannot use, so
    such a machine asks PyTorch's CPU index. Not when TORCH_INDEX says otherwise (empty: the ordinary index), and not
    when pip is already configured to find a file of the pinned version (find-links).
    """
    chosen = os.environ.get("TORCH_INDEX")
    if chosen is not None:
        return ["--index-url", chosen] if chosen else []
    if platform.system() != "Linux" or shutil.which("nvidia-smi"):
        return []
    pin = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    found = subprocess.run(
        [PYTHON, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--no-index", pin],
        capture_output=True,
    )
    return [] if found.returncode == 0 else ["--index-url", CPU_INDEX]


def pip(*arguments: str) -> None:
    result = subprocess.run([PYTHON, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"])
    if result.returncode:
        sys.exit(
            "The installation stopped, pip's reason stands above. Nothing outside .venv was changed; "
            "mend the cause (often the network) and run the same command again."
        )


if __name__ == "__main__":
    main()
