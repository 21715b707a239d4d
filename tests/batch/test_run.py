"""Notebooks with kernels: what really happened is found, whatever papermill calls a success."""

import base64
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
import torch
from PIL import Image

from deepnet_edu.batch import worker
from deepnet_edu.batch.audit import audit, out_of_memory, recorded, take_end
from deepnet_edu.batch.judge import hinted
from deepnet_edu.batch.plan import Request, make_plan
from deepnet_edu.batch.processes import families, marked, peak_gb
from deepnet_edu.batch.run import run_batch
from deepnet_edu.batch.runner import Limits
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
    "good ä": [
        "import helper, os\nprint(os.environ['DEEPNET_EDU_PROFILE'], SEED, RATE, NAME, DEEP, helper.NAME)",
        "from deepnet_edu.course.places import RECORD_MIME\nfrom IPython.display import display\n"
        "def record(**values): display({RECORD_MIME: values, 'text/plain': ''}, raw=True)\n"
        "record(loss=0.5)\nrecord(loss=0.25, depths=[1, 2])",
        PICTURES,
        "1 / 0",
        "assert open('data.csv').read() == '1,2'\n"
        "import psutil\nsockets = psutil.Process().net_connections('inet')\n"  # its kernel is reached by no one else
        "assert not [one for one in sockets if one.status == 'LISTEN' and not one.laddr.ip.startswith('127.')]",
        "raise SystemError('never run')",
        "import os\nimport matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()\n"
        "assert os.path.samefile(os.environ['DEEPNET_EDU_NOTEBOOK_DIR'], os.path.dirname(helper.__file__))\n"
        "assert os.environ['DEEPNET_EDU_CWD'] == ''",
        "",
    ],
    "raises": ["1 / 0", "2"],
    "magic": ["%nosuchmagic 3", "2"],
    "exits": ["import sys\nsys.exit(0)\nassert False"],
    "dies": ["import os\nos._exit(1)"],
    "silent": ["if False:\n    kit.record(loss=0)"],
    # All that comes to its end, but is not a success.
    "faults": [
        PICTURES + "display(png(P.new('RGB', (9, 9), 'white')))\ndisplay(png(P.new('RGB', (9, 9), 'navy')))",
        "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()",
        CALLBACK,
        # What is not handled, and what happens in the meantime.
        "import asyncio, threading\nasync def load(): raise RuntimeError('lost')\nt = asyncio.create_task(load())\n"
        "threading.Thread(target=open, args=('nowhere',), name='loader').start()\nawait asyncio.sleep(0.1)",
        "class Gone:\n    def __del__(self): raise RuntimeError('no failure')\nGone()",
        # Two daemons without the run's mark, one of which has lost its parent.
        f"import os, subprocess\nbare = {{'PATH': os.environ['PATH']}}\n"
        f"for one in (['sh', '-c', '{' '.join(SLEEP)} & exit'], {SLEEP}):\n"
        "    subprocess.Popen(one, start_new_session=True, env=bare)",
    ],
}
NEVER_ENDS = (
    f"import subprocess, time\nsubprocess.Popen({SLEEP}, start_new_session=True)\n"
    f"subprocess.Popen({SLEEP}, start_new_session=True, env={{'PATH': '/bin:/usr/bin'}})\ntime.sleep(600)"
)


BAD = {
    "faults": (
        "failed",
        [
            "cell 2 drew a picture with nothing in it",
            "a widget's callback raised ZeroDivisionError: division by zero",
            "the thread loader raised FileNotFoundError: [Errno 2] No such file or directory: 'nowhere'",
            "the asyncio task load raised RuntimeError: lost, and nothing awaited it",
            "figures of cell 3 are not shown: matplotlib's backend Agg only writes files; remove "
            "matplotlib.use() or MPLBACKEND from the notebook",
        ],
    ),
    "magic": (
        "failed",
        ["cell 2 failed: UsageError: Line magic function `%nosuchmagic` not found.", "did not run: cell 3"],
    ),
    "raises": ("failed", ["cell 2 raised ZeroDivisionError: division by zero", "did not run: cell 3"]),
    "silent": ("failed", ["it calls record(), but recorded nothing"]),
    "exits": ("failed", ["cell 2 raised SystemExit: 0"]),
    "dies": ("killed", ["its kernel died: killed, crashed, or out of memory"]),
}


def test_what_papermill_may_call_a_success_is_found(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one test: a kernel takes seconds to start, and two processes of pytest would both run the batch."""
    Path("helper.py").write_text("NAME = 'beside the notebook'")
    Path("data.csv").write_text("1,2")
    kernels = working / "jupyter" / "kernels" / "python3"  # which is not this environment's
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(working / "jupyter"))
    for name, value in {"MPLBACKEND": "agg", "PYTHONWARNINGS": "error", "PYTHONINSPECT": "1"}.items():
        monkeypatch.setenv(name, value)
    for name, sources in NOTEBOOKS.items():
        write_notebook(Path(f"{name}.ipynb"), *sources)
    tag(Path("good ä.ipynb"), 3, "raises-exception")
    tag(Path("good ä.ipynb"), 4, "raises-exception")  # it may, and need not
    tag(Path("good ä.ipynb"), 6, "skip-execution")
    given = ("SEED=7", "RATE=1e-5", "NAME=a/../b; c")
    plan = make_plan(Request(tuple(f"{name}.ipynb" for name in NOTEBOOKS), "smoke", given))
    folder, slots = working / "out", make_slots("none", 2, [])
    runs = {run.notebook: run for run in run_batch(plan, folder, slots, Limits(), quiet=True)}
    good = runs.pop("good ä")
    went_well(good, folder / good.id)
    assert {name: (run.state, run.problems) for name, run in runs.items()} == BAD
    left_nothing(folder, [*runs.values()])


def test_a_cell_that_never_ends_is_ended(working: Path) -> None:
    write_notebook(Path("never ends.ipynb"), NEVER_ENDS)
    plan, folder = make_plan(Request(("never ends.ipynb",))), working / "out"
    (run,) = run_batch(plan, folder, make_slots("none", 1, []), Limits(cell_timeout=5), quiet=True)
    assert (run.state, run.problems) == ("timed out", ["a cell took longer than 5 s"])
    left_nothing(folder, [run])


def left_nothing(folder: Path, runs: list[Status]) -> None:
    """Of runs that did not end well there is the notebook, if it came to its end, and no process."""
    for run in runs:
        assert (folder / run.id / "notebook.ipynb").exists() == (run.state == "failed")
        assert not marked(str(folder / run.id))
        assert not [path for path in (folder / run.id).iterdir() if path.is_socket()]
    assert not [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == SLEEP]


def tag(path: Path, number: int, *tags: str) -> None:
    """Give the cell ``number``, counted from that of the parameters, its tags."""
    content = nbformat.read(path, as_version=4)
    content.cells[number].metadata.tags = [*tags]
    nbformat.write(content, path)


def went_well(run: Status, folder: Path) -> None:
    assert (run.problems, run.state, run.audited, run.attempts) == ([], "done", True, 1)
    assert run.metrics == {"loss": 0.25, "depths": [1, 2]}
    notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    said = [out.text for cell in notebook.cells for out in cell.get("outputs", []) if out.output_type == "stream"]
    assert said == ["smoke 7 1e-05 a/../b; c False beside the notebook\n"]
    assert len(notebook.cells) == 10  # the parameters that were set are one of them, and no announcement of an error
    assert not (folder / "data.csv").exists()  # it was lent
    drawn = notebook.cells[8].outputs
    assert ["image/png" in output.get("data", {}) for output in drawn][-1:] == [True]
    assert notebook.metadata.papermill.input_path == run.source
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
    assert audit(notebook, ended={}) == ["did not run: cells 1, 2", "it took no time: nothing was executed"]
    assert "there is no code in it" in audit(nbformat.v4.new_notebook(), ended={})
    assert recorded(notebook) == {}
    assert take_end(notebook) is None
    assert len(notebook["cells"]) == 2


def test_the_audit_finds_a_kernel_that_has_gone_in_the_last_cell(tmp_path: Path) -> None:
    notebook = json.loads(write_notebook(tmp_path / "x.ipynb", "print(1)").read_text())
    for n, cell in enumerate(notebook["cells"], 1):
        cell["execution_count"] = n
    notebook["metadata"]["papermill"] = {"duration": 1.0}
    assert audit(notebook, ended={}) == []
    assert audit(notebook, ended={"faults": "no list", "memory": 1}) == []
    assert audit(notebook, ended={"faults": ["the thread x raised E: e"]}) == ["the thread x raised E: e"]
    assert audit(notebook, ended=None) == ["its kernel had gone before the last cell was over"]


def test_the_audit_finds_the_fault_of_an_explorer(tmp_path: Path) -> None:
    """It stays inside the widget: no cell fails, and no output holds it."""
    said = "<p class='deepnet-edu-fault'>This explorer has a fault, please report it: ZeroDivisionError</p>"
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"1": {"state": {"value": said}}}}}
    notebook = json.loads(write_notebook(tmp_path / "x.ipynb").read_text())
    notebook["metadata"] |= {"widgets": state, "papermill": {"duration": 1.0}}
    notebook["cells"][0]["execution_count"] = 1
    assert audit(notebook, ended={}) == ["This explorer has a fault, please report it: ZeroDivisionError"]


def executed(*outputs: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """A notebook of one cell."""
    cell = {"cell_type": "code", "source": "1", "execution_count": 1, "metadata": metadata, "outputs": [*outputs]}
    return {"cells": [cell], "metadata": {"papermill": {"duration": 1.0}}}


@pytest.mark.parametrize(
    ("name", "said", "full"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB", True),
        ("AcceleratorError", "CUDA error: out of memory", True),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("RuntimeError", "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED", True),
        ("RuntimeError", "cuFFT error: CUFFT_ALLOC_FAILED", True),
        ("DistBackendError", "NCCL error ... ncclUnhandledCudaError: Last error: Cuda failure 'out of memory'", True),
        ("RuntimeError", "Failed to CUDA calloc async 608 bytes", True),
        ("RuntimeError", "HIP error: out of memory", True),
        ("RuntimeError", "MPS backend out of memory (MPS allocated: 9 GB)", True),
        ("XlaRuntimeError", "RESOURCE_EXHAUSTED: CUDA_ERROR_OUT_OF_MEMORY", True),
        ("MemoryError", "", False),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", False),
        ("AcceleratorError", "CUDA error: device-side assert triggered", False),
    ],
)
def test_a_full_gpu_has_many_exceptions(name: str, said: str, full: bool) -> None:
    error = {"output_type": "error", "ename": name, "evalue": said, "traceback": ["# CUDA out of memory?", "x = 1"]}
    assert out_of_memory(executed(error), {}) is full
    cause = {**error, "ename": "ValueError", "evalue": "training failed", "traceback": [f"\x1b[31m{name}: {said}"]}
    assert out_of_memory(executed(cause), {}) is full
    assert out_of_memory(executed(), {"faults": [f"the thread x raised {name}: {said}"]}) is full


@pytest.mark.parametrize(
    ("colour", "said"),
    [
        ("white", ["cell 1 drew a picture with nothing in it"]),
        ((9, 9, 9, 0), ["cell 1 drew a picture with nothing in it"]),
        ("navy", []),
        ("black", []),
        (None, ["cell 1 drew a picture that cannot be read"]),
    ],
)
def test_a_picture_of_one_colour_is_a_picture(colour: Any, said: list[str]) -> None:
    file = io.BytesIO()
    if colour is not None:
        Image.new("RGBA", (9, 9), colour).save(file, "PNG")
    png = base64.b64encode(file.getvalue() or b"no picture").decode()
    assert audit(executed({"output_type": "display_data", "data": {"image/png": png}}), ended={}) == said


@pytest.mark.parametrize(
    ("source", "ended", "said"),
    [
        ("plt.show()", {"backend": "Agg", "figures": 1}, ["figures of cell 1 are not shown"]),
        ("draw()", {"backend": "agg", "figures": 1}, ["its figures are not shown"]),
        ("fig.savefig('x.png')", {"backend": "agg", "figures": 1}, []),
        ("# plt.show()", {"backend": "agg", "figures": 0}, []),
        ("plt.show()", {"backend": "inline", "figures": 0}, []),
        ("plt.show()", {}, []),
    ],
)
def test_figures_that_nobody_can_see(source: str, ended: dict[str, Any], said: list[str]) -> None:
    notebook = executed()
    notebook["cells"][0]["source"] = source
    assert [one.partition(":")[0] for one in audit(notebook, ended=ended)] == said


def test_what_its_author_tagged_is_expected() -> None:
    error = {"output_type": "error", "ename": "E", "evalue": "e", "traceback": []}
    assert audit(executed(error, tags=["raises-exception"]), ended={}) == []
    assert audit(executed(tags=["raises-exception"]), ended={}) == []
    skipped = executed(tags=["skip-execution"])
    skipped["cells"][0]["execution_count"] = None
    assert audit(skipped, ended={}) == ["all of its code has the tag skip-execution"]
    skipped["cells"].insert(0, executed()["cells"][0])
    assert audit(skipped, ended={}) == []


def test_a_missed_file_beside_the_notebook_is_pointed_at(working: Path) -> None:
    write_notebook(working / "here" / "x.ipynb", "1")
    (working / "here" / "data.csv").write_text("1")
    source = str(working / "here" / "x.ipynb")
    said = "cell 1 raised FileNotFoundError: [Errno 2] No such file or directory: "
    assert hinted(f"{said}'data.csv'", source) == (
        f"{said}'data.csv'; data.csv is beside the notebook, so run it there: --cwd notebook"
    )
    assert hinted("cell 1 raised FileNotFoundError: data.csv not found.", source).endswith(": --cwd notebook")
    for other in (f"{said}'none.csv'", f"{said}'{working}/here/data.csv'", "cell 1 raised ValueError: 'data.csv'"):
        assert hinted(other, source) == other


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
def test_memory_is_the_processes_own(tmp_path: Path) -> None:
    """The process that starts another may have held more than that ever does."""
    block = bytearray(300_000_000)
    for at in range(0, len(block), 4096):
        block[at] = 1
    with subprocess.Popen(["sleep", "600"], stdin=subprocess.PIPE) as child:
        found = families({child.pid})[child.pid]
        assert [one.pid for one in found] == [child.pid]
        time.sleep(0.05)  # until it is sleep, and no longer a copy of this process
        assert peak_gb(found[0]) < 0.05
        child.kill()


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
