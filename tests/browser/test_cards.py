"""Every exercise's cards as JupyterLab shows them, whole, and readable in light and in dark: untouched, wrong, wrong
again, asked for the answer in words, and right.

No lesson runs for it: the checks judge here, and a kernel only hands their cards to the page. Three lessons are
answered in test_exercises.
"""

import json
from collections import Counter
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from deepnet_edu.checks import Result, check
from deepnet_edu.progress import ENVIRONMENT
from tests.browser.conftest import CONTRAST, THEMES, choose_theme, collect_errors, run_all

STATES = ["open", "tried", "tried", "tried", "done"]
HEADS = {"open": "○ Not attempted yet", "tried": "✗ Not yet", "done": "✓ Right"}
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
#: A card is made of these; any other was text.
ELEMENTS = {"DIV", "B", "CODE", "BR", "TABLE", "TBODY", "TR", "TD", "SMALL"}
#: Least contrast: of large or bold letters, and of all others, as WCAG 2.2 asks for.
BOLD, PLAIN = 3.0, 4.5
LOOK = f"""cards => {{
    const contrast = {CONTRAST};
    const hasText = part => [...part.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    return cards.map(card => {{
        const inside = [...card.querySelectorAll("*")], edge = card.getBoundingClientRect().right;
        return {{
            text: card.innerText,
            elements: inside.map(part => part.tagName),
            fits: card.scrollWidth <= card.clientWidth
                && inside.every(part => part.getBoundingClientRect().right <= edge + 1),
            contrasts: [card, ...inside].filter(hasText).map(part => [part.tagName, contrast(part)]),
        }};
    }});
}}"""


def untouched(*_: object, **__: object) -> None:
    raise NotImplementedError


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Result]:
    """A learner goes through the course: opens each exercise, answers wrongly twice, asks, then answers rightly."""
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "progress.json"))
    cards = []
    for exercise, lesson in check.lesson_of.items():
        answers = import_module(f"tests.checks.answers_{lesson}")
        wrong = next(answer for name, answer, _ in answers.WRONG if name == exercise)
        right = next(answer for name, answer in answers.RIGHT if name == exercise)
        judge = getattr(check, exercise)
        cards += [judge(untouched), judge(wrong), judge(wrong), judge(wrong, show_me=True), judge(right)]
    return cards


def faults(card: Result, bar: str, look: dict[str, Any]) -> list[str]:
    """What a learner could not read on the card, or should not have to."""
    text = " ".join(look["text"].split())
    parts = [f"{HEADS[card.state]} {card.exercise}", card.sentence, card.rung, card.call, card.expected, card.got]
    parts += [card.formula, card.ask, card.bar, bar]
    found = [f"{part!r} is not shown" for part in (" ".join(part.split()) for part in parts) if part not in text]
    found += ["no sentence"] if not card.sentence and card.state != "done" else []
    found += ["an escape code"] if not text.isprintable() else []
    found += [f"text taken for <{element}>" for element in look["elements"] if element not in ELEMENTS]
    found += ["wider than its place"] if not look["fits"] else []
    return found + [
        f"<{element}> has a contrast of {contrast:.2f}"
        for element, contrast in look["contrasts"]
        if contrast < (BOLD if element == "B" else PLAIN)
    ]


def test_every_exercises_cards(page, lab_url: str, whole_page: None, workspace: Path, cards: list[Result]) -> None:
    assert [(card.exercise, card.state) for card in cards] == list(product(check.judges, STATES))
    told = [(bool(card.ask), bool(card.formula)) for card in cards]
    assert told == [(False, False), (False, False), (True, False), (False, True), (False, False)] * len(check.judges)
    (workspace / "cards.json").write_text(json.dumps([card._repr_mimebundle_() for card in cards]))
    cells = ["import json\ncards = json.load(open('cards.json'))"]
    cells += [f"display(*cards[{first}:{first + 5}], raw=True)" for first in range(0, len(cards), 5)]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=KERNEL)
    nbformat.write(notebook, workspace / "cards.ipynb")

    errors = collect_errors(page)
    page.goto(lab_url.replace("00_a_thousand_layers", "cards"))
    run_all(page)
    shown = page.locator(".jp-OutputArea-output")
    shown.nth(len(cards) - 1).wait_for(timeout=180_000)
    total = Counter(check.lesson_of.values())
    found = []
    for theme in THEMES:
        choose_theme(page, theme)
        done: Counter[str] = Counter()
        for card, look in zip(cards, shown.evaluate_all(LOOK), strict=True):
            lesson = check.lesson_of[card.exercise]
            done[lesson] += card.state == "done"
            bar = f"{done[lesson]} of {total[lesson]} done"
            found += [f"{theme}, {card.exercise}, {card.state}: {fault}" for fault in faults(card, bar, look)]
    assert not found, "\n".join(found)
    assert not errors
