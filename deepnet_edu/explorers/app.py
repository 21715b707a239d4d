"""Explorers without a notebook: Voila, on localhost, with a token that it draws anew for each start."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from deepnet_edu import progress
from deepnet_edu.explorers import EXPLORERS


def page(names: Sequence[str]) -> NotebookNode:
    """A notebook that shows these explorers, one below the other."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = NotebookNode(display_name="Python 3", language="python", name="python3")
    setup = "import torch\nfrom deepnet_edu.explorers import EXPLORERS\n\ntorch.set_num_threads(1)"
    notebook.cells = [nbformat.v4.new_code_cell(setup)]
    for name in names:
        kind = EXPLORERS[name]
        about = kind.about[0].upper() + kind.about[1:]
        notebook.cells += [
            nbformat.v4.new_markdown_cell(f"## {kind.title}\n\n{about}"),
            nbformat.v4.new_code_cell(f"EXPLORERS[{name!r}]()"),
        ]
    return notebook


def start(names: Sequence[str], workspace: Path, browser: bool) -> int:
    """Serve these explorers and stay until it is closed. Voila prints the address, token included.

    Args:
        names: of ``EXPLORERS``.
        workspace: the learner's folder, where the game keeps its score.
        browser: whether to open a browser, or only print the address.

    Returns:
        Voila's exit status.
    """
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    if workspace.exists():
        environment[progress.ENVIRONMENT] = str(workspace / progress.FILE)
    with tempfile.TemporaryDirectory(prefix="deepnet_edu_") as folder:
        file = Path(folder) / "explorers.ipynb"
        nbformat.write(page(names), file)
        command = [sys.executable, "-m", "voila", str(file), "--Voila.ip=localhost", "--token"]
        command += ["--Voila.kernel_websocket_connection_class=deepnet_edu.course.connection.PromptConnection"]
        # It is made for JupyterLab, and fails on a page of Voila's.
        command += ["--VoilaConfiguration.extension_denylist=jupyterlab-jupytext"]
        if not browser:
            command.append("--no-browser")
        server = subprocess.Popen(command, env=environment)
        while True:
            try:
                return server.wait()
            except KeyboardInterrupt:
                continue  # the terminal sent Ctrl-C to Voila too: it ends, and we wait for that
