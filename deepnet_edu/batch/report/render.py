"""An executed notebook as HTML of which nothing can run.

Whatever a cell displayed is a stranger's. Texts are escaped, pictures are ``<img>`` with their data, and HTML goes into
a sandboxed frame without scripts; the policy of the page (page.html) forbids scripts and requests besides.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from deepnet_edu.course.places import RECORD_MIME
from deepnet_edu.files import read_json

#: Tag of papermill's cells that announce an error.
PAPERMILL = "papermill-error-cell-tag"
#: Of one output. What is longer is cut, and says so.
MOST_LETTERS = 200_000
_ESCAPE_SEQUENCES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
# What figures.Picture writes: no frame is needed for it.
_PICTURE = re.compile(r'<img alt="[^"<>]*" src="data:image/png;base64,[A-Za-z0-9+/]+={0,2}">')
# They could ask for a server's address, or hide such a one in a page of their own.
_REACHING = re.compile(r"<(?=/?(?:link|meta|base|iframe|frame|object|embed|portal|fencedframe)\b)", re.IGNORECASE)
# No link leads out of a frame, and a browser would connect to its server at the click.
_LINK = re.compile(r"<(/?)a(?:rea)?(?=[\s/>])", re.IGNORECASE)
_FRAME = """<meta name="color-scheme" content="light"><style>
body {margin: 4px; font: 14px system-ui, sans-serif; color: #111; background: #fff}
td, th {padding: 2px 8px; text-align: right} img {max-width: 100%}
</style>"""


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook, as they are in its JSON.

    nbformat would look at every field, which takes most of a report's time.

    Raises:
        ValueError: it cannot be read, or is not a notebook.
    """
    try:
        content = read_json(path, links=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list):
        raise ValueError(f"{path.name} is not a notebook: it has no list of cells.")
    return [cell if isinstance(cell, dict) else {"cell_type": "raw", "source": "[a damaged cell]"} for cell in cells]


def notebook_html(cells: list[dict[str, Any]]) -> str:
    """All cells with their outputs, but for what papermill puts in where an error is: the error is there anyway."""
    return "\n".join(_whole(_cell, cell, i) for i, cell in enumerate(cells, 1) if not _papermills(cell))


def traceback_of(cells: list[dict[str, Any]]) -> str | None:
    """The last error among the outputs, as plain text."""
    found = [output for cell in cells for output in _outputs(cell) if output.get("output_type") == "error"]
    return _error(found[-1]) if found else None


def plain(value: object) -> str:
    """Text of a notebook's field, which may be a list of lines, without a terminal's colours; cut if very long."""
    text = "".join(map(str, value)) if isinstance(value, list) else str(value)
    text = _ESCAPE_SEQUENCES.sub("", text)
    if len(text) > MOST_LETTERS:
        return f"{text[:MOST_LETTERS]}\n… {len(text) - MOST_LETTERS:,} letters more are in the notebook."
    return text


def _papermills(cell: dict[str, Any]) -> bool:
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return isinstance(tags, list) and PAPERMILL in tags


def _cell(cell: dict[str, Any], number: int) -> str:
    source = plain(cell.get("source", ""))
    if cell.get("cell_type") == "markdown":
        return f'<div class="words">{_markdown(source)}</div>'
    if cell.get("cell_type") != "code":
        return _pre(source)
    shown = "".join(f'<div class="output">{_whole(_output, output)}</div>' for output in _outputs(cell))
    return f'<pre class="code" aria-label="cell {number}">{escape(source)}</pre>{shown}' if source or shown else ""


def _outputs(cell: dict[str, Any]) -> list[dict[str, Any]]:
    outputs = cell.get("outputs", [])
    return [output for output in outputs if isinstance(output, dict)] if isinstance(outputs, list) else []


def _whole(show: Callable[..., str], *what: Any) -> str:
    """A cell or an output; one that is not as notebooks have them does not hide the others."""
    try:
        return show(*what)
    except Exception as error:  # anything can be in a file
        return _pre(f"[{show.__name__[1:]} that cannot be shown: {type(error).__name__}: {str(error)[:200]}]")


def _output(output: dict[str, Any]) -> str:
    kind, data = output.get("output_type"), output.get("data", {})
    if kind == "stream":
        return _pre(plain(output.get("text", "")), "stderr" if output.get("name") == "stderr" else "")
    if kind == "error":
        return _pre(_error(output), "error")
    if not isinstance(data, dict):
        raise TypeError(f"expected a table of forms, found {type(data).__name__}")
    return _display(data)


def _display(data: dict[str, Any]) -> str:
    """The richest form that a page without scripts can show."""
    words = plain(data.get("text/plain", ""))
    for kind in ("image/png", "image/jpeg", "image/gif"):
        if kind in data:
            return _image(kind, re.sub(r"\s", "", _joined(data[kind])), words)
    if "image/svg+xml" in data:  # as an image it can neither run nor load anything
        svg = _joined(data["image/svg+xml"]).encode(errors="replace")
        return _image("image/svg+xml", b64encode(svg).decode(), words)
    if "text/html" in data and RECORD_MIME not in data:
        return _html(_joined(data["text/html"]))
    if "text/markdown" in data:
        return f'<div class="words">{_markdown(plain(data["text/markdown"]))}</div>'
    return _pre(words or f"[{', '.join(map(str, data))}]")


def _joined(value: object) -> str:
    """Text, which a notebook may hold as a list of lines.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(value)
    raise TypeError(f"expected text, found {type(value).__name__}")


def _html(html: str) -> str:
    if _PICTURE.fullmatch(html.strip()):
        return html.strip().replace("<img ", '<img loading="lazy" ', 1)
    if len(html) > 10 * MOST_LETTERS:
        return _pre(f"[{len(html):,} letters of HTML are in the notebook]")
    inside = escape(_FRAME + _LINK.sub(r"<\1span", _REACHING.sub("&lt;", html)))
    # The frame may be measured from the page, so that it is as high as what it shows; scripts stay off.
    return f'<iframe sandbox="allow-same-origin" loading="lazy" title="an output" srcdoc="{inside}"></iframe>'


def _image(kind: str, data: str, words: str) -> str:
    if not _BASE64.fullmatch(data):
        return _pre(f"[a damaged {kind}] {words}")
    alt = escape(words[:300] or "a picture without words")
    return f'<img loading="lazy" alt="{alt}" src="data:{kind};base64,{data}">'


def _error(output: dict[str, Any]) -> str:
    lines = output.get("traceback") or [f"{output.get('ename')}: {output.get('evalue')}"]
    return plain("\n".join(map(str, lines)) if isinstance(lines, list) else lines)


def _pre(text: str, name: str = "") -> str:
    return f'<pre class="{name}">{escape(text)}</pre>' if name else f"<pre>{escape(text)}</pre>"


# It escapes HTML, and leaves links to scripts as text.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
# The lessons fold hints with them. In a report all is open.
_FOLDS = re.compile(r"</?(?:details|summary)>")


@lru_cache(maxsize=2000)
def _markdown(source: str) -> str:
    """Headings go below those of the page. Runs of one notebook share their words, hence the cache."""
    tokens = _MARKDOWN.parse(_FOLDS.sub("", source))
    for token in tokens:
        if token.type.startswith("heading_"):
            token.tag = f"h{min(6, int(token.tag[1]) + 3)}"
        for part in token.children or []:
            # A page beside the notebook is not beside the report.
            if part.type == "link_open" and not str(part.attrs["href"]).startswith(("https://", "http://")):
                del part.attrs["href"]
    return str(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))
