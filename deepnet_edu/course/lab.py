"""JupyterLab on the learner's workspace: on localhost, with a token."""

import os
import secrets
import subprocess
import sys
from pathlib import Path


def start(workspace: Path, lesson: str, browser: bool) -> int:
    """Open JupyterLab at ``lesson`` and stay until it is closed.

    Args:
        workspace: the folder that it serves, and the only one.
        lesson: name of the notebook to open.
        browser: whether to open a browser, or only print the address.

    Returns:
        JupyterLab's exit status.
    """
    # The token goes through the environment: a command line can be read by every user of the machine.
    environment = {**os.environ, "JUPYTER_TOKEN": os.environ.get("JUPYTER_TOKEN") or secrets.token_hex(24)}
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={workspace}",
        "--ServerApp.ip=localhost",
        f"--LabApp.default_url=/lab/tree/{lesson}.ipynb",
        # The course works without a network, so nothing asks one for news.
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    if not browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    try:
        return subprocess.run(command, env=environment).returncode
    except KeyboardInterrupt:
        return 0
