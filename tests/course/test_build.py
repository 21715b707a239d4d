"""The builder: deterministic, one direction, nothing half-written."""

import re
from pathlib import Path

import nbformat
import pytest

from deepnet_edu.course import build
from deepnet_edu.course.places import LESSONS, SOLUTIONS
from deepnet_edu.messages import UserError

SOURCE = """# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Title

# %% tags=["parameters"]
SEED = 0

# %%
print(SEED + 1)

# %% tags=["headline"]
from matplotlib.figure import Figure

from deepnet_edu.figures import Picture

Picture(Figure(), alt="nothing")
"""


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
    assert build.build_all() == ["built lessons/00_x.ipynb", "built solutions/00_x.ipynb"]
    lesson = nbformat.read(project / "lessons" / "00_x.ipynb", as_version=4)
    solution = nbformat.read(project / "solutions" / "00_x.ipynb", as_version=4)
    assert [cell.id for cell in lesson.cells] == [cell.id for cell in solution.cells]
    assert lesson.cells[1].metadata.tags == ["parameters"]
    assert lesson.cells[2].outputs == []
    assert solution.cells[2].outputs[0].text == "1\n"
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
    with pytest.raises(UserError, match=r"lessons/00_x.ipynb, solutions/00_x.ipynb. Run: make build"):
        build.build_all(check=True)
    assert (project / "lessons" / "00_x.ipynb").read_bytes() == before


def test_a_cell_that_fails_leaves_the_old_solution(project: Path) -> None:
    build.build_all()
    before = (project / "solutions" / "00_x.ipynb").read_bytes()
    (project / "solutions" / "00_x.py").write_text(SOURCE + "\n# %%\n1 / 0\n")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        build.build_all()
    assert (project / "solutions" / "00_x.ipynb").read_bytes() == before


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
    assert all(re.match(r'<img alt="[^"]{20,}" src="data:image/png', picture) for picture in pictures)
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
