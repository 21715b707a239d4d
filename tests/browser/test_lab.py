"""A newcomer's first minutes: the lesson opens, all cells run, the picture is there."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from deepnet_edu.course.lab import close_side_bar
from tests.browser.conftest import CONNECTED, Lab, run_all


def test_lesson_00_from_the_learners_workspace(page, lab_url: str, workspace: Path) -> None:
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(lab_url)
    lesson = workspace / "00_a_thousand_layers.ipynb"
    page.get_by_role("heading", name="Can a Transformer have a thousand layers?").wait_for(timeout=180_000)

    run_all(page, "a model that knows nothing:")

    # The live picture: alt text is what a screen reader gets, natural width shows that it was drawn.
    page.get_by_role("heading", name="Run", exact=True).scroll_into_view_if_needed()
    picture = page.get_by_alt_text("Three panels for three stacks trained alone.")
    picture.wait_for(timeout=60_000)
    assert picture.evaluate("image => image.naturalWidth") > 500

    assert not page.get_by_text("Jupyter news").count()  # nothing asks for the network
    page.keyboard.press("Control+s")
    page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')", timeout=60_000)
    notebook = json.loads(lesson.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    (headline,) = [cell for cell in code if "headline" in cell["metadata"].get("tags", [])]
    (shown,) = headline["outputs"]
    html = "".join(shown["data"]["text/html"])
    assert len(html) > 25_000  # the finished picture, not the empty one that it began with
    assert html.startswith('<img alt="Three panels')

    # The prediction widget is live, and the guess comes back beside the answer.
    page.get_by_role("heading", name="Predict").scroll_into_view_if_needed()
    page.get_by_text("All three", exact=True).click()
    page.get_by_text("guess.compare(next(").scroll_into_view_if_needed()
    page.get_by_text("guess.compare(next(").click()
    page.keyboard.press("Control+Enter")
    page.get_by_text("You guessed: All three. It is: DeepNorm").wait_for(timeout=60_000)
    assert not problems


def test_a_small_window_is_the_lessons_own(page, lab: Lab, lab_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where JupyterLab has never been opened its side bar is closed; what the learner does with it is kept."""
    layouts = lab.settings / "workspaces"
    monkeypatch.setenv("JUPYTERLAB_WORKSPACES_DIR", str(layouts))
    close_side_bar()
    (layout,) = layouts.iterdir()
    page.set_viewport_size({"width": 700, "height": 900})
    page.goto(lab_url)
    notebook = page.locator(".jp-Notebook").first
    notebook.wait_for(timeout=180_000)
    page.get_by_role("heading", name="Can a Transformer have a thousand layers?").wait_for(timeout=180_000)
    assert not page.locator(".jp-FileBrowser").is_visible()
    assert notebook.bounding_box()["width"] > 600
    layout.write_text('{"data": {"mine": 1}, "metadata": {"id": "default"}}')
    close_side_bar()
    assert "mine" in layout.read_text()


def test_the_server_asks_for_its_token(lab: Lab) -> None:
    base, _, token = lab.address.partition("/lab")
    assert base.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{base}/api/contents")
    with urllib.request.urlopen(f"{base}/api/contents?{token.partition('?')[2]}") as answer:
        names = {item["name"] for item in json.load(answer)["content"]}
    assert "00_a_thousand_layers.ipynb" in names


def test_a_word_of_a_lesson_leads_to_its_row(page, lab: Lab, lab_url: str) -> None:
    """The link opens the glossary's preview at the word: JupyterLab keeps the anchor, and scrolls to it."""
    page.goto(lab_url)
    page.wait_for_function(CONNECTED, timeout=180_000)  # a kernel that still starts cannot be ended
    page.locator(".jp-Notebook a", has_text="Token similarity").first.click(timeout=60_000)
    anchor = page.locator('.jp-MarkdownViewer [data-jupyter-id="token-similarity"]')
    anchor.wait_for(state="attached", timeout=60_000)
    row = anchor.locator("xpath=ancestor::tr")
    assert "mean cosine between the vectors of different tokens" in row.inner_text()
    top = "row => row.getBoundingClientRect().top - row.closest('.jp-MarkdownViewer').getBoundingClientRect().top"
    page.wait_for_function(f"row => Math.abs(({top})(row)) < 100", arg=row.element_handle(), timeout=60_000)
