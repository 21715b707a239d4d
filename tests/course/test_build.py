"""The builder: deterministic, one direction, nothing half-written."""

import os
import re
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
from matplotlib.figure import Figure

from deepnet_edu.figures import Picture

Picture(Figure(), alt="nothing")
"""
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("lessons", "solutions"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(build, "LESSONS", tmp_path / "lessons")
    monkeypatch.setattr(build, "SOLUTIONS", tmp_path / "solutions")
    monkeypatch.setattr(build, "IMAGES", tmp_path / "docs" / "images")
    monkeypatch.setattr(build, "REFERENCES", tmp_path / "references")
    (tmp_path / "solutions" / "00_x.py").write_text(SOURCE)
    return tmp_path


def test_one_source_makes_two_notebooks(project: Path) -> None:
    names = ["lessons/00_x.ipynb", "solutions/00_x.ipynb", "docs/images/00_x.png"]
    assert build.build_all() == [f"built {name}" for name in names]
    lesson = nbformat.read(project / "lessons" / "00_x.ipynb", as_version=4)
    solution = nbformat.read(project / "solutions" / "00_x.ipynb", as_version=4)
    assert [cell.id for cell in lesson.cells] == [cell.id for cell in solution.cells]
    assert lesson.cells[2].metadata.tags == ["parameters"]
    assert lesson.cells[3].outputs == []
    assert solution.cells[3].outputs[0].text == "1\n"
    assert (project / "docs" / "images" / "00_x.png").read_bytes().startswith(b"\x89PNG")


def test_two_builds_are_byte_identical_and_the_second_does_nothing(project: Path) -> None:
    build.build_all()
    files = sorted(project.rglob("*.ipynb"))
    first = [path.read_bytes() for path in files]
    assert build.build_all() == []
    for path in files:
        path.unlink()
    build.build_all()
    assert [path.read_bytes() for path in files] == first


def test_check_names_what_is_not_up_to_date(project: Path) -> None:
    build.build_all()
    (project / "solutions" / "00_x.py").write_text(SOURCE + "# changed\n")
    before = (project / "lessons" / "00_x.ipynb").read_bytes()
    with pytest.raises(UserError, match=r"lessons/00_x.ipynb, solutions/00_x.ipynb. Run: deepnet-edu build"):
        build.build_all(check=True)
    assert (project / "lessons" / "00_x.ipynb").read_bytes() == before


def test_a_cell_that_fails_leaves_the_old_solution(project: Path) -> None:
    build.build_all()
    before = (project / "solutions" / "00_x.ipynb").read_bytes()
    (project / "solutions" / "00_x.py").write_text(SOURCE + "\n# %%\n1 / 0\n")
    with pytest.raises(UserError, match=r"00_x: a cell of the solution failed[\s\S]*ZeroDivisionError"):
        build.build_all()
    assert (project / "solutions" / "00_x.ipynb").read_bytes() == before


def test_prose_changes_without_a_new_run_and_code_does_not(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.build_all()
    ran = []
    real = build.executed
    monkeypatch.setattr(build, "executed", lambda *arguments: ran.append(1) or real(*arguments))
    source = project / "solutions" / "00_x.py"
    source.write_text(SOURCE.replace("Some text.", "Better text."))
    assert build.build_all() == ["built lessons/00_x.ipynb", "built solutions/00_x.ipynb"]
    solution = nbformat.read(project / "solutions" / "00_x.ipynb", as_version=4)
    assert solution.cells[1].source == "Better text."
    assert solution.cells[3].outputs[0].text == "1\n"
    assert not ran
    source.write_text(SOURCE.replace("SEED + 1", "SEED + 2"))
    build.build_all()
    assert nbformat.read(project / "solutions" / "00_x.ipynb", as_version=4).cells[3].outputs[0].text == "2\n"
    assert len(ran) == 1
    monkeypatch.setattr(build, "package_digest", lambda: "another package")
    build.build_all()
    assert len(ran) == 2
    assert build.build_all(check=True) == []  # of what the outputs were made is nbval's business


def test_a_widgets_random_id_does_not_stay(project: Path) -> None:
    widget = "\n# %%\nimport ipywidgets\n\nipywidgets.IntSlider()\n"
    (project / "solutions" / "00_x.py").write_text(SOURCE + widget)
    build.build_all()
    first = (project / "solutions" / "00_x.ipynb").read_bytes()
    (project / "solutions" / "00_x.ipynb").unlink()
    build.build_all()
    assert (project / "solutions" / "00_x.ipynb").read_bytes() == first


def test_a_split_cell_is_code_that_changed(project: Path) -> None:
    build.build_all()
    source = project / "solutions" / "00_x.py"
    source.write_text(SOURCE.replace("from matplotlib.figure", "import sys\n\n# %%\nfrom matplotlib.figure"))
    build.build_all()
    assert len(nbformat.read(project / "solutions" / "00_x.ipynb", as_version=4).cells) == 6


@pytest.mark.parametrize("damage", ["<<<<<<< HEAD\n{", ""])
def test_a_damaged_solution_or_a_lost_picture_is_made_anew(project: Path, damage: str) -> None:
    build.build_all()
    solution, image = project / "solutions" / "00_x.ipynb", project / "docs" / "images" / "00_x.png"
    solution.write_text(damage)
    with pytest.raises(UserError, match="solutions/00_x.ipynb"):
        build.build_all(check=True)
    assert build.build_all() == ["built solutions/00_x.ipynb"]
    image.unlink()
    with pytest.raises(UserError, match="docs/images/00_x.png"):
        build.build_all(check=True)
    assert build.build_all() == ["built docs/images/00_x.png"]


def test_what_has_no_source_any_more_is_named(project: Path) -> None:
    build.build_all()
    (project / "solutions" / "00_x.py").rename(project / "solutions" / "00_z.py")
    build.build_all()
    with pytest.raises(UserError, match=r"no source any more for lessons/00_x.ipynb, solutions/00_x.ipynb: delete it"):
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


def test_killed_in_the_middle_of_a_build_nothing_is_half_written(project: Path) -> None:
    build.build_all()
    before = {path: path.read_bytes() for path in project.rglob("*.ipynb")}
    slow = SOURCE + "\n# %%\nimport time\nfrom pathlib import Path\nPath('started').touch()\ntime.sleep(600)\n"
    (project / "solutions" / "00_x.py").write_text(slow)
    names = ("LESSONS", "SOLUTIONS", "IMAGES", "REFERENCES")
    code = "from pathlib import Path\nfrom deepnet_edu.course import build\n"
    code += "".join(f"build.{name} = Path({str(getattr(build, name))!r})\n" for name in names)
    process = subprocess.Popen([sys.executable, "-c", code + "build.build_all()"], start_new_session=True)
    deadline = time.monotonic() + 60
    while not (project / "solutions" / "started").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    solution = project / "solutions" / "00_x.ipynb"
    assert solution.read_bytes() == before[solution]
    for path in project.rglob("*.ipynb"):
        nbformat.validate(nbformat.read(path, as_version=4))
    with pytest.raises(UserError, match=r"solutions/00_x.ipynb. Run: deepnet-edu build"):
        build.build_all(check=True)
    (project / "solutions" / "00_x.py").write_text(SOURCE)
    build.build_all()
    assert {path: path.read_bytes() for path in project.rglob("*.ipynb")} == before


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
