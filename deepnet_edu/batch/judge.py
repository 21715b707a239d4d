"""What became of a run: from its exit status and the audit of its notebook, not from the notebook's metadata."""

import json
import re
from pathlib import Path

from deepnet_edu.batch import worker
from deepnet_edu.batch.active import Active, log_tail
from deepnet_edu.batch.audit import audit, expects, out_of_memory, recorded, take_end, take_markers, told
from deepnet_edu.course import places
from deepnet_edu.files import fault_point, read_json, write_atomic

NOTEBOOK = "notebook.ipynb"
#: Of an executed notebook.
MOST_BYTES = 2**31


def judge(active: Active, cell_timeout: float | None) -> bool:
    """Audit what a run has left; set its state, problems, notes and metrics; a whole notebook is ``notebook.ipynb``.

    Args:
        active: its process has ended.
        cell_timeout: seconds that a cell was given.

    Returns:
        Whether the GPU's memory was full.
    """
    run, folder, exit_ = active.run, active.folder, active.process.returncode
    if active.verdict is not None:
        run.state, run.problems = active.verdict[0], [active.verdict[1]]
        return False
    said = log_tail(folder).strip().splitlines()[-1:] or ["it said nothing"]
    if exit_ < 0 or exit_ == worker.EXITS["DeadKernelError"]:
        who = f"its process was ended by signal {-exit_}" if exit_ < 0 else "its kernel died"
        run.state, run.problems = "killed", [f"{who}: killed, crashed, or out of memory"]
        return False
    if exit_ == worker.EXITS["CellTimeoutError"]:
        run.state = "timed out"
        late = f"a cell took longer than {cell_timeout:g} s" if cell_timeout else f"papermill gave up: {said[0][-300:]}"
        run.problems = [late]
        return False
    run.state = "failed"
    if exit_ == worker.NO_KERNEL:
        run.problems = [f"its kernel did not start, {worker.STARTS} times over: see its log ({said[0][-300:]})"]
        return False
    if exit_ == worker.EXITS["NoSuchKernel"]:
        run.problems = [f"{said[0][-300:]}, on {run.host}: install it there, or say --kernel {worker.OWN_KERNEL}"]
        return False
    if exit_ == worker.NO_SPACE:
        run.problems = ["the disk is full"]
        return False
    try:
        notebook = read_json(folder / worker.PARTIAL, most=MOST_BYTES, links=False)
        ended = take_end(notebook)
    except (OSError, ValueError, LookupError):  # missing, or cut off in the middle
        run.problems = [f"papermill left no whole notebook: {said[0][-300:]}"]
        return False
    if exit_ == worker.EXITS["LostReplyError"]:
        run.problems = [f"{said[0].partition(': ')[2][-300:]}; run it again", *audit(notebook, ended=ended or {})]
    else:
        run.problems = audit(notebook, ended=ended)
    run.metrics = recorded(notebook)
    run.notes = told(ended, "notes")
    if exit_ and not run.problems and (ended is None or not expects(notebook)):
        run.problems = [f"papermill ended with status {exit_}: {said[0][-300:]}"]
    if not run.problems:
        take_markers(notebook)
    if ended is not None:
        active.peak = max(active.peak, ended.get("memory", 0) / 1e9)
        if ended.get("unused"):
            run.device = f"{active.slot.device}, which its kernel did not use"
    notebook["metadata"]["papermill"]["input_path"] = run.source  # papermill puts the whole notebook there
    write_atomic(folder / NOTEBOOK, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "result")
    fault_point("result: copied")
    (folder / worker.PARTIAL).unlink()
    run.state, run.audited = "failed" if run.problems else "done", True
    return bool(run.problems) and out_of_memory(notebook, ended)


def hinted(problem: str, source: str) -> str:
    """A problem, with what to type where a file is missed that the notebook has beside it.

    Args:
        problem: a sentence of the audit.
        source: where the notebook is.
    """
    if "FileNotFoundError" in problem or "No such file" in problem:
        quoted, bare = re.findall(r"['\"]([^'\"]+)['\"]", problem), re.findall(r"[\w/-]*[./][\w./-]*\w", problem)
        for name in (*quoted, *bare):
            if not Path(name).is_absolute() and (places.ROOT / source).with_name("x").parent.joinpath(name).exists():
                return f"{problem}; {name} is beside the notebook, so run it there: --cwd notebook"
    return problem
