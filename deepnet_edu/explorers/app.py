"""Explorers without a notebook: Voila, on 127.0.0.1, with a new token at each start."""

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_core.paths import jupyter_config_path
from nbformat import NotebookNode
from voila.app import Voila

from deepnet_edu import progress, serving
from deepnet_edu.explorers import EXPLORERS

#: Of what Voila can be told, that which decides who may come in, and whether it prints its address.
PROMISED = {**serving.PROMISED, "token": None, "auto_token": True, "log_level": logging.INFO}


class Explorers(Voila):
    """Voila, which keeps the promises of :mod:`deepnet_edu.serving`."""

    def _config_file_paths_default(self) -> list[str]:
        return list(jupyter_config_path())  # Voila would run a voila.py of the working folder, no matter whose that is

    def initialize(self, argv: list[str] | None = None) -> None:
        """Once settings are read, they are what was promised."""
        super().initialize(argv)
        serving.end_by_signals()
        self.changed = serving.promise(self, PROMISED)

    def init_settings(self) -> dict[str, Any]:
        """It answers to its own address alone: another site's page cannot reach it by another name."""
        settings: dict[str, Any] = super().init_settings()
        serving.say(self.changed + serving.own_token(self.identity_provider), "explore")
        return {**settings, "allow_remote_access": False, "local_hostnames": ["localhost"]}


def page(names: Sequence[str], in_address: bool = True) -> NotebookNode:
    """A notebook that shows these explorers, one below the other.

    Args:
        names: of ``EXPLORERS``.
        in_address: whether the page's address keeps what is set, so that a reload or a bookmark shows it again.
    """
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = NotebookNode(display_name="Python 3", language="python", name="python3")
    notebook.metadata.title = "Explorers"
    setup = "import torch\nfrom deepnet_edu.explorers import EXPLORERS, Explorer\n\ntorch.set_num_threads(1)"
    if in_address:
        setup += "\nExplorer.in_address = True"
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
        The exit status.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if workspace.exists():
        os.environ[progress.ENVIRONMENT] = str(workspace / progress.FILE)
    serving.end_by_signals()
    try:
        with serving.folders(), tempfile.TemporaryDirectory(prefix="deepnet_edu_") as folder:
            file = Path(folder) / "explorers.ipynb"
            nbformat.write(page(names), file)
            arguments = [
                str(file),
                f"--Voila.connection_dir_root={folder}",  # Voila leaves them there when it ends early
                "--Voila.kernel_websocket_connection_class=deepnet_edu.serving.PromptConnection",
                # It is made for JupyterLab, and fails on a page of Voila's.
                "--VoilaConfiguration.extension_denylist=jupyterlab-jupytext",
            ]
            if not browser:
                arguments.append("--no-browser")
            Explorers.launch_instance(arguments)
    except KeyboardInterrupt:  # before the server was there
        return 130
    return 0
