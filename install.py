"""Set up .venv with everything the course needs. Python's own library only; `make` calls this, and so may you.

    python install.py            for learners
    python install.py --dev      and the tools that the tests need
    python install.py --again    although nothing seems to have changed

A second call with nothing changed returns at once. To start afresh: delete .venv.
"""

import argparse
import ast
import hashlib
import importlib.util
import io
import json
import os
import platform
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "deepnet_edu_installed.json"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PYPI = "https://pypi.org/simple"
DISK_GB = 2
#: pip's settings that say how to reach packages. All others (user, target, prefix, no-deps, …) would change what is
#: installed, or put it outside .venv.
KEPT = {
    name: f"PIP_{name.replace('-', '_').upper()}"
    for name in (
        "cache-dir", "cert", "client-cert", "constraint", "default-timeout", "disable-pip-version-check",
        "extra-index-url", "find-links", "index-url", "keyring-provider", "log", "no-cache-dir", "no-index", "no-input",
        "progress-bar", "proxy", "resume-retries", "retries", "timeout", "trusted-host", "use-deprecated",
        "use-feature",
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Set up .venv for deepnet_edu.")
    parser.add_argument("--dev", action="store_true", help="also install what the tests need")
    parser.add_argument("--again", action="store_true", help="install although nothing seems to have changed")
    arguments = parser.parse_args()
    if sys.version_info < (3, 11):
        sys.exit(
            f"deepnet_edu needs Python 3.11 or newer, this is {platform.python_version()}: run python3.11 install.py."
        )

    for name in ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__"):  # they lead the new Python to other packages
        os.environ.pop(name, None)
    wanted = fingerprint()
    done = stamp()
    dev = arguments.dev or bool(done.get("dev"))
    if done == {"fingerprint": wanted, "dev": dev} and not arguments.again:
        return
    try:
        # Until everything is installed again, nothing counts as installed.
        STAMP.unlink(missing_ok=True)
        if not has_pip():
            print("Creating .venv …", flush=True)
            create_venv()
    except OSError as error:
        sys.exit(f"{VENV} cannot be written: {error.strerror}.")
    keep_settings()
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    # torch first and alone: whatever is installed next finds it and does not choose another build.
    print("Installing PyTorch …", flush=True)
    index = torch_index()
    # PyTorch's own index may lack the pinned versions of what torch depends on; those come with the course.
    pip("install", *constraints, *index, *(["--no-deps"] if index else []), "torch")
    print("Installing JupyterLab and the course …", flush=True)
    pip("install", *constraints, "--editable", f"{ROOT}[dev]" if dev else str(ROOT))
    STAMP.write_text(json.dumps({"fingerprint": wanted, "dev": dev}))


def stamp() -> dict[str, object]:
    """What was installed last; nothing if that is not known."""
    try:
        done = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return done if isinstance(done, dict) else {}


def has_pip() -> bool:
    """Whether .venv is whole: one whose creation was interrupted, or whose Python has gone, has no working pip."""
    try:
        return PYTHON.exists() and run(PYTHON, "-m", "pip", "--version").returncode == 0
    except OSError:  # of another system
        return False


def create_venv() -> None:
    """As `python -m venv` does: with links where the system has them."""
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit("This Python lacks ensurepip: on Debian and Ubuntu, apt install python3-venv, then again.")
    try:
        venv.create(VENV, with_pip=True, symlinks=os.name != "nt", clear=True)
    except subprocess.CalledProcessError as error:
        said = (error.output or b"").decode(errors="replace").strip()
        sys.exit(f"{sys.executable} cannot make a virtual environment: {said.splitlines()[-1] if said else error}")


def run(*command: object, seconds: float | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, errors="replace", timeout=seconds)


def keep_settings() -> None:
    """Leave pip only those settings, of the environment and of its files, that say how to reach packages."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        if name not in (*KEPT.values(), "PIP_CONFIG_FILE"):
            del os.environ[name]
    listed = run(PYTHON, "-m", "pip", "config", "list")
    if listed.returncode:
        print(f"pip's configuration is left out, since it cannot be read:\n{listed.stderr.strip()}", file=sys.stderr)
    found = dict(line.partition("=")[::2] for line in listed.stdout.splitlines())
    for section in ("install", "global"):  # the environment comes before both, as for pip
        for name, variable in KEPT.items():
            if f"{section}.{name}" in found:
                os.environ.setdefault(variable, ast.literal_eval(found[f"{section}.{name}"]))
    os.environ["PIP_CONFIG_FILE"] = os.devnull


def fingerprint() -> str:
    """Changes when the interpreter or what is to be installed does."""
    parts = [platform.python_version().encode()]
    parts += [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def torch_index() -> list[str]:
    """Where pip should look for torch.

    On Linux the ordinary index holds the CUDA build, several GB that a machine without a working NVIDIA GPU cannot use,
    so such a machine asks PyTorch's CPU index. Not when TORCH_INDEX says otherwise (empty: the ordinary index), and not
    when pip is already configured to find a file of the pinned version (find-links).
    """
    chosen = os.environ.get("TORCH_INDEX")
    if chosen is not None:
        return ["--index-url", chosen] if chosen else []
    if platform.system() != "Linux" or has_gpu():
        return []
    pin = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    found = run(PYTHON, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--no-index", pin)
    return [] if found.returncode == 0 else ["--index-url", CPU_INDEX]


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU whose driver answers."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        found = run(tool, "-L", seconds=60)
        if found.returncode == 0 and found.stdout.strip():
            return True
        said = (found.stdout + found.stderr).strip() or f"exit status {found.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    print(
        f"The NVIDIA driver does not work, so PyTorch's CPU build is installed. nvidia-smi says: {said}\n"
        "Once the driver works, delete .venv and run the same command again.",
        file=sys.stderr,
    )
    return False


def pip(*arguments: str) -> None:
    result = subprocess.run([PYTHON, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"])
    if result.returncode:
        sys.exit(
            f"The installation stopped, and pip's reason is above. {cause(arguments)}"
            "Nothing outside .venv was changed; fix the cause and run the same command again."
        )


def cause(arguments: tuple[str, ...]) -> str:
    """What was tested and found wrong, as a sentence; empty if nothing was."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < DISK_GB:
        return f"The disk of {ROOT} has {free:.1f} GB left, and about {DISK_GB} are needed. "
    if os.environ.get("PIP_NO_INDEX", "").lower() not in ("", "0", "false", "no", "off", "f", "n"):
        return "pip was told to ask no index (PIP_NO_INDEX, or no-index in pip.conf). "
    asked = arguments[arguments.index("--index-url") + 1] if "--index-url" in arguments else ""
    return unreachable(asked or os.environ.get("PIP_INDEX_URL") or PYPI)


def unreachable(index: str) -> str:
    """Whether an index does not answer, as a sentence; asked in the way that pip was told to."""
    parts = urllib.parse.urlsplit(index)
    if parts.scheme not in ("http", "https"):
        return ""
    index = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # without a password
    proxy = os.environ.get("PIP_PROXY")
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=os.environ.get("PIP_CERT")))
    ]
    handlers += [urllib.request.ProxyHandler({"http": proxy, "https": proxy})] if proxy else []
    try:
        urllib.request.build_opener(*handlers).open(index, timeout=20).close()
    except urllib.error.HTTPError as error:
        return f"{index} answers {error.code} {error.reason}. " if error.code >= 500 else ""
    except (OSError, ValueError) as error:
        return f"{index} cannot be reached from here ({getattr(error, 'reason', error)}). "
    return ""


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):  # a terminal may not know all letters
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command continues.")
