"""JupyterLab as `deepnet-edu lab` starts it, and Chromium to drive it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
START_TIMEOUT_S = 180


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = pytest.mark.skip(reason="needs Chromium: apt install chromium")
    for item in items:
        if "browser" in item.keywords and not CHROMIUM and not os.environ.get("CI"):
            item.add_marker(missing)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


def free_port() -> int:
    """One that nobody else was given just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(command: list[str], address: str, folder: Path) -> Iterator[str]:
    """While entered, ``deepnet-edu`` with this command serves; gives what it printed of the form ``address``.

    Args:
        command: arguments of deepnet-edu.
        address: regular expression of the address.
        folder: for logs and for settings of its own.
    """
    log = folder / "server.log"
    folders = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = {**os.environ, **folders, "BROWSER": "none", "DEEPNET_EDU_PROFILE": "smoke"}
    # Two servers that start at once may choose the same port: JupyterLab looks for a free one, and takes it later.
    environment["JUPYTER_PORT"] = str(free_port())
    with log.open("w") as file:
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("deepnet-edu")), *command],
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            found = re.search(address, log.read_text())
            if found:
                break
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield found.group()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@contextmanager
def chromium_page(folder: Path) -> Iterator:
    """A page of a fresh Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(folder / "profile"),
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            viewport={"width": 1280, "height": 900},
        )
        yield context.pages[0]
        context.close()


LAB = r"http://127\.0\.0\.1:\d+/lab\S*\?token=\w+"


@pytest.fixture
def lab_url(workspace: Path, tmp_path: Path) -> Iterator[str]:
    """The address that BROWSER=none make lab prints."""
    with served(["lab", "00", "--workspace", str(workspace)], LAB, tmp_path) as address:
        yield address


@pytest.fixture
def page(tmp_path: Path) -> Iterator:
    with chromium_page(tmp_path) as page:
        yield page


CONNECTED = """() => fetch("/api/kernels").then(answer => answer.json())
    .then(kernels => kernels.some(kernel => kernel.connections > 0 && kernel.execution_state === "idle"))"""


def run_all(page, last: str = "") -> None:
    """Run > Run All Cells once the kernel is there; then wait for the output that says ``last``, if one is given."""
    from playwright.sync_api import TimeoutError

    # The page says "idle" before it has a kernel, and cells that are run then are passed over without a word.
    page.wait_for_function(CONNECTED, timeout=180_000)
    begun = page.locator(".jp-InputPrompt").filter(has_text=re.compile(r"\[(\*|\d+)\]")).first
    for _ in range(30):  # while the page is still being put together, menus open and close, and dialogs come
        with suppress(TimeoutError):
            asked = page.locator("dialog.jp-Dialog button.jp-mod-accept")
            if asked.count():  # for a kernel
                asked.first.click(timeout=5_000)
            page.keyboard.press("Escape")
            page.get_by_role("menuitem", name="Run", exact=True).click(timeout=5_000)
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click(timeout=5_000)
            begun.wait_for(timeout=10_000)
            break
    if not last:
        return
    # Outputs far from the window are not on the page, and pictures that appear above push the end out of the window
    # again: go to the end until it stays.
    end = page.get_by_role("heading", name="In three sentences").first
    output = page.locator(".jp-OutputArea-output", has_text=last)
    for _ in range(300):
        end.scroll_into_view_if_needed()
        if output.count() and output.first.is_visible():
            break
        page.wait_for_timeout(1000)
    output.wait_for(timeout=1000)
