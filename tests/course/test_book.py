"""The web book's pages, before Sphinx reads them."""

import nbformat
import pytest

from deepnet_edu.course import book
from deepnet_edu.course.places import RECORD_MIME, lesson_names
from deepnet_edu.explorers import NAMES
from deepnet_edu.messages import UserError

new = nbformat.v4


def page(*cells: nbformat.NotebookNode) -> nbformat.NotebookNode:
    return book.lesson_page(new.new_notebook(cells=[new.new_markdown_cell("# 01 · Why?\n\n- **It takes** …"), *cells]))


def test_an_answer_is_folded_and_what_only_checks_is_gone() -> None:
    made = page(
        new.new_markdown_cell("### Exercise\n\n**Objective**: write f."),
        new.new_code_cell("def f(x):\n    return x"),
        new.new_code_cell("check.f(f)"),
        new.new_code_cell('f = kit.mine_or_reference(f, "f")'),
        new.new_code_cell('g = kit.mine_or_reference(g, "g")\nprint(g(1))'),
    )
    assert [cell.source.split("\n")[0] for cell in made.cells[2:]] == [
        "def f(x):",
        'g = kit.mine_or_reference(g, "g")',
    ]
    assert made.cells[2].metadata.tags == ["hide-input"]
    assert "tags" not in made.cells[3].metadata


def test_below_an_explorer_is_where_it_can_be_moved() -> None:
    made = page(new.new_code_cell("from deepnet_edu.explorers import MixingExplorer\nMixingExplorer(depth=12)"))
    assert made.cells[2].source == '<a href="../explorers/mixing.html">Move it: Who hears whom over depth</a>'
    assert len(page(new.new_code_cell("MixingExplorer")).cells) == 2


def test_the_first_cell_says_how_long_it_takes_to_read() -> None:
    made = page(new.new_markdown_cell("word " * 1500))
    assert "- **To read** this page: about 10 minutes" in made.cells[0].source


def test_numbers_for_programs_are_not_shown() -> None:
    cell = new.new_code_cell("kit.record(x=1)")
    cell.outputs = [
        new.new_output("display_data", {RECORD_MIME: {"x": 1}, "text/plain": "recorded: x = 1"}),
        new.new_output("stream", text="one"),
    ]
    assert [output.output_type for output in page(cell).cells[1].outputs] == ["stream"]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("[the code](../solutions/01_residual_arithmetic.py)", "the code"),
        ("[02](02_layer_norm.ipynb)", "[02](../lessons/02_layer_norm.ipynb)"),
        ("[stream](../docs/glossary.md#stream)", "[stream](../docs/glossary.md#stream)"),
        ("[a paper](https://arxiv.org/abs/1)", "[a paper](https://arxiv.org/abs/1)"),
        ("[a bug](../docs/museum.md#cloned-layers)", "[a bug](../museum/cloned-layers.md)"),
        ("![a picture](x.png)", "![a picture](x.png)"),
    ],
)
def test_links_reach_a_page_or_are_words(given: str, made: str) -> None:
    pages = {"lessons/02_layer_norm.ipynb", "docs/glossary.md", "museum/cloned-layers.md"}
    assert book._within(given, "lessons/01_residual_arithmetic.ipynb", pages) == made


def test_the_museums_sections_become_pages() -> None:
    cloned, after = '<a id="cloned-layers"></a>\n\n## Cloned layers\n\nCopies.', "## α after the norm\n\nWrong."
    text = f"# Museum\n\nHello.\n\n{cloned}\n\n{after}\n"
    assert [(bug.slug, bug.title, bug.text) for bug in book.museum(text)] == [
        ("cloned-layers", "Cloned layers", "Copies."),
        ("α-after-the-norm", "α after the norm", "Wrong."),
    ]


def test_without_sphinx_or_a_clone_a_sentence_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(book, "_NEEDS", ("sphinx", "no_such_package"))
    with pytest.raises(UserError, match=r'needs no_such_package: pip install -e "\.\[book\]"'):
        book.build_book(tmp_path)
    monkeypatch.setattr(book, "BOOK", tmp_path / "none")
    with pytest.raises(UserError, match="made from a clone"):
        book.build_book(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_lesson_has_its_page(tmp_path) -> None:
    book.gather(tmp_path / "source", tuple(lesson_names()))
    assert sorted(path.stem for path in (tmp_path / "source" / "lessons").iterdir()) == lesson_names()
    first = (tmp_path / "source" / "index.md").read_text()
    assert "%" not in first.replace("%5", "")
    assert all(f"(lessons/{name}.ipynb)" in first for name in lesson_names())
    listed = (tmp_path / "source" / "explorers.md").read_text()
    assert all(f'href="explorers/{name}.html"' in text for name in NAMES for text in (first, listed))
