"""One JupyterLab, as `deepnet-edu lab` starts it, and one Chromium to drive it, for all tests of this folder."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deepnet_edu.course.book import build_book

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PROGRAM = Path(sys.executable).with_name("deepnet-edu")
START_TIMEOUT_S = 180
WINDOW: Any = {"width": 1280, "height": 900}


@pytest.hookimpl(tryfirst=True)  # before what reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stay in one process, since they share both; without Chromium, say so."""
    missing = pytest.mark.skip(reason="needs Chromium: apt install chromium")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.xdist_group("browser"))
            if not CHROMIUM and not os.environ.get("CI"):
                item.add_marker(missing)


def free_port() -> int:
    """One that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(command: list[str], address: str, folder: Path, program: Path = PROGRAM) -> Iterator[str]:
    """While entered, ``deepnet-edu`` with this command serves; gives what it printed of the form ``address``.

    Args:
        command: arguments of deepnet-edu.
        address: regular expression of the address.
        folder: for logs and for settings of its own.
        program: deepnet-edu, of this environment or another.
    """
    log = folder / "server.log"
    folders = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = {**os.environ, **folders, "BROWSER": "none", "DEEPNET_EDU_PROFILE": "smoke"}
    # Two servers that start at once may choose the same port: JupyterLab looks for a free one, and takes it later.
    environment["JUPYTER_PORT"] = str(free_port())
    with log.open("w") as file:
        server = subprocess.Popen(
            [str(program), *command],
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
def chromium() -> Iterator[Any]:
    """While entered, Chromium runs. Playwright ends with it: until then this process can run no other event loop."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole book, as ``make book`` makes it; Sphinx warns of nothing."""
    return build_book(tmp_path_factory.mktemp("book")).parent


LAB = r"http://127\.0\.0\.1:\d+/lab\S*\?token=\w+"


@dataclass(frozen=True)
class Lab:
    """JupyterLab, while it runs.

    Attributes:
        address: as it was printed; it opens lesson 00.
        folder: the workspace, the same untouched, and Jupyter's own folders lie in it.
    """

    address: str
    folder: Path

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def untouched(self) -> Path:
        return self.folder / "untouched"

    @property
    def settings(self) -> Path:
        """What a page has changed: theme, layout, and which notebooks are open."""
        return self.folder / "config" / "lab"

    def ask(self, what: str, method: str = "GET") -> Any:
        """The server's answer."""
        base, _, query = self.address.partition("/lab")
        request = urllib.request.Request(f"{base}/api/{what}?{query.partition('?')[2]}", method=method)
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or "null")

    def end_kernels(self) -> None:
        """As an evening does."""
        for session in self.ask("sessions"):
            self.ask(f"sessions/{session['id']}", "DELETE")
        for kernel in self.ask("kernels"):  # of a page that was closed while it opened a notebook
            self.ask(f"kernels/{kernel['id']}", "DELETE")

    def reset(self) -> None:
        """No kernel, and all files as they were when it started."""
        self.end_kernels()
        shutil.rmtree(self.settings, ignore_errors=True)
        shutil.rmtree(self.workspace)
        shutil.copytree(self.untouched, self.workspace)


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """What `BROWSER=none make lab` starts."""
    folder = tmp_path_factory.mktemp("lab")
    with served(["lab", "00", "--workspace", str(folder / "workspace")], LAB, folder) as address:
        lab = Lab(address, folder)
        shutil.copytree(lab.workspace, lab.untouched)
        yield lab


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that knows nothing of others, as of a Chromium just installed."""
    context = browser.new_context(viewport=WINDOW)
    context.set_default_navigation_timeout(180_000)  # on two busy cores a server takes its time
    yield context.new_page()
    context.close()


@pytest.fixture
def lab_url(lab: Lab, page: Any) -> Iterator[str]:
    """The address that `BROWSER=none make lab` prints; what the page does there is undone after the test."""
    yield lab.address
    page.close()  # first: it saves its layout whenever that changes
    lab.reset()


@pytest.fixture
def workspace(lab: Lab) -> Path:
    return lab.workspace


@pytest.fixture
def whole_page(lab: Lab, lab_url: str) -> None:
    """JupyterLab does not render outputs far from the window; here it shall render all."""
    settings = lab.settings / "user-settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')


def collect_errors(page: Any) -> list[str]:
    """What page and console complain of, but for addresses outside, which cannot be reached here."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda message: (
            errors.append(message.text)
            if message.type == "error" and "ERR_NAME_NOT_RESOLVED" not in message.text
            else None
        ),
    )
    return errors


THEMES = ("JupyterLab Light", "JupyterLab Dark")
#: Contrast of an element's text with its background, as WCAG 2.2 defines it.
CONTRAST = """element => {
    const rgba = text => { const v = text.match(/[\\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
    const light = color => color.slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    let behind = element;
    while (rgba(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const back = rgba(getComputedStyle(behind).backgroundColor);
    let opacity = 1;
    for (let e = element; e !== behind; e = e.parentElement) opacity *= Number(getComputedStyle(e).opacity);
    const front = rgba(getComputedStyle(element).color).map((v, i) => opacity * v + (1 - opacity) * back[i]);
    const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
}"""


def choose_theme(page: Any, theme: str) -> None:
    """By the menu, as people do."""
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-item", has_text="Theme").first.hover()
    page.locator(".lm-Menu-itemLabel").get_by_text(theme, exact=True).click()
    page.wait_for_function(f"document.body.dataset.jpThemeName === '{theme}'")


CONNECTED = """() => fetch("/api/kernels").then(answer => answer.json())
    .then(kernels => kernels.some(kernel => kernel.connections > 0 && kernel.execution_state === "idle"))"""


def run_all(page: Any, last: str = "") -> None:
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
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        end.scroll_into_view_if_needed()
        if output.count():  # not "is visible": it may be in a room that is folded
            break
        page.wait_for_timeout(250)
    output.first.wait_for(state="attached", timeout=1000)
