"""deepnet-edu report: numbers against tables and sums by hand, and whatever is in a batch cannot break the page."""

import csv
import io
import json
import os
import re
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from deepnet_edu.batch.folder import runs_as_they_are
from deepnet_edu.batch.report import page as report
from deepnet_edu.batch.report.page import page
from deepnet_edu.batch.report.plots import sweep_pictures
from deepnet_edu.batch.report.render import notebook_html, read_cells, traceback_of
from deepnet_edu.batch.report.summary import compare, estimate, group_runs, student_t, summarize
from deepnet_edu.batch.state import Status, read_batch
from deepnet_edu.cli import app
from deepnet_edu.messages import UserError
from tests.batch.made_up import code, make_run, make_sweep, raised, shown

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (9, 2.26216), (30, 2.04227), (120, 1.97993)],
)
def test_students_t_is_the_tables(freedom: int, t: float) -> None:
    assert student_t(freedom) == pytest.approx(t, rel=1e-5)


def test_an_interval_by_hand() -> None:
    found = estimate([1.0, 2.0, 3.0])  # s = 1
    assert (found.mean, found.n) == (2.0, 3)
    assert found.half_width == pytest.approx(4.30265 / 3**0.5, rel=1e-5)
    assert str(found) == "2 ± 2.5 (n = 3)"
    assert str(estimate([2.0])) == "2 (n = 1)"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.7e308, 1.7e308], "1.7e+308 ± 0 (n = 2)"),
        ([1.5e308, -1.5e308], "0 ± inf (n = 2)"),
    ],
)
def test_numbers_that_exploded_have_a_mean(values: list[float], said: str) -> None:
    assert str(estimate(values)) == said


def test_groups_are_runs_that_differ_in_the_seed_alone(tmp_path: Path) -> None:
    groups = group_runs(make_sweep(tmp_path))
    assert [(group.parameters["DEPTH"], group.parameters["RESIDUAL"]) for group in groups] == [
        (100, "deepnorm"), (100, "post_ln"), (400, "deepnorm"), (400, "post_ln"),
    ]  # fmt: skip
    assert [len(group.good) for group in groups] == [3, 3, 3, 2]
    found = groups[3].metric("loss")  # seeds 0 and 2; seed 1 failed and does not count
    assert found is not None
    assert found.mean == pytest.approx(1.5)
    assert groups[0].metric("verdict") is None


def test_other_code_is_another_group(tmp_path: Path) -> None:
    for i, digit in enumerate("ab"):
        make_run(tmp_path, f"x.{i}", hashes={"notebook": digit * 64, "package": "b" * 64}, metrics={"loss": i})
    assert [len(group.runs) for group in group_runs(read_batch(tmp_path))] == [1, 1]
    assert "<td>aaaaaaa bbbbbbb</td>" in page(tmp_path, read_batch(tmp_path))


def test_a_summary(tmp_path: Path) -> None:
    found = summarize(make_sweep(tmp_path))
    assert found["states"] == {"done": 11, "failed": 1}
    assert found["failed"] == 1
    assert found["seconds_of_runs"] == 12 * 90
    assert found["seconds_from_first_to_last"] == 90
    assert (found["hosts"], found["seeds"]) == (["here"], [0, 1, 2])


def test_a_done_run_with_problems_counts_as_failed(tmp_path: Path) -> None:
    run = make_run(tmp_path, "x.0", problems=["a figure is empty"], metrics={"loss": 1.0})
    assert summarize([run])["failed"] == 1
    assert group_runs([run])[0].metric("loss") is None


def test_differences_go_seed_by_seed(tmp_path: Path) -> None:
    for seed, (here, there) in enumerate([(1.0, 0.5), (2.0, 1.4), (3.0, 2.3), (9.0, None)]):
        given = {"seed": seed, "parameters": {"DEPTH": 100, "SEED": seed}}
        make_run(tmp_path / "a", f"x.{seed}", metrics={"loss": here}, **given)
        make_run(tmp_path / "b", f"x.{seed}", metrics={"loss": there} if there else {}, **given)
    make_run(tmp_path / "a", "x.deep", parameters={"DEPTH": 400}, metrics={"loss": 1.0})
    (row,) = compare(read_batch(tmp_path / "a"), read_batch(tmp_path / "b"))
    assert (row["parameters"], row["metric"], row["first"]) == ({"DEPTH": 100}, "loss", 2.0)
    assert row["difference"].mean == pytest.approx(0.6)  # 0.5, 0.6, 0.7
    assert row["difference"].half_width == pytest.approx(4.30265 * 0.1 / 3**0.5, rel=1e-5)


def test_no_seed_in_common(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", "x.0", seed=0, metrics={"loss": 1.0})
    second = make_run(tmp_path / "b", "x.1", seed=1, metrics={"loss": 1.0})
    (row,) = compare([first], [second])
    assert row["difference"] is None
    assert "no seed in common" in page(tmp_path / "a", [first], ("b", [second]))
    other = make_run(tmp_path / "c", "y.1")
    assert "No run of this batch has the notebook" in page(tmp_path / "a", [first], ("c", [other]))


def test_the_page(tmp_path: Path) -> None:
    make_sweep(tmp_path / "depths")
    path = call(tmp_path / "depths").strip()
    html = Path(path).read_text()
    assert path == str(tmp_path / "depths" / "report.html")
    assert '<span class="good">11 done</span>, <span class="bad">1 failed</span>' in html
    assert "0.2 ± 0.25 (n = 3)" in html
    assert "deepnet-edu run 00 --sweep DEPTH=100,400" in html
    assert html.index("----&gt; 1 here") < html.index('<h2 id="means-head"')
    assert "cell 2 raised ValueError: loss is &lt;nan&gt;" in html
    assert html.count("<figure>") == 2
    assert html.count("<details id=") == 12
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html)
    call(tmp_path / "depths")  # a report may be made again


def test_notes_are_shown_and_fail_nothing(tmp_path: Path) -> None:
    note = "w<o>rds.csv: 1 of 3 rows lack a text and were left out."
    make_run(tmp_path / "a", "x.0", [code("1")], notes=[note], metrics={"loss": 0.5})
    html = Path(call(tmp_path / "a", "--junit", tmp_path / "a.xml").strip()).read_text()
    assert '<span class="good">1 done</span>' in html
    assert "w&lt;o&gt;rds.csv: 1 of 3 rows lack a text and were left out." in html[html.index('id="notes-head"') :]
    assert "0.5 (n = 1)" in html
    (row,) = csv.DictReader(io.StringIO(call(tmp_path / "a", "--csv")))
    assert (row["state"], row["problems"], row["notes"]) == ("done", "", note)
    suite = ElementTree.parse(tmp_path / "a.xml").getroot()
    assert (suite.get("failures"), suite.findtext("testcase/system-out")) == ("0", note)


def test_pictures_say_what_they_show(tmp_path: Path) -> None:
    by_depth, by_rule = sweep_pictures(group_runs(make_sweep(tmp_path)))
    assert by_depth.alt == (
        "00_x (smoke): loss against DEPTH. RESIDUAL = deepnorm: 0.2 at 100 to 0.5 at 400; "
        "RESIDUAL = post_ln: 1.2 at 100 to 1.5 at 400."
    )
    assert "loss against RESIDUAL" in by_rule.alt
    one = make_run(tmp_path / "one", "x.0", parameters={"DEPTH": 1}, metrics={"loss": 1.0})
    assert list(sweep_pictures(group_runs([one]))) == []


HUGE = 10**400


@pytest.mark.parametrize(
    ("values", "losses", "said"),
    [
        ([[1], [2]], [1.0, 2.0], "x (cpu): loss against A. 1 at [1] to 2 at [2]."),
        ([{"a": 1}, {"a": 2}], [1.0, 2.0], "1 at {'a': 1} to 2 at {'a': 2}."),
        ([1, True], [1.0, 2.0], "1 at 1 to 2 at True."),
        ([1, 5, 10**26], [1.0, 2.0, 3.0], "1 at 1 to 3 at 1"),
        ([1, HUGE], [1.0, 2.0], "1 at 1 to 2 at 1000"),
        ([-3, 3], [-1.5e308, 1.5e308], "-1.5e+308 at -3 to 1.5e+308 at 3. It cannot be drawn ("),
    ],
    ids=range(6),
)
def test_strange_sweeps(tmp_path: Path, values: list[object], losses: list[float], said: str) -> None:
    runs = [
        make_run(tmp_path, f"x.{i}", parameters={"A": value}, metrics={"loss": loss})
        for i, (value, loss) in enumerate(zip(values, losses, strict=True))
    ]
    assert escape(said) in page(tmp_path, runs)


def test_numbers_that_no_float_holds(tmp_path: Path) -> None:
    for seed, sign in enumerate((1, -1)):
        make_run(tmp_path / "a", f"x.{seed}", seed=seed, metrics={"loss": 1.7e308 * sign, "count": HUGE})
        make_run(tmp_path / "b", f"x.{seed}", seed=seed, metrics={"loss": -1.7e308})
    html = Path(call(tmp_path / "a", "--compare", tmp_path / "b").strip()).read_text()
    assert "0 ± inf (n = 2)" in html
    assert "<td>1000000" in html  # shown, and no number to the table
    assert str(HUGE) in call(tmp_path / "a", "--csv")


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    make_run(tmp_path, "x.0", [code("1", shown(plain="\udcfe"))], notebook="\udcff")
    html = Path(call(tmp_path).strip()).read_text()
    assert r"\udcff (cpu)" in html
    assert r"\udcfe" in html


def test_json_and_csv(tmp_path: Path) -> None:
    make_sweep(tmp_path / "a")
    make_sweep(tmp_path / "b", seeds=2)
    found = json.loads(call(tmp_path / "a", "--json", "--compare", tmp_path / "b"))
    assert found["summary"]["runs"] == len(found["runs"]) == 12
    assert found["groups"][0]["metrics"]["loss"]["n"] == 3
    assert found["comparison"][0]["difference"] == {"mean": 0.0, "half_width": 0.0, "n": 2}
    rows = list(csv.DictReader(io.StringIO(call(tmp_path / "a", "--csv"))))
    assert len(rows) == 12
    assert (rows[0]["state"], rows[0]["parameters.DEPTH"], rows[0]["metrics.verdict"]) == ("done", "100", "PASS")
    assert json.loads(rows[0]["metrics.losses"]) == [1.0, 0.1]
    assert rows[10]["problems"] == "cell 2 raised ValueError: loss is <nan>"
    rows = list(csv.DictReader(io.StringIO(call(tmp_path / "a", "--csv", "--compare", tmp_path / "b"))))
    assert [row["n"] for row in rows] == ["2", "2", "2", "1"]
    assert rows[3]["half_width"] == ""


def test_junit_of_a_batch_that_has_run(tmp_path: Path) -> None:
    make_sweep(tmp_path / "a")
    make_run(tmp_path / "a", "x.0", state="queued", seconds=None)
    assert len(call(tmp_path / "a", "--csv", "--junit", tmp_path / "x.xml").splitlines()) == 14  # it prints as well
    suite = ElementTree.parse(tmp_path / "x.xml").getroot()
    assert [suite.get(name) for name in ("name", "tests", "failures", "skipped", "time")] == [
        "a",
        "13",
        "1",
        "1",
        "1080.00",
    ]
    with pytest.raises(UserError, match="--junit .* cannot be written .*: choose another file"):
        call(tmp_path / "a", "--junit", tmp_path / "none" / "x.xml")


PAYLOAD = """'"><script>ran()</script><meta http-equiv=refresh content=0>"""


@pytest.mark.parametrize("name", [one.name for one in fields(Status)])
def test_no_field_leaves_its_place(tmp_path: Path, name: str) -> None:
    """Right or wrong in its type, in the page, and in the page of a comparison."""
    good = make_run(tmp_path / "a", "x.good", metrics={"loss": 1.0}, parameters={"A": 1})
    for i, value in enumerate(
        [PAYLOAD, [PAYLOAD], {PAYLOAD: PAYLOAD}, {PAYLOAD: [{PAYLOAD: PAYLOAD}]}, [{"a": PAYLOAD}]]
    ):
        for state in ("done", "failed"):
            folder = tmp_path / "a" / f"x.{i}{state}"
            folder.mkdir()
            content = {"version": 1, **vars(good), "id": folder.name, "state": state, name: value}
            (folder / "status.json").write_text(json.dumps(content))
    (tmp_path / "a" / "batch.json").write_text(json.dumps(dict.fromkeys(("profile", "created", "command"), PAYLOAD)))
    runs = runs_as_they_are(tmp_path / "a")
    html = page(tmp_path / "a", runs, (PAYLOAD, runs))
    for sign in ("<script>ran", "<meta http-equiv=refresh", "'\"><"):
        assert sign not in html
    assert escape(PAYLOAD)[:20] in html


def test_nothing_that_a_link_leads_to_is_shown(tmp_path: Path) -> None:
    """A folder of another person may have links to private files, under any of the names."""
    private = tmp_path / "private"
    make_run(private, "y.0", [code("secret")], host="secret", problems=["secret"])
    (private / "log.txt").write_text("secret")
    (private / "batch.json").write_text('{"profile": "secret", "command": ["secret"]}')
    batch = tmp_path / "batch"
    for name, linked in [("x.0", "log.txt"), ("x.1", "partial.ipynb"), ("x.2", "notebook.ipynb")]:
        make_run(batch, name, state="failed", audited=name == "x.2", problems=["it broke"])
        source = private / "log.txt" if linked == "log.txt" else private / "y.0" / "notebook.ipynb"
        (batch / name / linked).symlink_to(source)
    (batch / "x.3").mkdir()
    (batch / "x.3" / "status.json").symlink_to(private / "y.0" / "status.json")
    (batch / "y.0").symlink_to(private / "y.0")
    (batch / "batch.json").symlink_to(private / "batch.json")
    html = Path(call(batch).strip()).read_text()
    assert "secret" not in html
    assert html.count("a link, which is not followed") >= 4
    for name in ("log.txt", "partial.ipynb"):  # nor is a pipe waited for
        (batch / "x.0" / name).unlink(missing_ok=True)
        os.mkfifo(batch / "x.0" / name)
    assert "not a regular file" in Path(call(batch).strip()).read_text()


def test_a_report_replaces_nothing_but_its_kind(tmp_path: Path) -> None:
    make_sweep(tmp_path / "a")
    mine = tmp_path / "mine.ipynb"
    mine.write_text('{"cells": []}')
    os.mkfifo(tmp_path / "pipe")
    for option, name, said in [
        ("--junit", "mine.ipynb", "is not a JUnit file, and stays as it is"),
        ("--junit", "pipe", "is not a JUnit file"),
        ("--junit", "a/batch.json", "is the place of the batch's own files"),
        ("--junit", "a/00_x.000000000000/status.json", "is not a JUnit file"),
        ("--junit", "a/report.html", "is the page's own place"),
        ("--out", "mine.ipynb", "is not a report, and stays as it is"),
        ("--out", "pipe", "is not a report"),
        ("--out", "a/batch.json", "is not a report"),
    ]:
        with pytest.raises(UserError, match=said):
            call(tmp_path / "a", option, tmp_path / name)
    with pytest.raises(UserError, match="is the page's own place"):
        call(tmp_path / "a", "--junit", tmp_path / "x.html", "--out", tmp_path / "x.html")
    assert mine.read_text() == '{"cells": []}'
    assert not (tmp_path / "x.html").exists()
    (tmp_path / "empty.xml").touch()
    for name in ("new.xml", "new.xml", "empty.xml"):
        call(tmp_path / "a", "--junit", tmp_path / name)


def test_one_malformed_output_hides_no_other() -> None:
    odd: list[Any] = [
        *(shown(**{kind: value}) for kind in ("png", "svg", "html") for value in (3, None, [1], {"a": 1})),
        {"output_type": "error", "traceback": {"a": 1}},
        {"output_type": "stream", "text": 3},
        {"output_type": "display_data", "data": [1]},
        {"output_type": ["x"], "data": {"text/plain": [[[1]]]}},
        {},
    ]
    html = notebook_html(
        [{"cell_type": "code", "source": "1", "metadata": None, "outputs": [*odd, shown(plain="seen")]}]
    )
    assert "<pre>seen</pre>" in html
    assert html.count("[output that cannot be shown: ") >= 9
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    html = notebook_html([{"cell_type": "markdown", "source": deep}, code("1", shown(plain=deep)), code("seen")])
    assert ">seen</pre>" in html


def test_what_is_refused(tmp_path: Path) -> None:
    make_sweep(tmp_path / "a")
    with pytest.raises(UserError, match="holds no batch: expected a folder that deepnet-edu run --out made"):
        call(tmp_path / "none")
    with pytest.raises(UserError, match="two forms of the same"):
        call(tmp_path / "a", "--json", "--csv")
    with pytest.raises(UserError, match="--out names the page"):
        call(tmp_path / "a", "--json", "--out", "x")
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine")
    with pytest.raises(UserError, match="is not a report, and stays as it is"):
        call(tmp_path / "a", "--out", mine)
    assert mine.read_text() == "<p>mine"
    with pytest.raises(UserError, match="a is not a report, and stays as it is"):
        call(tmp_path / "a", "--out", tmp_path / "a")
    with pytest.raises(UserError, match="cannot be written .*choose another --out"):
        call(tmp_path / "a", "--out", tmp_path / "none" / "x.html")
    (tmp_path / "a" / "00_x.000000000000" / "status.json").write_text('{"version"')
    said = json.loads(call(tmp_path / "a", "--json"))["runs"][0]
    assert said["state"] == "failed"
    assert re.search(r"status.json cannot be read .*--resume", said["problems"][0])


def test_outputs_cannot_leave_their_place() -> None:
    html = notebook_html(
        [
            {"cell_type": "markdown", "source": "<script>ran()</script> [a](javascript:ran()) [b](glossary.md)"},
            {"cell_type": "raw", "source": "</template><script>"},
            code(
                "</pre><script>",
                shown(html='<script>ran()</script>"><LINK rel=x><iframe srcdoc=""><A HREF="x"><abbr>'),
                shown(svg="<svg><script>ran()</script></svg>", plain='"><script>'),
                shown(png=f'{PNG}"><script>'),
                shown(html=f'<img alt="a" onerror="ran()" src="data:image/png;base64,{PNG}">'),
                shown(markdown="<img src=x onerror=ran()>"),
                {"output_type": "stream", "name": "stdout", "text": "</pre><script>"},
                raised("<script>", "\x1b[31m</pre>"),
            ),
        ]
    )
    outside = re.sub(r'srcdoc="[^"]*"', "", html)
    assert "<script" not in outside
    assert "onerror=" not in outside.replace("&lt;img src=x onerror=", "")
    assert "javascript:" not in re.sub(r">[^<]*<", "><", html)
    assert "<a>b</a>" in html
    assert html.count('<iframe sandbox="allow-same-origin"') == 2
    assert "&amp;lt;LINK" in html
    assert "&amp;lt;iframe" in html
    assert "&lt;span HREF=&quot;x&quot;&gt;&lt;abbr&gt;" in html
    assert "\x1b" not in html


def test_pictures_keep_their_words_and_need_no_frame() -> None:
    html = notebook_html([code("", shown(html=f'<img alt="a curve" src="data:image/png;base64,{PNG}">', plain="x"))])
    assert f'<img loading="lazy" alt="a curve" src="data:image/png;base64,{PNG}">' in html
    html = notebook_html([code("", shown(png=PNG + "\n", plain="<Figure>"))])
    assert f'alt="&lt;Figure&gt;" src="data:image/png;base64,{PNG}"' in html


def test_long_outputs_are_cut() -> None:
    html = notebook_html([code("", {"output_type": "stream", "text": ["x" * 300_000]}, shown(html="y" * 3_000_000))])
    assert len(html) < 210_000
    assert "100,000 letters more are in the notebook" in html
    assert "[3,000,000 letters of HTML are in the notebook]" in html


def test_papermills_own_cells_are_left_out() -> None:
    mark = {"cell_type": "markdown", "source": "stopped", "metadata": {"tags": ["papermill-error-cell-tag"]}}
    assert "stopped" not in notebook_html([mark, code("1 / 0")])


def test_records_are_shown_as_text() -> None:
    assert notebook_html([code("", shown(record={"a": 1}, html="<b>x", plain="recorded: a = 1"))]).endswith(
        "<pre>recorded: a = 1</pre></div>"
    )


@pytest.mark.parametrize(
    "text", ["", "[]", '{"cells": 3}', '{"cells": [3]}', '{"cells": [{"source": 1, "outputs": 2}]}']
)
def test_strange_notebooks_spoil_nothing(tmp_path: Path, text: str) -> None:
    make_run(tmp_path, "x.0", state="failed", problems=["it broke"])
    (tmp_path / "x.0" / "notebook.ipynb").write_text(text)
    (tmp_path / "x.0" / "log.txt").write_text("Kernel died\x1b[0m <here>")
    html = page(tmp_path, read_batch(tmp_path))
    assert "it broke" in html
    assert "Kernel died &lt;here&gt;" in html


def test_runs_without_a_notebook(tmp_path: Path) -> None:
    make_run(tmp_path, "x.0", state="queued", started=None, ended=None, seconds=None)
    make_run(tmp_path, "x.1", state="killed")
    html = page(tmp_path, read_batch(tmp_path))
    assert "Not yet." in html
    assert "It left no notebook." in html
    assert html.index("x.1</a>") < html.index("x.0</a>")  # failures first


def test_an_earlier_attempt_is_not_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path, "x.0", [code("whole", raised("KeyError", "of the first attempt"))], state="killed")
    run.audited = False
    assert "first attempt" not in page(tmp_path, [run])
    (tmp_path / "x.0" / "notebook.ipynb").rename(tmp_path / "x.0" / "partial.ipynb")
    assert "first attempt" in page(tmp_path, [run])
    run.state, run.problems = "queued", ["it broke before"]
    assert summarize([run])["failed"] == 0


def test_what_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_BYTES", 1000)
    make_run(tmp_path, "a.0", [code("a" * 700)])
    make_run(tmp_path, "b.0", [code("b" * 700)], state="failed", problems=["it broke"])
    html = page(tmp_path, read_batch(tmp_path))
    assert "b" * 700 in html
    assert "a" * 700 not in html
    assert "it is in a.0/notebook.ipynb" in html


def test_nothing_outside_the_batch_is_read(tmp_path: Path) -> None:
    make_run(tmp_path, "secret", [code("secret = 1")])
    run = make_run(tmp_path / "batch", "x.0")
    run.id = "../secret"
    assert "secret = 1" not in page(tmp_path / "batch", [run])


def test_the_last_error_is_the_traceback(tmp_path: Path) -> None:
    make_run(tmp_path, "x.0", [code("a", raised("KeyError", "first")), code("b", raised("ValueError", "last"))])
    found = traceback_of(read_cells(tmp_path / "x.0" / "notebook.ipynb"))
    assert found is not None
    assert found.endswith("ValueError: last")
    assert "\x1b" not in found
