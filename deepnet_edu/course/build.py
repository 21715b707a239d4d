"""solutions/NN_name.py (percent format) → lessons/NN_name.ipynb without outputs, solutions/NN_name.ipynb executed.

The picture of the cell tagged ``headline`` also goes to docs/images/NN_name.png, for the README. In one direction, and
deterministic: cell ids follow from the lesson and the cell's position, execution times are not recorded, and widget
state is dropped.
"""

import base64
import hashlib
import os
import re
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from deepnet_edu.course.places import IMAGES, LESSONS, SOLUTIONS
from deepnet_edu.files import write_atomic
from deepnet_edu.messages import UserError

CELL_TIMEOUT_S = 900


def build_all(check: bool = False) -> list[str]:
    """Build every lesson; one line per notebook that was written.

    Args:
        check: write nothing; compare sources, ids and tags with what is committed.

    Raises:
        UserError: with ``check``, the notebooks that are not up to date.
    """
    written, stale = [], []
    for source in sorted(SOLUTIONS.glob("[0-9][0-9]_*.py")):
        notebook = convert(source)
        for path, execute in ((LESSONS / f"{source.stem}.ipynb", False), (SOLUTIONS / f"{source.stem}.ipynb", True)):
            if _up_to_date(path, notebook):
                continue
            if check:
                stale.append(str(path.relative_to(LESSONS.parent)))
                continue
            result = executed(notebook, path.parent) if execute else notebook
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, nbformat.writes(result) + "\n")
            if execute:
                _keep_headline(result, IMAGES / f"{source.stem}.png")
            written.append(f"built {path.relative_to(LESSONS.parent)}")
    if stale:
        raise UserError(f"Not up to date with its source: {', '.join(stale)}. Run: make build")
    return written


def convert(source: Path) -> NotebookNode:
    """The notebook of a percent-format file: no outputs, ids fixed by lesson and position, plain metadata."""
    notebook = jupytext.read(source)
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(display_name="Python 3 (ipykernel)", language="python", name="python3"),
        language_info=NotebookNode(name="python"),
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for position, cell in enumerate(notebook.cells):
        cell.id = hashlib.sha256(f"{source.stem}/{position}".encode()).hexdigest()[:12]
        tags = cell.metadata.get("tags", [])
        cell.metadata = NotebookNode(tags=tags) if tags else NotebookNode()
    nbformat.validate(notebook)
    return notebook


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


def _up_to_date(path: Path, notebook: NotebookNode) -> bool:
    if not path.exists():
        return False

    def skeleton(node: NotebookNode) -> list[tuple[str, str, str, list[str]]]:
        return [(cell.id, cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in node.cells]

    return skeleton(nbformat.read(path, as_version=4)) == skeleton(notebook)
