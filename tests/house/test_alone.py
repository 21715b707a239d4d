"""The wheel, installed in a clean virtual environment, in an empty folder: without a clone around it.

What the package needs is that of the tests' own environment, which the clean one sees; this clone it does not see.
"""

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

import deepnet_edu
from deepnet_edu.course.places import DOCS, LESSONS, PACKAGE, ROOT, SOLUTIONS
from tests.browser.conftest import LAB, served

pytestmark = pytest.mark.xdist_group("wheel")
#: What setuptools adds to a source distribution.
ADDED = re.compile(r"PKG-INFO|setup\.cfg|deepnet_edu\.egg-info/.*")
#: Megabytes. What makes it larger should be worth a learner's download.
LARGEST_WHEEL = 5

SCRIPT = """
from typer.testing import CliRunner
from deepnet_edu.cli import app
from deepnet_edu.course import doctor, kit, places

assert not places.CLONE
assert places.lesson_names() == places.lesson_names(places.SOLUTIONS)
print("PACKAGE", places.PACKAGE)
assert kit.Results("lesson_00").select(task="token_map")
for name in ("depth", "lesson_99"):
    try:
        kit.Results(name)
    except FileNotFoundError as error:
        print(error)
for line in {commands}:
    print(line[0], CliRunner().invoke(app, line).exception)
for finding in doctor.examine(places.WORKSPACE.resolve()):
    assert "install.py" not in finding.mend + finding.found, finding
    assert finding.status != "problem", finding
"""
#: What is for a clone, each with an argument that a clone would take.
OF_A_CLONE = [
    ["build"], ["book"], ["bench", "depth"], ["export", "--withheld", "class"], ["grade", "."],
    ["run", "00", "--timings"],
]  # fmt: skip


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else []


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's files, as they are now: a build writes beside what it builds."""
    paths = git("ls-files", "--cached", "--others", "--exclude-standard")
    if not paths:
        pytest.skip("needs git, to know which files are the repository's")
    copy = tmp_path_factory.mktemp("source")
    for path in paths:
        if (ROOT / path).exists():  # not one that was deleted since the last commit
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, copy / path)
    return copy


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the source distribution, and of the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


def test_an_index_would_take_them(built: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_source_distribution_is_the_repository(source: Path, built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        found = {one.name.partition("/")[2] for one in archive.getmembers() if one.isfile()}
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    files = {path for path in files if not ADDED.fullmatch(path)}
    assert {path for path in found if not ADDED.fullmatch(path)} == files


@dataclass(frozen=True)
class Alone:
    """The wheel, installed.

    Attributes:
        python: of the clean environment.
    """

    python: Path

    @property
    def command(self) -> Path:
        return self.python.with_name("deepnet-edu")

    @property
    def package(self) -> Path:
        (found,) = self.python.parents[1].glob("lib/python*/site-packages/deepnet_edu")
        return found

    def run(self, folder: Path, *command: str) -> str:
        """What a command in ``folder`` prints; it must succeed."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    home = tmp_path_factory.mktemp("clean")
    venv.create(home, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    # A path from a .pth file is searched, but its own .pth files, by which an editable installation is found, are not.
    beside = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "beside.pth").write_text("\n".join(beside))
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Alone(python)


def test_the_wheel_holds_the_package_and_the_material(wheel: Path, alone: Alone) -> None:
    """Byte for byte, and no file of the one without the other."""
    whole = {
        path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    material = Path("course/material")
    whole |= {material / path.relative_to(ROOT) for folder in (LESSONS, SOLUTIONS) for path in folder.glob("*.ipynb")}
    whole |= {material / path.relative_to(ROOT) for path in DOCS.rglob("*") if path.is_file()}
    found = {
        Path(name).relative_to("deepnet_edu")
        for name in zipfile.ZipFile(wheel).namelist()
        if name.startswith("deepnet_edu/")
    }
    assert found == whole
    for path in found:
        from_here = ROOT / path.relative_to(material) if path.is_relative_to(material) else PACKAGE / path
        assert filecmp.cmp(alone.package / path, from_here, shallow=False), path
    assert wheel.stat().st_size < LARGEST_WHEEL * 1e6


def test_lessons_find_their_records() -> None:
    """What a lesson opens besides its own files is in the package, or the lesson says that it is missing."""
    records = PACKAGE / "course" / "records"
    missing = set()
    for path in sorted(SOLUTIONS.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        names = re.findall(r'kit\.Results\("(\w+)"\)|RECORDS / "(\w+)\.json"', text)
        assert "except FileNotFoundError" in text or {*map("".join, names)} <= {one.stem for one in records.iterdir()}
        missing |= {*map("".join, names)} - {one.stem for one in records.iterdir()}
        assert not re.search(r"(DOCS|IMAGES|BENCHMARKS|RESULTS|ROOT) /", text), path.name
    assert missing <= {"lesson_12"}  # long, and its lesson says what it reads there


def test_it_knows_its_version_and_what_needs_a_clone(alone: Alone, tmp_path: Path) -> None:
    assert alone.run(tmp_path, str(alone.command), "--version") == f"deepnet-edu {deepnet_edu.__version__}\n"
    said = alone.run(tmp_path, str(alone.python), "-c", SCRIPT.format(commands=OF_A_CLONE))
    assert f"PACKAGE {alone.package}" in said
    assert "There is no record lesson_99.json" in said
    for command in OF_A_CLONE:
        (line,) = [line for line in said.splitlines() if line.startswith(f"{command[0]} ")]
        assert "clone the project, and run python install.py in the clone" in line
    assert [path.name for path in tmp_path.iterdir()] == ["workspace"]


def test_a_lesson_runs_and_a_check_answers(alone: Alone, tmp_path: Path) -> None:
    """Lesson 01, in which a learner has solved one exercise."""
    notebook = nbformat.read(alone.package / "course/material/lessons/01_residual_arithmetic.ipynb", as_version=4)
    (stub,) = [cell for cell in notebook.cells if cell.source.startswith("def input_share(")]
    stub.source = "def input_share(n, f, alpha):\n    return (alpha**2 / (alpha**2 + f)) ** n"
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    alone.run(tmp_path, str(alone.command), "run", "mine.ipynb", "--profile", "smoke", "--out", "runs/mine")
    (ran,) = (tmp_path / "runs/mine").glob("mine.*/*.ipynb")
    said = [json.dumps(cell.outputs) for cell in nbformat.read(ran, as_version=4).cells if "outputs" in cell]
    (card,) = [one for one in said if "input_share: " in one and "Right" in one]
    assert "Traceback" not in card


def test_lab_opens_on_a_copy_of_the_lessons(
    alone: Alone, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv(
        "JUPYTERLAB_DIR", str(Path(sys.prefix) / "share/jupyter/lab")
    )  # which pip puts into an environment
    monkeypatch.chdir(tmp_path)
    with served(["lab"], LAB, tmp_path_factory.mktemp("settings"), program=alone.command) as address:
        base, _, query = address.partition("/lab")
        with urllib.request.urlopen(f"{base}/api/contents?{query.partition('?')[2]}") as answer:
            listed = {one["name"] for one in json.loads(answer.read())["content"]}
        with urllib.request.urlopen(address) as answer:
            assert answer.status == 200
    assert listed == {path.name for path in LESSONS.glob("*.ipynb")} | {"glossary.md", "notation.md"}
    assert "](../docs/" not in (tmp_path / "workspace/00_a_thousand_layers.ipynb").read_text(encoding="utf-8")
