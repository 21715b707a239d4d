"""Every symbol and word is explained once in docs/notation.md or docs/glossary.md, and no lesson uses one before the
lesson that introduces it."""

import re
from functools import cache

import jupytext
import pytest

from deepnet_edu.course.places import DOCS, SOLUTIONS, lesson_names

NAMES = lesson_names()
GREEK = {
    *(
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "varepsilon",
        "zeta",
        "eta",
        "theta",
        "kappa",
        "lambda",
        "mu",
        "nu",
    ),
    *("xi", "pi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega"),
    *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"),
}


def rows(page: str) -> list[tuple[str, str]]:
    """First and last column of the page's table."""
    lines = [line.strip("| ").split(" | ") for line in (DOCS / page).read_text(encoding="utf-8").splitlines()]
    table = [(cells[0], cells[-1]) for cells in lines if len(cells) >= 3]
    return [row for row in table[1:] if "---" not in row[0]]


def symbols(math: str) -> set[str]:
    """Letters and Greek letters of a formula; names of functions and words in it do not count."""
    math = re.sub(r"\\(operatorname|mathrm|text|mathbf|mathbb)\s*(\{[^}]*\}|\w)", " ", math)
    return {found for found in re.findall(r"\\([a-zA-Z]+)|([A-Za-z])", math) for found in found if found} & (
        GREEK | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    )


def formulas(markdown: str) -> str:
    markdown = re.sub(r"`[^`]*`", " ", markdown)
    return " ".join(block or inline for block, inline in re.findall(r"\$\$(.+?)\$\$|\$(.+?)\$", markdown, re.DOTALL))


@cache
def prose(name: str) -> str:
    cells = jupytext.read(SOLUTIONS / f"{name}.py").cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def introduced() -> dict[str, str]:
    """The lesson that introduces each symbol."""
    found: dict[str, str] = {}
    for cell, lesson in rows("notation.md"):
        for symbol in symbols(formulas(cell)):
            found.setdefault(symbol, lesson)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_no_symbol_is_used_before_it_is_introduced(name: str) -> None:
    known = introduced()
    used = symbols(formulas(prose(name)))
    assert sorted(used - known.keys()) == [], "in no row of docs/notation.md"
    assert {symbol: known[symbol] for symbol in used if known[symbol] > name[:2]} == {}


@pytest.mark.parametrize("name", NAMES)
def test_no_word_is_used_before_it_is_introduced(name: str) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"`[^`]*`", " ", prose(name))).lower()
    early = [
        word
        for cell, lesson in rows("glossary.md")
        for word in re.findall(r"\*\*(.+?)\*\*(?! \()", cell)
        if lesson > name[:2] and re.search(rf"\b{re.escape(word.lower())}\b", text)
    ]
    assert early == []


@pytest.mark.parametrize("page", ["glossary.md", "notation.md"])
def test_each_row_stands_once_and_names_a_lesson_that_uses_it(page: str) -> None:
    first = [cell for cell, _ in rows(page)]
    assert len(first) > 20
    assert len(set(first)) == len(first)
    assert {lesson for _, lesson in rows(page)} <= {name[:2] for name in NAMES}


def test_each_symbol_is_used_where_it_is_said_to_be_introduced() -> None:
    sources = {name[:2]: (SOLUTIONS / f"{name}.py").read_text(encoding="utf-8") for name in NAMES}
    absent = {
        symbol: lesson
        for symbol, lesson in introduced().items()
        if not re.search(rf"(?<![A-Za-z]){symbol}(?![A-Za-z])", sources[lesson])
    }
    assert absent == {}
