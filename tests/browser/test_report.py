"""A batch's report in Chromium: it sorts, filters, shows tracebacks; what outputs hold neither runs nor asks."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deepnet_edu.batch.report.page import page as report_page
from deepnet_edu.batch.state import read_batch
from tests.batch.made_up import code, make_run, make_sweep, raised, shown
from tests.browser.conftest import collect_errors

RUN = "top.ran = true; window.ran = true"
#: Each would run something, or ask PLACE for something, on a page that lets it.
HOSTILE = [
    f"<script>{RUN}</script>",
    f'<img src="data:image/png;base64,x" onerror="{RUN}">',
    f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RUN}"><script>{RUN}</script></svg>',
    f'<iframe srcdoc="&lt;script&gt;{RUN}&lt;/script&gt;&lt;link rel=preconnect href=PLACE&gt;"></iframe>',
    f'<a id="inside" href="javascript:{RUN}">inside</a> <a id="top" target="_top" href="javascript:{RUN}">top</a>',
    f'<details open ontoggle="{RUN}">x</details><input autofocus onfocus="{RUN}">',
    '<img src="PLACE/image"><video src="PLACE/video" autoplay></video><object data="PLACE/object"></object>',
    '<link rel="stylesheet" href="PLACE/css"><link rel="preconnect" href="PLACE"><base href="PLACE/">',
    '<style>@import "PLACE/import"; body {background: url(PLACE/background)}</style><script src="PLACE/js"></script>',
    '<meta http-equiv="refresh" content="0; url=PLACE/refresh">',
    '<a id="out" href="PLACE/link">out</a> <a id="away" target="_top" href="PLACE/top">away</a>',
]


@contextmanager
def listening() -> Iterator[tuple[str, socket.socket]]:
    """A place that answers nothing; a caller waits in its queue."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield f"http://127.0.0.1:{server.getsockname()[1]}", server


def was_called(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def write(folder: Path) -> str:
    """The address of the report."""
    (folder / "report.html").write_text(report_page(folder, read_batch(folder)), encoding="utf-8")
    return (folder / "report.html").as_uri()


def until(page, condition: Callable[[], bool]) -> None:
    """Wait for it. Not by wait_for_function, which calls eval on the page: its policy forbids that."""
    for _ in range(600):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("not within 30 s")


def column(page, number: int) -> list[str]:
    """Of the runs that are shown."""
    return page.locator(f"#runs tbody tr:visible td:nth-child({number})").all_inner_texts()


def test_sorted_filtered_and_read(tmp_path: Path, page) -> None:
    folder = tmp_path / "batch"
    make_sweep(folder)
    errors, asked = collect_errors(page), []
    page.on("request", lambda request: asked.append(request.url))
    address = write(folder)
    page.goto(address)

    assert column(page, 3)[0] == "failed"
    assert page.locator("#failures-part pre.error").inner_text().endswith("ValueError: loss is <nan>")
    losses = page.locator("#runs thead th").all_inner_texts().index("loss") + 1
    button = page.locator(f"#runs thead th:nth-child({losses}) button")
    button.focus()
    page.keyboard.press("Enter")
    assert [*map(float, column(page, losses)[:-1])] == sorted(map(float, column(page, losses)[:-1]))
    assert column(page, losses)[-1] == ""  # the failed run has none
    assert page.locator(f"#runs thead th:nth-child({losses})").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert (column(page, losses)[0], column(page, losses)[-1]) == ("1.6", "")

    page.get_by_label("Only runs with").fill("DEPTH=400 post_ln")
    assert page.get_by_role("status").inner_text() == "3 of 12 runs"
    assert page.locator("details:visible").count() == 3
    page.get_by_label("State").select_option("failed")
    assert page.get_by_role("status").inner_text() == "1 of 12 runs"

    page.locator("#runs tbody a:visible").click()
    notebook = page.locator("details[open]")
    assert notebook.locator("h4").inner_text() == "Depth"
    assert notebook.locator("pre.code").inner_text() == "DEPTH = 400\nprint(1 < 2)"
    assert "ValueError: loss is <nan>" in notebook.locator("pre.error").inner_text()
    assert all(picture.get_attribute("alt") for picture in page.locator("img").all())

    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": 700, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= 700
    assert [url for url in asked if not url.startswith(("data:", address))] == []
    assert errors == []


def test_a_forged_status_leads_nowhere(tmp_path: Path, page) -> None:
    with listening() as (place, server):
        folder = tmp_path / "batch"
        make_run(folder, "x.0")
        content = json.loads((folder / "x.0" / "status.json").read_text())
        away = (
            f'<a href="{place}" style="position:fixed;inset:0">x</a><meta http-equiv="refresh" content="0;url={place}">'
        )
        for name in content:
            (folder / f"y.{name}").mkdir()
            (folder / f"y.{name}" / "status.json").write_text(json.dumps({**content, "id": f"y.{name}", name: away}))
        address = write(folder)
        page.goto(address)
        page.mouse.click(200, 200)
        page.wait_for_timeout(300)
        assert page.url == address
        assert page.locator(f'a[href="{place}"]').count() == 0
        assert not was_called(server)


def test_what_outputs_hold_cannot_run(tmp_path: Path, page) -> None:
    with listening() as (place, server):
        hostile = [html.replace("PLACE", place) for html in HOSTILE]
        everywhere = f'"><script>{RUN}</script><img src=x onerror="{RUN}">'
        folder = tmp_path / "batch"
        make_run(
            folder,
            "x.0",
            [
                code("# outputs", *(shown(html=html) for html in hostile)),
                code(
                    everywhere, shown(svg=hostile[2], plain=everywhere), shown(png=everywhere), raised(everywhere, "")
                ),
                *(
                    {"cell_type": "markdown", "source": html}
                    for html in [*hostile, f"[a](javascript:{RUN})", everywhere]
                ),
            ],
            notebook=everywhere,
            state="failed",
            problems=[everywhere],
            host=everywhere,
            parameters={everywhere: everywhere},
            metrics={everywhere: everywhere, "loss": 1.0},
        )
        asked = []
        page.on("request", lambda request: asked.append(request))
        address = write(folder)
        page.goto(address)
        page.locator("summary").click()
        ready = "[...document.querySelectorAll('iframe')].every(frame => frame.style.height)"
        until(page, lambda: page.evaluate(ready))
        assert page.locator("iframe").count() == len(HOSTILE)
        for name in ("inside", "top", "out", "away"):
            (link,) = [link for frame in page.frames[1:] if (link := frame.query_selector(f"#{name}"))]
            link.click()
        page.wait_for_timeout(500)
        ran = "[window, ...[...document.querySelectorAll('iframe')].map(frame => frame.contentWindow)].some(w => w.ran)"
        assert page.evaluate(ran) is False
        assert page.url == address
        stopped = [request for request in asked if request.failure == "csp"]  # by the page's policy
        left = {request.url for request in asked if request not in stopped}
        assert {url for url in left if not url.startswith(("data:", "about:"))} == {address}
        assert not was_called(server)

        # The same on a page without defence: this test sees it.
        open_page = tmp_path / "open.html"
        for html in (hostile[0], hostile[1], hostile[2]):
            open_page.write_text(html)
            page.goto(open_page.as_uri())
            page.wait_for_function("window.ran")
        open_page.write_text(hostile[6])
        page.goto(open_page.as_uri(), wait_until="commit")
        until(page, lambda: was_called(server))
