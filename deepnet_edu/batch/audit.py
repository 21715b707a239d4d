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

SKIP, RAISES = "skip-execution", "raises-exception"
#: Backends of matplotlib that write files: what they are told to show is seen nowhere.
_WRITERS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
_SHOWS = re.compile(r"^[^#\n]*\b(plt|pyplot)\.show\(", re.MULTILINE)
#: The line of a traceback that names an exception.
_EXCEPTION = re.compile(r"[\w.]*(Error|Exception)\b")
#: Of the CUDA driver and its libraries, of ROCm and of Metal; the CPU's memory is another matter.
_FULL = re.compile(
    r"OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"
    r"|\b(CUDA|HIP|NCCL|MPS|XPU|Cuda|cuda|hip|GPU)\b.*(out of memory|[Mm]emory allocation fail)"
    r"|(CU\w+|HIP\w+|ROC\w+|NCCL)_(STATUS_)?ALLOC_FAILED|Failed to (CUDA|Cuda|HIP) (host )?[cm]alloc"
)


def audit(notebook: dict[str, Any], *, ended: dict[str, Any] | None) -> list[str]:
    """What went wrong in an executed notebook, a sentence each: errors in outputs and in widget state, cells that did
    not run, threads and tasks that raised, a run that took no time, pictures without content, numbers that should have
    been recorded.

    A cell with the tag skip-execution need not run. One with the tag raises-exception may raise, and may also not.

    Args:
        notebook: as papermill wrote it.
        ended: what the kernel told after the last cell; None if it did not answer there: after a ``sys.exit(0)`` it
            does not, and the assertions that followed did not run.
    """
    fault_point("audit: during")
    problems = []
    own = [cell for cell in notebook["cells"] if not _PAPERMILLS & {*cell["metadata"].get("tags", [])}]
    code = [(n, cell) for n, cell in enumerate(own, 1) if cell["cell_type"] == "code" and source(cell)]
    for n, cell in code:
        problems += [f"cell {n} {what}" for what in _wrong(cell)]
    problems += [*_in_widgets(notebook), *told(ended, "faults"), *_vanished(code, ended or {})]
    problems += _left_out(code, ended, known=bool(problems))
    if not notebook["metadata"].get("papermill", {}).get("duration"):
        problems.append("it took no time: nothing was executed")
    if not problems and any(_RECORDS.search(source(cell)) for _, cell in code) and not recorded(notebook):
        problems.append("it calls record(), but recorded nothing")
    return problems


def _in_widgets(notebook: dict[str, Any]) -> Iterator[str]:
    """Errors that hide in the state of widgets."""
    for widget in notebook["metadata"].get("widgets", {}).get(_WIDGET_STATE, {}).get("state", {}).values():
        for output in widget.get("state", {}).get("outputs", []) or []:
            if output.get("output_type") == "error":
                yield f"a widget's callback raised {output.get('ename')}: {output.get('evalue', '')[:200]}"
        if FAULT in str(said := widget.get("state", {}).get("value", "")):
            yield re.sub(r"<[^>]*>", "", str(said))[:200]


def _left_out(code: list[tuple[int, dict[str, Any]]], ended: dict[str, Any] | None, known: bool) -> Iterator[str]:
    """Cells that did not run, or, where no other problem is ``known``, whose end was not seen."""
    skipped = [str(n) for n, cell in code if cell["execution_count"] is None and not _tagged(cell, SKIP)]
    if skipped:
        yield f"did not run: cell{'s' if len(skipped) > 1 else ''} {', '.join(skipped)}"
    elif ended is None and not known:
        yield "its kernel had gone before the last cell was over"
    if all(_tagged(cell, SKIP) for _, cell in code):
        yield "all of its code has the tag skip-execution" if code else "there is no code in it"


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


def out_of_memory(notebook: dict[str, Any], ended: dict[str, Any] | None) -> bool:
    """Whether something in a notebook that went wrong found the GPU's memory full, itself or as the cause of another
    exception."""
    said = told(ended, "faults")
    for output in _outputs(notebook):
        if output.get("output_type") == "error":
            lines = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.get("traceback", []))).splitlines()
            # In a traceback only what names an exception: a line of code may speak of a full memory too.
            said += [f"{output.get('ename')}: {output.get('evalue')}", *filter(_EXCEPTION.match, lines)]
    return any(_FULL.search(one) for one in said)


def take_end(notebook: dict[str, Any]) -> dict[str, Any] | None:
    """Remove the cell that the worker put after the last one; what the kernel told there, None if nothing."""
    if not notebook["cells"] or END_MIME not in source(notebook["cells"][-1]):
        return None
    for output in notebook["cells"].pop()["outputs"]:
        if isinstance(told := output.get("data", {}).get(END_MIME), dict):
            return told
    return None


def expects(notebook: dict[str, Any]) -> bool:
    """Whether a cell raised as its tag says, at which papermill ends with an error after the last cell."""
    cells = (cell for cell in notebook["cells"] if _tagged(cell, RAISES))
    return any(output["output_type"] == "error" for cell in cells for output in cell.get("outputs", []))


def take_markers(notebook: dict[str, Any]) -> None:
    """Remove the cells by which papermill announces an error: it does so of one that the notebook's author expects."""
    notebook["cells"] = [one for one in notebook["cells"] if not _tagged(one, "papermill-error-cell-tag")]


def told(ended: dict[str, Any] | None, what: str) -> list[str]:
    """What the kernel said at its end: its ``"faults"``, which make a run failed, or its ``"notes"``, which do not."""
    found = (ended or {}).get(what)  # anybody can display something of that type
    return [str(one)[:300] for one in found] if isinstance(found, list) else []


def _tagged(cell: dict[str, Any], tag: str) -> bool:
    return tag in cell["metadata"].get("tags", [])


def _wrong(cell: dict[str, Any]) -> Iterator[str]:
    """What went wrong in a cell, as what follows its name in a sentence."""
    expected, raised = _tagged(cell, RAISES), False
    for output in cell["outputs"]:
        if output["output_type"] == "error":
            raised = True
            if not expected:
                yield f"raised {output['ename']}: {output['evalue'].strip()[:200]}"
        elif png := output.get("data", {}).get("image/png"):
            yield from _flaw(png)
    if cell["metadata"].get("papermill", {}).get("exception") and not raised and not expected:
        said = "".join("".join(one["text"]) for one in cell["outputs"] if one.get("name") == "stderr").strip()
        yield f"failed: {said.splitlines()[-1][:200]}" if said else "failed, and said nothing of it"


def _outputs(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for cell in notebook["cells"]:
        yield from cell.get("outputs", [])


def _vanished(code: list[tuple[int, dict[str, Any]]], ended: dict[str, Any]) -> Iterator[str]:
    """Figures that a notebook has made and that cannot be seen in it."""
    if (backend := str(ended.get("backend", ""))).lower() not in _WRITERS:
        return
    ran = [(n, cell) for n, cell in code if cell["execution_count"] is not None]
    cells = [str(n) for n, cell in ran if _SHOWS.search(source(cell)) and not any(map(_is_picture, cell["outputs"]))]
    why = f"matplotlib's backend {backend} only writes files; remove matplotlib.use() or MPLBACKEND from the notebook"
    if cells:
        yield f"figures of cell{'s' if len(cells) > 1 else ''} {', '.join(cells)} are not shown: {why}"
    elif ended.get("figures") and not any("savefig" in source(cell) for _, cell in ran):
        yield f"its figures are not shown: {why}"


def _is_picture(output: dict[str, Any]) -> bool:
    return any(kind.startswith("image/") or "widget" in kind for kind in output.get("data", {}))


def _flaw(png: str | list[str]) -> Iterator[str]:
    """What is wrong with a picture: nothing is in it where all of it is white, or transparent."""
    try:
        picture = Image.open(io.BytesIO(base64.b64decode("".join(png)))).convert("RGBA")
        red, green, blue, opacity = (band.getextrema() for band in picture.split())
    except Exception:  # a damaged picture fails in many ways
        yield "drew a picture that cannot be read"
        return
    if opacity == (0, 0) or red == green == blue == (255, 255):
        yield "drew a picture with nothing in it"
