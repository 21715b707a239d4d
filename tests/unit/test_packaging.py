"""pyproject.toml, constraints.txt, environment.yml, CITATION.cff agree."""

import importlib.util
import tomllib
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
    assert set(PROJECT["optional-dependencies"]) == {"cluster", "hub", "book", "teach", "dev"}


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == deepnet_edu.__version__
    assert f"## {deepnet_edu.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert citation["license"] == PROJECT["license"] == "MIT"


@pytest.fixture
def installer(monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("install", ROOT / "install.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: type("Result", (), {"returncode": 1}))
    return module


def test_a_linux_laptop_gets_the_cpu_build(installer) -> None:
    assert installer.torch_index() == ["--index-url", "https://download.pytorch.org/whl/cpu"]


def test_a_gpu_machine_and_other_systems_use_the_ordinary_index(installer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert installer.torch_index() == []
    monkeypatch.setattr(installer.shutil, "which", lambda name: None)
    monkeypatch.setattr(installer.platform, "system", lambda: "Darwin")
    assert installer.torch_index() == []


def test_a_file_that_pip_finds_by_itself_is_taken(installer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer.subprocess, "run", lambda *_, **__: type("Result", (), {"returncode": 0}))
    assert installer.torch_index() == []


@pytest.mark.parametrize(("value", "expected"), [("", []), ("https://a.b", ["--index-url", "https://a.b"])])
def test_torch_index_decides(installer, monkeypatch: pytest.MonkeyPatch, value: str, expected: list[str]) -> None:
    monkeypatch.setenv("TORCH_INDEX", value)
    assert installer.torch_index() == expected
