"""What really happened in an executed notebook.

Neither papermill's exit status nor a notebook's metadata is proof: a cell that calls sys.exit(0) counts as success
there, and an exception in a widget's callback hides in widget state.
"""

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

from PIL import Image

from deepnet_edu.batch.worker import END_MIME
from deepnet_edu.course.places import RECORD_MIME
from deepnet_edu.files import fault_point
from deepnet_edu.messages import FAULT

_WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
#: Cells that papermill puts between those of the notebook, which people count.
_PAPERMILLS = {"papermill-error-cell-tag", "injected-parameters"}
#: ``kit.record(...)`` or ``record(...)``; not ``self.record(...)``, not its definition.
_RECORDS = re.compile(r"(?<!def )(?<![\w.])(?:kit\.)?record\(")


def audit(notebook: dict[str, Any], *, ended: bool = True) -> list[str]:
    """What went wrong in an executed notebook, a sentence each: errors in outputs and in widget state, cells that did
    not run, a run that took no time, pictures without content, numbers that should have been recorded.

    Args:
        notebook: as papermill wrote it.
        ended: whether the kernel answered after the last cell: after a ``sys.exit(0)`` there it does not, and the
            assertions that followed did not run.
    """
    fault_point("audit: during")
    problems = []
    own = [cell for cell in notebook["cells"] if not _PAPERMILLS & {*cell["metadata"].get("tags", [])}]
    code = [(n, cell) for n, cell in enumerate(own, 1) if cell["cell_type"] == "code" and source(cell)]
    for n, cell in code:
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                problems.append(f"cell {n} raised {output['ename']}: {output['evalue'].strip()[:200]}")
            elif (png := output.get("data", {}).get("image/png")) and not _has_content(png):
                problems.append(f"cell {n} drew a picture with nothing in it")
    for widget in notebook["metadata"].get("widgets", {}).get(_WIDGET_STATE, {}).get("state", {}).values():
        for output in widget.get("state", {}).get("outputs", []) or []:
            if output.get("output_type") == "error":
                problems.append(f"a widget's callback raised {output.get('ename')}: {output.get('evalue', '')[:200]}")
        if FAULT in str(said := widget.get("state", {}).get("value", "")):
            problems.append(re.sub(r"<[^>]*>", "", str(said))[:200])
    skipped = [str(n) for n, cell in code if cell["execution_count"] is None]
    if skipped:
        problems.append(f"did not run: cell{'s' if len(skipped) > 1 else ''} {', '.join(skipped)}")
    elif not ended and not problems:
        problems.append("its kernel had gone before the last cell was over")
    if not code:
        problems.append("there is no code in it")
    if not notebook["metadata"].get("papermill", {}).get("duration"):
        problems.append("it took no time: nothing was executed")
    if not problems and any(_RECORDS.search(source(cell)) for _, cell in code) and not recorded(notebook):
        problems.append("it calls record(), but recorded nothing")
    return problems


def source(cell: dict[str, Any]) -> str:
    """The text of a cell, without space around it; on the disk it may be a list of lines."""
    return "".join(cell["source"]).strip()


def recorded(notebook: dict[str, Any]) -> dict[str, Any]:
    """All that ``kit.record`` wrote into a notebook; a later value replaces an earlier one of the same name."""
    found: dict[str, Any] = {}
    for output in _outputs(notebook):
        said = output.get("data", {}).get(RECORD_MIME)
        found |= said if isinstance(said, dict) else {}  # anybody can display something of that type
    return found


def out_of_memory(notebook: dict[str, Any]) -> bool:
    """Whether a cell found the GPU's memory full."""
    return any(output.get("ename") == "OutOfMemoryError" for output in _outputs(notebook))


def take_end(notebook: dict[str, Any]) -> bool:
    """Remove the cell that the worker put after the last one; whether the kernel answered there."""
    if not notebook["cells"] or END_MIME not in source(notebook["cells"][-1]):
        return False
    last = notebook["cells"].pop()
    return any(END_MIME in output.get("data", {}) for output in last["outputs"])


def _outputs(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for cell in notebook["cells"]:
        yield from cell.get("outputs", [])


def _has_content(png: str | list[str]) -> bool:
    """Whether a picture can be read and has more than one colour."""
    try:
        extrema = Image.open(io.BytesIO(base64.b64decode("".join(png)))).convert("RGBA").getextrema()
    except Exception:  # a damaged picture fails in many ways
        return False
    return any(low != high for low, high in extrema)  # type: ignore[misc]
