"""The programs behind lesson 16's records, at sizes for any CPU: they resume, refuse, and judge."""

import json
from math import inf
from pathlib import Path
from typing import Any

import pytest

from benchmarks import learning_rates, lesson_16, resumed, verdict_table
from deepnet_edu.batch.plan import Request, make_plan
from deepnet_edu.batch.state import Status
from deepnet_edu.checks.lesson_16 import failures
from deepnet_edu.course.places import RECORDS
from deepnet_edu.files import read_json
from deepnet_edu.residual import RESIDUALS


def test_the_record_of_lesson_16_resumes(tmp_path: Path) -> None:
    """A second call runs what is missing alone, to the same numbers; parts that were not asked for are left out."""
    out = tmp_path / "record.json"
    rows = lesson_16.record(out, ["diagnosis", "depth", "batch"], lesson_16.SMOKE)
    assert [row["part"] for row in rows] == ["diagnosis"] * 18 + ["depth"] * 4 + ["batch"] * 4
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record["runs"] == rows
    assert {"what", "command", "date", "device", "versions", "shape", "recipe"} <= record.keys()
    gone = record["runs"].pop(18)
    out.write_text(json.dumps(record), encoding="utf-8")
    again = lesson_16.record(out, ["depth"], lesson_16.SMOKE)
    assert again == [*rows[:18], *rows[19:], gone]


def test_every_cause_has_what_the_diagnosis_asks_for(tmp_path: Path) -> None:
    rows = {row["cause"]: row for row in lesson_16.record(tmp_path / "t.json", ["diagnosis"], lesson_16.SMOKE)[:9]}
    assert rows.keys() == lesson_16.CAUSES.keys()
    for row in rows.values():
        assert len(row["loss"]) == len(row["update"]) == lesson_16.SMOKE.steps
        assert [len(pair) for pair in row["gradient"]] == [2, 2]
        assert len(row["similarity"]) == 2
    assert rows["stack not trained"]["moved"] == 0
    assert rows["branches asleep"]["gradient"][0] == [0, 0]
    first, last = rows["branches drowned"]["gradient"][0]
    assert last < 1e-6 * first


def test_a_ramp_and_where_it_broke(tmp_path: Path) -> None:
    ramp = (5, 1e-4, 1.0)
    assert [learning_rates.rate_at(step, ramp) for step in range(5)] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])
    fine = learning_rates.judged([5.0, 4.0, 3.0, 3.0, 3.0], ramp)
    assert fine == {"highest_rate": 1.0, "broke_at": None, "minimum": 3.6}
    jumped = learning_rates.judged([3.0, 3.0, 3.0, inf], ramp)
    assert jumped == {"highest_rate": 0.01, "broke_at": 0.1, "minimum": 3.0}
    healed = learning_rates.judged([3.0, 3.0, 9.0, 3.0, 3.0, 3.0, 3.0, 3.0], (8, 1e-4, 1.0))
    assert healed["broke_at"] is None
    rows = learning_rates.record(tmp_path / "t.json", ["deepnorm", "keel"], learning_rates.SMOKE)
    assert [row["beta"] for row in rows] == [16**-0.25, 4**-0.25, None]
    assert all(len(row["loss"]) == learning_rates.SMOKE.ramp[0] for row in rows)


def test_a_ramp_ends_where_the_loss_is_no_number(tmp_path: Path) -> None:
    size = learning_rates.Size(sublayers=(2,), seeds=(0,), ramp=(4, 1e-3, 1e37))
    (row,) = learning_rates.record(tmp_path / "t.json", ["pre_ln"], size)
    assert row["loss"][-1] is None
    assert row["broke_at"] is not None
    assert row["highest_rate"] < row["broke_at"]


def test_the_plan_of_the_table() -> None:
    """Every rule once in each architecture that its paper defines and the lesson has; six with rates and seeds."""
    size = verdict_table.Size()
    parts = {part: list(verdict_table.plan(part, size)) for part in verdict_table.PARTS}
    once = {(row["rule"], row["architecture"]) for part in ("main", "rest") for row in parts[part]}
    assert once == {(n, a) for n, r in RESIDUALS.items() for a in r.architectures if a != "encoder"}
    assert len(parts["main"]) + len(parts["rest"]) == len(once)
    grid = {(row["rule"], row["architecture"], row["learning_rate"], row["seed"]) for row in parts["rates"]}
    assert len(grid) == len(parts["rates"]) == (6 + 2) * 3 * 3  # of two stacks the claim and its control alone


def test_the_lesson_knows_what_the_table_sets(tmp_path: Path) -> None:
    rows = list(verdict_table.plan("main", verdict_table.Size()))[:6]
    words = verdict_table.command(rows, 100, tmp_path)
    given = tuple(words[i + 1] for i, word in enumerate(words) if word == "--set")
    sweeps = tuple(words[i + 1] for i, word in enumerate(words) if word == "--sweep")
    runs = make_plan(Request(("16",), "smoke", given, sweeps)).runs
    assert [run.parameters["RULE"] for run in runs] == list(verdict_table.MAIN)
    assert {run.state for run in runs} == {"queued"}


def test_the_table_takes_what_batches_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is ended half-way leaves the rest for the next call; rows come in the order of the plan."""
    asked: list[list[str]] = []

    def batch(end: float, words: list[str]) -> None:
        rules = words[words.index("--sweep") + 1].removeprefix("RULE=").split(",")
        asked.append(rules)
        given = dict(word.split("=") for i, word in enumerate(words) if words[i - 1] == "--set")
        folder = Path(words[words.index("--out") + 1])
        for rule in rules[:1]:
            settings = {
                "rule": rule,
                "architecture": given["ARCHITECTURE"],
                "layers": int(given["LAYERS"]),
                "learning_rate": float(given["LEARNING_RATE"]),
                "seed": int(given["SEED"]),
            }
            metrics: dict[str, Any] = settings | dict.fromkeys(verdict_table.MEASURED, 0.123456)
            place = folder / f"lesson.{rule}"
            place.mkdir(parents=True)
            Status(place.name, "lesson", state="done", audited=True, metrics=metrics).write(place)

    monkeypatch.setattr(verdict_table, "run_until", batch)
    size = verdict_table.Size(4, 2, (3e-4,), (0,), ("deepnorm", "keel"), ("deepnorm", "keel"))
    out, folder = tmp_path / "t.json", tmp_path / "batches"
    missing = verdict_table.table(out, ["main"], size, folder)
    assert [(row["rule"], row["architecture"]) for row in missing] == [("keel", "decoder")]
    assert verdict_table.table(out, ["main", "rest", "rates"], size, folder) == []
    assert asked == [["deepnorm", "keel"], ["deepnorm"], ["keel"]]
    record = json.loads(out.read_text(encoding="utf-8"))
    assert [(row["rule"], row["architecture"]) for row in record["runs"]] == [
        ("deepnorm", "decoder"),
        ("keel", "decoder"),
        ("deepnorm", "encoder_decoder"),
    ]
    assert record["runs"][0]["similarity"] == 0.1235
    assert "--set LAYERS=4 --set STEPS=2" in record["batch"]


def test_bad_options_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    for given, sentence in (
        (["--only", "dept"], "did you mean 'depth'"),
        (["--smoke"], "add --out FILE"),
        (["--minutes", "-1"], "expected a positive number"),
        (["--minutes", "nan"], "expected a positive number"),
    ):
        with pytest.raises(SystemExit):
            resumed.options("what it does", record, ["depth", "batch"], given)
        assert sentence in capsys.readouterr().err
    found = resumed.options("what it does", record, ["depth", "batch"], ["--only", "depth", "--minutes", "2"])
    assert (found.only, found.out, found.smoke, found.minutes) == (["depth"], record, False, 2)


def test_when_the_minutes_are_spent_no_run_begins(tmp_path: Path) -> None:
    plan = [{"a": 1}, {"a": 2}]
    assert resumed.complete(tmp_path / "t.json", {}, plan, lambda settings: {"b": 1}, minutes=0) == []
    assert len(resumed.complete(tmp_path / "t.json", {}, plan, lambda settings: {"b": 1})) == 2


def test_the_failures_of_the_check_are_those_of_the_record() -> None:
    """Their numbers are in the check, which reads no file: 16.1 is answered against what was measured."""
    recorded = [run for run in read_json(RECORDS / "lesson_16.json")["runs"] if run["part"] == "diagnosis"]
    lines = failures._RUNS.strip().splitlines()
    for run, line in zip(recorded, lines, strict=True):
        cause, loss, gradient, similarity, update, moved = line.split("|")
        name, layers = cause.rsplit(",", 1)
        assert (run["cause"].startswith(name), run["layers"]) == (True, int(layers))
        (a, b), (c, d) = run["gradient"]
        numbers = [*map(float, gradient.split()), *map(float, similarity.split()), float(moved)]
        assert numbers == pytest.approx([a, b, c, d, *run["similarity"], run["moved"]], rel=5e-3)
        losses, updates = ([values[i] for i in (0, 20, 40, -1)] for values in (run["loss"], run["update"]))
        losses[-1] = sum(run["loss"][-5:]) / 5
        assert [*map(float, loss.split())] == pytest.approx(losses, rel=5e-3)
        assert [*map(float, update.split())] == pytest.approx(updates, rel=5e-2)
