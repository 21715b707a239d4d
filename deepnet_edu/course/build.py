"""solutions/NN_name.py (percent format) → lessons/NN_name.ipynb with stubs and without outputs, solutions/NN_name.ipynb
executed, and the module of reference answers.

The picture of the cell tagged ``headline`` also goes to docs/images/NN_name.png, for the README. In one direction, and
deterministic: cell ids follow from the lesson and the cell's position, execution times are not recorded, and widget
state is dropped. A solution runs again only when its code, the package or a record has changed; when only its prose
has, the outputs in it are kept.
"""

import base64
import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from deepnet_edu.course.exercises import BEGIN, END, find_exercises, reference_module, rendered_prompt, stub
from deepnet_edu.course.glossary import PAGE, anchors, linked
from deepnet_edu.course.header import TABLE, Header, first_cell, navigation, read_header, table
from deepnet_edu.course.places import (
    DOCS,
    IMAGES,
    LESSONS,
    PAGES,
    REFERENCES,
    SOLUTIONS,
    lesson_names,
    package_digest,
)
from deepnet_edu.files import write_atomic
from deepnet_edu.messages import UserError

CELL_TIMEOUT_S = 900
#: Files that are named where more are not up to date.
_NAMED = 8
#: Tag of a cell whose source JupyterLab folds, and MyST's pages, too.
FOLDED = "hide-input"
#: Key in a solution's metadata: the digest of all that its outputs depend on.
MADE_FROM = "made_from"
#: Tag of a heading below which JupyterLab folds everything, down to the next heading of its level or above.
ROOM = "room"


@dataclass(frozen=True)
class Built:
    """What one source makes.

    Attributes:
        header: what the lesson says of itself.
        lesson: the learner's notebook: stubs, no outputs.
        solution: the same cells with the answers, not yet executed.
        reference: source of the module with the answers, None for a lesson without exercises.
    """

    header: Header
    lesson: NotebookNode
    solution: NotebookNode
    reference: str | None

    @property
    def name(self) -> str:
        """Name of the lesson."""
        return self.header.name

    def files(self) -> dict[Path, str]:
        """All that needs no execution, by path."""
        files = {LESSONS / f"{self.name}.ipynb": nbformat.writes(self.lesson) + "\n"}
        if self.reference is not None:
            files[REFERENCES / f"lesson_{self.name[:2]}.py"] = self.reference
        return files

    @property
    def path(self) -> Path:
        """Path of the executed solution."""
        return SOLUTIONS / f"{self.name}.ipynb"

    @property
    def image(self) -> Path:
        """Path of the headline picture."""
        return IMAGES / f"{self.name}.png"


def build_all(check: bool = False, only: Sequence[str] = ()) -> list[str]:
    """Build every lesson; one line per file that was written.

    Args:
        check: write nothing; compare sources, ids, metadata and tags with what is committed.
        only: names of the lessons whose solutions are made; all by default.

    Raises:
        UserError: a source is incomplete; with ``check``, the files that are not up to date.
    """
    all_built = convert_all([SOLUTIONS / f"{name}.py" for name in lesson_names(SOLUTIONS, "py")])
    readme = SOLUTIONS.parent / "README.md"
    filled = filled_readme(_read(readme) or "", [built.header for built in all_built])
    if check:
        _check(all_built, only, [readme] if filled != (_read(readme) or "") else [])
        return []
    written = []
    if filled != (_read(readme) or ""):
        write_atomic(readme, filled)
        written.append(readme)
    for built in all_built:  # all references first: the package that solutions run with is whole
        for path, text in built.files().items():
            if _read(path) != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, text)
                written.append(path)
    package = package_digest()
    for built in all_built:
        if not only or built.name in only:
            written += _make_solution(built, package)
    return [f"built {path.relative_to(SOLUTIONS.parent).as_posix()}" for path in written]


def filled_readme(readme: str, headers: Sequence[Header]) -> str:
    """The README with its table of lessons as sources and timings have it; one without a table stays as it is."""
    before, found, after = readme.partition(TABLE)
    return before + table(headers) + after[after.index("\n\n") + 1 :] if found else readme


def _check(all_built: Sequence[Built], only: Sequence[str], stale: list[Path]) -> None:
    """Raise a UserError that names what differs from its source (``stale`` does), or has none any more."""
    for built in all_built:
        if only and built.name not in only:
            continue
        solution = _notebook(built.path)
        stale += [path for path, text in built.files().items() if _read(path) != text]
        if _skeleton(solution) != _skeleton(built.solution):
            stale.append(built.path)
        elif solution is not None and _headline(solution) != _bytes(built.image):
            stale.append(built.image)
    known = {path for built in all_built for path in (built.path, *built.files())}
    made = [*LESSONS.glob("*.ipynb"), *SOLUTIONS.glob("*.ipynb"), *REFERENCES.glob("lesson_*.py")]
    orphans = sorted(path for path in made if path not in known)
    for paths, said in (
        (stale, "Not up to date with its source: {}. Run: deepnet-edu build"),
        (orphans, "There is no source any more for {}: delete it."),
    ):
        if paths:
            names = [path.relative_to(SOLUTIONS.parent).as_posix() for path in paths]
            more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
            raise UserError(said.format(", ".join([*names[:_NAMED], *more])))


def _make_solution(built: Built, package: str) -> list[Path]:
    """Execute a solution, or keep the outputs that still hold; the files that were written."""
    made_from = _digest([package, *(cell.source for cell in built.solution.cells if _is_code(cell))])
    old = _notebook(built.path)
    if old is not None and old.metadata.get(MADE_FROM) == made_from:
        result = nbformat.from_dict(built.solution)
        for cell, ran in zip(filter(_is_code, result.cells), filter(_is_code, old.cells), strict=True):
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    else:
        try:
            result = executed(built.solution, built.path.parent)
        except CellExecutionError as error:
            print(error, file=sys.stderr)
            sentence = f"{built.name}: a cell of the solution failed, see above ({error.ename}: {error.evalue})."
            raise UserError(sentence) from error
    result.metadata[MADE_FROM] = made_from
    files = {built.path: (nbformat.writes(result) + "\n").encode()}
    if png := _headline(result):
        files[built.image] = png
    written = [path for path, content in files.items() if _bytes(path) != content]
    for path in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, files[path])
    return written


def convert_all(sources: Sequence[Path]) -> list[Built]:
    """All lessons, each with the way to its neighbours.

    Raises:
        UserError: a head or an exercise is incomplete.
    """
    notebooks = {source: _source(source) for source in sources}
    headers = [read_header(notebook, source.stem) for source, notebook in notebooks.items()]
    result = []
    for header, notebook in zip(headers, notebooks.values(), strict=True):
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(first_cell(header)))
        if len(headers) > 1:
            notebook.cells.append(nbformat.v4.new_markdown_cell(navigation(header, headers)))
        result.append(_convert(notebook, header))
    return result


def _source(path: Path) -> NotebookNode:
    """A percent-format file as a notebook, its YAML head in the metadata."""
    try:
        return jupytext.read(path)
    except Exception as error:  # of the YAML parser, which does not say in which file
        raise UserError(f"{path.name}: the head of the source cannot be read as YAML: {error}") from error


def _convert(notebook: NotebookNode, header: Header) -> Built:
    """Both notebooks: no outputs, ids fixed by lesson and position, plain metadata."""
    name = header.name
    exercises = {exercise.name: exercise for exercise in find_exercises(notebook, name)}
    lesson, solution = nbformat.v4.new_notebook(), nbformat.v4.new_notebook()
    for made in (lesson, solution):
        made.metadata = NotebookNode(
            kernelspec=NotebookNode(display_name="Python 3 (ipykernel)", language="python", name="python3"),
            language_info=NotebookNode(name="python"),
        )
    known = anchors((DOCS / PAGE).read_text(encoding="utf-8"))
    imports = ""
    for position, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        exercise = exercises.get(cell.metadata.get("exercise", ""))
        if "imports" in tags:
            imports = f"{imports}\n\n{cell.source}".strip()
        if exercise is None and any(marker in cell.source for marker in (BEGIN, END)):
            raise UserError(f'{name}: a cell with {BEGIN} names no exercise: write # %% exercise="…" above it.')
        cell.id = hashlib.sha256(f"{name}/{position}".encode()).hexdigest()[:12]
        cell.metadata = NotebookNode(tags=tags) if tags else NotebookNode()
        if FOLDED in tags:
            cell.metadata["jupyter"] = NotebookNode(source_hidden=True)
        if exercise and cell.cell_type == "markdown":
            cell.source = rendered_prompt(cell.source, exercise, name[:2])
        if ROOM in tags:
            cell.metadata["jp-MarkdownHeadingCollapsed"] = True
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source, known, name)
        for made in (lesson, solution):
            own = nbformat.from_dict(cell)
            if exercise and own.cell_type == "code":
                own.source = stub(cell.source, exercise) if made is lesson else exercise.solution
            for page in PAGES if own.cell_type == "markdown" else ():
                own.source = re.sub(rf"\]\({re.escape(page)}(?=[)#])", f"](../{DOCS.name}/{page}", own.source)
            made.cells.append(own)
    for made in (lesson, solution):
        nbformat.validate(made)
    reference = reference_module(name, imports, list(exercises.values())) if exercises else None
    return Built(header, lesson, solution, reference)


def executed(notebook: NotebookNode, folder: Path, profile: str = "cpu") -> NotebookNode:
    """A copy of ``notebook`` run from top to bottom in ``folder``.

    Args:
        notebook: without outputs.
        folder: the kernel's working directory.
        profile: at which size; what is committed is made with ``"cpu"``.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    result = nbformat.from_dict(notebook)
    client = NotebookClient(
        result,
        timeout=CELL_TIMEOUT_S,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    # A learner's own settings and progress have no part in what is committed.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DEEPNET_EDU_")}
    client.execute(env={"OMP_WAIT_POLICY": "PASSIVE", **environment, "DEEPNET_EDU_PROFILE": profile})
    result.metadata.pop("widgets", None)
    for cell in filter(_is_code, result.cells):
        for output in cell.outputs:  # without its state a widget shows as text, and its id is random
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    # Only what a kernel of the same name writes on every machine stays: its Python version does not.
    result.metadata["language_info"] = NotebookNode(name="python")
    return result


def _headline(notebook: NotebookNode) -> bytes | None:
    """The picture of the cell tagged ``headline``, as PNG, if there is one."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []) if "headline" in cell.metadata.get("tags", []) else []:
            picture = re.search('src="data:image/png;base64,([^"]+)"', output.get("data", {}).get("text/html", ""))
            if picture:
                return base64.b64decode(picture[1])
    return None


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def _is_code(cell: NotebookNode) -> bool:
    return bool(cell.cell_type == "code")


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _notebook(path: Path) -> NotebookNode | None:
    """The notebook at ``path``, None if there is none: then it is made again."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception:  # missing, or damaged in one of many ways
        return None


def _skeleton(notebook: NotebookNode | None) -> Any:
    """All of a solution but its outputs, and of what they were made."""
    if notebook is None:
        return None
    metadata = {key: value for key, value in notebook.metadata.items() if key != MADE_FROM}
    return metadata, [(cell.id, cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells]
