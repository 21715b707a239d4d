"""The package installed alone, as a wheel has it: without a clone around it."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from deepnet_edu.course.places import PACKAGE, ROOT

SCRIPT = """
from typer.testing import CliRunner
from deepnet_edu.cli import app
from deepnet_edu.course import doctor, kit, places

assert not places.CLONE
assert str(places.PACKAGE).startswith({site!r}), places.PACKAGE
assert kit.Results("lesson_00").select(task="token_map")
assert kit.Results("compile_layer").runs
assert (places.RECORDS / "updates.json").exists()
for name in ("depth", "lesson_99"):
    try:
        kit.Results(name)
    except FileNotFoundError as error:
        print(error)
for line in (["lab"], ["run"], ["build"], ["bench", "depth"]):
    print(line[0], CliRunner().invoke(app, line).exception)
for finding in doctor.examine(places.WORKSPACE.resolve()):
    assert "install.py" not in finding.mend + finding.found, finding
    print(finding)
"""


def files() -> list[Path]:
    """What a wheel holds: Python, and what pyproject.toml names."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    named = [path for pattern in settings["package-data"]["deepnet_edu"] for path in PACKAGE.glob(pattern)]
    return [*PACKAGE.rglob("*.py"), *named]


def test_the_wheel_holds_every_file_of_the_package() -> None:
    found = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".pyc", ".pyo")}
    assert found - {*files()} == set()


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the package says of itself, used from a folder that has nothing of a clone."""
    site, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    for path in files():
        to = site / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    script = SCRIPT.format(site=str(site))
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert [path.name for path in elsewhere.iterdir()] == ["workspace"]
    assert {path.name for path in site.iterdir()} == {"deepnet_edu"}
    return found.stdout


def test_lessons_find_their_records_and_the_rest_says_what_it_needs(said: str) -> None:
    assert "There is no record lesson_99.json" in said
    for command in ("lab", "run", "build", "bench"):
        (line,) = [line for line in said.splitlines() if line.startswith(f"{command} ")]
        assert "clone the project, and run python install.py in the clone" in line
