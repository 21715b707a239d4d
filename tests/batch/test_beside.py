"""Modules and data that go along with a notebook."""

import os
from pathlib import Path

import pytest

from deepnet_edu.batch import beside


def put(folder: Path, **texts: str) -> None:
    """Files by their names, in which __ stands for / and the last _ for a dot."""
    for name, text in texts.items():
        path = folder / ".".join(name.replace("__", "/").rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_modules_are_followed(tmp_path: Path) -> None:
    put(
        tmp_path,
        one_py="import two, os\nfrom package.part import x",
        two_py="def late():\n    import three",
        three_py="import one",
        script_py="",
        package__part_py="from . import other\nimport three",
        package__other_py="",
        other_py="",
        torch_txt="no module",
        late_py="",
        asked_py="",
    )
    cells = [
        "%%time\nimport one as first\n!ls",
        "%run -i script.py",
        "this is not Python: import other\nfrom late import x",
        "len?\nimport asked",
    ]
    assert list(beside.modules(cells, [tmp_path])) == [
        "asked.py", "late.py", "one.py", "package/other.py", "package/part.py", "script.py", "three.py", "two.py",
    ]  # fmt: skip
    assert beside.modules(["import torch, deepnet_edu"], [tmp_path, tmp_path / "none"]) == {}


def test_data_that_is_named_is_found(tmp_path: Path) -> None:
    put(tmp_path, data_csv="1", other_csv="1", sets__a_txt="1", sets__deep__b_txt="1", log_txt="1")
    put(tmp_path, package__part_py="", batches__b__batch_json="{}")
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path.parent / "outside.csv").write_text("1")
    others = ["../outside.csv", ".", "", "log.txt", "package", "batches", "x.ipynb", "/etc/hosts", "\0", "none.csv"]
    text = f"x = {['data.csv', './sets', *others]}"
    notebook = tmp_path / "x.ipynb"
    notebook.write_text("{}")
    assert list(beside.files([text], notebook)) == ["data.csv", "sets/a.txt", "sets/deep/b.txt"]
    assert list(beside.files(["f'sets/{n}.txt'\n%matplotlib inline"], notebook)) == ["sets/a.txt", "sets/deep/b.txt"]
    for cell in (
        "%run other.csv",
        "x = !cat other.csv",
        "%%bash\nwc -l < other.csv",
        "not Python 'other.csv'",
        "!ls other.csv",
    ):
        assert list(beside.files([cell], notebook)) == ["other.csv"], cell


def test_too_much_is_not_lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, large_bin="x" * 100, small_bin="x")
    monkeypatch.setattr(beside, "MOST_BYTES", 50)
    assert list(beside.files(["'large.bin', 'small.bin'"], tmp_path / "x.ipynb")) == ["small.bin"]


def test_copies_are_taken_back_unless_the_run_has_changed_them(tmp_path: Path) -> None:
    here, run = tmp_path / "here", tmp_path / "run"
    put(here, data_csv="1", sets__a_txt="2", sets__b_txt="3", only__c_txt="4")
    run.mkdir()
    (run / "sets").symlink_to(here / "sets")  # as an earlier attempt may have left it
    lent = beside.files(["'data.csv', 'sets', 'only'"], here / "x.ipynb")
    beside.lend(lent, run)
    assert not (run / "sets").is_symlink()
    assert (run / "data.csv").read_text() == "1"
    (run / "sets" / "a.txt").write_text("changed")
    (run / "data.csv").unlink()
    (run / "data.csv").mkdir()
    beside.take_back(lent, run)
    assert sorted(os.path.relpath(one, run) for one in run.rglob("*")) == ["data.csv", "sets", "sets/a.txt"]
    assert (here / "sets" / "a.txt").read_text() == "2"
    beside.lend(lent, run)  # the next attempt begins as the first one did
    assert (run / "sets" / "a.txt").read_text() == "2"
    assert (run / "data.csv").read_text() == "1"


def test_a_hash_tells_what_has_changed(tmp_path: Path) -> None:
    put(tmp_path, a_py="1")
    found = {"a.py": tmp_path / "a.py"}
    before = beside.digest(found)
    put(tmp_path, a_py="2")
    assert beside.digest({}) == "" != before != beside.digest(found)
    (tmp_path / "a.py").unlink()
    assert beside.digest(found)
