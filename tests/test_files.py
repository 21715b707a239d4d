import os
from pathlib import Path

import pytest

from deepnet_edu import files
from deepnet_edu.files import MOST_BYTES, parse_toml, read_json


def test_the_file_is_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_atomic(path, "old")
    files.write_atomic(path, "new ä")
    assert path.read_text(encoding="utf-8") == "new ä"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_files_mode_is_kept_and_a_link_replaced(tmp_path: Path) -> None:
    (target := tmp_path / "target").write_text("mine")
    target.chmod(0o600)
    (link := tmp_path / "link").symlink_to(target)
    files.write_atomic(target, "new")
    assert target.stat().st_mode & 0o777 == 0o600
    files.write_atomic(link, "instead")
    assert not link.is_symlink()
    assert target.read_text() == "new"
    assert link.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_killed_in_between_the_old_content_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    path = tmp_path / "a.txt"
    files.write_atomic(path, "old")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, moment, stop)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff", "not UTF-8"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "thousands of digits"),
        (b"[" + b"1," * 1000 + b"1]", "2,003 bytes, and 2,000 at most"),
    ],
)
def test_a_forged_file_is_refused_with_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    most = 2000 if content.startswith(b"[1") else MOST_BYTES
    (path := tmp_path / "state.json").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_json(path, most=most)


def test_a_pipe_is_not_waited_for_and_a_link_followed_where_it_may(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        read_json(tmp_path / "pipe")
    with pytest.raises((ValueError, OSError)):
        read_json(tmp_path)
    (tmp_path / "there").write_text("1")
    (tmp_path / "link").symlink_to("there")
    assert read_json(tmp_path / "link") == 1
    with pytest.raises(OSError, match="link"):
        read_json(tmp_path / "link", links=False)


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 5000, "a = ", "a = 1\na = 2"])
def test_toml_is_read_or_refused(text: str) -> None:
    assert parse_toml("a = 1") == {"a": 1}
    with pytest.raises(ValueError, match=r"^(not TOML|nested too deeply|a number has)"):
        parse_toml(text)


def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        files.write_atomic(tmp_path / "pipe", "content")
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
