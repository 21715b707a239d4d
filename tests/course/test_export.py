"""The course for a class: no answer leaves with it, and what comes back is graded as it should be."""

import ast
import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from deepnet_edu.checks import check
from deepnet_edu.course.exercises import BEGIN, exercises_of
from deepnet_edu.course.export import converted, new_folder
from deepnet_edu.course.export.platforms import export_nbgrader, export_otter
from deepnet_edu.course.export.withheld import export_withheld
from deepnet_edu.course.places import LESSONS, REFERENCES, ROOT, SOLUTIONS, lesson_names
from deepnet_edu.messages import UserError
from tests.course.three import FULL, LESSON, POINTS, STUDENTS, answered

pytestmark = pytest.mark.xdist_group("export")
ALL = exercises_of(lesson_names(SOLUTIONS, "py"))
SCRIPTS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def withheld(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("withheld") / "class"
    export_withheld(folder, lesson_names(SOLUTIONS, "py"), hide_checks=False)
    return folder


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hidden") / "class"
    export_withheld(folder, [LESSON], hide_checks=True)
    return folder


def texts(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Every file with its lines; of a notebook the lines of its cells."""
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".ipynb":
            text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        yield path.relative_to(folder).as_posix(), [line.strip() for line in text.splitlines() if line.strip()]


def bodies() -> Iterator[tuple[str, list[str]]]:
    """The lines of every reference answer, without its first line and docstring."""
    for path in sorted(REFERENCES.glob("lesson_*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.parse("\n".join(lines)).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in check.judges:
                first = node.body[1 if isinstance(node.body[0], ast.Expr) else 0]
                yield node.name, [one.strip() for one in lines[first.lineno - 1 : node.end_lineno] if one.strip()]


#: Answers of one line that the library needs itself, or that their judge compares with.
ELSEWHERE = {
    ("relu_correlation", "deepnet_edu/theory/moments.py"),
    ("depth_power", "deepnet_edu/probing/sweep.py"),
    ("rms_norm", "deepnet_edu/checks/lesson_02/norms.py"),
}
#: Files that know the markers, since they read them.
MARKERS = {"deepnet_edu/course/exercises.py", "deepnet_edu/course/export/platforms.py"}


def test_no_answer_is_in_what_students_get(withheld: Path) -> None:
    every = [*bodies()]
    assert [name for name, _ in every] == list(check.judges)
    for file, lines in texts(withheld / "students"):
        text = "\n".join(lines)
        found = {(name, file) for name, body in every if "\n".join(body) in text}
        assert found <= ELSEWHERE, found
        assert ("BEGIN SOLUTION" in text) == (file in MARKERS)
        if file.startswith("lessons/"):
            assert "raise NotImplementedError" in text or file.startswith("lessons/00")


def test_students_get_no_formula_no_solution_and_no_test(withheld: Path) -> None:
    students = withheld / "students"
    assert {path.name for path in students.iterdir()} == {
        "LICENSE", "NOTICE", "README.md", "constraints.txt", "deepnet_edu", "docs", "install.py", "lessons",
        "pyproject.toml", "setup.py",
    }  # fmt: skip
    assert [path.name for path in (students / "deepnet_edu/course/references").iterdir()] == ["__init__.py"]
    assert not {"exercises.md", "teach.md"} & {path.name for path in (students / "docs").iterdir()}
    for path in (students / "deepnet_edu/checks").rglob("lesson_*.py"):
        assert ast.parse(path.read_text(encoding="utf-8"))
    judges = "\n".join(path.read_text(encoding="utf-8") for path in (students / "deepnet_edu/checks").rglob("*.py"))
    assert "(α²/(α² + f))ⁿ" not in judges
    assert "each norm shrinks" in judges.casefold()  # cards still say what is wrong


def test_hidden_checks_are_not_in_what_students_get(hidden: Path) -> None:
    students = hidden / "students"
    text = (students / "deepnet_edu/checks/lesson_01.py").read_text()
    assert text.count(": later,") == len(POINTS) + 2  # optional ones, too
    assert "trial" not in text
    assert not [path for path in (students / "deepnet_edu/checks").glob("lesson_*") if path.is_dir()]
    assert [path.name for path in (students / "lessons").iterdir()] == [f"{LESSON}.ipynb"]
    kept = sorted(path.name for path in (hidden / "teacher/solutions").iterdir())
    assert kept == [f"{LESSON}.ipynb", f"{LESSON}.py"]


def test_the_teacher_gets_a_rubric(withheld: Path) -> None:
    rows = [*csv.DictReader((withheld / "teacher/rubric.csv").open(encoding="utf-8"))]
    assert [row["exercise"] for row in rows] == list(check.lesson_of)
    assert {
        row["exercise"]: int(row["points"]) for row in rows if row["lesson"] == "01" and row["kind"] == "core"
    } == POINTS
    assert "deepnet-edu grade submissions" in (withheld / "teacher/README.md").read_text()


STUDENT = """
import os, pathlib
from IPython.core.interactiveshell import InteractiveShell
from deepnet_edu.checks import check
from deepnet_edu.course import kit, places

assert str(places.ROOT) == {root!r}, places.ROOT
assert not places.CLONE
assert places.lesson_names()
shell = InteractiveShell.instance(colors="nocolor")
shell.user_ns["kit"], shell.user_ns["check"] = kit, check


def cell(source):
    print("RUN", source.split(chr(10))[0])
    print("ENDED", shell.run_cell(source, store_history=True).success)


cell({stub!r})
cell("check.input_share(input_share)")
cell("input_share = kit.mine_or_reference(input_share, 'input_share')")
cell("input_share = lambda n, f, alpha: 2")
cell("check.input_share(input_share, show_me=True)")
cell("input_share = kit.mine_or_reference(input_share, 'input_share')")
cell("kit.earlier('variance_by_depth')")
cell({right!r})
cell("check.input_share(input_share)")
cell("input_share = kit.mine_or_reference(input_share, 'input_share'); print(input_share(1, 1.0, 1.0))")
cell("print(len(kit.shipped('input_share')) > 80)")
print("NOTED", pathlib.Path(os.environ["DEEPNET_EDU_PROGRESS"]).exists())
"""
STUB = 'def input_share(n, f, alpha):\n    # Your turn.\n    raise NotImplementedError("input_share")'


def as_student(folder: Path, tmp_path: Path) -> list[list[str]]:
    """What a student's copy prints, cell by cell, in a process of its own."""
    program = STUDENT.format(root=str(folder / "students"), stub=STUB, right=FULL["input_share"])
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "students"),
        "DEEPNET_EDU_PROGRESS": str(tmp_path / ".progress.json"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout
    cells = [re.sub(r"Out\[\d+\]: \n?", "", part) for part in done.stdout.split("RUN ")[1:]]
    return [[line for line in cell.splitlines() if line] for cell in cells]


def test_a_lesson_waits_for_the_students_own_answer(withheld: Path, tmp_path: Path) -> None:
    _, open_, waits, _, wrong, again, earlier, _, right, goes_on, sent = as_student(withheld, tmp_path)
    assert "Not attempted yet" in open_[1]
    said = "input_share: this course withholds the answers, and the lesson needs yours: correct it"
    for cell in (waits, again):
        assert cell[1].startswith(said)
        assert cell[2:] == ["ENDED False"]
    assert "Not yet" in wrong[1]
    assert any("This course withholds the answer in words." in line for line in wrong)
    assert "variance_by_depth: this course withholds" in earlier[1]
    assert "solve it in lesson 01" in earlier[1]
    assert "Right" in right[1]
    assert goes_on[1:] == ["0.5", "ENDED True"]
    assert sent[1:] == ["True", "ENDED True", "NOTED True"]


def test_hidden_checks_say_that_they_come_later(hidden: Path, tmp_path: Path) -> None:
    _, open_, waits, _, noted, goes_on, _, _, right, own, sent = as_student(hidden, tmp_path)
    assert "Not attempted yet" in open_[1]
    assert "this course withholds the answers" in waits[1]
    for cell in (noted, right):
        assert cell[1].endswith("input_share: Noted. Your teacher's copy of the course checks it later.")
    assert goes_on[1:] == ["ENDED True"]
    assert own[1:] == ["0.5", "ENDED True"]
    assert sent[1:] == ["True", "ENDED True", "NOTED True"]
    known = json.loads((tmp_path / ".progress.json").read_text())["exercises"]
    assert {entry["state"] for entry in known.values()} == {"open"}  # the stub's check; nothing of right or wrong


def marked(folder: Path, lesson: str) -> dict[str, Any]:
    """nbgrader's cells of a lesson, by name."""
    notebook = nbformat.read(folder / "source" / lesson / f"{lesson}.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    return {cell.metadata.nbgrader.grade_id: cell for cell in cells}


def test_nbgrader_has_an_answer_and_a_check_for_each_exercise(tmp_path: Path) -> None:
    export_nbgrader(tmp_path / "course", lesson_names(SOLUTIONS, "py"), hide_checks=False)
    assert {path.name for path in (tmp_path / "course/source").iterdir()} == set(ALL)
    for lesson, exercises in ALL.items():
        cells = marked(tmp_path / "course", lesson)
        assert set(cells) == {f"{kind}-{one.name}" for one in exercises for kind in ("answer", "check")}
        for one in exercises:
            answer, test = cells[f"answer-{one.name}"], cells[f"check-{one.name}"]
            assert BEGIN in answer.source
            assert (answer.metadata.nbgrader.solution, answer.metadata.nbgrader.locked) == (True, False)
            assert (test.metadata.nbgrader.points, test.metadata.nbgrader.locked) == (one.importance, True)
            assert f"check.{one.name}({one.name})" in test.source
            assert 'assert found.state == "done"' in test.source
            assert "HIDDEN" not in test.source
    compile((tmp_path / "course/nbgrader_config.py").read_text(), "config", "exec")


def test_nbgraders_hidden_checks(tmp_path: Path) -> None:
    export_nbgrader(tmp_path / "course", [LESSON], hide_checks=True)
    source = marked(tmp_path / "course", LESSON)["check-input_share"].source
    assert source.startswith("### BEGIN HIDDEN TESTS\n")
    assert source.endswith("\n### END HIDDEN TESTS")


@pytest.mark.parametrize("hide", [False, True])
def test_otters_questions_are_nested_as_it_wants(hide: bool, tmp_path: Path) -> None:
    export_otter(tmp_path / "course", lesson_names(SOLUTIONS, "py"), hide_checks=hide)
    for lesson, exercises in ALL.items():
        notebook = nbformat.read(tmp_path / "course" / lesson / f"{lesson}.ipynb", as_version=4)
        nbformat.validate(notebook)
        raw = [cell.source.splitlines()[0] for cell in notebook.cells if cell.cell_type == "raw"]
        one = [f"# {word}" for word in (
            "BEGIN QUESTION", "BEGIN SOLUTION", "END SOLUTION", "BEGIN TESTS", "END TESTS", "END QUESTION",
        )]  # fmt: skip
        assert raw == ["# ASSIGNMENT CONFIG", *one * len(exercises)]
        tests = [cell.source for cell in notebook.cells if "def test_" in cell.source]
        assert all(source.startswith("# HIDDEN") == hide for source in tests)
        shown = [cell for cell in notebook.cells if cell.source.startswith("check.")]
        assert len(shown) == (0 if hide else len(exercises))
        for cell in notebook.cells:
            if "# BEGIN SOLUTION" in cell.source and cell.cell_type == "code":
                compile(cell.source, lesson, "exec")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for folder, said in (
        (tmp_path / "full", "is not empty"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "x", "cannot be written"),
        (ROOT / "docs" / "class", "is in the project's own docs"),
    ):
        with pytest.raises(UserError, match=said):
            export_withheld(folder, [LESSON], False)
    assert (tmp_path / "full" / "x").read_text() == "mine"
    with pytest.raises(UserError, match="no exercises in 00"):
        export_nbgrader(tmp_path / "none", ["00_a_thousand_layers"], False)
    assert not (tmp_path / "none").exists()


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> None:
        with new_folder(tmp_path / "class") as made:
            (made / "half").write_text("")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert not [*tmp_path.iterdir()]


def run(*command: str, cwd: Path) -> str:
    environment = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", "DEEPNET_EDU_PROFILE": "smoke"}
    done = subprocess.run(
        [str(SCRIPTS / command[0]), *command[1:]], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install {module.replace('otter', 'otter-grader')}")


#: With optional exercises, which these programs count as all others.
EVERY = sum(one.importance for one in ALL[LESSON])
SCORES = {"full": EVERY, "none": 0, "partial": POINTS["variance_by_depth"]}


@pytest.mark.course
def test_nbgrader_grades_three_students(tmp_path: Path) -> None:
    needs("nbgrader")
    course = tmp_path / "course"
    export_nbgrader(course, [LESSON], hide_checks=False)
    run("nbgrader", "generate_assignment", LESSON, "--create", cwd=course)
    release = course / "release" / LESSON / f"{LESSON}.ipynb"
    assert "SOLUTION" not in release.read_text()
    for student, answers in STUDENTS.items():
        place = course / "submitted" / student / LESSON
        place.mkdir(parents=True)
        (place / release.name).write_text(json.dumps(answered(release, answers)))
    run("nbgrader", "autograde", LESSON, cwd=course)
    run("nbgrader", "export", cwd=course)
    rows = csv.DictReader((course / "grades.csv").open())
    assert {row["student_id"]: float(row["score"]) for row in rows} == SCORES


@pytest.mark.course
def test_otter_grades_three_students(tmp_path: Path) -> None:
    needs("otter")
    export_otter(tmp_path / "course", [LESSON], hide_checks=False)
    place = tmp_path / "course" / LESSON
    run("otter", "assign", "--no-run-tests", "--no-pdfs", f"{LESSON}.ipynb", "dist", cwd=place)
    release = place / "dist" / "student" / f"{LESSON}.ipynb"
    assert "SOLUTION" not in release.read_text()
    (grader,) = (place / "dist" / "autograder").glob("*.zip")
    for student, answers in STUDENTS.items():
        own = tmp_path / student
        own.mkdir()
        (own / release.name).write_text(json.dumps(answered(release, answers)))
        run("otter", "run", "-a", str(grader), "-o", ".", release.name, cwd=own)
        tests = json.loads((own / "results.json").read_text())["tests"]
        assert sum(one.get("score") or 0 for one in tests) == SCORES[student]


def test_what_students_get_is_what_the_lessons_are(withheld: Path) -> None:
    for path in LESSONS.glob("*.ipynb"):
        assert (withheld / "students" / "lessons" / path.name).read_bytes() == path.read_bytes()


def test_the_page_for_teachers_counts_right() -> None:
    """Minutes, exercises and points of the ways through it."""
    page = (ROOT / "docs" / "teach.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:two|four|eight) hours \| ([\d, ]+) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert len(rows) == 3
    headers = {built.header.number: built.header.minutes for built, _ in converted(lesson_names(SOLUTIONS, "py"))}
    for listed, *numbers in rows:
        lessons = listed.split(", ")
        core = [one for name, every in ALL.items() if name[:2] in lessons for one in every if not one.optional]
        minutes = sum(headers[lesson] for lesson in lessons)
        assert [*map(int, numbers)] == [minutes, len(core), sum(one.importance for one in core)]
