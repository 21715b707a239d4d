"""A learner answers wrongly, then rightly."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

WRONG = "def input_share(n, f, alpha):\n    return 1 - n * f / alpha**2"
RIGHT = "def input_share(n, f, alpha):\n    return (alpha**2 / (alpha**2 + f)) ** n"


def answer(page, marker: str, source: str) -> None:
    """Replace the cell that holds ``marker``, run it, and run the check below it."""
    page.locator(".jp-CodeCell .cm-content", has_text=marker).first.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(source)
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")


def test_a_wrong_answer_gets_its_sentence_and_a_right_one_is_noted(page, lab_url: str, workspace: Path) -> None:
    page.goto(lab_url.replace("00_a_thousand_layers", "01_residual_arithmetic"))
    page.get_by_role("heading", name="What does x + f(x) do").wait_for(timeout=60_000)
    page.get_by_text("Python 3 (ipykernel)").first.wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.locator(".jp-OutputArea-output", has_text="independent 2, aligned 4").wait_for(timeout=120_000)
    cards = page.locator(".jp-OutputArea-output", has_text="input_share")
    cards.filter(has_text="Not attempted yet").wait_for()

    answer(page, 'NotImplementedError("input_share")', WRONG)
    card = cards.filter(has_text="Right to first order, but for Post-LN with f = 1 and 24 sub-layers it gives -23.")
    card.wait_for(timeout=20_000)
    progress = workspace / ".progress.json"
    assert json.loads(progress.read_text())["exercises"]["input_share"]["state"] == "tried"

    answer(page, "1 - n * f / alpha**2", RIGHT)
    cards.filter(has_text="✓ Right").wait_for(timeout=20_000)
    assert json.loads(progress.read_text())["exercises"]["input_share"]["state"] == "done"
    assert json.loads(progress.read_text())["exercises"]["cloned_growth"]["state"] == "open"
