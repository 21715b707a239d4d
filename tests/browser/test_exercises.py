"""A learner answers wrongly, then rightly: the sentence, the bar, the progress file; in light and in dark."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

LESSON_01 = {
    "file": "01_residual_arithmetic",
    "heading": "What does x + f(x) do",
    "last": "independent 2, aligned 4",
    "exercise": "input_share",
    "wrong": "def input_share(n, f, alpha):\n    return 1 - n * f / alpha**2",
    "sentence": "Right to first order, but for Post-LN with f = 1 and 24 sub-layers it gives -23.",
    "right": "def input_share(n, f, alpha):\n    return (alpha**2 / (alpha**2 + f)) ** n",
    "bars": ["0 of 5 done", "1 of 5 done"],
}
LESSON_02 = {
    "file": "02_layer_norm",
    "heading": "What does a norm hide",
    "last": "1,000 layers: along the skips DeepNorm",
    "exercise": "equivalent_branch_scale",
    "wrong": "def equivalent_branch_scale(alpha):\n    return alpha",
    "sentence": "Then the branch is α² too strong: α on the skip makes the branch weaker.",
    "right": "def equivalent_branch_scale(alpha):\n    return 1 / alpha",
    "bars": ["0 of 6 done", "1 of 6 done"],
}
LESSON_07 = {
    "file": "07_building_deepnet",
    "heading": "How few lines is a 1,000-layer Transformer?",
    "last": "6-6: the paper's constants keep most",
    "exercise": "deepnorm",
    "wrong": "def deepnorm(x, f, norm, alpha):\n    return norm(x + alpha * f(x))",
    "sentence": "α is on the wrong term: the branch is α² too strong.",
    "right": "def deepnorm(x, f, norm, alpha):\n    return norm(alpha * x + f(x))",
    "bars": ["0 of 5 done", "1 of 5 done"],
}
#: Contrast of an element's text with what lies behind it, as WCAG 2.2 defines it.
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


def open_lesson(page, lab_url: str, lesson: dict) -> None:
    """Open it and run all its cells, untouched."""
    page.goto(lab_url.replace("00_a_thousand_layers", lesson["file"]))
    page.get_by_role("heading", name=lesson["heading"]).first.wait_for(timeout=60_000)
    page.get_by_text("Python 3 (ipykernel)").first.wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    # Outputs far from the window are not on the page: go to the end and wait for them there.
    page.get_by_role("heading", name="In three sentences").first.scroll_into_view_if_needed()
    page.locator(".jp-OutputArea-output", has_text=lesson["last"]).wait_for(timeout=180_000)


def answer(page, marker: str, source: str) -> None:
    """Replace the cell that holds ``marker``, run it, and run the check below it."""
    page.locator(".jp-CodeCell .cm-content", has_text=marker).first.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(source)
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")


@pytest.mark.parametrize("lesson", [LESSON_01, LESSON_02, LESSON_07], ids=lambda lesson: lesson["file"][:2])
def test_a_wrong_answer_gets_its_sentence_and_a_right_one_turns_the_bar(
    page, lab_url: str, workspace: Path, lesson: dict
) -> None:
    exercise, progress = lesson["exercise"], workspace / ".progress.json"
    open_lesson(page, lab_url, lesson)
    cards = page.locator(".jp-OutputArea-output", has=page.locator(f"code:text-is('{exercise}')"))
    page.locator(".jp-CodeCell .cm-content", has_text=f"check.{exercise}({exercise})").scroll_into_view_if_needed()
    untouched = cards.filter(has_text="Not attempted yet")
    untouched.wait_for()
    assert lesson["bars"][0] in (untouched.text_content() or "")

    progress.write_text("{ what is this")  # some accident; nothing of it is thrown away
    answer(page, f'NotImplementedError("{exercise}")', lesson["wrong"])
    cards.filter(has_text=lesson["sentence"]).wait_for(timeout=20_000)
    assert json.loads(progress.read_text())["exercises"][exercise]["state"] == "tried"
    assert progress.with_name(".progress.json.damaged-1").read_text() == "{ what is this"

    answer(page, lesson["wrong"].splitlines()[-1].strip(), lesson["right"])
    right = cards.filter(has_text="✓ Right")
    right.wait_for(timeout=20_000)
    assert lesson["bars"][1] in (right.text_content() or "")
    assert "█" in (right.text_content() or "")
    assert json.loads(progress.read_text())["exercises"][exercise]["state"] == "done"

    # Cards can be read on a light and on a dark page.
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        page.get_by_role("menuitem", name="Settings", exact=True).click()
        page.locator(".lm-Menu-item", has_text="Theme").first.hover()
        page.locator(".lm-Menu-itemLabel").get_by_text(theme, exact=True).click()
        page.wait_for_function(f"document.body.dataset.jpThemeName === '{theme}'")
        for selector, least in (("b", 3.0), ("div > code", 4.5), ("small", 4.5)):
            contrast = right.locator(selector).first.evaluate(CONTRAST)
            assert contrast >= least, (theme, selector, contrast)
