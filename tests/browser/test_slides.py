"""Slides as a browser without a network shows them: the lecture, and those of a lesson."""

from pathlib import Path

import pytest

from deepnet_edu.course.slides import export_slides

SLIDES = {"lecture": 26, "06": 8}
#: Of reveal.js, which scales a slide of 1200 × 720 to the window.
HEIGHT = 720


@pytest.mark.parametrize("what", SLIDES)
def test_a_deck_without_a_network(what: str, browser, tmp_path: Path) -> None:
    export_slides(tmp_path / "deck", what)
    context = browser.new_context(viewport={"width": 1200, "height": HEIGHT}, offline=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type != "info" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "deck" / "index.html").as_uri())
    page.wait_for_function("() => Reveal.isReady() && window.MathJax?.startup?.promise")
    page.evaluate("() => MathJax.startup.promise.then(() => null)")

    assert page.evaluate("Reveal.getTotalSlides()") == SLIDES[what]
    for place in range(SLIDES[what]):
        page.evaluate("place => Reveal.slide(place)", place)
        assert page.evaluate("Reveal.getCurrentSlide().scrollHeight") <= HEIGHT, place
    pictures = page.evaluate("[...document.querySelectorAll('.slides img')].map(one => [one.alt, one.naturalWidth])")
    assert len(pictures) >= 4
    assert all(alt and width > 500 for alt, width in pictures)
    assert page.locator("mjx-container").count() > 5
    assert not page.locator("mjx-merror").count()
    notes = page.evaluate("Reveal.getSlides().map(slide => Reveal.getSlideNotes(slide))")
    assert sum(map(bool, notes)) >= (SLIDES[what] if what == "lecture" else 4)
    assert not page.locator("aside.notes").first.is_visible()
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert not problems
    context.close()
