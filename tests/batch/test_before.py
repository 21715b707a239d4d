"""A batch that an earlier version has begun is reported and resumed by this one."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepnet_edu.cli import app

BEFORE = Path(__file__).with_name("before")


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """Its folder, as if it had been run beside its notebook here: one run is done, one has failed."""
    folder = Path(shutil.copytree(BEFORE, tmp_path / "before"))
    for file in folder.rglob("*"):
        if file.suffix == ".json":
            file.write_text(file.read_text(encoding="utf-8").replace("@FOLDER@", str(folder)), encoding="utf-8")
    return folder / "batch"


def test_it_is_reported_and_resumed(batch: Path) -> None:
    done = (batch / "tiny.919b20f2193f" / "notebook.ipynb").read_bytes()
    report = CliRunner().invoke(app, ["report", str(batch)])
    assert report.exit_code == 0, report.output
    page = (batch / "report.html").read_text(encoding="utf-8")
    assert "too deep" in page
    assert "DEPTH=3" in page
    resumed = CliRunner().invoke(app, ["run", "--resume", "--out", str(batch)])
    assert resumed.exit_code == 1
    assert "AssertionError: too deep" in resumed.output
    assert "1 of 2 runs are done" in resumed.output
    # What another version of the package has computed does not count as done, and is kept.
    assert (batch / "earlier" / "tiny.919b20f2193f" / "notebook.ipynb").read_bytes() == done
