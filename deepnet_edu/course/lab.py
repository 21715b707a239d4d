"""JupyterLab on the learner's workspace: on localhost, with a token that JupyterLab draws anew for each start."""

import os
import subprocess
import sys
from pathlib import Path

from deepnet_edu import progress

#: By name, as it is the server that imports it.
CONNECTION = "deepnet_edu.course.connection.PromptConnection"
#: JupyterLab's settings for the course: it asks no network for news.
SETTINGS = Path(__file__).with_name("jupyterlab")


def start(workspace: Path, lesson: str, browser: bool) -> int:
    """Open JupyterLab at ``lesson`` and stay until it is closed. It prints its address, token included.

    Args:
        workspace: the folder that it serves, and the only one.
        lesson: name of the notebook to open.
        browser: whether to open a browser, or only print the address.

    Returns:
        JupyterLab's exit status.
    """
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--log-level=ERROR",
        f"--ServerApp.root_dir={workspace}",
        "--ServerApp.ip=localhost",
        f"--ServerApp.kernel_websocket_connection_class={CONNECTION}",
        f"--LabApp.default_url=/lab/tree/{lesson}.ipynb",
        f"--LabApp.app_settings_dir={SETTINGS}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    if not browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, progress.ENVIRONMENT: str(workspace / progress.FILE)}
    server = subprocess.Popen(command, env=environment)
    while True:
        try:
            return server.wait()
        except KeyboardInterrupt:
            # The terminal sent Ctrl-C to JupyterLab too: it asks whether to stop, and we wait for its answer.
            continue
