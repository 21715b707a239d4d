"""What `deepnet-edu lab` and `explore` promise, whatever the user's Jupyter settings say."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_server.auth import PasswordIdentityProvider

from deepnet_edu import serving
from deepnet_edu.course import lab
from deepnet_edu.course.lab import CourseServer
from deepnet_edu.explorers.app import Explorers
from tests.doors import beyond_loopback, doors, family

#: Seconds; on two busy cores a start takes a tenth of it.
LIMIT = 300
Server = Callable[[dict[str, str]], tuple[CourseServer, list[str]]]
#: All at once, where the servers are started.
WEAK = {
    "jupyter_server_config.py": """
c.ServerApp.ip = "0.0.0.0"
c.ServerApp.allow_origin = "*"
c.ServerApp.disable_check_xsrf = True
c.ServerApp.tornado_settings = {"disable_check_xsrf": True, "allow_remote_access": True}
c.ServerApp.certfile = "/nowhere"
c.ServerApp.custom_display_url = "http://elsewhere/"
c.IdentityProvider.token = ""
c.KernelManager.ip = "0.0.0.0"
""",
    "voila.json": json.dumps(
        {
            "Voila": {
                "ip": "0.0.0.0",
                "token": "known",
                "log_level": 50,
                "custom_display_url": "http://elsewhere/",
                "tornado_settings": {"allow_remote_access": True},
            },
            "KernelManager": {"ip": "0.0.0.0"},
        }
    ),
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Server:
    """A server that has read such settings and listens nowhere, and the names of those that it has overridden."""
    for name in ("CONFIG", "DATA", "RUNTIME"):
        monkeypatch.setenv(f"JUPYTER_{name}_DIR", str(tmp_path / name.lower()))

    def make(files: dict[str, str]) -> tuple[CourseServer, list[str]]:
        (tmp_path / "config").mkdir()
        for name, text in files.items():
            (tmp_path / "config" / name).write_text(text)
        app = CourseServer()
        app.load_config_file()
        app.init_configurables()
        said = capsys.readouterr().err
        found = re.search(r"Your Jupyter settings of (.+) do not count here", said)
        return app, found[1].split(", ") if found else []

    return make


def kept(app: CourseServer) -> None:
    assert {name: getattr(app, name) for name in lab.PROMISED} == lab.PROMISED
    provider = app.identity_provider
    assert type(provider) is PasswordIdentityProvider
    assert re.fullmatch(r"[0-9a-f]{48}", provider.token)
    assert provider.token_generated  # at which the server prints its address with it
    assert not provider.hashed_password
    assert app.kernel_manager.kernel_manager_factory(parent=app.kernel_manager).ip == "127.0.0.1"


SETTINGS: dict[str, list[str]] = {
    "c.ServerApp.ip = '0.0.0.0'": ["ip"],
    "c.ServerApp.ip = '*'": ["ip"],
    "c.ServerApp.sock = '/tmp/x.sock'": ["sock"],
    "c.ServerApp.allow_remote_access = True": ["allow_remote_access"],
    "c.ServerApp.local_hostnames = ['localhost', 'evil.example']": ["local_hostnames"],
    "c.ServerApp.allow_origin = '*'\nc.ServerApp.allow_credentials = True": ["allow_credentials", "allow_origin"],
    "c.ServerApp.allow_origin_pat = '.*'": ["allow_origin_pat"],
    "c.ServerApp.disable_check_xsrf = True": ["disable_check_xsrf"],
    "c.ServerApp.tornado_settings = {'allow_remote_access': True}": ["tornado_settings"],
    "c.ServerApp.certfile = 'a'\nc.ServerApp.keyfile = 'b'": ["certfile", "keyfile"],
    "c.ServerApp.custom_display_url = 'http://x/'": ["custom_display_url"],
    "c.ServerApp.logging_config = {'loggers': {'CourseServer': {'level': 'CRITICAL'}}}": ["logging_config"],
    "c.ServerApp.authenticate_prometheus = False": ["authenticate_prometheus"],
    "c.ServerApp.token = ''": ["token"],
    "c.IdentityProvider.token = ''": ["token"],
    "c.PasswordIdentityProvider.token = 'known'": ["token"],
    "c.PasswordIdentityProvider.hashed_password = 'argon2:x'": ["hashed_password"],
    "c.ServerApp.password = 'sha1:x'": ["hashed_password"],
    "c.PasswordIdentityProvider.password_required = True": [],
    "c.ServerApp.identity_provider_class = 'jupyter_server.auth.IdentityProvider'": ["identity_provider_class"],
    "c.ServerApp.login_handler_class = 'jupyter_server.auth.login.LoginFormHandler'": ["login_handler_class"],
    "c.KernelManager.ip = '0.0.0.0'\nc.KernelManager.transport = 'tcp'": ["KernelManager.ip"],
    "c.ServerKernelManager.ip = '0.0.0.0'": ["ServerKernelManager.ip"],
    "c.ServerApp.port = 9999\nc.ServerApp.quit_button = False": [],
}


@pytest.mark.parametrize("text", SETTINGS)
def test_a_setting_that_weakens_is_overridden_and_named(text: str, server: Server) -> None:
    app, named = server({"jupyter_server_config.py": text})
    kept(app)
    assert set(SETTINGS[text]) <= set(named)
    assert bool(named) == bool(SETTINGS[text])


@pytest.mark.parametrize("name", ["jupyter_server_config.json", "jupyter_config.json"])
def test_settings_as_json(name: str, server: Server) -> None:
    weak = {"ServerApp": {"ip": "0.0.0.0", "allow_origin": "*"}, "IdentityProvider": {"token": ""}}
    app, named = server({name: json.dumps(weak)})
    kept(app)
    assert {"ip", "allow_origin", "token"} <= set(named)


def test_a_token_in_the_environment_is_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_TOKEN", "known")
    app, named = server({})
    kept(app)
    assert named == ["token"]


def test_without_settings_nothing_is_said(server: Server) -> None:
    app, named = server({})
    kept(app)
    assert named == []


def test_the_working_folder_has_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of another user may hold a voila.py, which Voila would run."""
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) not in [*Explorers().config_file_paths, *CourseServer().config_file_paths]


def test_folders_that_cannot_be_written_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    for name in names:
        monkeypatch.setenv(name, f"/dev/null/{name}")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "mine"))
    with serving.folders():
        replaced = {name: Path(os.environ[name]) for name in names}
        assert replaced.pop("JUPYTER_RUNTIME_DIR") == tmp_path / "mine"
        for path in replaced.values():
            path.mkdir()
        assert os.environ["JUPYTER_PATH"] == f"{tmp_path}{os.pathsep}/dev/null/JUPYTER_DATA_DIR"
        assert os.environ["JUPYTER_CONFIG_PATH"] == "/dev/null/JUPYTER_CONFIG_DIR"
    assert "/dev/null/IPYTHONDIR cannot be written: what Jupyter keeps there is lost" in capsys.readouterr().err
    assert not any(path.exists() for path in replaced.values())


# --- started


@pytest.fixture(autouse=True)
def hangup_is_heard() -> Iterator[None]:
    """As in a terminal, also where the tests were started by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@contextmanager
def serving_at(command: list[str], folder: Path, **more: str) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
    """The process, the address that it printed, and its log; it works in a folder with another user's settings."""
    log, temporary = folder / "log", folder / "tmp"
    temporary.mkdir()
    (folder / "voila.py").write_text("raise SystemExit('the working folder was read')")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    environment |= {"HOME": str(folder), "TMPDIR": str(temporary), "BROWSER": "none", "JUPYTER_PORT": port, **more}
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("deepnet-edu")), *command, "--workspace", str(folder / "workspace")],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + LIMIT
        while not (found := re.search(r"http://127\.0\.0\.1:\d+\S*token=[0-9a-f]+", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield process, found.group(), log
    finally:
        process.kill()
        process.wait()


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def ended(process: subprocess.Popen[bytes], number: int) -> None:
    """After a signal to the command alone."""
    all_of_them: list[psutil.Process] = family(process.pid)
    process.send_signal(number)
    assert process.wait(LIMIT) in (0, 128 + number)
    _, alive = psutil.wait_procs(all_of_them[1:], timeout=LIMIT)
    assert not alive


def written(folder: Path) -> None:
    (folder / ".jupyter").mkdir()
    for name, text in WEAK.items():
        (folder / ".jupyter" / name).write_text(text)


def test_lab_by_its_own_token_on_loopback_until_the_terminal_closes(tmp_path: Path) -> None:
    """Also with a home that cannot be written; the settings come from elsewhere then."""
    written(tmp_path)
    where = {"HOME": "/dev/null/home", "JUPYTER_CONFIG_PATH": str(tmp_path / ".jupyter"), "JUPYTER_TOKEN": "known"}
    with serving_at(["lab"], tmp_path, **where) as (process, url, log):
        base, token = url.partition("/lab")[0], url.partition("token=")[2]
        sent: dict[str, Any] = {"Authorization": f"token {token}"}
        assert status(f"{base}/api/contents") == status(f"{base}/api/contents?token=known") == 403
        assert status(f"{base}/api/contents", **sent) == status(f"{base}/api/contents?token={token}") == 200
        assert status(f"{base}/api/contents", Host="evil.example", **sent) == 403
        assert "Traceback" not in log.read_text()
        request = urllib.request.Request(f"{base}/api/kernels", data=b"{}", headers=sent)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 201
        assert (addresses := doors(process.pid))
        assert not beyond_loopback(addresses)
        assert len(family(process.pid)) > 1  # the kernel
        ended(process, signal.SIGHUP)
        said = log.read_text()
        assert "Your Jupyter settings of KernelManager.ip, allow_origin, " in said
        assert "/dev/null/home/.jupyter" in said
        # A kernel that is loading still says that it was interrupted; the server says nothing of the kind.
        assert "course/lab.py" not in said.partition("Traceback")[2]
        assert not list((tmp_path / "tmp").glob("deepnet_edu_*"))


def test_explore_by_its_own_token_on_loopback_until_sigterm(tmp_path: Path) -> None:
    written(tmp_path)
    with serving_at(["explore", "signal"], tmp_path, JUPYTER_TOKEN="known") as (process, url, log):
        base, token = url.partition("/?")[0], url.partition("token=")[2]
        assert status(f"{base}/voila/files/explorers.ipynb", Authorization=f"token {token}") in (403, 404)
        assert "password" in urllib.request.urlopen(f"{base}/?token=known", timeout=60).read().decode()  # to log in
        assert status(url, Host="evil.example") == 403
        assert (addresses := doors(process.pid))
        assert not beyond_loopback(addresses)
        ended(process, signal.SIGTERM)
        assert "Your Jupyter settings of KernelManager.ip, custom_display_url, " in log.read_text()
        assert not list((tmp_path / "tmp").iterdir())
