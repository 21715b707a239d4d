"""The builder: deterministic, one direction, nothing half-written."""

import os
import re
import shutil
import signal
import time
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from deepnet_edu.course import build
from deepnet_edu.course.places import LESSONS, SOLUTIONS
from deepnet_edu.messages import UserError
from tests.course.source import HEAD
from tests.zygote import Python

pytestmark = pytest.mark.xdist_group("zygote")  # and its original takes a kernel
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

# %%
import ipywidgets

ipywidgets.IntSlider()
"""
)
MADE = ["lessons/00_x.ipynb", "solutions/00_x.ipynb", "docs/images/00_x.png"]


def begin(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A project of one lesson, which the builder takes for its own."""
    for name in ("lessons", "solutions"):
        (folder / name).mkdir()
    patch.setattr(build, "LESSONS", folder / "lessons")
    patch.setattr(build, "SOLUTIONS", folder / "solutions")
    patch.setattr(build, "IMAGES", folder / "docs" / "images")
    patch.setattr(build, "REFERENCES", folder / "references")
    (folder / "solutions" / "00_x.py").write_text(SOURCE)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has been built, and its solution executed by a kernel."""
    with pytest.MonkeyPatch.context() as patch:
        folder = begin(tmp_path_factory.mktemp("original"), patch)
        build.build_all()
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return begin(tmp_path, monkeypatch)


@pytest.fixture
def built(project: Path, original: Path) -> Path:
    """A copy of the original."""
    shutil.copytree(original, project, dirs_exist_ok=True)
    return project


@pytest.fixture
def ran(original: Path, monkeypatch: pytest.MonkeyPatch) -> list[NotebookNode]:
    """What is executed, without a kernel: a cell puts out what it did in the original, a new one nothing."""
    notebooks: list[NotebookNode] = []
    first = nbformat.read(original / "solutions" / "00_x.ipynb", as_version=4)
    known = {cell.source: cell for cell in first.cells if cell.cell_type == "code"}

    def executed(notebook: NotebookNode, folder: Path) -> NotebookNode:
        notebooks.append(result := nbformat.from_dict(notebook))
        for cell in result.cells:
            if cell.source in known:
                cell.outputs, cell.execution_count = known[cell.source].outputs, known[cell.source].execution_count
        return result

    monkeypatch.setattr(build, "executed", executed)
    return notebooks


def solution_of(project: Path) -> NotebookNode:
    return nbformat.read(project / "solutions" / "00_x.ipynb", as_version=4)


def test_one_source_makes_two_notebooks(original: Path) -> None:
    lesson = nbformat.read(original / "lessons" / "00_x.ipynb", as_version=4)
    solution = solution_of(original)
    assert [cell.id for cell in lesson.cells] == [cell.id for cell in solution.cells]
    assert lesson.cells[2].metadata.tags == ["parameters"]
    assert lesson.cells[3].outputs == []
    assert solution.cells[3].outputs[0].text == "1\n"
    assert solution.cells[5].outputs[0].data == {"text/plain": "IntSlider(value=0)"}  # without the widget's random id
    assert (original / "docs" / "images" / "00_x.png").read_bytes().startswith(b"\x89PNG")


def test_a_cell_with_the_tag_hide_input_is_folded(project: Path) -> None:
    source = project / "solutions" / "00_x.py"
    source.write_text(source.read_text(encoding="utf-8") + '\n# %% tags=["hide-input"]\n2\n', encoding="utf-8")
    (made,) = build.convert_all([source])
    assert [cell.metadata for cell in made.lesson.cells if "jupyter" in cell.metadata] == [
        {"tags": ["hide-input"], "jupyter": {"source_hidden": True}}
    ]


def test_two_builds_are_byte_identical_and_the_second_does_nothing(built: Path) -> None:
    assert build.build_all() == []
    first = {name: (built / name).read_bytes() for name in MADE}
    for name in MADE:
        (built / name).unlink()
    assert build.build_all() == [f"built {name}" for name in MADE]
    assert {name: (built / name).read_bytes() for name in MADE} == first


def test_all_below_a_heading_with_the_tag_room_is_folded(project: Path) -> None:
    source = project / "solutions" / "00_x.py"
    room = '\n# %% [markdown] tags=["room"]\n# ## A room\n'
    source.write_text(source.read_text(encoding="utf-8") + room, encoding="utf-8")
    (made,) = build.convert_all([source])
    assert made.lesson.cells[-1].metadata == {"tags": ["room"], "jp-MarkdownHeadingCollapsed": True}


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


def test_prose_changes_without_a_new_run_and_code_does_not(
    built: Path, ran: list[NotebookNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = built / "solutions" / "00_x.py"
    source.write_text(SOURCE.replace("Some text.", "Better text."))
    assert build.build_all() == ["built lessons/00_x.ipynb", "built solutions/00_x.ipynb"]
    solution = solution_of(built)
    assert solution.cells[1].source == "Better text."
    assert solution.cells[3].outputs[0].text == "1\n"
    assert not ran
    source.write_text(SOURCE.replace("SEED + 1", "SEED + 2"))
    build.build_all()
    assert solution_of(built).cells[3].outputs == []  # the new run's, which knows no such cell
    assert len(ran) == 1
    monkeypatch.setattr(build, "package_digest", lambda: "another package")
    build.build_all()
    assert len(ran) == 2
    assert build.build_all(check=True) == []  # of what the outputs were made is nbval's business


def test_a_split_cell_is_code_that_changed(built: Path, ran: list[NotebookNode]) -> None:
    source = built / "solutions" / "00_x.py"
    source.write_text(SOURCE.replace("from matplotlib.figure", "import sys\n\n# %%\nfrom matplotlib.figure"))
    build.build_all()
    assert len(ran) == 1
    assert len(solution_of(built).cells) == 7


@pytest.mark.parametrize("damage", ["<<<<<<< HEAD\n{", ""])
def test_a_damaged_solution_or_a_lost_picture_is_made_anew(built: Path, ran: list[NotebookNode], damage: str) -> None:
    solution, image = built / "solutions" / "00_x.ipynb", built / "docs" / "images" / "00_x.png"
    before = solution.read_bytes()
    solution.write_text(damage)
    with pytest.raises(UserError, match="solutions/00_x.ipynb"):
        build.build_all(check=True)
    assert build.build_all() == ["built solutions/00_x.ipynb"]
    assert solution.read_bytes() == before
    assert len(ran) == 1
    image.unlink()
    with pytest.raises(UserError, match="docs/images/00_x.png"):
        build.build_all(check=True)
    assert build.build_all() == ["built docs/images/00_x.png"]


def test_what_has_no_source_any_more_is_named(built: Path, ran: list[NotebookNode]) -> None:
    (built / "solutions" / "00_x.py").rename(built / "solutions" / "00_z.py")
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
    with pytest.raises(UserError, match="There are no sources of lessons in"):
        build.build_all(check=True)


def test_only_some_solutions(project: Path, ran: list[NotebookNode]) -> None:
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
    process = Python("-c", code + "build.build_all()")
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


def compared(cell: NotebookNode) -> bool:
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
