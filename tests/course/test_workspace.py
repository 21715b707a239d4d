"""Learners' copies: renewed while untouched, never overwritten once edited, nothing half-written."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deepnet_edu.course import workspace
from deepnet_edu.course.workspace import MANIFEST, Update, digest, update
from deepnet_edu.messages import UserError


def notebook(source: str, outputs: list | None = None, **metadata: str) -> str:
    cell = {"cell_type": "code", "source": [source], "outputs": outputs or [], "metadata": {}, "execution_count": None}
    return json.dumps({"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    lessons, copies = tmp_path / "lessons", tmp_path / "work space ä"
    lessons.mkdir()
    (lessons / "00_first.ipynb").write_text(notebook("v1"))
    (lessons / "01_second.ipynb").write_text(notebook("w1"))
    assert update(copies, lessons).new == ["00_first", "01_second"]
    return lessons, copies


def test_an_untouched_copy_is_renewed(folders: tuple[Path, Path]) -> None:
    lessons, copies = folders
    (lessons / "00_first.ipynb").write_text(notebook("v2"))
    result = update(copies, lessons)
    assert (result.new, result.renewed, result.beside) == ([], ["00_first"], [])
    assert "v2" in (copies / "00_first.ipynb").read_text()


def test_saving_without_a_change_does_not_count_as_an_edit(folders: tuple[Path, Path]) -> None:
    lessons, copies = folders
    (copies / "00_first.ipynb").write_text(notebook("v1", language_info="python"))
    (lessons / "00_first.ipynb").write_text(notebook("v2"))
    assert update(copies, lessons).renewed == ["00_first"]


@pytest.mark.parametrize(
    "mine", [notebook("mine"), notebook("v1", [{"output_type": "stream", "text": "ran"}]), "no json"]
)
def test_an_edited_copy_is_kept_and_the_new_one_lies_beside(folders: tuple[Path, Path], mine: str) -> None:
    lessons, copies = folders
    (copies / "00_first.ipynb").write_text(mine)
    assert update(copies, lessons).beside == []  # there is no newer version yet
    (lessons / "00_first.ipynb").write_text(notebook("v2"))
    ((name, beside),) = update(copies, lessons).beside
    assert name == "00_first"
    assert (copies / "00_first.ipynb").read_text() == mine
    assert "v2" in (copies / beside).read_text()
    (copies / beside).write_text("my notes in the new one")
    assert update(copies, lessons).beside == []  # offered once
    assert (copies / beside).read_text() == "my notes in the new one"
    (lessons / "00_first.ipynb").write_text(notebook("v3"))
    assert update(copies, lessons).beside[0][1] != beside
    assert (copies / "00_first.ipynb").read_text() == mine


def test_work_in_the_new_version_is_kept_too(folders: tuple[Path, Path]) -> None:
    """v2 was laid beside and worked in; v3 came, and v2 again."""
    lessons, copies = folders
    (copies / "00_first.ipynb").write_text(notebook("mine"))
    laid = []
    for version in ("v2", "v3", "v2"):
        (lessons / "00_first.ipynb").write_text(notebook(version))
        laid.append(copies / update(copies, lessons).beside[0][1])
        if len(laid) == 1:
            laid[0].write_text("worked in")
    assert laid[0] == laid[2] != laid[1]
    assert laid[0].read_text() == "worked in"


@pytest.mark.parametrize("manifest", [None, "{", "[]", '{"00_first.ipynb": 3}'])
def test_without_a_good_manifest_everything_that_differs_is_the_learners(
    folders: tuple[Path, Path], manifest: str | None
) -> None:
    lessons, copies = folders
    (copies / MANIFEST).unlink()
    if manifest is not None:
        (copies / MANIFEST).write_text(manifest)
    (lessons / "00_first.ipynb").write_text(notebook("v2"))
    result = update(copies, lessons)
    assert result.renewed == []
    assert [name for name, _ in result.beside] == ["00_first"]
    assert "v1" in (copies / "00_first.ipynb").read_text()


def test_a_copy_that_was_deleted_comes_back(folders: tuple[Path, Path]) -> None:
    lessons, copies = folders
    (copies / "01_second.ipynb").unlink()
    assert update(copies, lessons).new == ["01_second"]


def test_the_glossary_comes_along(folders: tuple[Path, Path]) -> None:
    lessons, copies = folders
    docs = lessons.parent / "docs"
    docs.mkdir()
    (docs / "glossary.md").write_text("v1")
    assert update(copies, lessons).new[-1] == "glossary"
    (docs / "glossary.md").write_text("v2")
    assert update(copies, lessons).renewed == ["glossary"]
    (copies / "glossary.md").write_text("my notes")
    (docs / "glossary.md").write_text("v3")
    ((_, beside),) = update(copies, lessons).beside
    assert (copies / "glossary.md").read_text() == "my notes"
    assert (copies / beside).suffix == ".md"
    assert (copies / beside).read_text() == "v3"


def test_links_in_a_copy_lead_to_what_lies_beside_it(tmp_path: Path) -> None:
    update(tmp_path / "w")
    for copy in (tmp_path / "w").glob("*.ipynb"):
        cells = json.loads(copy.read_text(encoding="utf-8"))["cells"]
        text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match("https?:|#", link)]
        assert links
        assert [link for link in links if not (tmp_path / "w" / link.partition("#")[0]).exists()] == []
    assert update(tmp_path / "w") == Update()


CONFLICT = notebook("mine").replace('"metadata"', '\n<<<<<<< HEAD\n=======\n>>>>>>> theirs\n"metadata"', 1)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (CONFLICT, "has git's conflict markers (line 2: <<<<<<< HEAD)"),
        ("no json", "not JSON"),
        ("", "not JSON"),
        ("[1]", "it has no cells"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
    ids=["conflict", "text", "empty", "list", "deep", "bytes"],
)
def test_a_copy_that_jupyterlab_cannot_open_is_kept_and_said(
    folders: tuple[Path, Path], content: str | bytes, why: str
) -> None:
    lessons, copies = folders
    copy = copies / "00_first.ipynb"
    copy.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = copy.read_bytes()
    ((name, sentence),) = update(copies, lessons).broken
    assert name == "00_first"
    assert why in sentence
    assert "JupyterLab" in sentence
    assert copy.read_bytes() == before
    copy.rename(copies / "kept.ipynb")  # as the sentence says
    result = update(copies, lessons)
    assert (result.new, result.broken) == (["00_first"], [])


def test_a_link_that_leads_nowhere_is_kept_and_said(folders: tuple[Path, Path]) -> None:
    lessons, copies = folders
    copy = copies / "00_first.ipynb"
    copy.unlink()
    copy.symlink_to("/not/connected/first.ipynb")
    ((_, sentence),) = update(copies, lessons).broken
    assert "is a link to /not/connected/first.ipynb, which is not there" in sentence
    assert copy.is_symlink()


def test_a_copy_behind_a_link_is_renewed_where_it_is(folders: tuple[Path, Path], tmp_path: Path) -> None:
    lessons, copies = folders
    copy, there = copies / "00_first.ipynb", tmp_path / "there.ipynb"
    copy.rename(there)
    there.chmod(0o600)
    copy.symlink_to(there)
    (lessons / "00_first.ipynb").write_text(notebook("v2"))
    assert update(copies, lessons).renewed == ["00_first"]
    assert copy.is_symlink()
    assert "v2" in there.read_text()
    assert there.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mark", [{"tags": ["mine"]}, {"attachments": {"a.png": {"image/png": ""}}}])
def test_a_tag_or_an_attachment_is_an_edit(folders: tuple[Path, Path], mark: dict) -> None:
    lessons, copies = folders
    copy = copies / "00_first.ipynb"
    content = json.loads(copy.read_text())
    content["cells"][0] |= mark if "attachments" in mark else {"metadata": mark}
    copy.write_text(json.dumps(content))
    (lessons / "00_first.ipynb").write_text(notebook("v2"))
    assert [name for name, _ in update(copies, lessons).beside] == ["00_first"]
    assert json.loads(copy.read_text()) == content


def test_a_manifest_of_an_older_version_still_tells_what_is_untouched(folders: tuple[Path, Path]) -> None:
    lessons, copies = folders
    tagged = json.loads(notebook("v1"))
    tagged["cells"][0]["metadata"] = {"tags": ["parameters"]}
    copy = copies / "00_first.ipynb"
    copy.write_text(json.dumps(tagged))
    older = {"00_first.ipynb": {"copied": digest(copy.read_bytes(), marks=False)}}
    (copies / MANIFEST).write_text(json.dumps(older))
    (lessons / "00_first.ipynb").write_text(notebook("v2"))
    assert update(copies, lessons).renewed == ["00_first"]


@pytest.mark.parametrize("moment", ["write_atomic", "copymode", "link"])
def test_what_is_saved_during_an_update_is_not_lost(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """JupyterLab saves between the look at a copy and its renewal."""
    lessons, copies = folders
    (lessons / "00_first.ipynb").write_text(notebook("v2"))
    module = {"write_atomic": workspace, "copymode": workspace.shutil, "link": workspace.os}[moment]
    real, saved = getattr(module, moment), []

    def save(*arguments: object) -> object:
        if not saved:
            saved.append(True)
            (copies / "00_first.ipynb").write_text(notebook("mine"))
        return real(*arguments)

    monkeypatch.setattr(module, moment, save)
    result = update(copies, lessons)
    assert (result.renewed, [name for name, _ in result.beside]) == ([], ["00_first"])
    assert "mine" in (copies / "00_first.ipynb").read_text()
    assert not list(copies.glob(".*.part"))


def test_a_disk_without_hard_links(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    lessons, copies = folders
    (lessons / "00_first.ipynb").write_text(notebook("v2"))
    monkeypatch.setattr(workspace.os, "link", link)
    assert update(copies, lessons).renewed == ["00_first"]
    assert not list(copies.glob(".*.part"))


def test_what_a_killed_update_left_is_removed_and_an_old_version_put_back(folders: tuple[Path, Path]) -> None:
    lessons, copies = folders
    copy = copies / "00_first.ipynb"
    copy.write_text(notebook("mine"))
    copy.rename(copies / ".00_first.ipynb.old.part")
    (copies / ".01_second.ipynb.abc.part").write_text("half")
    result = update(copies, lessons)
    assert result.new == []
    assert "mine" in copy.read_text()
    assert not list(copies.glob(".*.part"))


def test_a_second_call_changes_nothing(folders: tuple[Path, Path]) -> None:
    lessons, copies = folders
    before = {path.name: path.read_bytes() for path in copies.iterdir()}
    result = update(copies, lessons)
    assert (result.new, result.renewed, result.beside) == ([], [], [])
    assert {path.name: path.read_bytes() for path in copies.iterdir()} == before


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_disk_that_fails_loses_nothing(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """The n-th write fails: every file is whole, the sentence names the folder, the next update repairs it."""
    lessons, copies = folders
    for name, text in (("00_first", "v2"), ("01_second", "w2")):
        (lessons / f"{name}.ipynb").write_text(notebook(text))
    calls = 0
    real = workspace.write_atomic

    def write(path: Path, content: str | bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(workspace, "write_atomic", write)
    with pytest.raises(UserError, match=r"work space ä cannot be written \(No space left on device\).*--workspace"):
        update(copies, lessons)
    for path in copies.glob("*.ipynb"):
        assert digest(path.read_bytes()) in {digest(notebook(text).encode()) for text in ("v1", "v2", "w1", "w2")}
    monkeypatch.undo()
    update(copies, lessons)
    assert "v2" in (copies / "00_first.ipynb").read_text()
    assert "w2" in (copies / "01_second.ipynb").read_text()


def test_a_workspace_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file/work cannot be written \(Not a directory\)"):
        update(tmp_path / "file" / "work")


@pytest.mark.parametrize("kill_at", [1, 2, 3])
def test_killed_in_the_middle_of_an_update_nothing_is_half_written(folders: tuple[Path, Path], kill_at: int) -> None:
    """The process dies as it is about to put the n-th file in its place."""
    lessons, copies = folders
    for name, text in (("00_first", "v2"), ("01_second", "w2")):
        (lessons / f"{name}.ipynb").write_text(notebook(text))
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom deepnet_edu.course.workspace import update\n"
        "real, count = os.replace, 0\n"
        "def replace(a, b):\n"
        "    global count\n"
        "    count += 1\n"
        f"    if count == {kill_at}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(a, b)\n"
        "os.replace = replace\n"
        f"update(Path({str(copies)!r}), Path({str(lessons)!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    for path in copies.glob("*.ipynb"):
        assert digest(path.read_bytes()) in {digest(notebook(text).encode()) for text in ("v1", "v2", "w1", "w2")}
    update(copies, lessons)
    assert "v2" in (copies / "00_first.ipynb").read_text()
    assert "w2" in (copies / "01_second.ipynb").read_text()
