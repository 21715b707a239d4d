"""Explorers moved by keyboard in JupyterLab and in Voila; their pictures without a kernel and in exported HTML."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from deepnet_edu.explorers import EXPLORERS
from deepnet_edu.explorers.app import page as explorer_page
from tests.browser.conftest import CONTRAST, THEMES, Lab, choose_theme, collect_errors, run_all, served

NAMES = list(EXPLORERS)
FREE_HANDLE = ".noUi-target:not([disabled]) .noUi-handle"


@pytest.fixture(scope="module")
def voila_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What `deepnet-edu explore` prints."""
    folder = tmp_path_factory.mktemp("voila")
    address = r"http://127\.0\.0\.1:\d+/\S*token=\w+"
    with served(["explore", "--workspace", str(folder / "workspace")], address, folder) as url:
        yield url


def move_all(page) -> None:
    """Each explorer by its first free slider: another picture, and its words change with it."""
    explorers = page.locator(".deepnet-edu-explorer")
    assert explorers.count() == len(NAMES)
    for i, name in enumerate(NAMES):
        explorer = explorers.nth(i)
        picture, words = explorer.locator("img.widget-image"), explorer.locator("p")
        before, said = picture.get_attribute("src"), words.text_content()
        explorer.locator("select").first.scroll_into_view_if_needed() if name not in ("map",) else None
        explorer.locator(FREE_HANDLE).first.focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_function(
            "([explorer, before]) => explorer.querySelector('img.widget-image').src !== before",
            arg=[explorer.element_handle(), before],
            timeout=60_000,
        )
        page.wait_for_function(
            "([explorer, said]) => explorer.querySelector('p').textContent !== said",
            arg=[explorer.element_handle(), said],
            timeout=60_000,
        )
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 600, name


def test_in_jupyterlab_by_keyboard_then_without_a_kernel_then_as_html(
    page, lab: Lab, lab_url: str, whole_page: None, workspace: Path, tmp_path: Path
) -> None:
    notebook = workspace / "explorers.ipynb"
    nbformat.write(explorer_page(NAMES), notebook)
    errors = collect_errors(page)
    url = lab_url.replace("00_a_thousand_layers", "explorers")
    page.goto(url)
    run_all(page)
    page.locator("img.widget-image").nth(len(NAMES) - 1).wait_for(timeout=180_000)
    assert not page.locator("img.deepnet-edu-still").first.is_visible()  # one picture, not two

    move_all(page)

    # A number that cannot be: a sentence, readable in both themes, and the kernel lives on.
    signal = page.locator(".deepnet-edu-explorer").first
    field = signal.get_by_placeholder("depth (layers)")
    for theme in THEMES:
        field.fill("10,000")
        field.press("Enter")
        sentence = signal.get_by_role("status").filter(has_text="type a whole number from 1 to 2,000")
        sentence.wait_for(timeout=10_000)
        choose_theme(page, theme)
        assert sentence.evaluate(CONTRAST) >= 4.5
        assert signal.locator("label").first.evaluate(CONTRAST) >= 4.5
    field.fill("50")
    field.press("Enter")
    page.get_by_text("a real model of this depth, recorded").first.wait_for(state="attached", timeout=60_000)

    page.get_by_role("menuitem", name="File", exact=True).click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Save Notebook", exact=True).click()
    page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')", timeout=60_000)
    assert not errors
    saved = nbformat.read(notebook, as_version=4)
    outputs = [output for cell in saved.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]

    # Opened again the kernel knows nothing of the widgets, as on the next day.
    lab.end_kernels()
    page.goto("about:blank")
    page.goto(url)
    page.locator("img.deepnet-edu-still").nth(len(NAMES) - 1).wait_for(timeout=180_000)
    page.locator(".jp-OutputArea-output.jupyter-widgets").nth(len(NAMES) - 1).wait_for(
        state="attached", timeout=180_000
    )
    assert not page.get_by_text("Error displaying widget").first.is_visible()

    # And with no kernel at all.
    saved.metadata = nbformat.NotebookNode(kernelspec={"name": "gone", "display_name": "Gone", "language": "none"})
    nbformat.write(saved, notebook)
    page.goto("about:blank")
    lab.end_kernels()
    page.goto(url)
    page.locator(".jp-Dialog-button", has_text="No Kernel").click(timeout=180_000)
    stills = page.locator("img.deepnet-edu-still")
    stills.nth(len(NAMES) - 1).wait_for(timeout=180_000)
    assert all(stills.nth(i).evaluate("image => image.naturalWidth") > 600 for i in range(len(NAMES)))
    assert all(len(stills.nth(i).get_attribute("alt") or "") > 60 for i in range(len(NAMES)))

    exported = tmp_path / "explorers.html"
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "html", str(notebook), "--output", str(exported)],
        check=True,
        capture_output=True,
    )
    page.goto(exported.as_uri())
    for i in range(len(NAMES)):
        assert page.locator("img.deepnet-edu-still").nth(i).is_visible()


def test_in_voila_by_keyboard(page, voila_url: str) -> None:
    errors = collect_errors(page)
    page.goto(voila_url)
    page.locator("img.widget-image").nth(len(NAMES) - 1).wait_for(timeout=120_000)
    assert not page.locator("img.deepnet-edu-still").first.is_visible()
    move_all(page)
    assert not page.get_by_text("Traceback").count()
    assert not errors


def test_voila_asks_for_its_token(voila_url: str) -> None:
    base, _, _ = voila_url.partition("?")
    with urllib.request.urlopen(base) as answer:
        assert "login" in answer.url
        assert "deepnet-edu-explorer" not in answer.read().decode()
