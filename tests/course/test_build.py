"""The builder: deterministic, one direction, nothing half-written."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from deepnet_edu.course import build
from deepnet_edu.course.places import LESSONS, SOLUTIONS
from deepnet_edu.messages import UserError
from tests.course.source import HEAD

SOURCE = (
    HEAD
    + """
# %% [markdown]
# Some text.

# %% tags=["parameters"]
SEED = 0

# %%
print(SEED + 1)

# %% tags=["headline"]
from IPython.display import HTML

HTML('<img alt="nothing" src="data:image/png;base64,iVBORw0KGgo=">')

# %%
import ipywidgets

ipywidgets.IntSlider()
"""
)
#: What is made of it.
NAMES = ["lessons/00_x.ipynb", "solutions/00_x.ipynb", "docs/images/00_x.png"]


def lay_out(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Let the builder work in ``folder``."""
    for name in ("lessons", "solutions", "references"):
        (folder / name).mkdir(exist_ok=True)
        patch.setattr(build, name.upper(), folder / name)
    patch.setattr(build, "IMAGES", folder / "docs" / "images")


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that is built: a kernel takes seconds to start."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        lay_out(folder, patch)
        (folder / "solutions" / "00_x.py").write_text(SOURCE)
        build.build_all()
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one source."""
    lay_out(tmp_path, monkeypatch)
    (tmp_path / "solutions" / "00_x.py").write_text(SOURCE)
    return tmp_path


@pytest.fixture
def built(built_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, built."""
    shutil.copytree(built_once, tmp_path, dirs_exist_ok=True)
    lay_out(tmp_path, monkeypatch)
    return tmp_path


def test_one_source_makes_two_notebooks_and_always_the_same(project: Path, built_once: Path) -> None:
    assert build.build_all() == [f"built {name}" for name in NAMES]
    lesson = nbformat.read(project / "lessons" / "00_x.ipynb", as_version=4)
    solution = nbformat.read(project / "solutions" / "00_x.ipynb", as_version=4)
    assert [cell.id for cell in lesson.cells] == [cell.id for cell in solution.cells]
    assert lesson.cells[2].metadata.tags == ["parameters"]
    assert lesson.cells[3].outputs == []
    assert solution.cells[3].outputs[0].text == "1\n"
    assert solution.cells[5].outputs[0].data.keys() == {"text/plain"}  # a widget's id is random
    assert (project / "docs" / "images" / "00_x.png").read_bytes().startswith(b"\x89PNG")
    for name in NAMES:
        assert (project / name).read_bytes() == (built_once / name).read_bytes()
    assert build.build_all() == []


def test_check_names_what_is_not_up_to_date(built: Path) -> None:
    (built / "solutions" / "00_x.py").write_text(SOURCE + "# changed\n")
    before = (built / "lessons" / "00_x.ipynb").read_bytes()
    with pytest.raises(UserError, match=r"lessons/00_x.ipynb, solutions/00_x.ipynb. Run: deepnet-edu build"):
        build.build_all(check=True)
    assert (built / "lessons" / "00_x.ipynb").read_bytes() == before


def test_a_cell_that_fails_leaves_the_old_solution(built: Path) -> None:
    before = (built / "solutions" / "00_x.ipynb").read_bytes()
    (built / "solutions" / "00_x.py").write_text(SOURCE + "\n# %%\n1 / 0\n")
    with pytest.raises(UserError, match=r"00_x: a cell of the solution failed[\s\S]*ZeroDivisionError"):
        build.build_all()
    assert (built / "solutions" / "00_x.ipynb").read_bytes() == before


def test_prose_changes_without_a_new_run_and_code_does_not(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    real = build.executed
    monkeypatch.setattr(build, "executed", lambda *arguments: ran.append(1) or real(*arguments))
    source = built / "solutions" / "00_x.py"
    source.write_text(SOURCE.replace("Some text.", "Better text."))
    assert build.build_all() == ["built lessons/00_x.ipynb", "built solutions/00_x.ipynb"]
    solution = nbformat.read(built / "solutions" / "00_x.ipynb", as_version=4)
    assert solution.cells[1].source == "Better text."
    assert solution.cells[3].outputs[0].text == "1\n"
    assert not ran
    source.write_text(SOURCE.replace("SEED + 1", "SEED + 2"))
    build.build_all()
    assert nbformat.read(built / "solutions" / "00_x.ipynb", as_version=4).cells[3].outputs[0].text == "2\n"
    assert len(ran) == 1
    monkeypatch.setattr(build, "package_digest", lambda: "another package")
    build.build_all()
    assert len(ran) == 2
    assert build.build_all(check=True) == []  # of what the outputs were made is nbval's business


def test_a_split_cell_is_code_that_changed(built: Path) -> None:
    source = built / "solutions" / "00_x.py"
    source.write_text(SOURCE.replace("import ipywidgets\n", "import ipywidgets\n\n# %%"))
    build.build_all()
    assert len(nbformat.read(built / "solutions" / "00_x.ipynb", as_version=4).cells) == 7


@pytest.mark.parametrize("damage", ["<<<<<<< HEAD\n{", ""])
def test_a_damaged_solution_or_a_lost_picture_is_made_anew(built: Path, damage: str) -> None:
    solution, image = built / "solutions" / "00_x.ipynb", built / "docs" / "images" / "00_x.png"
    solution.write_text(damage)
    with pytest.raises(UserError, match="solutions/00_x.ipynb"):
        build.build_all(check=True)
    assert build.build_all() == ["built solutions/00_x.ipynb"]
    image.unlink()
    with pytest.raises(UserError, match="docs/images/00_x.png"):
        build.build_all(check=True)
    assert build.build_all() == ["built docs/images/00_x.png"]


def test_what_has_no_source_any_more_is_named(built: Path) -> None:
    for name in NAMES[:2]:
        shutil.copy(built / name, (built / name).with_stem("00_z"))
    with pytest.raises(UserError, match=r"no source any more for lessons/00_z.ipynb, solutions/00_z.ipynb: delete it"):
        build.build_all(check=True)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("question: Why?", "question: why: because", "00_x.py: the head of the source cannot be read as YAML"),
        ("print(SEED + 1)", "### BEGIN SOLUTION\n3\n### END SOLUTION", "00_x: a cell with ### BEGIN SOLUTION names no"),
    ],
)
def test_sources_with_mistakes_are_refused(project: Path, old: str, new: str, said: str) -> None:
    (project / "solutions" / "00_x.py").write_text(SOURCE.replace(old, new))
    with pytest.raises(UserError, match=said):
        build.build_all()
    assert not list((project / "lessons").iterdir())


def test_no_sources_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SOLUTIONS", tmp_path)
    with pytest.raises(UserError, match="There are no lessons in"):
        build.build_all(check=True)


def test_only_some_solutions(project: Path) -> None:
    (project / "solutions" / "01_y.py").write_text(SOURCE)
    assert "built solutions/01_y.ipynb" in build.build_all(only=["01_y"])
    assert not (project / "solutions" / "00_x.ipynb").exists()
    assert (project / "lessons" / "00_x.ipynb").exists()


def test_killed_in_the_middle_of_a_build_nothing_is_half_written(built: Path) -> None:
    before = {path: path.read_bytes() for path in built.rglob("*.ipynb")}
    slow = SOURCE + "\n# %%\nimport time\nfrom pathlib import Path\nPath('started').touch()\ntime.sleep(600)\n"
    (built / "solutions" / "00_x.py").write_text(slow)
    names = ("LESSONS", "SOLUTIONS", "IMAGES", "REFERENCES")
    code = "from pathlib import Path\nfrom deepnet_edu.course import build\n"
    code += "".join(f"build.{name} = Path({str(getattr(build, name))!r})\n" for name in names)
    process = subprocess.Popen([sys.executable, "-c", code + "build.build_all()"], start_new_session=True)
    deadline = time.monotonic() + 60
    while not (built / "solutions" / "started").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    solution = built / "solutions" / "00_x.ipynb"
    assert solution.read_bytes() == before[solution]
    for path in built.rglob("*.ipynb"):
        nbformat.validate(nbformat.read(path, as_version=4))
    with pytest.raises(UserError, match=r"solutions/00_x.ipynb. Run: deepnet-edu build"):
        build.build_all(check=True)
    (built / "solutions" / "00_x.py").write_text(SOURCE)
    build.build_all()
    assert {path: path.read_bytes() for path in built.rglob("*.ipynb")} == before


@pytest.mark.parametrize("path", sorted(SOLUTIONS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_solutions_are_executed_small_and_have_alt_text(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert path.stat().st_size < 500_000
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if "image/png" in output.get("data", {})]  # a Picture has alt text
    html = "".join(output.data.get("text/html", "") for output in outputs if "data" in output)
    pictures = re.findall(r"<img[^>]*>", html)
    assert pictures
    assert all(re.match(r'<img (class="[\w-]+" )?alt="[^"]{20,}" src="data:image/png', picture) for picture in pictures)
    compared = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code"
        and "nbval-ignore-output" not in cell.metadata.get("tags", [])
        and any(output.output_type == "stream" for output in cell.outputs)
    ]
    assert len(compared) >= 5  # nbval passes on a notebook that compares nothing


@pytest.mark.parametrize("path", sorted(LESSONS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_lessons_have_no_outputs_and_a_parameters_cell(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    (parameters,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert "PROFILE = kit.profile()" in parameters.source
    assert "SEED" in parameters.source


def compared(cell: nbformat.NotebookNode) -> bool:
    """Whether nbval compares something that this cell prints."""
    return (
        cell.cell_type == "code"
        and "nbval-ignore-output" not in cell.metadata.get("tags", [])
        and any(output.output_type == "stream" and output.text.strip() for output in cell.outputs)
    )


@pytest.mark.parametrize("path", sorted(SOLUTIONS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_each_exercise_and_each_headline_has_a_compared_cell_beside_it(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    prompts = [i for i, cell in enumerate(cells) if re.match(r"### Exercise \d", cell.source)]
    headlines = [i for i, cell in enumerate(cells) if "headline" in cell.metadata.get("tags", [])]
    assert headlines
    for start, after in pairwise([*prompts, len(cells)]):
        assert any(map(compared, cells[start:after])), cells[start].source[:80]
    for start in headlines:
        following = [cell for cell in cells[start + 1 :] if cell.cell_type == "code"][:2]
        assert any(map(compared, following)), cells[start].source[:80]
