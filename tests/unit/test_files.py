from pathlib import Path

import pytest

from deepnet_edu import files


def test_the_file_is_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_atomic(path, "old")
    files.write_atomic(path, "new ä")
    assert path.read_text(encoding="utf-8") == "new ä"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


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
