"""One run in a process of its own: ``python -m deepnet_edu.batch.worker`` in the run's folder.

Its task is a line of JSON on standard input. It executes the notebook by papermill; its exit status says how that went.

Standard input stays open as long as the runner lives: when it closes early, the run's processes end.
"""

import contextlib
import copy
import errno
import json
import os
import sys
import threading
from typing import Any

from deepnet_edu.batch import inside
from deepnet_edu.batch.parameters import INJECTED, TAG, injected
from deepnet_edu.batch.processes import MARK, adopt_orphans, end_all

#: Kernel of the environment that runs the batch; it is there whatever kernelspecs the user has.
OWN_KERNEL = "python3"
#: What the cell after the last one puts out.
END_MIME = "application/vnd.deepnet-edu.end+json"
#: It names nothing that the notebook may have replaced. A kernel that did not load the extension tells nothing.
_END = (
    f'__import__("IPython").display.display({{"{END_MIME}": '
    f'getattr(__import__("IPython").get_ipython(), "deepnet_edu_end", dict)()}}, raw=True)'
)
PARTIAL = "partial.ipynb"
#: Exit status by what ended the run; 1 is a cell that raised, or anything else.
EXITS = {
    "PapermillExecutionError": 1,
    "CellTimeoutError": 3,
    "DeadKernelError": 4,
    "NoSuchKernel": 5,
    "LostReplyError": 8,
}
NO_SPACE, NO_KERNEL = 6, 7
START_TIMEOUT_S = 120
#: For what a cell has printed to arrive, once it is done; papermill's own 4 s are too few for 50 MB, or a busy machine.
OUTPUT_TIMEOUT_S = 600
#: How often a kernel is started that does not come up.
STARTS = 3
#: What jupyter_client says of it, in a plain RuntimeError.
_NOT_STARTED = ("Kernel died before replying to kernel_info", "Kernel didn't respond in")
#: Sockets of the kernel, in the run's folder.
SOCKETS = ".kernel"


def main() -> None:
    """Execute one notebook; what it says goes to standard error."""
    task = json.loads(sys.stdin.readline())
    adopt_orphans()
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    status = execute(task["notebook"], task["parameters"], task["kernel"], task["cell_timeout"])
    end_all(os.environ[MARK])  # those that bear no mark are found as long as this process is there
    sys.exit(status)


def execute(notebook: str, parameters: dict[str, Any], kernel: str, cell_timeout: float | None) -> int:
    """Execute a notebook into ``partial.ipynb`` of the current folder. Returns the exit status.

    Args:
        notebook: its file.
        parameters: by name.
        kernel: name of an installed kernel; ``OWN_KERNEL`` is this environment's, whatever has its name.
        cell_timeout: seconds for each cell; None for no limit.
    """
    import logging

    # jsonschema tries to import this parser of web addresses, which takes two seconds; no notebook's schema needs it.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

    import nbformat

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("papermill.translators").setLevel(logging.ERROR)
    content = nbformat.read(notebook, as_version=4)
    content = nbformat.v4.upgrade(content) or content  # papermill's own cells are of the newest format
    _set(content, parameters)
    end = nbformat.v4.new_code_cell(_END)
    end.metadata.tags = []
    content.cells.append(end)
    for _ in range(STARTS):
        status = _execute(copy.deepcopy(content), kernel, cell_timeout)
        if status != NO_KERNEL:
            break
    if status == NO_KERNEL and kernel != OWN_KERNEL:
        with contextlib.suppress(OSError):
            print(f"the kernel {kernel!r} is not this environment's: --kernel {OWN_KERNEL} is", file=sys.stderr)
    return status


def _set(content: Any, parameters: dict[str, Any]) -> None:
    """Put the cell that sets parameters behind the one that has them, in place of what an earlier run has left.

    Not papermill's: it would leave what is computed there from a parameter as it was.
    """
    import nbformat

    content.metadata.papermill = {"default_parameters": {}, "parameters": parameters}
    tagged = [TAG in cell.metadata.get("tags", []) for cell in content.cells]
    if True not in tagged:
        return
    number = tagged.index(True)
    content.cells[number + 1 :] = [
        cell for cell in content.cells[number + 1 :] if INJECTED not in cell.metadata.get("tags", [])
    ]
    if parameters:
        cell = nbformat.v4.new_code_cell(injected(content.cells[number].source, parameters))
        cell.metadata.tags = [INJECTED]
        content.cells.insert(number + 1, cell)


def _execute(content: Any, kernel: str, cell_timeout: float | None) -> int:
    import papermill
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default
    from traitlets.config import Config

    from deepnet_edu.batch.client import Client

    class Manager(AsyncKernelManager):
        """Finds this environment's own kernel by its name, and not one of the user's that comes before it."""

        client_factory = Client

        @default("kernel_spec_manager")
        def _kernel_spec_manager_default(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[]) if kernel == OWN_KERNEL else KernelSpecManager()

    try:
        papermill.execute_notebook(
            content,
            PARTIAL,
            kernel_name=kernel,
            language="python",
            progress_bar=False,
            log_output=True,
            start_timeout=START_TIMEOUT_S,
            execution_timeout=cell_timeout,
            iopub_timeout=OUTPUT_TIMEOUT_S,
            kernel_manager_class=Manager,
            extra_arguments=[f"--InteractiveShellApp.extra_extensions={inside.__name__}"],
            config=Config({"KernelManager": {"transport": "ipc", "ip": SOCKETS}} if _can_have_sockets() else {}),
        )
    except Exception as error:
        with contextlib.suppress(OSError):  # the disk may be full
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        if isinstance(error, RuntimeError) and str(error).startswith(_NOT_STARTED):
            return NO_KERNEL
        return NO_SPACE if getattr(error, "errno", None) == errno.ENOSPC else EXITS.get(type(error).__name__, 1)
    return 0


def _can_have_sockets() -> bool:
    """Whether files of the current folder can be sockets, as they cannot on Windows and on some network disks.

    TCP takes ports that are free when they are chosen; where many kernels start, another one may have one of them when
    it is used.
    """
    import socket

    name = f"{SOCKETS}-0"
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(name)
        os.unlink(name)
    except (OSError, AttributeError):
        return False
    return True


def _end_with_the_runner() -> None:
    sys.stdin.read()
    end_all(os.environ[MARK])
    os._exit(1)


if __name__ == "__main__":
    main()
