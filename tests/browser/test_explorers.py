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
from deepnet_edu.figures.scene import WIDTH
from tests.browser.conftest import CONTRAST, THEMES, Lab, choose_theme, collect_errors, run_all, served

NAMES = list(EXPLORERS)
FREE = "input[type=range]:not([disabled])"


#: What a text of a picture is written in, and on.
INK = """text => `${getComputedStyle(text).fill} on ` +
    getComputedStyle(text.closest('.deepnet-edu-explorer')).backgroundColor"""
#: Widths and smallest letters in px, but for powers of ten, which matplotlib writes smaller.
SIZES = """explorer => {
    const svg = explorer.querySelector('.picture svg'), box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const texts = [...explorer.querySelectorAll('.picture text')].filter(text => !text.querySelector('tspan'));
    return {width: box.width, page: document.documentElement.scrollWidth,
        letters: Math.min(...texts.map(text => scale * parseFloat(getComputedStyle(text).fontSize))),
        labels: parseFloat(getComputedStyle(explorer.querySelector('label')).fontSize)};
}"""
LARGE = """explorer => explorer.classList.contains('large') && (svg => svg.getBoundingClientRect().width
    / svg.viewBox.baseVal.width >= 16 / 9)(explorer.querySelector('.picture svg'))"""


@pytest.fixture(scope="module")
def voila_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What `deepnet-edu explore` prints."""
    folder = tmp_path_factory.mktemp("voila")
    address = r"http://127\.0\.0\.1:\d+/\S*token=\w+"
    with served(["explore", "--workspace", str(folder / "workspace")], address, folder) as url:
        yield url


def shown(page, explorer) -> None:
    """Wait until its picture is there, in the size that the page has asked for."""
    page.wait_for_function(
        "([explorer, first]) => [...explorer.querySelectorAll('.picture svg')].filter("
        "svg => Math.abs(svg.viewBox.baseVal.width - first) > 1).length === 2",
        arg=[explorer.element_handle(), 72 * WIDTH],
        timeout=180_000,
    )


def drawn(page, explorer, before: str) -> None:
    """Wait for another picture than number ``before``."""
    page.wait_for_function(
        "([explorer, before]) => explorer.querySelector('.picture').dataset.drawn !== before",
        arg=[explorer.element_handle(), before],
        timeout=60_000,
    )


def move_all(page) -> None:
    """Each explorer by its first free slider: it says its name and value, and picture and words change together."""
    explorers = page.locator(".deepnet-edu-explorer")
    assert explorers.count() == len(NAMES)
    for i, name in enumerate(NAMES):
        explorer = explorers.nth(i)
        shown(page, explorer)
        picture, slider = explorer.locator(".picture"), explorer.locator(FREE).first
        slider.scroll_into_view_if_needed()
        assert picture.bounding_box()["width"] > 600, name
        words = [picture.get_attribute("aria-label"), explorer.locator(".title").text_content()]
        before = picture.get_attribute("data-drawn")
        label = slider.evaluate("slider => slider.labels[0].textContent")
        value = slider.get_attribute("aria-valuetext")
        slider.focus()
        page.keyboard.press("ArrowLeft")
        drawn(page, explorer, before)
        assert [picture.get_attribute("aria-label"), explorer.locator(".title").text_content()] != words, name
        named = explorer.get_by_role("slider", name=label, exact=True)
        assert named.get_attribute("aria-valuetext") != value
        assert explorer.get_by_role("textbox", name=f"{label}, typed").input_value() == named.get_attribute(
            "aria-valuetext"
        )
        assert explorer.locator(".said").get_attribute("role") == "status"


def test_in_jupyterlab_by_keyboard_then_without_a_kernel_then_as_html(
    page, lab: Lab, lab_url: str, whole_page: None, workspace: Path, tmp_path: Path
) -> None:
    notebook = workspace / "explorers.ipynb"
    nbformat.write(explorer_page(NAMES, in_address=False), notebook)
    errors = collect_errors(page)
    url = lab_url.replace("00_a_thousand_layers", "explorers")
    page.goto(url)
    run_all(page)
    page.locator(".deepnet-edu-explorer").nth(len(NAMES) - 1).wait_for(timeout=180_000)
    assert not page.locator(".deepnet-edu-still").first.is_visible()  # one picture, not two

    move_all(page)

    # A number that cannot be: a sentence, readable in both themes, and the kernel lives on.
    signal = page.locator(".deepnet-edu-explorer").first
    field = signal.get_by_role("textbox", name="depth (layers), typed")
    ink = {}
    for theme in THEMES:
        field.fill("10,000")
        field.press("Enter")
        sentence = signal.get_by_role("status").filter(has_text="type a whole number from 1 to 2,000")
        sentence.wait_for(timeout=10_000)
        choose_theme(page, theme)
        assert sentence.evaluate(CONTRAST) >= 4.5
        for words in ("label", ".title", ".said", ".note", "summary"):
            assert signal.locator(words).first.evaluate(CONTRAST) >= 4.5, words
        ink[theme] = signal.locator(".picture text").first.evaluate(INK)
    # Dark pictures on a dark page: what is written in them is light.
    assert ink == {THEMES[0]: "rgb(0, 0, 0) on rgb(255, 255, 255)", THEMES[1]: "rgb(230, 230, 230) on rgb(27, 27, 27)"}
    field.fill("50")
    field.press("Enter")
    signal.get_by_text("a real model of this depth, recorded").wait_for(timeout=60_000)

    page.get_by_role("menuitem", name="File", exact=True).click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Save Notebook", exact=True).click()
    page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')", timeout=60_000)
    assert not errors
    saved = nbformat.read(notebook, as_version=4)
    outputs = [output for cell in saved.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]

    # A page that is loaded again, with its kernel, shows what was set.
    page.reload()
    signal = page.locator(".deepnet-edu-explorer").first
    signal.locator(".picture svg").nth(1).wait_for(timeout=180_000)
    assert signal.get_by_role("textbox", name="depth (layers), typed").input_value() == "50"
    assert "50 layers" in signal.locator(".title").text_content()

    # Opened again the kernel knows nothing of the widgets, as on the next day.
    lab.end_kernels()
    page.goto("about:blank")
    page.goto(url)
    page.locator(".deepnet-edu-still img").nth(len(NAMES) - 1).wait_for(timeout=180_000)
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
    stills = page.locator(".deepnet-edu-still img")
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
        assert page.locator(".deepnet-edu-still img").nth(i).is_visible()


def test_in_voila_by_keyboard(page, voila_url: str) -> None:
    errors = collect_errors(page)
    page.goto(voila_url)
    page.locator(".deepnet-edu-explorer").nth(len(NAMES) - 1).wait_for(timeout=120_000)
    assert not page.locator(".deepnet-edu-still").count()
    move_all(page)
    assert not page.get_by_text("Traceback").count()
    assert not errors


def opened(page, url: str) -> None:
    page.goto(url)
    page.locator(".deepnet-edu-explorer").nth(len(NAMES) - 1).wait_for(timeout=180_000)
    for i in range(len(NAMES)):
        shown(page, page.locator(".deepnet-edu-explorer").nth(i))


def test_a_preset_a_typed_number_and_their_address_outlive_a_reload(page, voila_url: str) -> None:
    errors = collect_errors(page)
    opened(page, voila_url)
    signal, race = (page.locator(".deepnet-edu-explorer").nth(NAMES.index(name)) for name in ("signal", "race"))
    opening = signal.locator(".title").text_content()
    signal.get_by_role("button", name="On the cliff, α = 2").click()
    signal.get_by_text("DeepNorm, 400 layers, d = 32, α = 2, β = 0.354").wait_for()
    assert "40% of the input is left" in signal.get_by_role("status").nth(1).text_content()
    field = race.get_by_role("textbox", name="depth (layers), typed")
    field.fill("77")
    field.press("Enter")
    race.get_by_text("DeepNorm, 77 layers").first.wait_for()
    page.wait_for_function("() => location.hash.includes('race.depth=77')")
    assert "signal.alpha=2" in page.url
    said = signal.locator(".said").text_content()

    page.reload()
    opened(page, page.url)
    signal.get_by_text("DeepNorm, 400 layers, d = 32, α = 2, β = 0.354").wait_for(timeout=60_000)
    race.get_by_text("DeepNorm, 77 layers").first.wait_for(timeout=60_000)
    assert signal.locator(".said").text_content() == said

    signal.get_by_role("button", name="Copy as code").click()
    code = signal.locator(".source code")
    assert code.is_visible()
    assert code.text_content().startswith(
        "from deepnet_edu.explorers import SignalExplorer; SignalExplorer(residual='deepnorm'"
    )
    signal.get_by_role("button", name="Reset").click()
    signal.get_by_text(opening, exact=True).wait_for()
    page.wait_for_function("() => !location.hash.includes('signal.')")
    assert "race.depth=77" in page.url
    # Voila asks its server to end the kernel of a page that is left, without the server's leave.
    assert not [error for error in errors if "403" not in error]


def test_an_explorer_fills_its_window_in_letters_that_can_be_read(page, voila_url: str) -> None:
    """Up to 1,600 px; 16 px in the size for a lecture, 12 at 700 px; and dark where the reader's system is."""
    for width, least in ((700, 12.5), (1400, 16.0), (2000, 16.0)):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="dark" if width == 700 else "light")
        opened(page, voila_url)
        for i, name in enumerate(NAMES):
            explorer = page.locator(".deepnet-edu-explorer").nth(i)
            if width > 700:
                explorer.get_by_role("button", name="Lecture size").click()
                page.wait_for_function(LARGE, arg=explorer.element_handle(), timeout=60_000)
            found = explorer.evaluate(SIZES)
            assert found["width"] >= min(0.9 * width, 1550), (name, width)
            assert found["width"] <= 1600
            assert found["letters"] >= least, (name, width, found)
            assert found["labels"] >= (20 if width > 700 else 15)
            assert found["page"] <= width  # nothing to scroll sideways
        if width == 700:
            assert explorer.locator(".picture text").first.evaluate(INK).startswith("rgb(230, 230, 230)")
            assert page.locator("h2").first.evaluate(CONTRAST) >= 4.5
            assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(27, 27, 27)"


def test_voila_asks_for_its_token(voila_url: str) -> None:
    base, _, _ = voila_url.partition("?")
    with urllib.request.urlopen(base) as answer:
        assert "login" in answer.url
        assert "deepnet-edu-explorer" not in answer.read().decode()
