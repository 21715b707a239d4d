"""Other systems, as far as this one can tell: what docs/elsewhere.md says of containers, Windows and macOS."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deepnet_edu.course import kit
from deepnet_edu.experiment.execute import find_device
from deepnet_edu.model import ModelConfig, build_model
from tests.house.test_packaging import CORE, PROJECT, ROOT, constraints

DOCKERFILE = ROOT / "docker" / "Dockerfile"
#: What uv says where no registry answers.
NO_REGISTRY = re.compile(r"Failed to fetch|error sending request|dns error|Network connectivity is disabled")


def program(name: str) -> str:
    """A program of this environment."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.skip(f"needs {name}: python install.py --dev")
    return str(path)


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)


# The oldest and the newest Python that pyproject.toml names: soupsieve needs 3.11.5 of the oldest.
@pytest.mark.parametrize("python", ["3.11.5", "3.14"])
@pytest.mark.parametrize("system", ["windows", "macos"])
def test_the_tested_set_has_wheels(system: str, python: str, tmp_path: Path) -> None:
    """uv resolves by the markers of the other system, which pip cannot."""
    named = [one.rpartition(" ")[2] for one in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", one)]
    assert python[:4] in (named[0], named[-1])
    out = tmp_path / "resolved.txt"
    done = run(
        program("uv"), "pip", "compile", "pyproject.toml", "--quiet", "--no-config", "--no-annotate", "--no-header",
        "--only-binary", ":all:", "--constraint", "constraints.txt", "--python-platform", system,
        "--python-version", python, "--output-file", str(out), MACOSX_DEPLOYMENT_TARGET="14.0",
    )  # fmt: skip
    if done.returncode and NO_REGISTRY.search(done.stderr):
        pytest.skip(f"no registry of packages answers: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    found = {one.name: str(one.specifier)[2:] for one in map(Requirement, out.read_text().splitlines())}
    found = {canonicalize_name(name): version for name, version in found.items()}
    pins = constraints()
    assert {name: found[name] for name in CORE} == {name: pins[name] for name in CORE}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.github-workflows", ".github/workflows/test.yml"),
        ("custom.github-workflows-require-timeout", ".github/workflows/test.yml"),
        ("vendor.github-actions", "action.yml"),
        ("vendor.citation-file-format", "CITATION.cff"),
    ],
)
def test_files_of_other_programs_have_their_form(schema: str, path: str) -> None:
    done = run(program("check-jsonschema"), "--builtin-schema", schema, "--default-filetype", "yaml", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_is_ci() -> None:
    (job,) = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    (python,) = [step["with"]["python-version"] for step in job["steps"] if "python" in step.get("uses", "")]
    assert PROJECT["requires-python"] == f">={python}"
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "make test"
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_the_dockerfile_is_clean() -> None:
    done = run(program("hadolint"), str(DOCKERFILE))
    assert done.returncode == 0, done.stdout


def test_what_containers_name_exists() -> None:
    text = DOCKERFILE.read_text()
    copied = [path for line in re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", text, re.MULTILINE) for path in line.split()]
    assert copied
    assert [path for path in copied if not (ROOT / path).exists()] == []
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    build = container["build"]
    assert (ROOT / ".devcontainer" / build["dockerfile"]).resolve() == DOCKERFILE
    assert (ROOT / ".devcontainer" / build["context"]).resolve() == ROOT
    assert re.search(rf"^FROM \S+ AS {build['target']}$", text, re.MULTILINE)
    assert container["postCreateCommand"] == "python install.py"


def test_a_macs_mps_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imitated: a machine on which PyTorch finds MPS, and no CUDA."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)  # MPS gives what it is asked for
    assert kit.setup(0, "cpu").type == kit.setup(0, "record").type == "cpu"
    assert find_device("auto") == "cpu"
    config = ModelConfig("decoder", "lm", decoder_layers=1, d_model=8, n_heads=2, d_ff=8, vocab_size=5)
    for device in ("mps", torch.device("mps", 0)):
        with pytest.raises(ValueError, match=r"'cpu' \(MPS has no float64, in which probes and checks add up\)"):
            build_model(config, device=device)
