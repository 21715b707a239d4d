"""The web book: one page per lesson from its executed solution, the docs, the museum, the explorers, and the library's
docstrings.

``book/`` has Sphinx's settings and the first page. What it shows is gathered beside them into a folder whose paths are
those of the clone, so that links between pages hold; Sphinx with myst-nb makes HTML of it that needs no network.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from deepnet_edu.course.mathjax import copy_mathjax
from deepnet_edu.course.places import DOCS, IMAGES, NEEDS_CLONE, RECORD_MIME, ROOT, SOLUTIONS, lesson_names
from deepnet_edu.explorers import EXPLORERS, NAMES
from deepnet_edu.explorers.pages import write_pages
from deepnet_edu.explorers.positions import about
from deepnet_edu.files import write_atomic
from deepnet_edu.messages import UserError

BOOK = ROOT / "book"
OUT = ROOT / "build" / "book"
#: Modules of the library whose public names the book explains, in the order of a reader.
API = (
    "deepnet_edu",
    *(f"deepnet_edu.{room}" for room in ("scaling", "residual", "model", "theory", "probing", "review", "planning")),
    *(f"deepnet_edu.{room}" for room in ("data", "training", "experiment", "figures", "explorers")),
)
#: Pages of the clone besides lessons and docs.
PAGES = ("README.md", "benchmarks/README.md")
#: Words that a reader reads in a minute, where formulas and code are between them.
WORDS_A_MINUTE = 150
_NEEDS = ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx-mathjax-offline")


@dataclass(frozen=True)
class Bug:
    """A page of the museum: its file, its title, its Markdown."""

    slug: str
    title: str
    text: str


def build_book(out: Path = OUT, only: tuple[str, ...] = ()) -> Path:
    """Make the book in ``out``; returns its first page.

    Args:
        out: folder; ``source`` and ``html`` in it are replaced.
        only: names of lessons; all by default.

    Raises:
        UserError: the package has no clone, Sphinx is not installed, or it warns of something: a broken link, a page
            that it cannot read.
    """
    if not BOOK.is_dir():
        raise UserError(f"The book is made from a clone. {NEEDS_CLONE}")
    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        raise UserError(f'The book needs {", ".join(missing)}: pip install -e ".[book]", or make book.')
    source, html = out / "source", out / "html"
    for folder in (source, html):
        shutil.rmtree(folder, ignore_errors=True)
    gather(source, only or tuple(lesson_names(SOLUTIONS)))
    words = ["-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-j", "auto", str(source), str(html)]
    with subprocess.Popen([sys.executable, *words]) as sphinx:
        write_pages(html / "explorers", home="../index.html")  # a minute each, so at once
    if sphinx.returncode:
        raise UserError("Sphinx found something to warn of in the book, see above.")
    return html / "index.html"


def gather(source: Path, lessons: tuple[str, ...]) -> None:
    """Write all pages into a folder, as Sphinx reads them."""
    for folder in ("_static/mathjax", "lessons"):
        (source / folder).mkdir(parents=True)
    for name in ("conf.py", "icon.svg"):
        shutil.copy(BOOK / name, source)
    shutil.copy(BOOK / "book.css", source / "_static")
    copy_mathjax(source / "_static" / "mathjax")
    shutil.copytree(IMAGES, source / "docs" / "images")
    pages = {path: (ROOT / path).read_text(encoding="utf-8") for path in PAGES}
    pages |= {f"docs/{path.name}": path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    pages |= dict(_api()) | dict(_museum(pages.pop("docs/museum.md", "")))
    titles = {}
    for name in lessons:
        notebook = lesson_page(nbformat.read(SOLUTIONS / f"{name}.ipynb", as_version=4))
        titles[name] = notebook.cells[0].source.split("\n")[0].removeprefix("# ")
        pages[f"lessons/{name}.ipynb"] = nbformat.writes(notebook)
    pages["index.md"], pages["explorers.md"] = _first_page(titles), _explorers_page()
    for path, text in pages.items():
        write_atomic(_made(source / path), _anchored(_within(text, path, {*pages})) if path.endswith(".md") else text)
    for name in lessons:
        _mend_links(source / "lessons" / f"{name}.ipynb", {*pages})


def lesson_page(notebook: NotebookNode) -> NotebookNode:
    """A solution as a page: answers folded, cells that only check or choose an answer gone, the time to read on top."""
    words = sum(len(re.sub(r"\$[^$]*\$", " ", cell.source).split()) for cell in notebook.cells if _is_text(cell))
    first = notebook.cells[0]
    first.source += f"\n- **To read** this page: about {round(words / WORDS_A_MINUTE)} minutes, without the exercises."
    kept = []
    prompt = False
    for cell in notebook.cells:
        if _is_text(cell):
            prompt = "**Objective**" in cell.source
        else:
            if _only_checks(cell):
                continue
            cell.outputs = [output for output in cell.outputs if RECORD_MIME not in output.get("data", {})]
            tags = cell.metadata.get("tags", [])
            if prompt:
                cell.metadata = NotebookNode(tags=[*tags, "hide-input"], mystnb={"code_prompt_show": "Show an answer"})
            elif {"imports", "parameters"} & {*tags}:
                cell.metadata.tags = [*tags, "hide-input"]
            prompt = False
        kept.append(cell)
        kept += [nbformat.v4.new_markdown_cell(_moving(name)) for name in _shown_by(cell)]
    notebook.cells = kept
    return notebook


def _shown_by(cell: NotebookNode) -> list[str]:
    """The explorers that a cell shows."""
    source = "" if _is_text(cell) else cell.source
    return [name for name in NAMES if re.search(rf"^{EXPLORERS[name].__name__}\(", source, re.MULTILINE)]


def _moving(name: str) -> str:
    """Below the picture of an explorer, where it can be moved."""
    return f'<a href="../explorers/{name}.html">Move it: {escape(EXPLORERS[name].title)}</a>'


def _explorers() -> Iterator[str]:
    """A line of Markdown for each explorer; the pages are not Sphinx's."""
    for name, kind in EXPLORERS.items():
        yield f'- <a href="explorers/{name}.html">{escape(kind.title)}</a>: {escape(about(name))}'


def _explorers_page() -> str:
    return (
        "# Explorers\n\nDepth, α and other dials by hand, in a browser alone. Each page holds all of its pictures; in "
        "the course itself dials have more stops, and models are measured while you look.\n\n"
    ) + "\n".join(_explorers())


def _is_text(cell: NotebookNode) -> bool:
    return bool(cell.cell_type == "markdown")


def _only_checks(cell: NotebookNode) -> bool:
    """Whether a cell does nothing but check an answer, or take it or the reference."""
    lines = [line for line in cell.source.splitlines() if line.strip()]
    return bool(lines) and all(
        re.match(r"check\.\w+\(|\w+ = kit\.(mine_or_reference|earlier)\(", line) for line in lines
    )


def _first_page(titles: dict[str, str]) -> str:
    text = (BOOK / "index.md").read_text(encoding="utf-8")
    lines = {
        "%LESSONS%": "\n".join(f"- [{title}](lessons/{name}.ipynb)" for name, title in titles.items()),
        "%PAGES%": "\n".join(f"lessons/{name}.ipynb" for name in titles),
        "%EXPLORERS%": "\n".join(_explorers()),
    }
    for word, said in lines.items():
        text = text.replace(word, said)
    return text


def _api() -> Iterator[tuple[str, str]]:
    """A page for each room's public names, and the list of them."""
    names = "\n".join(API)
    yield "api/index.md", f"# The library\n\nNames that may be imported, by room.\n\n```{{toctree}}\n{names}\n```\n"
    for module in API:
        members = "   :members:\n   :imported-members:\n" if "." in module else ""  # those at the top have a room
        body = f".. automodule:: {module}\n{members}"
        yield f"api/{module}.md", f"# {module}\n\n```{{eval-rst}}\n{body}```\n"


def museum(text: str) -> list[Bug]:
    """The sections of docs/museum.md that are bugs, each with its anchor as file name."""
    found = re.split(r"^(?:\(([\w-]+)\)=\n|<a id=\"([\w-]+)\"></a>\n+)?## (.+)\n", text, flags=re.MULTILINE)
    return [
        Bug(label or anchor or re.sub(r"[^\w]+", "-", title.lower()).strip("-"), title, body.strip())
        for label, anchor, title, body in zip(found[1::4], found[2::4], found[3::4], found[4::4], strict=True)
    ]


def _museum(text: str) -> Iterator[tuple[str, str]]:
    bugs = museum(text)
    opening = re.split(r"^(?:\([\w-]+\)=\n|<a id=.*\n+)?## ", text, maxsplit=1, flags=re.MULTILINE)[0]
    names = "\n".join(bug.slug for bug in bugs)
    listed = f"\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n" if bugs else ""
    yield "museum/index.md", (opening or "# The bug museum\n\nLesson 09 is its tour.\n") + listed
    for bug in bugs:
        yield f"museum/{bug.slug}.md", f"# {bug.title}\n\n{bug.text}\n"


def _anchored(text: str) -> str:
    """Markdown whose words with an anchor are targets that Sphinx knows."""
    return re.sub(r'<a id="([^"]+)"></a>(\*\*[^*]+\*\*)', r"[\2]{#\1}", text)


def _within(text: str, page: str, pages: set[str]) -> str:
    """Markdown whose links to files that the book lacks are words, and whose links to a solution reach its lesson."""

    def link(found: re.Match[str]) -> str:
        label, target = found[1], found[2]
        if re.match(r"\w+:|#", target):
            return found[0]
        path, _, anchor = target.partition("#")
        place = Path(*_resolved(Path(page).parent / path))
        lesson = Path("lessons") / place.name if place.parent.name == "solutions" else place
        if place.as_posix() == "docs/museum.md":
            lesson = Path(f"museum/{anchor or 'index'}.md")
        if lesson.as_posix() in pages or lesson.suffix in (".png", ".svg"):
            up = "../" * len(Path(page).parent.parts)
            return f"[{label}]({up}{lesson.as_posix()}{f'#{anchor}' if anchor and 'museum' not in str(lesson) else ''})"
        return label

    return re.sub(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)", link, text)


def _resolved(path: Path) -> list[str]:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return parts


def _mend_links(path: Path, pages: set[str]) -> None:
    """The same for a notebook's text."""
    notebook = nbformat.read(path, as_version=4)
    for cell in filter(_is_text, notebook.cells):
        cell.source = _within(cell.source, f"lessons/{path.name}", pages)
    write_atomic(path, nbformat.writes(notebook))


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
