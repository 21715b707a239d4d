"""The book's explorers, opened from the disk with the network off: what Chromium shows is what Python says."""

import base64
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deepnet_edu.explorers import EXPLORERS, NAMES
from deepnet_edu.explorers.game import GOAL
from deepnet_edu.explorers.grid import load
from deepnet_edu.explorers.packing import unpack
from tests.browser.test_explorers import FREE

PHONE: Any = {"width": 390, "height": 844}
WINDOW: Any = {"width": 1280, "height": 900}
MOST_BYTES = 3_000_000
SEED = random.randrange(10**6)
#: What Chromium has in a picture, as it was written.
DRAWN = """() => [...document.querySelectorAll('.picture .frame > div:nth-child(2) svg *')].flatMap(part =>
    ['d', 'x', 'y'].flatMap(name => (part.getAttribute(name) ?? '').match(/-?\\d+(\\.\\d+)?/g) ?? []).map(Number))"""


@pytest.fixture(scope="module")
def folder(book: Path) -> Path:
    return book / "explorers"


@pytest.fixture
def opened(folder: Path, browser: Any) -> Iterator[Any]:
    """Opens a page from the disk. It asks for nothing and complains of nothing. The book is built first."""
    troubles: list[str] = []
    contexts = []

    def open_page(name: str, size: Any = None) -> Any:
        context = browser.new_context(viewport=size or WINDOW, offline=True)
        contexts.append(context)
        page = context.new_page()
        own = ("file:", "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(own) else troubles.append(r.url))
        page.on("console", lambda m: troubles.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: troubles.append(str(e)))
        path, _, settings = name.partition("#")
        page.goto(f"{(folder / path).as_uri()}.html{f'#{settings}' if settings else ''}")
        page.wait_for_selector(".picture svg")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def test_each_explorer_has_a_page_and_none_is_large(folder: Path) -> None:
    assert {path.stem: path.stat().st_size <= MOST_BYTES for path in folder.iterdir()} == dict.fromkeys(NAMES, True)


@pytest.mark.parametrize("name", NAMES)
def test_by_keyboard_a_page_shows_what_python_has_written(opened: Any, folder: Path, name: str) -> None:
    page = opened(name)
    html = (folder / f"{name}.html").read_text(encoding="utf-8")
    texts, pictures, head = unpack(base64.b64decode(re.findall(r'id="answers">([^<]*)<', html)[0]))
    chance = random.Random(SEED)

    def shown() -> None:
        said = [page.locator(one).text_content() for one in (".title", ".said")]
        now = places_on_page()
        answers = [
            i
            for i, own in enumerate(zip(texts["title"], texts["said"], texts["dials"], strict=True))
            if [*own[:2]] == said and places(own[2]) == now
        ]
        assert answers, f"seed {SEED}"
        drawn = page.evaluate(DRAWN)
        moving = [re.findall(r' (?:d|x|y)="([^"]*)"', pictures[i]) for i in answers]
        written = [[float(n) for one in own for n in re.findall(r"-?\d+(?:\.\d+)?", one)] for own in moving]
        assert drawn in written
        answer = answers[written.index(drawn)]
        alt = page.locator(".picture").get_attribute("aria-label")
        assert alt == (
            f"{texts['title'][answer].rstrip('.')}. {texts['moved'][answer]} {texts['said'][answer]} "
            f"{texts['note'][answer]}"
        )
        assert page.locator(".source code").text_content() == texts["code"][answer]

    def places(dials: str) -> list[int]:
        own = json.loads(dials)
        return [own[head["names"].index(dial["name"])][0] for dial in head["fixed"]["dials"]]

    def places_on_page() -> list[int]:
        return page.evaluate(
            "() => [...document.querySelectorAll('.dial')].map(dial => dial.querySelector('select')?.selectedIndex"
            " ?? Number(dial.querySelector('input[type=range]').value))"
        )

    shown()
    sliders = page.locator(FREE)
    for _ in range(3):
        slider = sliders.nth(chance.randrange(sliders.count()))
        before = slider.get_attribute("aria-valuetext")
        slider.focus()
        assert slider.evaluate("slider => getComputedStyle(slider).outlineStyle") == "solid"
        key = "ArrowLeft" if slider.evaluate("slider => slider.value === slider.max") else "ArrowRight"
        page.keyboard.press(key)
        assert slider.get_attribute("aria-valuetext") != before
        shown()
    page.locator(".bar button").first.click()
    shown()
    assert page.locator(".said").get_attribute("role") == "status"


def test_depth_and_alpha_to_a_thousand_within_a_minute(opened: Any) -> None:
    page = opened("signal")
    page.get_by_role("slider", name="depth (layers)").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert "1,000 layers" in page.locator(".title").text_content()
    field = page.get_by_role("textbox", name="α, typed")
    field.fill("4")
    field.press("Enter")
    assert "α = 4," in page.locator(".title").text_content()
    live = EXPLORERS["signal"]("deepnorm", depth=1000, constants="tied", alpha=4.0)
    live.close()
    assert page.locator(".said").text_content() == live.shown["said"]
    # A number between two stops: the nearest, and a sentence; one that cannot be: a sentence alone.
    field.fill("4.001")
    field.press("Enter")
    assert "is the nearest to 4.001" in page.locator(".line").text_content()
    field.fill("many")
    field.press("Enter")
    assert "α = many cannot be" in page.locator(".line").text_content()
    assert field.input_value() == "4"


def test_an_address_opens_what_it_was_copied_from(opened: Any) -> None:
    from playwright.sync_api import expect

    page = opened("signal#signal.depth=1000&signal.alpha=4.0&signal.constants=tied&signal.residual=deepnorm")
    expect(page.locator(".title")).to_contain_text("DeepNorm, 1,000 layers, d = 32, α = 4,")
    page.get_by_role("button", name="DeepNorm at 400").click()
    expect(page).to_have_url(re.compile(r"#signal\.residual=deepnorm$"))


def test_the_game_is_played_with_recorded_runs(opened: Any) -> None:
    page = opened("game")
    depths = load().depths
    alphas = [1.0, *(4.0 for _ in depths)]
    reached = 0
    for alpha in alphas:
        field = page.get_by_role("textbox", name="α, typed")
        field.fill(f"{alpha:g}")
        field.press("Enter")
        page.get_by_role("button", name="Register").click()
        run = load().cell(depths[reached], alpha)[0]
        said = page.locator(".said").text_content()
        learned = run.final_loss < GOAL
        assert f"{depths[reached]:,} layers, DeepNorm, α = {alpha:g}" in said
        assert f"loss {run.final_loss:.2f}: {'learned' if learned else 'not yet'}" in said
        reached = min(reached + learned, len(depths) - 1)
    page.get_by_role("button", name="Start again").click()
    assert page.locator(".title").text_content().startswith("8 layers")


@pytest.mark.parametrize("name", NAMES)
def test_everybody_can_use_a_page_on_a_phone_too(opened: Any, name: str) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect

    page = opened(name, PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for scheme, ink in {"light": "rgb(255, 255, 255)", "dark": "rgb(27, 27, 27)"}.items():
        page.emulate_media(color_scheme=scheme)
        expect(page.locator(".deepnet-edu-explorer")).to_have_css("background-color", ink)
        found = Axe().run(page, options={"preload": False}).response["violations"]
        assert [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")] == []
