"""Explorers as pages: what a page holds is what the live explorer says, at positions drawn at random."""

import base64
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from deepnet_edu.cli import app
from deepnet_edu.explorers import EXPLORERS, NAMES, Explorer, grid, pages
from deepnet_edu.explorers.game import GOAL
from deepnet_edu.explorers.packing import pack, plain, unpack
from deepnet_edu.explorers.positions import Sheet, sheets
from deepnet_edu.explorers.settings import tied_beta
from deepnet_edu.messages import UserError

SEED = random.randrange(10**6)
#: How many answers of each are compared with those of the live explorer.
COMPARED = 6


@pytest.fixture(scope="module", autouse=True)
def said_seed() -> None:
    """It is in the output of a test that fails."""
    print(f"positions drawn with seed {SEED}")


def thinned(name: str, chance: random.Random) -> list[Sheet]:
    """Few of a page's positions: those of its buttons, and of each sheet a few more."""
    if name == "game":
        return sheets(name)
    explorer = pages.recorded(name)
    wanted = [explorer._opening, *({**explorer._begin, **preset} for preset in explorer.presets.values())]
    few: list[Sheet] = [{dial: [value] for dial, value in one.items()} for one in wanted]
    explorer.close()
    for sheet in sheets(name):
        moved = chance.sample(sorted(sheet), min(4, len(sheet)))
        few.append(
            {
                dial: chance.sample(list(values), min(2 if dial in moved else 1, len(values)))
                for dial, values in sheet.items()
            }
        )
    return few


@pytest.fixture(scope="module", params=NAMES)
def few(request: pytest.FixtureRequest) -> Iterator[tuple[pages.Answers, bytes]]:
    """A page's answers at few positions, and the same packed."""
    name = request.param
    found = pages.answers(name, thinned(name, random.Random(SEED)))
    yield found, pages.packed(found)
    found.explorer.close()


def live(found: pages.Answers, settings: Mapping[str, Any]) -> Explorer:
    """The explorer as a notebook has it, in a picture of the page's size."""
    kind = type(found.explorer) if found.explorer.name == "game" else EXPLORERS[found.explorer.name]
    one = kind()
    one.figure.fit(*pages.room(found.explorer.name))
    one.put(**settings)
    one._background.cancel()
    return one


def settings_of(found: pages.Answers, texts: Mapping[str, Sequence[str]], answer: int) -> dict[str, Any]:
    """What the dials say in an answer, but those that follow from others."""
    now = json.loads(texts["dials"][answer])
    return {
        name: pages._values(dial)[at]
        for (name, dial), (at, _, disabled) in zip(found.explorer.dials.items(), now, strict=True)
        if not disabled
    }


def test_a_page_says_and_draws_what_the_live_explorer_does(few: tuple[pages.Answers, bytes]) -> None:
    found, block = few
    texts, pictures, _ = unpack(block)
    assert len(pictures) >= 3
    for answer in random.Random(SEED).sample(range(len(pictures)), min(COMPARED, len(pictures))):
        if found.explorer.name == "game" and answer >= len(found.roots[0][1]):
            continue  # after a round, see below
        one = live(found, settings_of(found, texts, answer))
        shown = {name: str(text) for name, text in one.shown.items() if isinstance(text, str)}
        # A live explorer begins to measure what was not recorded.
        words = {name: text.replace(type(one).unmeasured, found.explorer.unmeasured) for name, text in shown.items()}
        for name in ("title", "said", "note", "extra", "code"):
            assert texts[name][answer] == words[name], (name, answer)
        alt = f"{texts['title'][answer].rstrip('.')}. {texts['moved'][answer]} "
        alt += f"{texts['said'][answer]} {texts['note'][answer]}"
        assert alt == words["alt"]
        assert _unhashed(pictures[answer]) == _unhashed(plain(one.shown["svg"]))
        assert json.loads(texts["state"][answer]) == {name: str(value) for name, value in one.shown["state"].items()}
        assert [now[1:] for now in json.loads(texts["dials"][answer])] == [
            [now["text"], now["disabled"]] for now in one.shown["dials"].values()
        ]
        one.close()


def _unhashed(svg: str) -> str:
    """A picture without the names of its clips and markers, which are another picture's own."""
    return re.sub(r"#\w{5,}|id=\"\w+\"", "", svg)


def test_every_answer_is_found_by_its_dials(few: tuple[pages.Answers, bytes]) -> None:
    _, block = few
    texts, pictures, head = unpack(block)
    for answer in range(0, len(pictures), 1 + len(pictures) // 40):
        places = [now[0] for now in json.loads(texts["dials"][answer])]
        reached = []
        for node in head["roots"]:
            while isinstance(node, list):
                node = node[1][places[node[0]]]
            reached.append(node)
        assert answer in reached


def test_buttons_show_what_they_say(few: tuple[pages.Answers, bytes]) -> None:
    found, block = few
    texts, _, head = unpack(block)
    assert len(head["presets"]) == len(head["fixed"]["presets"]) == len(found.explorer.presets)
    for answer, preset in zip(head["presets"], found.explorer.presets.values(), strict=True):
        one = live(found, preset)
        assert texts["title"][answer] == one.shown["title"]
        one.close()
    one = live(found, {name: value for name, value in found.explorer._opening.items() if name != "beta"})
    assert texts["title"][head["opening"]] == one.shown["title"]
    one.close()


def test_the_game_of_records_goes_where_its_runs_do() -> None:
    found = pages.answers("game", [{"alpha": grid.load().alphas}])
    depth, alphas = 0, found.explorer.dials["alpha"].stops  # type: ignore[union-attr]
    root, chance = 0, random.Random(SEED)
    for _ in range(40):
        place = chance.randrange(len(alphas))
        answer = found.roots[root][1][place]
        root = found.presses["play"][answer]
        run = grid.load().cell(grid.load().depths[depth], alphas[place])[0]
        learned = run.final_loss < GOAL
        after = found.roots[root][1][place]
        assert f"loss {run.final_loss:.2f}: {'learned' if learned else 'not yet'}" in found.texts["said"][after]
        assert (
            f"β = {tied_beta(alphas[place]):.3g}" in found.texts["title"][after]
            or "you have won" in (found.texts["title"][after])
        )
        depth = min(depth + learned, len(grid.load().depths) - 1)
        won = "you have won" in found.texts["title"][after]
        assert won or found.texts["title"][after].startswith(f"{grid.load().depths[depth]:,} layers")
        assert found.presses["again"][after] == 0
        if won:
            root = depth = 0
    found.explorer.close()


def test_a_page_is_one_file_that_asks_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [{"depth": [8, 256, 1000], "alpha": [1.0, 2.3784, 4.0]}, {"depth": [16], "alpha": [8.0]}]
    monkeypatch.setattr(pages, "sheets", lambda name: few)
    (path,) = pages.write_pages(tmp_path / "new", ["map"], home="../index.html")
    html = path.read_text(encoding="utf-8")
    assert path.name == "map.html"
    assert not re.search(r"(?:src|href)=\"(?!\.\./index\.html|map\.html|data:)", html)
    assert not re.search(r"\b(?:fetch|XMLHttpRequest|import)\s*\(|@import|url\((?!#)", html)
    assert set(re.findall(r"https?://[^\s\"'<]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in html
    (block,) = re.findall(r'id="answers">([^<]*)<', html)
    texts, pictures, _ = unpack(base64.b64decode(block))
    assert len(pictures) == 10
    assert "256 layers, α = 4, β = 0.177" in texts["title"]
    assert [one.name for one in path.parent.iterdir()] == ["map.html"]  # nothing half written


def test_packing_gives_back_what_it_was_given() -> None:
    chance = np.random.default_rng(SEED)
    heads = ("x", "value 1,000 of 2.50e-05 −3", "", "no number")
    texts = {"a": [heads[i % 4] + str(i // 4) for i in range(50)], "b": [f"{chance.normal():.3g}" for _ in range(50)]}
    pictures = []
    for i in range(50):
        points = " \nL ".join(f"{x:.6f} {y:.6f}" for x, y in chance.normal(0, 1e3, (i % 7 + 1, 2)))
        marker = f'<defs><path id="m0" d="M 0.123456 {i}"/></defs><use x="{i}" y="-1e-05"/>'
        line = f'\n <g id="line2d_{i}">\n  <path d="M {points}"/>\n </g>'
        pictures.append(f'<svg viewBox="0 0 10 20">{line}\n <g id="g_2">{marker}</g><text x="1.25">{i}</text></svg>')
    found_texts, found_pictures, more = unpack(pack(texts, pictures, {"seen": [1, None]}))
    assert found_texts == texts
    assert found_pictures == [plain(one) for one in pictures]
    assert more == {"seen": [1, None]}
    for before, after in zip(pictures, found_pictures, strict=True):
        assert numbers(after) == pytest.approx(numbers(re.sub(r' id="\w+_\d+"', "", before)), abs=0.0501)


def numbers(text: str) -> list[float]:
    return [float(one) for one in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)]


def test_the_command_writes_pages_and_refuses_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "page", lambda name, beside, home: f"{name} of {len(beside)}")
    run = CliRunner().invoke(app, ["explore", "map", "race", "map", "--pages", str(tmp_path / "new")])
    assert run.exit_code == 0
    assert {one.name: one.read_text() for one in (tmp_path / "new").iterdir()} == {
        "map.html": "map of 2",
        "race.html": "race of 2",
    }
    with pytest.raises(UserError, match="cannot be written into"):
        pages.write_pages(tmp_path / "new" / "map.html", ["map"])
