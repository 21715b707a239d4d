"""The head of a lesson: complete or refused; time and memory as measured; links that lead somewhere."""

import json
import re
from dataclasses import replace
from pathlib import Path

import jupytext
import pytest

from deepnet_edu.course import header
from deepnet_edu.course.build import filled_readme
from deepnet_edu.course.glossary import anchors
from deepnet_edu.course.header import TABLE, first_cell, navigation, read_header, spoken, table, timings
from deepnet_edu.course.places import DOCS, LESSONS, ROOT, SOLUTIONS, lesson_names
from deepnet_edu.messages import UserError
from tests.course.source import HEAD


def read(source: str, name: str = "01_x") -> header.Header:
    return read_header(jupytext.reads(source, fmt="py:percent"), name)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("question: Why?", "", "lacks lesson.question."),
        ("minutes: 5", "minutes: soon", "lacks lesson.minutes."),
        ("minutes: 5", "minutes: 0", "lacks lesson.minutes."),
        ("paper: Section 1.", "papers: Section 1.", "lacks lesson.paper."),
        ("minutes: 5", "minutes: 5\n#     price: 3", "has lesson.price; expected only question, opening"),
        ("  lesson:", "  lessons:", "lacks lesson.question, lesson.opening"),
    ],
)
def test_an_incomplete_head_is_refused(old: str, new: str, said: str) -> None:
    assert old in HEAD
    with pytest.raises(UserError, match=re.escape(f"01_x: the head of its source {said}")):
        read(HEAD.replace(old, new))


def test_the_first_cell_and_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "TIMINGS", tmp_path / "timings.json")
    text = first_cell(read(HEAD))
    assert text.startswith("# 01 · Why?\n\nBecause.\n\n- **You will be able to** ask.")
    assert "- **It takes** about 5 minutes to work through." in text  # nothing was measured yet
    runs = {
        "cpu": {"seconds": 137, "memory_gb": 1.26, "cores": 2},
        "gpu": {"seconds": 61, "memory_gb": None, "device": "H9"},
    }
    (tmp_path / "timings.json").write_text(json.dumps({"lessons": {"01_x": runs}}))
    assert (
        "- **It takes** 2½ minutes on two CPU cores or 1½ minutes on one H9 to run, 1.3 GB of memory; about 5 minutes "
    ) in first_cell(read(HEAD))
    lessons = [read(HEAD, name) for name in ("00_a", "01_x", "02_b")]
    assert navigation(lessons[1], lessons) == (
        "---\n\n← [00 · Why?](00_a.ipynb) &nbsp;·&nbsp; [02 · Why?](02_b.ipynb) →"
    )
    assert navigation(lessons[2], lessons) == "---\n\n← [01 · Why?](01_x.ipynb)"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (4, "seconds"),
        (25, "half a minute"),
        (31, "a minute"),
        (61, "1½ minutes"),
        (120, "2 minutes"),
        (256, "4½ minutes"),
    ],
)
def test_times_as_people_say_them(seconds: float, said: str) -> None:
    assert spoken(seconds) == said


@pytest.mark.parametrize("name", lesson_names())
def test_every_lesson_was_measured(name: str) -> None:
    """docs/timings.json is made by `make course`. A laptop of 8 GB can run them; seconds differ between machines."""
    run = timings()[name]["cpu"]
    assert run["seconds"] > 0
    assert run["memory_gb"] <= 4
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", run["date"])


def test_the_readme_says_what_was_measured() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    headers = [read_header(jupytext.read(SOLUTIONS / f"{name}.py"), name) for name in lesson_names()]
    assert table(headers) in readme, "fill it with: deepnet-edu build"
    assert "not measured" not in table(headers)


def test_the_table_is_filled_where_it_stands() -> None:
    head = read_header(jupytext.read(SOLUTIONS / "01_residual_arithmetic.py"), "01_residual_arithmetic")
    readme = f"before\n\n{TABLE}| old |\n\nafter | all\n"
    assert filled_readme(readme, [head]) == f"before\n\n{table([head])}\nafter | all\n"
    assert filled_readme("no table", [head]) == "no table"
    assert "| not measured |  |" in table([replace(head, name="99_none")])


@pytest.mark.parametrize("path", sorted([*LESSONS.glob("*.ipynb"), *SOLUTIONS.glob("*.ipynb")]), ids=str)
def test_links_between_lessons_lead_somewhere(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match("https?:|#", link)]
    assert any(re.fullmatch(r"\d\d_\w+\.ipynb", link) for link in links)  # a neighbour
    assert any(link.startswith(("../docs/glossary.md", "../docs/notation.md")) for link in links)
    assert [link for link in links if not (path.parent / link.partition("#")[0]).exists()] == []
    known = anchors((DOCS / "glossary.md").read_text(encoding="utf-8"))
    words = re.findall(r"\[([^][]+)\]\(\.\./docs/glossary\.md#?([^)]*)\)", text)
    assert [word for word, anchor in words if anchor not in known and word != "glossary"] == []
