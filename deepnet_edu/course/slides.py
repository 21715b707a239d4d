"""Slides that need no network: from marked cells of an executed solution, or from the lecture in docs/lecture.md.

A cell tagged ``slide`` is a slide, and so is the headline picture; the lesson's opening comes before them, its three
sentences after them. The text between two slides is the presenter's notes of the first. reveal.js and MathJax come with
two packages, and are copied beside the page.
"""

import html
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from deepnet_edu.course.export import new_folder
from deepnet_edu.course.mathjax import copy_mathjax
from deepnet_edu.course.places import DOCS, SOLUTIONS, find_lesson
from deepnet_edu.files import write_atomic
from deepnet_edu.messages import UserError

#: Tags of cells that are slides.
MARKS = ("slide", "headline")
LECTURE = "lecture"
#: Modules, and the packages that bring them.
_NEEDS = {
    "sphinx_revealjs": "sphinx-revealjs",
    "sphinx-mathjax-offline": "sphinx-mathjax-offline",
    "mdit_py_plugins": "mdit-py-plugins",
}
_REVEAL = (
    "LICENSE", "dist/reset.css", "dist/reveal.css", "dist/reveal.js", "dist/theme/white.css",
    "dist/theme/fonts/source-sans-pro", "plugin/notes/notes.js",
)  # fmt: skip
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="reveal/dist/reset.css">
<link rel="stylesheet" href="reveal/dist/reveal.css">
<link rel="stylesheet" href="reveal/dist/theme/white.css">
<style>
.reveal {{ font-size: 28px; }}
.reveal .slides {{ text-align: left; }}
.reveal h1 {{ font-size: 1.9em; }}
.reveal h2 {{ font-size: 1.4em; }}
.reveal h1, .reveal h2, .reveal h3 {{ text-transform: none; }}
.reveal p > img, .reveal section > img {{ display: block; width: 100%; max-height: 540px; object-fit: contain; }}
.reveal pre {{ width: 100%; font-size: 0.7em; box-shadow: none; }}
.reveal table {{ font-size: 0.8em; }}
</style>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="reveal/dist/reveal.js"></script>
<script src="reveal/plugin/notes/notes.js"></script>
<script>
Reveal.initialize({{width: 1200, height: 720, hash: true, slideNumber: "c/t", plugins: [RevealNotes]}});
</script>
<script src="mathjax/tex-mml-chtml.js"></script>
"""


@dataclass
class Slide:
    """One slide.

    Attributes:
        body: HTML.
        notes: the presenter's, Markdown paragraphs.
    """

    body: str
    notes: list[str] = field(default_factory=list)


def export_slides(folder: Path, what: str) -> list[str]:
    """Make a folder with index.html and all that it needs.

    Args:
        folder: new or empty.
        what: a lesson, or ``"lecture"``.

    Returns:
        What was made, and how to show it, in lines.

    Raises:
        UserError: packages for slides are missing, the lesson or its solution is, or the folder cannot be written.
    """
    if missing := [package for name, package in _NEEDS.items() if find_spec(name) is None]:
        raise UserError(f"Slides need {', '.join(missing)}: pip install {' '.join(missing)}")
    if what == LECTURE:
        slides = lecture((DOCS / "lecture.md").read_text(encoding="utf-8"))
        title = re.sub(r"<[^>]+>", "", slides[0].body).split("\n")[0]
    else:
        name = find_lesson(what, SOLUTIONS)
        notebook = nbformat.read(SOLUTIONS / f"{name}.ipynb", as_version=4)
        title, slides = name, lesson_slides(notebook)
    page = _PAGE.format(title=html.escape(title), slides="\n".join(map(_section, slides)))
    with new_folder(folder) as made:
        for picture in sorted({*re.findall(r'src="(images/[\w.]+)"', page)}):
            (made / "images").mkdir(exist_ok=True)
            shutil.copy(DOCS / picture, made / picture)
        _copy_reveal(made / "reveal")
        copy_mathjax(made / "mathjax")
        write_atomic(made / "index.html", page)
    return [
        f"{folder / 'index.html'}: {len(slides)} slides",
        "open it in a browser, without a network; press S for the notes, and add ?print-pdf to print",
    ]


def lesson_slides(notebook: NotebookNode) -> list[Slide]:
    """The slides of an executed solution.

    Args:
        notebook: cells with their outputs.
    """
    first = notebook.cells[0].source.split("\n\n")
    slides, heading = [Slide(_rendered("\n\n".join(_text_of(part) for part in first[:2])))], ""
    for cell in notebook.cells[1:]:
        text = cell.source if cell.cell_type == "markdown" else ""
        headings = re.findall(r"^##+ (?:Exercise [\d.]+ · )?(.+)$", text, re.MULTILINE)
        if {*MARKS} & {*cell.metadata.get("tags", [])}:
            shown = _text_of(text) if text else _shown(cell)
            title = "" if shown.startswith("#") else _rendered(f"## {heading}")
            slides.append(Slide(title + (_rendered(shown) if text else shown)))
        elif text and "**Objective**" not in text and not text.startswith("---"):
            slides[-1].notes.append(_text_of(text))
        heading = headings[-1] if headings else heading
    closing = re.search(r"^## In three sentences\n.*?(?=^#|\Z)", _all_text(notebook.cells), re.MULTILINE | re.DOTALL)
    return [*slides, *([Slide(_rendered(_text_of(closing[0])))] if closing else [])]


def lecture(text: str) -> list[Slide]:
    """The slides of a Markdown page: they are parted by lines ``---``; what follows ``Note:`` is the presenter's."""
    slides, clock = [], 0
    for part in re.split(r"\n---\n", text):
        body, _, notes = part.partition("\nNote: ")
        minutes = minutes_of(notes)
        clock, begin = clock + minutes, clock
        slides.append(Slide(_rendered(body), [f"**Minutes {begin} to {clock}.**", notes.strip()] if notes else []))
    return slides


def minutes_of(notes: str) -> int:
    """How long a slide of the lecture takes: its notes begin with it, ``3 minutes.``; 0 if they do not."""
    found = re.match(r"(\d+) minutes?\.", notes)
    return int(found[1]) if found else 0


def _all_text(cells: Sequence[NotebookNode]) -> str:
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    return "\n\n".join(text for text in texts if not text.startswith("---"))  # the links to other lessons


def _text_of(markdown: str) -> str:
    """Markdown whose folds are open and whose links to pages of the course are words."""
    text = re.sub(r"</?details>|<summary>.*?</summary>", "", markdown)
    return re.sub(r"(?<!!)\[([^\[\]]+)\]\((?!https?:)[^()\s]+\)", r"\1", text).strip()


def _shown(cell: NotebookNode) -> str:
    """What a code cell has shown, as HTML: its pictures, or else its code and what it printed."""
    data: list[Any] = [output.get("data", {}) for output in cell.outputs]
    pictures = [one for shown in data for one in re.findall(r"<img [^>]+>", shown.get("text/html", ""))]
    if pictures:
        return "\n".join(pictures)
    printed = "".join(output.get("text", "") for output in cell.outputs)
    return "".join(f"<pre><code>{html.escape(part.strip())}</code></pre>" for part in (cell.source, printed) if part)


def _rendered(markdown: str) -> str:
    """Markdown as HTML, its formulas as MathJax reads them."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    def formula(content: str, options: dict[str, Any]) -> str:
        opened, closed = (r"\[", r"\]") if options["display_mode"] else (r"\(", r"\)")
        return html.escape(f"{opened}{content}{closed}")

    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    return str(parser.use(dollarmath_plugin, renderer=formula).render(markdown))


def _section(slide: Slide) -> str:
    notes = f'<aside class="notes">{_rendered(chr(10).join(f"{one}{chr(10)}" for one in slide.notes))}</aside>'
    return f"<section>\n{slide.body}{notes if slide.notes else ''}\n</section>"


def _reveal() -> Iterator[tuple[str, Path]]:
    """The files of reveal.js that a page needs."""
    spec = find_spec("sphinx_revealjs")
    assert spec is not None
    assert spec.origin is not None
    for part in _REVEAL:
        yield part, Path(spec.origin).parent / "_static" / "revealjs" / part


def _copy_reveal(to: Path) -> None:
    for part, path in _reveal():
        target = to / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
