"""What doctor says of machines that are not as they should be: the cause that it tested, and advice that works."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deepnet_edu.course import doctor
from deepnet_edu.messages import UserError
from deepnet_edu.model.compiled import CompiledLayer


def program(folder: Path, text: str) -> Path:
    file = folder / "nvidia-smi"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    file = program(tmp_path, text)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: str(file))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            "Driver/library version mismatch",
        ),
        ("echo 'NVIDIA-SMI has failed' >&2; exit 9", "NVIDIA-SMI has failed"),
        ("exit 3", "nothing, with exit status 3"),
    ],
)
def test_a_driver_that_does_not_work_is_said_in_its_own_words(
    no_gpu: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, said: str
) -> None:
    smi(monkeypatch, tmp_path, text)
    finding = doctor._torch()
    assert finding.status == "warning"
    assert said in finding.found
    assert "pip" not in finding.mend
    assert "install.py" not in finding.mend


@pytest.mark.parametrize(
    ("cuda", "hidden", "found", "mend"),
    [
        (None, None, "a build for the CPU alone", "pip uninstall torch && python install.py --again"),
        ("12.8", "", "CUDA_VISIBLE_DEVICES='' hides", "unset CUDA_VISIBLE_DEVICES"),
        ("12.8", "-1", "CUDA_VISIBLE_DEVICES='-1' hides", "unset CUDA_VISIBLE_DEVICES"),
        ("12.8", None, "The NVIDIA driver on your system is too old", "needs a driver at least as new"),
    ],
)
def test_where_the_driver_works_the_cause_is_looked_for(
    no_gpu: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: str, hidden: str, found: str, mend: str
) -> None:
    def old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old\nand more")

    smi(monkeypatch, tmp_path, "echo 'GPU 0: NVIDIA H200'")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "init", old)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    finding = doctor._torch()
    assert found in finding.found
    assert mend in finding.mend


def kernel(folder: Path, *argv: str) -> Path:
    spec = folder / "kernels" / "python3"
    spec.mkdir(parents=True)
    content = {"argv": [*argv, "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(content))
    return spec


def test_a_kernel_that_hides_the_environments_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = kernel(tmp_path, "/usr/bin/false")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    finding = doctor._jupyterlab()
    assert finding.status == "problem"
    assert finding.found == f"the kernel python3 of {spec} starts /usr/bin/false, and hides the one of {sys.prefix}"
    assert finding.mend.startswith("unset JUPYTER_PATH")


@pytest.mark.parametrize("command", ["python", sys.executable, "another name"])
def test_a_kernel_of_this_python_is_fine_wherever_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    """By name, by path, and by a path that has to be asked."""
    if command == "another name":
        command = str(tmp_path / "bin" / "python")
        Path(command).parent.mkdir()
        Path(command).write_text(f"#!/bin/sh\necho {sys.prefix}\n")
        Path(command).chmod(0o755)
    kernel(tmp_path, command)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert doctor._kernel_problem() is None


def test_a_kernel_that_cannot_be_read_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (kernel(tmp_path, "x") / "kernel.json").write_text('{"argv": [], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    finding = doctor._jupyterlab()
    assert (finding.status, finding.found[:31]) == ("problem", "the kernel python3 cannot be re")


def test_folders_of_jupyter_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "home" / ".jupyter"))
    finding = doctor._jupyterlab()
    assert finding.status == "warning"
    assert "home/.jupyter cannot be written" in finding.found
    assert "export JUPYTER_CONFIG_DIR=FOLDER" in finding.mend


def test_packages_of_pythonpath_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nbformat").mkdir()
    (tmp_path / "nbformat" / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}/nowhere")
    monkeypatch.delitem(sys.modules, "nbformat", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = doctor._versions(tmp_path / "constraints.txt")
    assert finding.found == f"PYTHONPATH has others than the tested: nbformat from {tmp_path}"
    assert finding.mend == "unset PYTHONPATH"


def test_a_workspace_keeps_its_dotfiles(tmp_path: Path) -> None:
    (tmp_path / ".doctor").write_text("mine")
    assert doctor._workspace(tmp_path).status == "ok"
    assert [file.name for file in tmp_path.iterdir()] == [".doctor"]
    assert (tmp_path / ".doctor").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("00_a.ipynb", "{\n<<<<<<< HEAD\n=======\n>>>>>>> theirs\n}", "conflict markers"),
        (".progress.json", "{", "is damaged"),
        (".progress.json", '{"version": 7, "exercises": {}}', "newer version"),
    ],
)
def test_files_of_the_learners_that_cannot_be_used_are_named(
    tmp_path: Path, name: str, content: str, found: str
) -> None:
    (tmp_path / name).write_text(content)
    finding = doctor._workspace(tmp_path)
    assert finding.status == "warning"
    assert found in finding.found
    subprocess.run(finding.mend.split(" && ")[0], shell=True, check=True)
    assert doctor._workspace(tmp_path).status == "ok"
    assert (tmp_path / f"{name}.mine").read_text() == content


def test_without_a_clone_the_advice_is_pips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "CLONE", False)
    assert doctor._versions(tmp_path / "constraints.txt").status == "ok"
    monkeypatch.setattr(doctor, "_installed", lambda name: "" if name == "papermill" else "1")
    assert doctor._versions(tmp_path / "constraints.txt").mend.endswith("-m pip install --force-reinstall papermill")


@pytest.mark.parametrize("version", ["2.10.0", "2.10.1+cu128"])
def test_a_version_with_wrong_gradients_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    finding = doctor._torch()
    assert finding.status == "problem"
    assert finding.found.startswith(f"{version}: gradients of compiled norms")
    assert "issues/193061" in finding.found
    assert "torch" in finding.mend or "install.py" in finding.mend
    with pytest.raises(UserError, match=rf"compile='layer' with PyTorch {re.escape(version)}: .* or 'no'\."):
        CompiledLayer("eager")


@pytest.mark.parametrize("version", ["2.8.0", "2.9.1", "2.11.0+cu130", "2.13.0+cpu", "2.100.0"])
def test_other_versions_are_not(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    assert doctor._torch().status != "problem"
