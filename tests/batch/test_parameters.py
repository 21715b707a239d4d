"""The cell of parameters: types that follow from its source, and the cell that sets them."""

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

from deepnet_edu.batch import worker
from deepnet_edu.batch.parameters import defaults, injected
from tests.batch.conftest import write_notebook


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("1", int),
        ("-1", int),
        ("2 * 50", int),
        ("7 // 2", int),
        ("2 ** 10", int),
        ("2 ** -1", float),
        ("1 / 3", float),
        ("1e-3 * BEFORE", float),
        ("BEFORE * 2", int),
        ("not BEFORE", bool),
        ("BEFORE > 2", bool),
        ("'a' + 'b'", str),
        ("f'{BEFORE}'", str),
        ("'%d' % BEFORE", str),
        ("(1, 2)", list),
        ("[1] * 3", list),
        ("{'a': 1}", dict),
        ("{'smoke': 1, 'cpu': 2}[PROFILE]", int),
        ("1 if BEFORE else 0.5", float),
        ("BEFORE or 3", int),
        ("int(x)", int),
        ("max(1, 2)", int),
        ("round(2.5)", int),
        ("Path('runs')", Path),
        ("pathlib.Path('runs') / 'x'", Path),
        ("Path.home() / 'x'", Path),
        ("os.environ['HOME']", str),
        ("os.environ.get('SIZE', 'x')", str),
        ("os.environ.get('SIZE')", None),
        ("made()", None),
        ("min(both)", None),
        ("NOWHERE", None),
    ],
)
def test_types_follow_from_the_source(written: str, kind: type | None) -> None:
    assert defaults(f"BEFORE = 3\nX = {written}")["X"] == (written, kind)


def test_an_annotation_says_the_type() -> None:
    found = defaults("A: float = 1\nB: Path = made()\nC: Thing = 3")
    assert {name: kind for name, (_, kind) in found.items()} == {"A": float, "B": Path, "C": int}


@pytest.mark.parametrize(
    ("source", "values", "then"),
    [
        ("DEPTH = 10\nWIDTH = 5", {"DEPTH": 20}, {"DEPTH": 20, "WIDTH": 5}),
        ("DEPTH = 10\nWIDTH = DEPTH * 2", {"DEPTH": 100}, {"DEPTH": 100, "WIDTH": 200}),
        ("DEPTH = 10\nWIDTH = DEPTH * 2", {"DEPTH": 100, "WIDTH": 3}, {"DEPTH": 100, "WIDTH": 3}),
        ("DEPTH = 10\nW = DEPTH\nW = W * 2\nW += 1", {"DEPTH": 100}, {"W": 201}),
        ("P = 'a'\nDEPTH = 1\nif P == 'b':\n    DEPTH = 2", {"P": "b"}, {"DEPTH": 2}),
        ("P = 'a'\nDEPTH = 1\nif P == 'b':\n    DEPTH = 2", {"P": "b", "DEPTH": 7}, {"DEPTH": 7}),
        ("A, B = 1, 2\nC = 3\nD = C", {"C": 4}, {"A": 1, "D": 4}),
        ("from pathlib import Path\nOUT = Path('runs')", {"OUT": "a b"}, {"OUT": Path("a b")}),
        ("from pathlib import Path\nOUT = Path('runs')\nX = OUT / 'x'", {"OUT": "o"}, {"X": Path("o/x")}),
        ("N = ''", {"N": "a'\n\"; import os \udcff"}, {"N": "a'\n\"; import os \udcff"}),
        ("N = None", {"N": [1.5, True, {"a": None}]}, {"N": [1.5, True, {"a": None}]}),
    ],
)
def test_values_are_set_and_what_is_computed_from_them_follows(
    source: str, values: dict[str, Any], then: dict[str, Any]
) -> None:
    names: dict[str, Any] = {}
    exec(source, names)
    exec(injected(source, values), names)
    assert {name: names[name] for name in then} == then


def test_what_an_earlier_run_has_set_goes(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    monkeypatch.setattr("papermill.execute_notebook", lambda content, *_, **__: ran.append(content))
    content = nbformat.read(write_notebook(Path("x.ipynb"), "print(SEED)", parameters="SEED = 0"), as_version=4)
    content.cells.insert(1, nbformat.v4.new_code_cell("SEED = 5", metadata={"tags": ["injected-parameters"]}))
    nbformat.write(content, "x.ipynb")
    assert worker.execute("x.ipynb", {}, "python3", None) == 0
    assert worker.execute("x.ipynb", {"SEED": 7}, "python3", None) == 0
    sources = [[cell.source for cell in one.cells[:-1]] for one in ran]
    assert sources == [["SEED = 0", "print(SEED)"], ["SEED = 0", "# Parameters\nSEED = 7", "print(SEED)"]]
    assert [one.metadata.papermill.parameters for one in ran] == [{}, {"SEED": 7}]

    content.cells[0].metadata.tags = []  # then that cell is all that sets it
    nbformat.write(content, "x.ipynb")
    assert worker.execute("x.ipynb", {}, "python3", None) == 0
    assert [cell.source for cell in ran[2].cells[:-1]] == ["SEED = 0", "SEED = 5", "print(SEED)"]
    assert os.listdir() == ["x.ipynb"]
