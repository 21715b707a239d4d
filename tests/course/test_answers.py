"""A learner's answer in this notebook, in a later lesson, in a process of its own."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from deepnet_edu.checks import check
from deepnet_edu.course import answers, kit
from deepnet_edu.course.cells import needed_for

SHARE = "(alpha**2 / (alpha**2 + f)) ** n"
PLAIN = f"def input_share(n, f, alpha):\n    return {SHARE}"
HELPER = "def power(x, n):\n    return x**n"
HELPED = "def input_share(n, f, alpha):\n    return power(alpha**2 / (alpha**2 + f), n)"
CELLS = {
    "a helper of the same cell": [f"{HELPER}\n\n\n{HELPED}"],
    "a helper of another cell": [HELPER, HELPED],
    "a lambda": [f"input_share = lambda n, f, alpha: {SHARE}"],
    "a partial": [
        f"from functools import partial\ndef share(times, n, f, alpha):\n    return ({SHARE}) ** times",
        "input_share = partial(share, 1)",
    ],
    "an object": [
        f"class Share:\n    def __call__(self, n, f, alpha):\n        return {SHARE}",
        "input_share = Share()",
    ],
    "decorated": [f"import functools as ft\n@ft.cache\n{PLAIN}"],
    "an alias": [PLAIN.replace("input_share", "mine"), "input_share = mine"],
    "by keyword": [PLAIN.replace("n, f", "*, n, f")],
    "written again": ["def input_share(n, f, alpha):\n    return 1", PLAIN],
    "changed in steps": [
        PLAIN.replace("** n", "** (n - 1)"),
        "before = input_share\ninput_share = lambda n, f, a: before(n + 1, f, a)",
    ],
    "a star import": [
        "from math import *",
        "def input_share(n, f, alpha):\n    return exp(n * log(alpha**2 / (alpha**2 + f)))",
    ],
    "a constant, a magic, a broken cell": [
        "%matplotlib inline\ntwo = 2",
        "def (",
        "def input_share(n, f, alpha):\n    return (alpha**two / (alpha**two + f)) ** n",
    ],
}


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch):
    """Runs cells as a notebook would; the names that are in it afterwards."""

    def ran(cells: list[str]) -> dict[str, object]:
        space: dict[str, object] = {"__name__": "__main__", "kit": kit}
        for cell in cells:
            if cell != "def (":
                exec(cell.removeprefix("%matplotlib inline\n"), space)
        space["In"] = ["", *cells]
        monkeypatch.setattr(answers, "get_ipython", lambda: SimpleNamespace(user_ns=space))
        return space

    return ran


@pytest.mark.parametrize("kind", CELLS)
def test_an_answer_runs_in_a_process_of_its_own(kind: str, notebook, capsys: pytest.CaptureFixture) -> None:
    hand_over = 'input_share = kit.mine_or_reference(input_share, "input_share")'
    space = notebook([*CELLS[kind], "other = 1 / 3\nprint('not twice')", hand_over])
    assert space["input_share"](1, 1.0, alpha=1.0) == 0.5  # type: ignore[operator]
    text = kit.shipped("input_share")
    assert capsys.readouterr().out == "not twice\n"
    assert "other" not in text
    program = f"{text}\nprint(input_share(2, 1.0, alpha=1.0))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0.25\n"


@pytest.mark.parametrize("kind", CELLS)
def test_an_answer_is_found_in_an_earlier_lesson(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    cells = [nbformat.v4.new_code_cell(cell) for cell in (*CELLS[kind], "1 / 0")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_mine.ipynb")
    monkeypatch.chdir(tmp_path)
    assert kit.earlier("input_share")(1, 1.0, alpha=1.0) == 0.5
    assert capsys.readouterr().out == "input_share: your own, from 01_mine.\n"


def test_without_a_name_the_check_knows_whose_answer_it_is(capsys: pytest.CaptureFixture) -> None:
    """Notebooks of before do not say it."""
    share = eval(f"lambda n, f, alpha: {SHARE}")
    with pytest.raises(AttributeError, match="Unknown exercise '<lambda>'"):
        kit.mine_or_reference(share)
    check.input_share(share)
    assert kit.mine_or_reference(share) is share
    assert capsys.readouterr().out == ""


def test_what_cannot_leave_the_notebook_is_named(notebook, capsys: pytest.CaptureFixture) -> None:
    cells = [f"def input_share(n, f, alpha):\n    return secret and {SHARE}"]
    space = notebook(["pass", *cells])
    space["secret"] = True
    text = kit.shipped("input_share")
    assert text == "from deepnet_edu.course.references.lesson_01 import input_share"
    said = capsys.readouterr().out
    assert "input_share: yours cannot run outside this notebook (NameError: name 'secret' is not defined)" in said
    assert "the other process takes the reference answer" in said


def test_a_reference_that_went_on_is_imported(notebook) -> None:
    notebook(["def input_share(n, f, alpha):\n    return 1", "input_share = kit.mine_or_reference(input_share)"])
    assert kit.shipped("input_share") == "from deepnet_edu.course.references.lesson_01 import input_share"


def test_an_unknown_exercise_is_named() -> None:
    for function in (kit.shipped, kit.earlier):
        with pytest.raises(AttributeError, match="did you mean 'input_share'"):
            function("input_shar")


def test_what_a_function_needs_is_what_it_meets() -> None:
    """At once the last before it, when it is called the last of all."""
    cells = ["scale = 2", "double = scale", "scale = 3", "f = lambda x: x * double * scale", "scale = 4", "scale"]
    assert needed_for("f", cells).split("\n\n\n") == [cells[0], cells[1], cells[3], cells[4]]
    assert needed_for("g", cells) == ""
