"""The web book in Chromium with the network off: nothing is asked for, nothing is missing, everybody can use it."""

import html.parser
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.browser.conftest import chromium

#: Kinds of pages, and one of each to look at.
PAGES = [
    "index.html", "lessons/00_a_thousand_layers.html", "lessons/09_bug_museum.html", "docs/glossary.html",
    "museum/index.html", "api/deepnet_edu.model.html", "README.html", "explorers.html", "search.html?q=warm-up",
]  # fmt: skip
PHONE: Any = {"width": 390, "height": 844}


class Links(html.parser.HTMLParser):
    """Where a page's links and resources lead, and what can be led to."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.names |= {given[key] or "" for key in ("id", "name") if key in given}
        wanted = given.get({"a": "href", "link": "href"}.get(tag, "src"))
        if wanted and not wanted.startswith("data:"):
            self.targets.append(wanted)


def read(page: Path) -> Links:
    links = Links()
    links.feed(page.read_text(encoding="utf-8"))
    return links


def test_no_link_is_broken_and_no_resource_comes_from_elsewhere(book: Path) -> None:
    pages = {page: read(page) for page in book.rglob("*.html") if "_static" not in page.parts}  # the theme's templates
    assert len(pages) > 40
    broken = []
    for page, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme:
                continue  # another site, which the next test holds no page to load from
            place = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchor = unquote(parts.fragment)
            if not place.exists() or (anchor and place in pages and anchor not in pages[place].names):
                broken.append(f"{page.relative_to(book)}: {target}")
    assert broken == []


@contextmanager
def reachable(folder: Path) -> Iterator[str]:
    """While entered, a folder can be read at this address, by this machine alone."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(folder))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def site(book: Path) -> Iterator[tuple[Any, str]]:
    """Chromium, and the book's address."""
    with reachable(book) as address, chromium() as browser:
        yield browser, address


@pytest.fixture
def opened(site: tuple[Any, str]) -> Iterator[Any]:
    """Opens a page in a theme and a size; nothing else can be reached. What it asked for elsewhere, and what it
    complained of, is empty."""
    browser, address = site
    troubles: list[str] = []
    contexts = []

    def open_page(path: str, scheme: str = "light", size: Any = None) -> Any:
        context = browser.new_context(viewport=size or {"width": 1280, "height": 900}, color_scheme=scheme)
        context.route(lambda url: not url.startswith((address, "data:")), lambda route: route.abort())
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda r: None if r.url.startswith((address, "data:")) else troubles.append(r.url))
        page.on("requestfailed", lambda r: troubles.append(f"failed: {r.url}"))
        page.on("console", lambda m: troubles.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: troubles.append(str(e)))
        page.goto(f"{address}/{path}")
        page.wait_for_load_state("load")
        page.wait_for_function("!window.MathJax || window.MathJax.startup?.promise.then(() => true)")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.mark.parametrize("path", PAGES)
def test_a_page_needs_no_network_and_complains_of_nothing(opened: Any, path: str) -> None:
    page = opened(path)
    assert page.locator(".bd-article h1, .bd-search-container h1").first.is_visible()


def test_formulas_are_set_by_the_mathjax_that_is_shipped(opened: Any) -> None:
    page = opened("lessons/02_layer_norm.html")
    page.wait_for_selector("mjx-container")
    assert page.locator("mjx-container").count() > 20
    assert page.locator("mjx-merror").count() == 0


def test_the_search_finds_a_word(opened: Any) -> None:
    page = opened("search.html?q=warm-up")
    page.wait_for_selector("#search-results li")
    assert page.locator("#search-results li").count() > 2


def test_an_answer_is_folded_until_it_is_asked_for(opened: Any) -> None:
    page = opened("lessons/01_residual_arithmetic.html")
    answer = page.locator("details.hide", has_text="def variance_by_depth").first
    assert not answer.locator("pre").first.is_visible()
    answer.locator("summary").first.click()
    assert answer.locator("pre").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_an_accessibility_audit_has_no_serious_finding(opened: Any, path: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(path, scheme)
    found = Axe().run(page, options={"preload": False}).response["violations"]
    serious = [
        f"{rule['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"][:3]
    ]
    assert serious == []


@pytest.mark.parametrize("path", PAGES)
def test_a_page_fits_a_phone(opened: Any, path: str) -> None:
    page = opened(path, size=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_every_picture_has_words(book: Path) -> None:
    for page in book.rglob("*.html"):
        source = page.read_text(encoding="utf-8")
        for image in source.split("<img ")[1:]:
            assert "alt=" in image.split(">")[0], f"{page.name}: {image[:80]}"
