"""solutions/NN_name.py (percent format) → lessons/NN_name.ipynb with stubs and without outputs, solutions/NN_name.ipynb
executed, and the module of reference answers.

The picture of the cell tagged ``headline`` also goes to docs/images/NN_name.png, for the README. In one direction, and
deterministic: cell ids follow from the lesson and the cell's position, execution times are not recorded, and widget
state is dropped.
"""

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from deepnet_edu.course.exercises import find_exercises, reference_module, rendered_prompt, stub
from deepnet_edu.course.places import IMAGES, LESSONS, REFERENCES, SOLUTIONS
from deepnet_edu.files import write_atomic
from deepnet_edu.messages import UserError

CELL_TIMEOUT_S = 900


@dataclass(frozen=True)
class Built:
    """What one source makes.

    Attributes:
        lesson: the learner's notebook: stubs, no outputs.
        solution: the same cells with the answers, not yet executed.
        reference: source of the module with the answers, None for a lesson without exercises.
    """

    lesson: NotebookNode
    solution: NotebookNode
    reference: str | None


def build_all(check: bool = False) -> list[str]:
    """Build every lesson; one line per file that was written.

    Args:
        check: write nothing; compare sources, ids and tags with what is committed.

    Raises:
        UserError: an exercise is incomplete; with ``check``, the files that are not up to date.
    """
    written: list[str] = []
    stale: list[str] = []
    sources = sorted(SOLUTIONS.glob("[0-9][0-9]_*.py"))
    for source, built in [(source, convert(source)) for source in sources]:
        lesson, solution = LESSONS / f"{source.stem}.ipynb", SOLUTIONS / f"{source.stem}.ipynb"
        reference = REFERENCES / f"lesson_{source.stem[:2]}.py"
        old = [
            path for path, notebook in ((lesson, built.lesson), (solution, built.solution)) if not _same(path, notebook)
        ]
        if built.reference is not None and not (reference.exists() and reference.read_text() == built.reference):
            old.insert(0, reference)
        if check:
            stale += [str(path.relative_to(SOLUTIONS.parent)) for path in old]
            continue
        for path in old:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path == reference:
                write_atomic(path, built.reference or "")
            elif path == lesson:
                write_atomic(path, nbformat.writes(built.lesson) + "\n")
            else:
                result = executed(built.solution, path.parent)
                write_atomic(path, nbformat.writes(result) + "\n")
                _keep_headline(result, IMAGES / f"{source.stem}.png")
            written.append(f"built {path.relative_to(SOLUTIONS.parent)}")
    if stale:
        raise UserError(f"Not up to date with its source: {', '.join(stale)}. Run: make build")
    return written


def convert(source: Path) -> Built:
    """Both notebooks of a percent-format file: no outputs, ids fixed by lesson and position, plain metadata.

    Raises:
        UserError: an exercise is incomplete.
    """
    notebook = jupytext.read(source)
    exercises = {exercise.name: exercise for exercise in find_exercises(notebook, source.stem)}
    lesson, solution = nbformat.v4.new_notebook(), nbformat.v4.new_notebook()
    for made in (lesson, solution):
        made.metadata = NotebookNode(
            kernelspec=NotebookNode(display_name="Python 3 (ipykernel)", language="python", name="python3"),
            language_info=NotebookNode(name="python"),
        )
    imports = ""
    for position, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        exercise = exercises.get(cell.metadata.get("exercise", ""))
        if "imports" in tags:
            imports = cell.source
        cell.id = hashlib.sha256(f"{source.stem}/{position}".encode()).hexdigest()[:12]
        cell.metadata = NotebookNode(tags=tags) if tags else NotebookNode()
        if exercise and cell.cell_type == "markdown":
            cell.source = rendered_prompt(cell.source, exercise, source.stem[:2])
        for made in (lesson, solution):
            own = nbformat.from_dict(cell)
            if exercise and own.cell_type == "code":
                own.source = stub(cell.source, exercise) if made is lesson else exercise.solution
            made.cells.append(own)
    for made in (lesson, solution):
        nbformat.validate(made)
    reference = reference_module(source.stem, imports, list(exercises.values())) if exercises else None
    return Built(lesson, solution, reference)


def executed(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """A copy of ``notebook`` run from top to bottom in ``folder``, under the profile of the environment.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    result = nbformat.from_dict(notebook)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    client = NotebookClient(
        result,
        timeout=CELL_TIMEOUT_S,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    result.metadata.pop("widgets", None)
    # Only what a kernel of the same name writes on every machine stays: its Python version does not.
    result.metadata["language_info"] = NotebookNode(name="python")
    return result


def _keep_headline(notebook: NotebookNode, path: Path) -> None:
    """Write the picture of the cell tagged ``headline``, if there is one."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []) if "headline" in cell.metadata.get("tags", []) else []:
            picture = re.search('src="data:image/png;base64,([^"]+)"', output.get("data", {}).get("text/html", ""))
            if picture:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, base64.b64decode(picture[1]))


def _same(path: Path, notebook: NotebookNode) -> bool:
    if not path.exists():
        return False

    def skeleton(node: NotebookNode) -> list[tuple[str, str, str, list[str]]]:
        return [(cell.id, cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in node.cells]

    return skeleton(nbformat.read(path, as_version=4)) == skeleton(notebook)
