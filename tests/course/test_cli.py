"""The command line as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepnet_edu.course import doctor
from deepnet_edu.course.places import ROOT, find_lesson, lesson_names
from deepnet_edu.messages import UserError
from deepnet_edu.progress import note


def look(name: str, findings: list[doctor.Finding]) -> doctor.Finding:
    return next(finding for finding in findings if finding.name.startswith(name))


COMMANDS = ["doctor", "lab", "progress", "run", "build", "probe", "plan", "bench", "models"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("deepnet-edu")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.returncode == 0
    assert "deepnet-edu " in result.stdout if not command else f"Example: deepnet-edu {command[0]}" in result.stdout


def test_doctor_finds_this_machine_ready(tmp_path: Path) -> None:
    result = run("doctor", "--json", "--workspace", str(tmp_path))
    assert result.returncode == 0, result.stdout
    report = json.loads(result.stdout)
    assert report["ready"]
    names = [finding["name"].split()[0] for finding in report["findings"]]
    assert names == ["Python", "PyTorch", "Compiled", "Memory", "Disk", "Versions", "JupyterLab", "Workspace"]
    assert all(finding["mend"] for finding in report["findings"] if finding["status"] != "ok")
    spoken = run("doctor", "--workspace", str(tmp_path))
    assert spoken.returncode == 0
    assert "Lessons can run: deepnet-edu lab" in spoken.stdout
    assert not any(tmp_path.iterdir())


def test_doctor_names_the_command_that_mends_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("doctor", "--workspace", str(tmp_path / "file" / "work"))
    assert result.returncode == 1
    assert "cannot be written: Not a directory" in result.stdout
    assert "mend it with: deepnet-edu lab --workspace FOLDER" in result.stdout


def test_doctor_warns_of_untested_versions_and_goes_on(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("numpy==0.1\nnot-installed==1\n")
    finding = look("Versions", doctor.examine(tmp_path, constraints))
    assert finding.status == "warning"
    assert "(tested: 0.1)" in finding.found
    assert "not-installed" not in finding.found


@pytest.mark.parametrize(
    ("name", "replacement", "status"),
    [("sysconf", lambda _: 1000, "warning"), ("sysconf", lambda _: 10**6, "ok")],
)
def test_doctor_looks_at_memory(monkeypatch: pytest.MonkeyPatch, name: str, replacement: object, status: str) -> None:
    monkeypatch.setattr(doctor.os, name, replacement)
    assert doctor._memory().status == status


def test_doctor_looks_at_python_torch_and_jupyterlab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.10.4")
    assert doctor._python().status == "problem"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert doctor._torch().status == "problem"

    def missing(name: str) -> str:
        raise doctor.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", missing)
    assert doctor._jupyterlab().status == "problem"


def test_a_lesson_that_does_not_exist() -> None:
    result = run("lab", "00_a_thousand_layer")
    assert result.returncode == 1
    assert result.stderr.strip() == "Unknown lesson '00_a_thousand_layer': did you mean '00_a_thousand_layers'?"


def test_a_workspace_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("lab", "--workspace", str(tmp_path / "file" / "work"))
    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr


def test_progress(tmp_path: Path) -> None:
    note(tmp_path / ".progress.json", "input_share", "done")
    note(tmp_path / ".progress.json", "cloned_growth", "tried")
    result = run("progress", "--workspace", str(tmp_path))
    assert (
        result.stdout.splitlines()[0]
        == "lesson 01 ████░░░░░░░░░░░░░░░░ 1 of 5 done, 1 tried, 3 open, next: cloned_growth"
    )
    lesson, *_ = json.loads(run("progress", "--workspace", str(tmp_path), "--json").stdout)
    assert lesson["done"] == ["input_share"]
    assert lesson["open"] == ["variance_by_depth", "residual_variance", "damped_variance"]


def test_lessons_by_number_name_or_file() -> None:
    assert lesson_names()[0] == "00_a_thousand_layers"
    assert {find_lesson(given) for given in ("00", "00_a_thousand_layers", "00_a_thousand_layers.ipynb")} == {
        "00_a_thousand_layers"
    }
    with pytest.raises(UserError, match="expected one of"):
        find_lesson("../../etc/passwd")


def test_notebooks_are_up_to_date_with_their_sources() -> None:
    result = run("build", "--check")
    assert result.returncode == 0, result.stderr


def test_the_readmes_code_runs() -> None:
    """As it stands, but at 10 layers, and with tokens to feed it."""
    import torch

    code = (ROOT / "README.md").read_text(encoding="utf-8").split("```python")[1].split("```")[0]
    assert "decoder_layers=1000, d_model" in code
    tokens = torch.zeros(1, 8, dtype=torch.long)
    exec(code.replace("decoder_layers=1000, d_model", "decoder_layers=10, d_model"), {"tokens": tokens})


def test_the_readme_names_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("doctor", "lab", "progress", "run", "build"):
        assert f"deepnet-edu {command}" in readme
    makefile = (ROOT / "Makefile").read_text()
    for target in ("lab", "test", "clean"):
        assert f"make {target}" in readme
        assert f"\n{target}:" in makefile


def test_doctor_misses_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"torch", "jupyterlab", "papermill", "nbval"} <= set(doctor._required())
    assert "pytest" not in doctor._required()
    monkeypatch.setattr(doctor, "_installed", lambda name: "" if name == "papermill" else "1")
    finding = look("Versions", doctor.examine(tmp_path))
    assert (finding.status, finding.found) == ("problem", "not installed: papermill")
    assert finding.mend == "python install.py --again"


def test_doctor_prints_brackets_as_they_are(tmp_path: Path) -> None:
    assert "my[draft]x: can be written" in run("doctor", "--workspace", str(tmp_path / "my[draft]x")).stdout


def test_plan_says_where_memory_goes(tmp_path: Path) -> None:
    result = run("plan", "small_1000", "--checkpoint-every", "1", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    parts = ("process", "weights", "gradients", "optimizer", "activations", "temporaries", "objects")
    assert found["total"] == sum(found[part] for part in parts)
    assert found["parameters"] == 50_004_480
    spoken = run("plan", "small_1000")
    assert "50,004,480 parameters, DeepNorm, by the fast path, float32." in spoken.stdout
    gpu = run(
        "plan", "small_1000", "--precision", "autocast", "--device", "cuda", "--checkpoint-every", "auto", "--json"
    )
    assert json.loads(gpu.stdout)["process"] == 0
    for wrong, message in (
        (["small_999"], "did you mean 'small_1000'"),
        (["small_1000", "--precision", "float"], "did you mean 'float64'"),
        (["small_1000", "--checkpoint-every", "sqrt"], "expected a whole number of layers, 0 or more, or 'auto'"),
        ([str(tmp_path / "none.json")], "holds no shape"),
    ):
        refused = run("plan", *wrong)
        assert refused.returncode == 1
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_bench_runs_a_benchmark_of_the_clone() -> None:
    result = run("bench", "depth", "--help")
    assert result.returncode == 0
    refused = run("bench", "deth")
    assert refused.returncode == 1
    assert "did you mean 'depth'" in refused.stderr
