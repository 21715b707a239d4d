"""Export and grade, as a teacher types them: from a class that does not exist yet to one that is graded."""

import csv
import json
import sys
from pathlib import Path

import pytest

from deepnet_edu.course.places import LESSONS
from tests.cli.test_app import Run, run
from tests.course.three import LESSON, POINTS, hand_in, known_wrong

__all__ = ["run"]  # the fixture
pytestmark = pytest.mark.xdist_group("sandbox")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sandbox for answers")
def test_from_export_to_a_graded_class(run: Run, tmp_path: Path) -> None:
    result = run("export", "--withheld", str(tmp_path / "class"), "01")
    assert result.returncode == 0, result.stderr
    assert f"next: hand out {tmp_path / 'class' / 'students'}" in result.stdout
    hand_in(tmp_path / "class" / "students" / "lessons" / f"{LESSON}.ipynb", tmp_path / "in")
    table = tmp_path / "class.csv"
    result = run("grade", str(tmp_path / "in"), "--csv", str(table), "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    total = sum(POINTS.values())
    assert [(one["student"], one["points"], one["out_of"]) for one in report["students"]] == [
        ("full", total, total),
        ("none", 0, total),
        ("partial", POINTS["variance_by_depth"], total),
    ]
    assert report["sandbox"].startswith("Sandbox: ")
    rows = [*csv.DictReader(table.open(encoding="utf-8"))]
    assert len(rows) == len(report["rows"])
    (row,) = [one for one in rows if (one["student"], one["exercise"]) == ("partial", "input_share")]
    assert known_wrong("input_share")[1] in row["sentence"]
    again = run("grade", str(tmp_path / "in" / "partial"), "--csv", str(table), "--lesson", "01")  # its own table
    assert again.returncode == 0, again.stderr
    lines = again.stdout.splitlines()
    assert lines[0].split() == ["student", "points", "optional", "done", "tried", "open"]
    assert lines[1].split()[:4] == ["partial", str(POINTS["variance_by_depth"]), "of", str(total)]
    assert any("1× " in line and "input_share" in line for line in lines)


def test_a_class_by_its_progress_files_needs_no_sandbox(run: Run, tmp_path: Path) -> None:
    known = {"input_share": {"state": "done", "attempts": 2}}
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / ".progress.json").write_text(json.dumps({"version": 1, "exercises": known}))
    result = run("grade", str(tmp_path), "--lesson", "01")
    assert result.returncode == 0, result.stderr
    assert "the student's own file says so, and nothing was judged" in result.stdout
    assert "Sandbox" not in result.stdout


def test_bad_input_is_one_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("mine")
    (tmp_path / "in" / "anna").mkdir(parents=True)
    (tmp_path / "in" / "anna" / f"{LESSON}.ipynb").write_bytes((LESSONS / f"{LESSON}.ipynb").read_bytes())
    (tmp_path / "text.txt").write_text("no")
    given = str(tmp_path / "in")
    for line, said in (
        (["export"], "Give one of --withheld, --nbgrader, --otter DIR"),
        (["export", "--withheld", given, "--otter", "x"], "Give one of"),
        (["export", "--withheld", given], "is not empty"),
        (["export", "--nbgrader", str(tmp_path / "new"), "77"], "Unknown lesson '77'"),
        (["grade", str(tmp_path / "text.txt")], "is not a notebook or a progress file"),
        (["grade", str(tmp_path / "nothing")], "There is no file or folder"),
        (["grade", given, given], "Two students are called anna"),
        (["grade", given, "--lesson", "77"], "Unknown lesson '77'"),
        (["grade", given, "--lesson", "00"], "There are no exercises to grade"),
        (["grade", given, "--csv", str(tmp_path / "other.csv")], "other.csv"),
    ):
        result = run(*line)
        assert result.returncode == 1, line
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    assert (tmp_path / "other.csv").read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_slides_of_a_lesson(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    result = run("slides", "01", str(folder))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{folder / 'index.html'}: ")
    assert {path.name for path in folder.iterdir()} == {"index.html", "mathjax", "reveal"}
    again = run("slides", "lecture", str(folder))
    assert again.returncode == 1
    assert "is not empty: choose another folder" in again.stderr
