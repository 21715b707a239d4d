"""A learner answers wrongly, then rightly, in three lessons that run: the sentence, the bar, the progress file.

How the cards of all exercises look is seen in test_cards.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from deepnet_edu.checks import check
from deepnet_edu.course.places import find_lesson
from tests.browser.conftest import run_all


@dataclass(frozen=True)
class Case:
    """One exercise of a lesson: a wrong answer, the sentence that it gets, the right one, what the last cell prints."""

    lesson: str
    exercise: str
    head: str
    wrong: str
    sentence: str
    right: str
    last: str

    @property
    def file(self) -> str:
        return find_lesson(self.lesson)

    def source(self, line: str) -> str:
        return f"{self.head}\n    return {line}"

    def bar(self, done: int) -> str:
        return f"{done} of {sum(lesson == self.lesson for lesson in check.lesson_of.values())} done"


CASES = [
    Case(
        "01",
        "input_share",
        "def input_share(n, f, alpha):",
        "1 - n * f / alpha**2",
        "Right to first order, but for Post-LN with f = 1 and 24 sub-layers it gives -23.",
        "(alpha**2 / (alpha**2 + f)) ** n",
        "after 1,000 layers with f = 1",
    ),
    Case(
        "04",
        "token_similarity",
        "def token_similarity(x):\n    u = x / x.norm(dim=-1, keepdim=True)",
        "(u @ u.mT).mean().item()",
        "A token is always similar to itself: leave out those T pairs.",
        "((u.sum(1).square().sum(-1) / x.shape[1] - 1) / (x.shape[1] - 1)).mean().item()",
        "layer 1,000 adds 0.1% of the stream",
    ),
    Case(
        "15",
        "bubble_share",
        "def bubble_share(ranks, microbatches, chunks=1):",
        "(ranks - 1) / microbatches",
        "With chunks each wait is shorter.",
        "(ranks - 1) / (microbatches * chunks)",
        "5 ranks, 8 steps: largest distance from the sum",
    ),
]


def open_lesson(page, lab_url: str, case: Case) -> None:
    """Open it and run all its cells, untouched."""
    page.goto(lab_url.replace("00_a_thousand_layers", case.file))
    page.get_by_role("heading", name=f"{case.lesson} ·").first.wait_for(timeout=180_000)
    run_all(page, case.last)


def answer(page, marker: str, source: str) -> None:
    """Replace the cell that holds ``marker``, run it, and run the check below it."""
    page.locator(".jp-CodeCell .cm-content", has_text=marker).first.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(source)
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.lesson)
def test_a_wrong_answer_gets_its_sentence_and_a_right_one_turns_the_bar(
    page, lab_url: str, workspace: Path, case: Case
) -> None:
    exercise, progress = case.exercise, workspace / ".progress.json"
    open_lesson(page, lab_url, case)
    cards = page.locator(".jp-OutputArea-output", has=page.locator(f"code:text-is('{exercise}')"))
    page.locator(".jp-CodeCell .cm-content", has_text=f"check.{exercise}({exercise})").scroll_into_view_if_needed()
    untouched = cards.filter(has_text="Not attempted yet")
    untouched.wait_for()
    assert case.bar(0) in (untouched.text_content() or "")

    progress.write_text("{ what is this")  # some accident; nothing of it is thrown away
    answer(page, f'NotImplementedError("{exercise}")', case.source(case.wrong))
    cards.filter(has_text=case.sentence).wait_for(timeout=60_000)
    assert json.loads(progress.read_text())["exercises"][exercise]["state"] == "tried"
    assert progress.with_name(".progress.json.damaged-1").read_text() == "{ what is this"

    answer(page, f"return {case.wrong}", case.source(case.right))
    right = cards.filter(has_text="✓ Right")
    right.wait_for(timeout=60_000)
    assert case.bar(1) in (right.text_content() or "")
    assert "█" in (right.text_content() or "")
    assert json.loads(progress.read_text())["exercises"][exercise]["state"] == "done"
