"""Notebooks with kernels: what really happened is found, whatever papermill calls a success."""

import json
import os
from pathlib import Path

import nbformat
import psutil
import pytest
import torch

from deepnet_edu.batch import worker
from deepnet_edu.batch.audit import audit, recorded, take_end
from deepnet_edu.batch.local import Limits
from deepnet_edu.batch.plan import Request, make_plan
from deepnet_edu.batch.processes import marked
from deepnet_edu.batch.run import run_batch
from deepnet_edu.batch.slots import find_gpus, make_slots
from deepnet_edu.batch.state import Status
from tests.batch.conftest import write_notebook

CALLBACK = (
    "import ipywidgets\nfrom IPython.display import display\ns = ipywidgets.IntSlider()\n"
    "w = ipywidgets.interactive_output(lambda x: 1 / x, {'x': s})\ndisplay(w)"
)
PICTURES = """
import io
from IPython.display import Image, display
from PIL import Image as P
def png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return Image(file.getvalue())
display(png(P.linear_gradient("L")))
"""
#: A process that a cell leaves behind.
SLEEP = ["sleep", f"600.{os.getpid()}"]
NOTEBOOKS: dict[str, list[str]] = {
    "never ends": [f"import subprocess, time\nsubprocess.Popen({SLEEP}, start_new_session=True)\ntime.sleep(600)"],
    "good ä": [
        "import helper, os\nprint(os.environ['DEEPNET_EDU_PROFILE'], SEED, RATE, NAME, DEEP, helper.NAME)",
        "from deepnet_edu.course.places import RECORD_MIME\nfrom IPython.display import display\n"
        "def record(**values): display({RECORD_MIME: values, 'text/plain': ''}, raw=True)\n"
        "record(loss=0.5)\nrecord(loss=0.25, depths=[1, 2])",
        PICTURES,
        "",
    ],
    "listens": [
        "import psutil\nsockets = psutil.Process().net_connections('inet')\n"
        "assert not [one for one in sockets if one.status == 'LISTEN' and not one.laddr.ip.startswith('127.')]"
    ],
    "pictures": [PICTURES + "display(png(P.new('RGB', (9, 9), 'white')))"],
    "raises": ["1 / 0", "2"],
    "exits": ["import sys\nsys.exit(0)\nassert False"],
    "dies": ["import os\nos._exit(1)"],
    "callback": [CALLBACK],
    "records nothing": ["if False:\n    kit.record(loss=0)"],
}


BAD = {
    "pictures": ("failed", ["cell 2 drew a picture with nothing in it"]),
    "raises": ("failed", ["cell 2 raised ZeroDivisionError: division by zero", "did not run: cell 3"]),
    "exits": ("failed", ["cell 2 raised SystemExit: 0"]),
    "dies": ("killed", ["its kernel died: killed, crashed, or out of memory"]),
    "callback": ("failed", ["a widget's callback raised ZeroDivisionError: division by zero"]),
    "records nothing": ("failed", ["it calls record(), but recorded nothing"]),
    "never ends": ("timed out", ["a cell took longer than 30 s"]),
}


def test_what_papermill_may_call_a_success_is_found(working: Path) -> None:
    """All in one test: a kernel takes seconds to start, and two processes of pytest would both run the batch."""
    Path("helper.py").write_text("NAME = 'beside the notebook'")
    for name, sources in NOTEBOOKS.items():
        write_notebook(Path(f"{name}.ipynb"), *sources)
    given = ("SEED=7", "RATE=1e-5", "NAME=a/../b; c")
    plan = make_plan(Request(tuple(f"{name}.ipynb" for name in NOTEBOOKS), "smoke", given))
    folder, slots = working / "out", make_slots("none", 2, [])
    runs = {run.notebook: run for run in run_batch(plan, folder, slots, Limits(cell_timeout=30), quiet=True)}
    good = runs.pop("good ä")
    went_well(good, folder / good.id)
    assert runs.pop("listens").state == "done"  # its kernel is reached by nobody else
    assert {name: (run.state, run.problems) for name, run in runs.items()} == BAD
    for run in runs.values():
        assert (folder / run.id / "notebook.ipynb").exists() == (run.state == "failed")
        assert not marked(str(folder / run.id))
        assert not [path for path in (folder / run.id).iterdir() if path.is_socket()]
    assert not [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == SLEEP]


def went_well(run: Status, folder: Path) -> None:
    assert (run.problems, run.state, run.exit, run.audited, run.attempts) == ([], "done", 0, True, 1)
    assert run.metrics == {"loss": 0.25, "depths": [1, 2]}
    notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    said = [out.text for cell in notebook.cells for out in cell.get("outputs", []) if out.output_type == "stream"]
    assert said == ["smoke 7 1e-05 a/../b; c False beside the notebook\n"]
    assert len(notebook.cells) == 6  # the parameters that were set are one of them
    assert 0 < run.seconds < 300
    assert run.memory_gb is None or 0.03 < run.memory_gb < 4
    log = (folder / "log.txt").read_text()
    assert "smoke 7 1e-05" in log
    assert "Kernel is running over TCP" not in log
    assert Status.read(folder) == run


@pytest.mark.parametrize(("bad", "status"), [(2, 0), (3, worker.NO_KERNEL)])
def test_a_kernel_that_does_not_start_is_started_again(
    bad: int, status: int, working: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []

    def start(content: nbformat.NotebookNode, *_: object, **__: object) -> None:
        starts.append(len(content.cells))
        content.cells.append("its own")
        if len(starts) <= bad:
            raise RuntimeError("Kernel died before replying to kernel_info")

    write_notebook(Path("x.ipynb"), "1")
    monkeypatch.setattr("papermill.execute_notebook", start)
    assert worker.execute("x.ipynb", {}, "python3", None) == status
    assert starts == [3, 3, 3]  # the notebook's two cells, and the one that says that the end was reached


def test_the_audit_of_a_notebook_that_never_ran(tmp_path: Path) -> None:
    notebook = json.loads(write_notebook(tmp_path / "x.ipynb", "print(1)").read_text())
    assert audit(notebook) == ["did not run: cells 1, 2", "it took no time: nothing was executed"]
    assert "there is no code in it" in audit(nbformat.v4.new_notebook())
    assert recorded(notebook) == {}
    assert not take_end(notebook)
    assert len(notebook["cells"]) == 2


def test_the_audit_finds_a_kernel_that_has_gone_in_the_last_cell(tmp_path: Path) -> None:
    notebook = json.loads(write_notebook(tmp_path / "x.ipynb", "print(1)").read_text())
    for n, cell in enumerate(notebook["cells"], 1):
        cell["execution_count"] = n
    notebook["metadata"]["papermill"] = {"duration": 1.0}
    assert audit(notebook) == []
    assert audit(notebook, ended=False) == ["its kernel had gone before the last cell was over"]


def test_the_audit_finds_the_fault_of_an_explorer(tmp_path: Path) -> None:
    """It stays inside the widget: no cell fails, and no output holds it."""
    said = "<p class='deepnet-edu-fault'>This explorer has a fault, please report it: ZeroDivisionError</p>"
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"1": {"state": {"value": said}}}}}
    notebook = json.loads(write_notebook(tmp_path / "x.ipynb").read_text())
    notebook["metadata"] |= {"widgets": state, "papermill": {"duration": 1.0}}
    notebook["cells"][0]["execution_count"] = 1
    assert audit(notebook) == ["This explorer has a fault, please report it: ZeroDivisionError"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_runs_that_do_not_fit_one_gpu_together_are_both_done(working: Path) -> None:
    """The one that finds its memory full is tried once more alone."""
    takes = "import time, torch\nsize = int(0.6 * torch.cuda.get_device_properties(0).total_memory)"
    held = "held = torch.empty(size, dtype=torch.uint8, device='cuda')\ntime.sleep(20)"
    write_notebook(Path("x.ipynb"), takes, held)
    plan = make_plan(Request(("x.ipynb",), seeds=2))
    runs = run_batch(plan, working / "out", make_slots("0", 2, find_gpus()), Limits(), quiet=True)
    assert [(run.state, run.gpu) for run in runs] == [("done", 0)] * 2
    assert sorted(run.attempts for run in runs) == [1, 2]
    assert {run.device for run in runs} == {torch.cuda.get_device_name(0)}
