"""``deepnet-edu review`` as it is typed, and as a hook of pre-commit runs it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from deepnet_edu.cli import app
from deepnet_edu.course.places import ROOT
from deepnet_edu.messages import UserError

MODELS = """\
import torch
from torch import nn

from deepnet_edu import ModelConfig
from deepnet_edu.model import build_model as build


def right():
    return build(ModelConfig("decoder", "lm", 2, d_model=16, n_heads=2, d_ff=32, vocab_size=16))


def wrong():
    model = right()
    for layer in model.sublayers():
        layer.residual.alpha = 1 / layer.residual.alpha
    return model


def post():
    print("noise")
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32), 2, enable_nested_tensor=False)


class Silent(nn.Linear):
    def __init__(self):
        super().__init__(4, 4)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["review", *arguments])


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("right", 0, "DeepNorm as in the paper, at 2 layers."),
        ("post", 1, "Not DeepNorm: this is Post-LN, norm(x + F(x))."),
        ("Silent", 3, "I cannot see where the residual is"),
    ],
)
def test_the_exit_status_says_the_verdict(here: Path, name: str, status: int, said: str) -> None:
    result = call(f"models.py:{name}")
    assert result.exit_code == status, result.output
    assert said in result.stdout
    assert "noise" not in result.stdout


def test_json_and_both_files(here: Path) -> None:
    result = call("models.py:post", "--json", "--junit", "a.xml", "--sarif", "a.sarif")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["target"], found["verdict"], found["design"]) == ("models.py:post", "FAIL", "Post-LN")
    assert found["rows"][0]["page"] == "docs/museum.md#another-design"
    assert ElementTree.parse("a.xml").getroot().get("name") == "deepnet-edu review models.py:post"
    (run,) = json.loads(Path("a.sarif").read_text())["runs"]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "models.py"}, "region": {"startLine": 19}}
    assert call("models.py:right", "--junit", "a.xml", "--sarif", "a.sarif").exit_code == 0  # its own are replaced
    assert json.loads(Path("a.sarif").read_text())["runs"][0]["results"] == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--junit", "folder"], "--junit folder cannot be written (Is a directory): choose another file."),
        (["--sarif", "folder"], "--sarif folder cannot be written (Is a directory)"),
        (["--sarif", "models.py"], "--sarif models.py is not a SARIF file, and stays as it is"),
        (["--junit", "models.py"], "--junit models.py is not a JUnit file, and stays as it is"),
        (["--sarif", "none/a.sarif"], "--sarif none/a.sarif cannot be written (No such file or directory)"),
        (["--sarif", "a", "--junit", "./a"], "--junit and --sarif are both a: give two files."),
        (["--depth", "two"], "--depth 'two': expected N layers, or N,M of encoder and decoder, such as 0,24."),
        (["--depth", "1,2,3"], "--depth '1,2,3': expected"),
        (["--depth", "0,0"], "--depth '0,0': expected"),
        (["--depth", "-1"], "--depth '-1': expected"),
    ],
)
def test_what_is_refused_before_the_users_code_runs(here: Path, arguments: list[str], sentence: str) -> None:
    (here / "folder").mkdir()
    (here / "models.py").write_text("raise AssertionError")
    result = call("models.py:post", *arguments)
    assert isinstance(result.exception, UserError)
    assert sentence in str(result.exception)
    assert (here / "models.py").read_text() == "raise AssertionError"


@pytest.mark.parametrize(
    ("depth", "alpha"), [("24", "2.632 (decoder)"), ("12,3", "(encoder)"), ("24,0", "2.632 (encoder)")]
)
def test_depth_by_hand(here: Path, depth: str, alpha: str) -> None:
    result = call("models.py:post", "--depth", depth)
    assert alpha in result.stdout


def test_help_says_that_code_is_run() -> None:
    said = " ".join(call("--help").stdout.split())
    assert "This runs the code of the file or module that it is given" in said
    assert "3 that it could not be judged" in said


# --- in continuous integration

(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


def repository(folder: Path) -> None:
    """A git repository with a model in it, that is staged."""
    for command in ("git init -q", "git add models.py"):
        subprocess.run(command.split(), cwd=folder, check=True)


def path_with_command() -> dict[str, str]:
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
@pytest.mark.parametrize(("name", "status"), [("right", 0), ("post", 1)])
def test_the_hooks_entry_works_in_a_repository(here: Path, name: str, status: int) -> None:
    """As pre-commit runs a hook of this language: its entry and the user's arguments, in the repository."""
    repository(here)
    assert (HOOK["language"], HOOK["pass_filenames"]) == ("system", False)
    done = subprocess.run(
        [*shlex.split(HOOK["entry"]), f"models.py:{name}"], capture_output=True, text=True, env=path_with_command()
    )
    assert done.returncode == status, done.stderr
    assert subprocess.run(["git", "diff", "--quiet"]).returncode == 0  # a hook that changes files fails


@pytest.mark.skipif(shutil.which("pre-commit") is None, reason="pip install pre-commit")
def test_pre_commit_itself_runs_the_hook(here: Path) -> None:
    repository(here)
    hooks = here / "hooks"
    hooks.mkdir()
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    (here / ".pre-commit-config.yaml").write_text(
        yaml.safe_dump({"repos": [{"repo": "local", "hooks": [{**HOOK, "args": ["models.py:post"]}]}]})
    )
    subprocess.run(["git", "add", ".pre-commit-config.yaml"], check=True)
    environment = path_with_command() | {"PRE_COMMIT_HOME": str(here / "cache")}
    manifest = ["pre-commit", "validate-manifest", str(hooks / ".pre-commit-hooks.yaml")]
    subprocess.run(manifest, check=True, env=environment)
    done = subprocess.run(["pre-commit", "run", HOOK["id"]], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "this is Post-LN" in done.stdout


def test_the_action_passes_its_inputs_on_without_a_shell_reading_them() -> None:
    assert ACTION["runs"]["using"] == "composite"
    for step in ACTION["runs"]["steps"]:
        if "run" in step:
            assert step["shell"] == "bash"
            assert "${{" not in step["run"]
        else:
            assert "@" in step["uses"]
    assert set(re.findall(r"inputs\.([\w-]+)", str(ACTION["runs"]))) == set(ACTION["inputs"])
    (command,) = [step["run"] for step in ACTION["runs"]["steps"] if "deepnet-edu review" in step.get("run", "")]
    options = {word for word in shlex.split(command.replace("\\\n", " ")) if word.startswith("--")}
    assert {"--sarif", "--junit"} <= options


@pytest.mark.skipif(shutil.which("check-jsonschema") is None, reason="pip install check-jsonschema")
def test_the_action_is_of_githubs_form() -> None:
    command = ["check-jsonschema", "--builtin-schema", "vendor.github-actions", str(ROOT / "action.yml")]
    subprocess.run(command, check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="the action runs under Linux")
@pytest.mark.parametrize(("name", "status"), [("right", 0), ("post", 1)])
def test_the_actions_command_runs(here: Path, name: str, status: int) -> None:
    (step,) = [step for step in ACTION["runs"]["steps"] if "deepnet-edu review" in step.get("run", "")]
    given = {"target": f"models.py:{name}", "sarif": "review.sarif", "junit": "review.xml"}
    values = {key: one.split("inputs.")[1].split(" ")[0] for key, one in step["env"].items()}
    environment = path_with_command() | {key: given.get(value, "") for key, value in values.items()}
    done = subprocess.run(["bash", "-e", "-c", step["run"]], env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert Path("review.sarif").exists()
    assert Path("review.xml").exists()
