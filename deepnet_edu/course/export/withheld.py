"""The course with its answers withheld: a copy for students, which can be installed, and a folder for the teacher."""

import ast
import csv
import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from deepnet_edu.checks.names import lesson_of
from deepnet_edu.course.exercises import exercises_of
from deepnet_edu.course.export import new_folder
from deepnet_edu.course.places import DOCS, LESSONS, PACKAGE, REFERENCES, ROOT, SOLUTIONS

#: Pages that say what is right, or how to grade it.
_TEACHERS = ("exercises.md", "teach.md")
_BESIDE = ("pyproject.toml", "setup.py", "constraints.txt", "install.py", "LICENSE", "NOTICE")
_README = """# How Transformers are made a thousand layers deep

A course of notebooks. Its answers are withheld: a lesson continues once your own answer is right{later}.

    python install.py
    .venv/bin/deepnet-edu lab {first}

Your copies of the lessons are in `workspace/`. Hand in the notebooks of: {lessons}.
"""
_LATER = ", and your teacher checks it later"
_GRADE = """# For the teacher

Put each student's notebooks into a folder named after the student, all of these into one folder, and type in your
clone of the project:

    deepnet-edu grade submissions --csv class.csv {lessons}

`rubric.csv` has the points, `exercises.md` the wrong answers that each check knows, and `solutions/` the answers.
"""
_WITHHELD = '"""This course withholds the answer in words."""'


def export_withheld(folder: Path, lessons: Sequence[str], hide_checks: bool) -> list[str]:
    """students/, which can be given to anyone, and teacher/.

    Args:
        folder: new or empty.
        lessons: names of those to hand out.
        hide_checks: the checks stay with the teacher, too; a student's check says that it was noted.

    Returns:
        What was made, and what to type next, in lines.
    """
    with new_folder(folder) as made:
        _students(made / "students", lessons, hide_checks)
        _teacher(made / "teacher", lessons)
    return [
        f"{folder / 'students'}: {len(lessons)} lessons without answers{' or checks' if hide_checks else ''}",
        f"{folder / 'teacher'}: answers, rubric, and how to grade",
        f"next: hand out {folder / 'students'}",
    ]


def _students(to: Path, lessons: Sequence[str], hide_checks: bool) -> None:
    for path in sorted(_package()):
        _copy(path, to / path.relative_to(ROOT))
    checks = to / (PACKAGE / "checks").relative_to(ROOT)
    for path in sorted(checks.glob("lesson_*")):
        if hide_checks:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
                file.write_text(_without_formulas(file.read_text(encoding="utf-8")), encoding="utf-8")
    if hide_checks:
        for lesson in dict.fromkeys(lesson_of().values()):
            (checks / f"lesson_{lesson}.py").write_text(_hidden(lesson), encoding="utf-8")
    for name in lessons:
        _copy(LESSONS / f"{name}.ipynb", to / LESSONS.name / f"{name}.ipynb")
    for page in sorted(DOCS.glob("*.md")):
        if page.name not in _TEACHERS:
            _copy(page, to / DOCS.name / page.name)
    _copy(DOCS / "timings.json", to / DOCS.name / "timings.json")
    for name in _BESIDE:
        _copy(ROOT / name, to / name)
    said = _README.format(later=_LATER if hide_checks else "", first=lessons[0][:2], lessons=", ".join(lessons))
    (to / "README.md").write_text(said, encoding="utf-8")


def _teacher(to: Path, lessons: Sequence[str]) -> None:
    for name in lessons:
        for ending in ("py", "ipynb"):
            _copy(SOLUTIONS / f"{name}.{ending}", to / SOLUTIONS.name / f"{name}.{ending}")
    _copy(DOCS / "exercises.md", to / "exercises.md")
    (to / "rubric.csv").write_text(rubric(lessons), encoding="utf-8")
    options = " ".join(f"--lesson {name[:2]}" for name in exercises_of(lessons))
    (to / "README.md").write_text(_GRADE.format(lessons=options), encoding="utf-8")


def rubric(lessons: Sequence[str]) -> str:
    """A line per exercise as CSV: lesson, number, name, points, core or optional, difficulty, minutes."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["lesson", "number", "exercise", "points", "kind", "difficulty", "minutes"])
    for lesson, exercises in exercises_of(lessons).items():
        for one in exercises:
            kind = "optional" if one.optional else "core"
            table.writerow([lesson[:2], one.number, one.name, one.importance, kind, one.difficulty, one.minutes])
    return text.getvalue()


def _package() -> Iterator[Path]:
    """The package's files, without the reference answers and what Python and tools have put beside."""
    for path in PACKAGE.rglob("*"):
        answers = path.parent == REFERENCES and path.name != "__init__.py"
        hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(PACKAGE).parts)
        if path.is_file() and not answers and not hidden:
            yield path


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, to)


def _without_formulas(source: str) -> str:
    """A module of judges whose docstrings no longer say the answer in words."""
    lines = source.splitlines(keepends=True)
    for node in reversed([*ast.walk(ast.parse(source))]):
        if not isinstance(node, ast.FunctionDef) or not node.args.args or node.args.args[0].arg != "trial":
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            assert first.end_lineno is not None
            indent = " " * first.col_offset
            lines[first.lineno - 1 : first.end_lineno] = [
                f"{indent}{_WITHHELD}\n",
                *["\n"] * (first.end_lineno - first.lineno),
            ]
    return "".join(lines)


def _hidden(lesson: str) -> str:
    """A module of a lesson's judges that says which exercises there are, and nothing else."""
    names = [name for name, home in lesson_of().items() if home == lesson]
    table = "".join(f'    "{name}": later,\n' for name in names)
    return (
        f'"""Lesson {lesson}: its checks are with the teacher."""\n\n'
        "from deepnet_edu.checks.base import Judge, later\n\n"
        f"JUDGES: dict[str, Judge] = {{\n{table}}}\n"
    )
