"""pyproject.toml, constraints.txt, environment.yml, CITATION.cff agree."""

import importlib.util
import os
import subprocess
import sys
import tomllib
import urllib.error
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rattler import MatchSpec

import deepnet_edu

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}
# conda-forge's matplotlib pulls in a Qt that a notebook does not need.
CONDA_NAMES = {"matplotlib-base": "matplotlib"}


def environment() -> tuple[dict[str, str], list[str]]:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    conda = {}
    for entry in dependencies:
        if isinstance(entry, str):
            spec = MatchSpec(entry, strict=True)
            assert spec.name is not None
            conda[str(spec.name.normalized)] = str(spec.version or "")
    return conda, pip


def test_conda_and_pip_ask_for_the_same() -> None:
    conda, pip = environment()
    ranges = {CONDA_NAMES.get(name, name): version for name, version in conda.items()}
    assert ranges.pop("python") == PROJECT["requires-python"]
    ranges.pop("pip")
    from_pip = [Requirement(line) for line in pip if not line.startswith("-")]
    assert [r.name for r in from_pip] == ["torch"]
    ranges |= {r.name: str(r.specifier) for r in from_pip}
    assert ranges == {name: str(r.specifier) for name, r in CORE.items()}
    assert "-e ." in pip


def constraints() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


def test_constraints_pin_what_is_asked_for() -> None:
    pins = constraints()
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith("torch")] == ["torch==2.13.0"]
    extras = [Requirement(r) for group in PROJECT["optional-dependencies"].values() for r in group]
    for requirement in [*CORE.values(), *extras]:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_extras() -> None:
    groups = PROJECT["optional-dependencies"]
    assert {*groups["book"], *groups["slides"]} < {*groups["dev"]}  # what makes book and slides, CI checks
    assert set(PROJECT["optional-dependencies"]) == {"cluster", "hub", "book", "slides", "dev"}


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == deepnet_edu.__version__
    assert f"## {deepnet_edu.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert citation["license"] == PROJECT["license"] == "MIT"


def loaded():
    spec = importlib.util.spec_from_file_location("install", ROOT / "install.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


class Programs:
    """Stands for subprocess.run: what each program, known by a word of its command line, prints and returns."""

    def __init__(self, **known: tuple[int, str]) -> None:
        self.known = known

    def __call__(self, command: Sequence[object], **_: object) -> subprocess.CompletedProcess[str]:
        words = " ".join(map(str, command))
        status, said = next((found for word, found in self.known.items() if word in words), (1, ""))
        return subprocess.CompletedProcess([], status, said, "")


@pytest.fixture
def installer(monkeypatch: pytest.MonkeyPatch):
    module = loaded()
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module.subprocess, "run", Programs())
    return module


def test_a_linux_laptop_gets_the_cpu_build(installer) -> None:
    assert installer.torch_index() == ["--index-url", "https://download.pytorch.org/whl/cpu"]


def test_a_gpu_machine_and_other_systems_use_the_ordinary_index(installer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(installer.subprocess, "run", Programs(smi=(0, "GPU 0: NVIDIA H200 (UUID: …)")))
    assert installer.torch_index() == []
    monkeypatch.setattr(installer.shutil, "which", lambda name: None)
    monkeypatch.setattr(installer.platform, "system", lambda: "Darwin")
    assert installer.torch_index() == []


@pytest.mark.parametrize(
    "found",
    [
        (18, "Failed to initialize NVML: Driver/library version mismatch"),
        (0, ""),
        subprocess.TimeoutExpired("nvidia-smi", 60),
        OSError(8, "Exec format error"),
    ],
    ids=["fails", "sees none", "hangs", "no program"],
)
def test_a_driver_that_does_not_work_chooses_no_cuda_build(
    installer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found
) -> None:
    def run(command: Sequence[object], **settings: object) -> subprocess.CompletedProcess[str]:
        if isinstance(found, Exception) and "nvidia-smi" in str(command[0]):
            raise found
        return Programs(smi=found if isinstance(found, tuple) else (1, ""))(command)

    monkeypatch.setattr(installer.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(installer.subprocess, "run", run)
    assert installer.torch_index() == ["--index-url", installer.CPU_INDEX]
    said = capsys.readouterr().err
    assert "CPU build is installed. nvidia-smi says: " in said
    assert (found[1] if isinstance(found, tuple) else str(found)) in said


def test_a_file_that_pip_finds_by_itself_is_taken(installer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer.subprocess, "run", Programs(pip=(0, "")))
    assert installer.torch_index() == []


@pytest.mark.parametrize(("value", "expected"), [("", []), ("https://a.b", ["--index-url", "https://a.b"])])
def test_torch_index_decides(installer, monkeypatch: pytest.MonkeyPatch, value: str, expected: list[str]) -> None:
    monkeypatch.setenv("TORCH_INDEX", value)
    assert installer.torch_index() == expected


@pytest.fixture
def pip_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A pip.conf of its own, and no other setting of pip's; undone afterwards."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        del os.environ[name]
    os.environ["PIP_CONFIG_FILE"] = str(tmp_path / "pip.conf")
    return tmp_path / "pip.conf"


def test_pip_installs_into_venv_whatever_its_settings_say(pip_settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How to reach packages stays as the user has it; where they go, and which, does not."""
    pip_settings.write_text(
        "[global]\ntarget = /elsewhere\nproxy = http://proxy:1\nindex-url = https://mirror/simple\n"
        "[install]\nuser = true\nno-deps = true\nfind-links =\n  /a\n  /b\n"
    )
    strange = ("PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN", "PIP_REQUIRE_HASHES")
    os.environ.update(dict.fromkeys(strange, "1"), PIP_INDEX_URL="https://mine/simple", PIP_TIMEOUT="7")
    installer = loaded()
    monkeypatch.setattr(installer, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(installer.subprocess, "run", partial(subprocess.run, env=os.environ))
    installer.keep_settings()
    found = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    for machines in ("PIP_CERT", "PIP_CONSTRAINT"):  # a file of all users of this machine may have them too
        found.pop(machines, None)
    assert found.pop("PIP_FIND_LINKS").split() == ["/a", "/b"]
    assert found == {
        "PIP_PROXY": "http://proxy:1",
        "PIP_INDEX_URL": "https://mine/simple",
        "PIP_TIMEOUT": "7",
        "PIP_CONFIG_FILE": os.devnull,
    }


def test_a_pip_conf_that_cannot_be_read_is_left_out(
    pip_settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pip_settings.write_text("what is this")
    installer = loaded()
    monkeypatch.setattr(installer, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(installer.subprocess, "run", partial(subprocess.run, env=os.environ))
    installer.keep_settings()
    assert os.environ["PIP_CONFIG_FILE"] == os.devnull
    assert "pip's configuration is left out" in capsys.readouterr().err


def refuses(*_: object, **__: object) -> None:
    raise urllib.error.URLError("Connection refused")


@pytest.mark.parametrize(
    ("setting", "free", "expected"),
    [
        ({}, 5e8, "0.5 GB left, and about 2 are needed"),
        ({"PIP_NO_INDEX": "1"}, 1e12, "pip was told to ask no index"),
        ({"PIP_NO_INDEX": "0"}, 1e12, "https://pypi.org/simple cannot be reached from here (Connection refused)"),
        ({"PIP_INDEX_URL": "https://me:secret@mirror/s"}, 1e12, "https://mirror/s cannot be reached from here"),
        ({"PIP_INDEX_URL": "file:///packages"}, 1e12, ""),
    ],
)
def test_the_cause_named_is_the_one_tested(
    installer, pip_settings: Path, monkeypatch: pytest.MonkeyPatch, setting: dict, free: float, expected: str
) -> None:
    os.environ.update(setting)
    monkeypatch.setattr(installer.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    monkeypatch.setattr(installer.urllib.request.OpenerDirector, "open", refuses)
    found = installer.cause(("install", "torch"))
    assert expected in found
    assert bool(found) == bool(expected)
    assert "secret" not in found


def test_an_index_that_answers_is_not_the_cause(installer, pip_settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = type("Answer", (), {"close": lambda self: None})
    monkeypatch.setattr(installer.urllib.request.OpenerDirector, "open", lambda *_, **__: answer())
    assert installer.unreachable("https://mirror/simple") == ""


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_it_prints_to_any_terminal(tmp_path: Path, encoding: str) -> None:
    """It stops where .venv cannot be made; until then it has printed its letters."""
    for name in ("install.py", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv").symlink_to(tmp_path / "away" / "disk")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PIP_USER": "1"}
    found = subprocess.run(
        [sys.executable, "install.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, encoding=encoding
    )
    assert found.stdout == "Creating .venv ?\n"
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    assert ".venv" in found.stderr


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_damaged_stamp_counts_as_none(installer, tmp_path: Path, content: str) -> None:
    installer.STAMP = tmp_path / "stamp.json"
    installer.STAMP.write_text(content)
    assert installer.stamp() == {}
