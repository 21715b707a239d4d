"""The course for a class: for nbgrader, for Otter-Grader, or with its answers withheld."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jupytext
from nbformat import NotebookNode

from deepnet_edu.course.build import Built, convert_all
from deepnet_edu.course.places import DOCS, PAGES, ROOT, SOLUTIONS
from deepnet_edu.messages import UserError


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill; on leaving it becomes ``folder``, which is there whole or not at all.

    Args:
        folder: not there, or empty.

    Raises:
        UserError: it is a file, holds something, is in the project's own folders, or cannot be written.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: choose another folder, or empty this one.")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose a folder that is not there yet.")
    for part in ("deepnet_edu", "lessons", "solutions", "docs", "tests"):
        if folder.resolve().is_relative_to(ROOT / part):
            raise UserError(f"{folder} is in the project's own {part}: choose a folder outside.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
        try:
            yield made
            os.chmod(made, 0o755)
            if folder.exists():
                folder.rmdir()
            os.rename(made, folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): choose another folder.") from error


def converted(lessons: Sequence[str]) -> list[tuple[Built, list[NotebookNode]]]:
    """Each lesson as it is built, and for each of its cells the cell of its source, with exercise and markers.

    Args:
        lessons: their names.
    """
    paths = [SOLUTIONS / f"{name}.py" for name in lessons]
    pairs = []
    for path, built in zip(paths, convert_all(paths), strict=True):
        cells = [NotebookNode(cell_type="markdown", source="", metadata={}), *jupytext.read(path).cells]
        cells += [cells[0]] * (len(built.lesson.cells) - len(cells))  # the ways to other lessons
        pairs.append((built, cells))
    return pairs


def with_pages(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Put the pages to which lessons link beside a notebook, and let its links lead there."""
    for page in PAGES:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(DOCS / page, folder / page)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace(f"](../{DOCS.name}/", "](")
    return notebook
