"""What students handed in: notebooks, or progress files, by student."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepnet_edu.files import parse_json, read_text
from deepnet_edu.messages import UserError, shown
from deepnet_edu.progress import FILE

#: Names that say nothing about whose file it is.
_NAMELESS = {"", "progress", "submission"}
_SKIPPED = {".ipynb_checkpoints"}


@dataclass
class Student:
    """One student's work.

    Attributes:
        name: of the folder or the file.
        path: where it was found.
        notebooks: by lesson, such as ``"02_layer_norm"``.
        progress: their progress file, or None.
        trouble: what could not be read, in sentences.
    """

    name: str
    path: Path
    notebooks: dict[str, Path] = field(default_factory=dict)
    progress: Path | None = None
    trouble: list[str] = field(default_factory=list)


def find_students(given: Sequence[Path], lessons: Sequence[str]) -> list[Student]:
    """The students behind paths: a notebook or progress file, one student's folder, or a folder of theirs.

    A student's folder holds notebooks, at any depth, or a progress file. A folder of which every folder is named like
    a lesson is one, too; of any other folder each folder is a student.

    Args:
        given: paths, as typed.
        lessons: names of the lessons.

    Raises:
        UserError: a path is not there or of another kind, holds nothing, two students have one name, or a student has
            two notebooks of one lesson.
    """
    students: list[Student] = []
    for path in given:
        if path.is_dir():
            found = [_folder(one, lessons) for one in _students(path, lessons)]
            found = [one for one in found if one.notebooks or one.progress or one.trouble]
            if not found:
                raise UserError(
                    f"{path} holds no notebook of a lesson and no {FILE}: give a student's folder, or a folder of them."
                )
            students += found
        elif path.is_file():
            _add(students, _file(path, lessons))
        else:
            raise UserError(f"There is no file or folder {path}: give notebooks, or folders of students.")
    seen: dict[str, Student] = {}
    for one in students:
        other = seen.setdefault(one.name.casefold(), one)
        if other is not one:
            raise UserError(f"Two students are called {one.name}: {other.path} and {one.path}. Rename one.")
    return sorted(students, key=lambda one: one.name.casefold())


def _add(students: list[Student], one: Student) -> None:
    """A file of a student of whom there is a file already."""
    for known in students:
        if known.name == one.name and known.path.is_file():
            for lesson, path in one.notebooks.items():
                _one_each(known, lesson, path)
            known.progress = known.progress or one.progress
            return
    students.append(one)


def _students(folder: Path, lessons: Sequence[str]) -> Iterator[Path]:
    inside = sorted(one for one in folder.iterdir() if one.is_dir() and one.name not in _SKIPPED)
    own = any(one.suffix == ".ipynb" or one.name == FILE for one in folder.iterdir() if one.is_file())
    if own or (inside and all(one.name in lessons for one in inside)):
        yield folder
    else:
        yield from (one for one in inside if not one.name.startswith("."))


def _folder(folder: Path, lessons: Sequence[str]) -> Student:
    student = Student(folder.resolve().name, folder)
    for path in sorted(folder.rglob("*.ipynb")):
        if _SKIPPED & {*path.relative_to(folder).parts} or path.is_symlink() or not path.is_file():
            continue
        lesson = _lesson(path.stem, lessons)
        if lesson is None:
            continue  # notes of their own
        try:
            cells_of(path)
        except ValueError as error:
            student.trouble.append(f"{student.name}: {path.name} is not a notebook ({error}); nothing of it counts.")
            continue
        _one_each(student, lesson, path)
    file = folder / FILE
    if not student.notebooks and file.is_file() and not file.is_symlink():
        student.progress = file
    return student


def _file(path: Path, lessons: Sequence[str]) -> Student:
    lesson = _lesson(path.stem, lessons)
    name = re.sub(r"\d\d_[a-z_]+|^\.", "", path.stem).strip("-_. ") if lesson else path.stem.strip(".")
    if name.casefold() in _NAMELESS:
        name = path.resolve().parent.name
    student = Student(name, path)
    if path.suffix == ".json":
        student.progress = path
        return student
    if path.suffix != ".ipynb":
        raise UserError(f"{path} is not a notebook or a progress file: give files that end in .ipynb or .json.")
    if lesson is None:
        raise UserError(
            f"{path}: the file's name names no lesson: call it as the lesson is called, such as {lessons[1]}.ipynb."
        )
    try:
        cells_of(path)
    except ValueError as error:
        raise UserError(f"{path} is not a notebook ({error}): ask for the file again.") from None
    student.notebooks[lesson] = path
    return student


def _one_each(student: Student, lesson: str, path: Path) -> None:
    if lesson in student.notebooks:
        raise UserError(
            f"{student.name} has two notebooks of lesson {lesson[:2]}: {student.notebooks[lesson]} and {path}. "
            "Keep one."
        )
    student.notebooks[lesson] = path


def _lesson(stem: str, lessons: Sequence[str]) -> str | None:
    """The lesson that a file's name holds: 02_layer_norm, anna-02_layer_norm, 02_layer_norm (1)."""
    return next((name for name in lessons if name in stem), None)


def cells_of(path: Path) -> list[str]:
    """The sources of a notebook's code cells.

    Raises:
        ValueError: it is not a notebook.
    """
    try:
        notebook: Any = parse_json(read_text(path, links=False))
    except OSError as error:
        raise ValueError(error.strerror or "it cannot be read") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise ValueError("it has no cells")
    sources = []
    for cell in cells:
        if not isinstance(cell, dict):
            raise ValueError(f"a cell is {shown(cell)}")
        source = cell.get("source")
        text = "".join(map(str, source)) if isinstance(source, list) else source
        if cell.get("cell_type") == "code" and isinstance(text, str):
            sources.append(text)
    return sources
