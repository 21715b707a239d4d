"""What JupyterLab and Voila promise here: they listen on 127.0.0.1 alone, ask for a token of their own, print their
address, and end when they are told to; whatever the user's Jupyter settings say.
"""

import os
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from jupyter_core import paths
from jupyter_server.auth import PasswordIdentityProvider
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from traitlets.config import Config

LOOPBACK = "127.0.0.1"
#: Settings that both have: their log goes to the terminal, and says the address as it is.
PROMISED: dict[str, Any] = {
    "ip": LOOPBACK,
    "custom_display_url": "",
    "identity_provider_class": PasswordIdentityProvider,
    "tornado_settings": {},
    "logging_config": {},
}


class PromptConnection(ZMQChannelsWebsocketConnection):
    """Jupyter's connection, without the wait of small packets.

    TCP holds a small packet until the one before it is acknowledged, and a browser takes up to 40 ms to do that
    (Nagle's algorithm and delayed acknowledgement). A slider's move is answered by a handful of small messages.
    """

    def connect(self) -> Any:
        """Connect, and switch that off."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()


def promise(app: Any, promised: Mapping[str, Any]) -> list[str]:
    """Give a Jupyter application these settings.

    Its kernels talk over loopback, too.

    Args:
        app: with its configuration read.
        promised: values by name.

    Returns:
        The names of those settings that were others.
    """
    changed = []
    for name, value in promised.items():
        if (now := getattr(app, name)) == value:
            continue
        if now != app.traits()[name].default_value:
            changed.append(name)
        setattr(app, name, value)
    for section, settings in app.config.items():
        if section.endswith(("KernelManager", "ConnectionFileMixin")) and isinstance(settings, Config):
            found = [name for name in ("ip", "transport") if settings.pop(name, None) is not None]
            changed += [f"{section}.{name}" for name in found]
    return changed


def own_token(provider: Any) -> list[str]:
    """Draw a token, in place of one that others may know, of none, or of a password.

    Args:
        provider: who says which requests are the user's.

    Returns:
        The names of those settings that were others.
    """
    changed = [] if provider.token and provider.token_generated else ["token"]  # it is drawn when it is asked for
    changed += ["hashed_password"] if provider.hashed_password else []
    provider.hashed_password, provider.password_required = "", False
    provider.token, provider.token_generated = secrets.token_hex(24), True
    return changed


def say(changed: list[str], who: str) -> None:
    """Name the user's settings that do not count."""
    if changed:
        names = ", ".join(sorted(set(changed)))
        print(
            f"Your Jupyter settings of {names} do not count here: {who} listens on {LOOPBACK} alone, and asks for a "
            "token that it draws again.",
            file=sys.stderr,
        )


@contextmanager
def folders() -> Iterator[None]:
    """While entered, Jupyter has folders that it can write: temporary ones where the user's cannot be written."""
    wanted = {
        "JUPYTER_CONFIG_DIR": paths.jupyter_config_dir(),
        "JUPYTER_DATA_DIR": paths.jupyter_data_dir(),
        "JUPYTER_RUNTIME_DIR": paths.jupyter_runtime_dir(),
        "IPYTHONDIR": os.environ.get("IPYTHONDIR", os.path.expanduser("~/.ipython")),
    }
    closed = {name: path for name, path in wanted.items() if not _can_be_written(Path(path))}
    spares = TemporaryDirectory(prefix="deepnet_edu_", ignore_cleanup_errors=True) if closed else nullcontext("")
    with spares as spare:
        for name, path in closed.items():
            os.environ[name] = os.path.join(spare, name.lower())
            if reads := {"JUPYTER_CONFIG_DIR": "JUPYTER_CONFIG_PATH", "JUPYTER_DATA_DIR": "JUPYTER_PATH"}.get(name):
                os.environ[reads] = os.pathsep.join(filter(None, [os.environ.get(reads), path]))  # what is there counts
        if closed:
            names = ", ".join(closed.values())
            print(f"{names} cannot be written: what Jupyter keeps there is lost when it ends.", file=sys.stderr)
        yield


def _can_be_written(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def end_by_signals() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does, with all that is to be tidied up; once."""

    def end(_number: int, _frame: Any) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # nohup ignores SIGHUP
    numbers = [number for name in names if signal.getsignal(number := getattr(signal, name)) != signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, end)
