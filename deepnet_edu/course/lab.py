"""JupyterLab on the learner's workspace: on 127.0.0.1, with a new token at each start."""

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

from jupyter_server.auth.login import LoginHandler
from jupyter_server.serverapp import ServerApp
from jupyterlab.commands import get_workspaces_dir
from jupyterlab.labapp import LabApp
from jupyterlab_server.workspaces_handler import WorkspacesManager

from deepnet_edu import progress, serving

#: JupyterLab's settings for the course: it asks no network for news.
SETTINGS = Path(__file__).with_name("jupyterlab")
#: Of what Jupyter can be told, that which decides who may come in, and by which address.
PROMISED = {
    **serving.PROMISED,
    "sock": "",
    "certfile": "",
    "keyfile": "",
    "client_ca": "",
    "ssl_options": {},
    "allow_remote_access": False,
    "local_hostnames": ["localhost"],
    "allow_origin": "",
    "allow_origin_pat": "",
    "allow_credentials": False,
    "disable_check_xsrf": False,
    "authenticate_prometheus": True,
    "trust_xheaders": False,
    "allow_external_kernels": False,
    "extra_services": [],
    "websocket_url": "",
    "login_handler_class": LoginHandler,
}


class CourseServer(ServerApp):
    """Jupyter's server, which keeps the promises of :mod:`deepnet_edu.serving`."""

    def find_server_extensions(self) -> None:
        """All but Voila's, which would run a voila.py of the working folder, no matter whose that is."""
        self.jpserver_extensions["voila.server_extension"] = False
        super().find_server_extensions()

    def init_configurables(self) -> None:
        """Set what was promised before anything is made by the settings."""
        changed = serving.promise(self, PROMISED)
        super().init_configurables()
        serving.say(changed + serving.own_token(self.identity_provider), "lab")

    def init_signal(self) -> None:
        """A closed terminal ends the server and its kernels as SIGTERM does."""
        super().init_signal()
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(signal.SIGHUP, self._signal_stop)


#: What JupyterLab's layout begins with: the list of files is a click away, and the lesson has the whole window.
_LAYOUT: Any = {
    "main": {"dock": None},
    "left": {"collapsed": True, "visible": True, "widgets": ["filebrowser", "@jupyterlab/toc:plugin"]},
    "right": {"collapsed": True, "visible": True, "widgets": []},
    "relativeSizes": [0, 1, 0],
}


def close_side_bar() -> None:
    """Where JupyterLab has never been opened, it begins with its side bar closed, which takes half of a small window.

    A layout of the user's own stays as it is. Nothing happens where the folder of layouts cannot be read or written.
    """
    with contextlib.suppress(OSError, ValueError):
        layouts = WorkspacesManager(get_workspaces_dir())
        if not layouts.load("default")["data"]:
            layout = {"data": {"layout-restorer:data": _LAYOUT}, "metadata": {"id": "default"}}
            layouts.save("default", json.dumps(layout))


def start(workspace: Path, lesson: str, browser: bool) -> int:
    """Open JupyterLab at ``lesson`` and stay until it is closed. It prints its address, token included.

    Args:
        workspace: the folder that it serves, and the only one.
        lesson: name of the notebook to open.
        browser: whether to open a browser, or only print the address.

    Returns:
        The exit status.
    """
    arguments: list[Any] = [
        "--log-level=ERROR",
        f"--ServerApp.root_dir={workspace}",
        "--ServerApp.kernel_websocket_connection_class=deepnet_edu.serving.PromptConnection",
        f"--LabApp.default_url=/lab/tree/{lesson}.ipynb",
        f"--LabApp.app_settings_dir={SETTINGS}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    if not browser:
        arguments.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--allow-root")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ[progress.ENVIRONMENT] = str(workspace / progress.FILE)
    serving.end_by_signals()
    try:
        with serving.folders():
            close_side_bar()
            LabApp.serverapp_class = CourseServer
            LabApp.launch_instance(arguments)
    except KeyboardInterrupt:  # before the server was there
        return 130
    return 0
