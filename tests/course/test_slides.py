"""Slides: what is on them, and what the presenter reads; tests/browser/test_slides.py shows them."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from deepnet_edu.course import slides
from deepnet_edu.course.places import DOCS, SOLUTIONS, lesson_names
from deepnet_edu.messages import UserError

LECTURE = (DOCS / "lecture.md").read_text(encoding="utf-8")


def test_the_lecture_takes_ninety_minutes() -> None:
    notes = [part.partition("\nNote: ")[2] for part in LECTURE.split("\n---\n")]
    minutes = [slides.minutes_of(note) for note in notes]
    assert min(minutes) > 0
    assert sum(minutes) == 90
    made = slides.lecture(LECTURE)
    assert len(made) == len(notes)
    assert made[0].notes[0] == "**Minutes 0 to 2.**"
    assert made[-1].notes[0] == "**Minutes 87 to 90.**"
    assert not any("Note:" in slide.body for slide in made)
    questions = [slide for slide in made if re.search(r"<h2>Question \d</h2>", slide.body)]
    assert len(questions) == 5
    assert LECTURE.count("If asked") >= 10


def test_the_lectures_pictures_are_those_of_solutions() -> None:
    named = re.findall(r"!\[([^\]]+)\]\(images/(\w+)\.png\)", LECTURE)
    assert len(named) >= 8
    assert {name for _, name in named} <= {*lesson_names(SOLUTIONS)}
    assert all((DOCS / "images" / f"{name}.png").exists() and len(alt) > 60 for alt, name in named)


def test_the_lectures_numbers_are_computed() -> None:
    from deepnet_edu import deepnorm_constants

    for layers in (6, 12, 100, 1000):
        constants = deepnorm_constants(decoder_layers=layers).decoder
        assert f"| {layers:,} | {constants.alpha:.2f} | {constants.beta:.3f} |" in LECTURE
    for layers in (12, 100, 1000):
        constants = deepnorm_constants(decoder_layers=layers).decoder
        share = (constants.alpha**2 / (constants.alpha**2 + constants.beta**4)) ** (2 * layers)
        assert f"| {layers:,} | {share:.1%} | $2^{{-{2 * layers}}}$ |" in LECTURE


def test_marked_cells_are_slides_and_the_text_between_them_notes() -> None:
    picture = new_output("execute_result", {"text/html": '<img alt="A curve" src="data:image/png;base64,AA==">'})
    cells = [
        new_markdown_cell("# 01 · Why?\n\nBecause of $x_1 < x_2$, see [stream](glossary.md).\n\n- **It takes** long"),
        new_markdown_cell("## First\n\nWords before."),
        new_code_cell("draw()", outputs=[picture], metadata={"tags": ["headline"]}),
        new_markdown_cell("<details><summary>What you should see</summary>\n\nA curve.\n</details>\n\n## Second"),
        new_markdown_cell("### Exercise 1.1 · Do it\n\n**Objective**: learn"),
        new_code_cell(
            "print(1 < 2)", outputs=[new_output("stream", text="True\n")], metadata={"tags": ["hide-input", "slide"]}
        ),
        new_markdown_cell("Marked.", metadata={"tags": ["slide"]}),
        new_markdown_cell("## In three sentences\n\n1. One."),
        new_markdown_cell("---\n\n← before"),
    ]
    opening, curve, code, text, closing = slides.lesson_slides(new_notebook(cells=cells))
    assert "<h1>01 · Why?</h1>" in opening.body
    assert r"\(x_1 &lt; x_2\)</span>, see stream." in opening.body
    assert "It takes" not in opening.body
    assert opening.notes == ["## First\n\nWords before."]
    assert curve.body == '<h2>First</h2>\n<img alt="A curve" src="data:image/png;base64,AA==">'
    assert curve.notes == ["A curve.\n\n\n## Second"]
    assert code.body.startswith("<h2>Do it</h2>")
    assert "<code>print(1 &lt; 2)</code>" in code.body
    assert "<code>True</code>" in code.body
    assert text.body.endswith("<p>Marked.</p>\n")
    assert "<li>One.</li>" in closing.body
    assert "before" not in closing.body


@pytest.mark.parametrize("name", lesson_names(SOLUTIONS))
def test_every_lesson_has_slides(name: str) -> None:
    made = slides.lesson_slides(nbformat.read(SOLUTIONS / f"{name}.ipynb", as_version=4))
    assert any("<img " in slide.body for slide in made)
    assert "<h1>" in made[0].body
    assert "In three sentences" in made[-1].body


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="lesson"):
        slides.export_slides(tmp_path / "out", "77")
    monkeypatch.setattr(slides, "find_spec", lambda name: None if name == "sphinx_revealjs" else True)
    with pytest.raises(UserError, match="Slides need sphinx-revealjs: pip install sphinx-revealjs$"):
        slides.export_slides(tmp_path / "out", "06")
    assert not any(tmp_path.iterdir())
