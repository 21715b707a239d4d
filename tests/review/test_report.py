"""JUnit and SARIF of a review, held to their schemas."""

import json
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from deepnet_edu.review import Review, Row
from deepnet_edu.review import museum as rooms_of
from deepnet_edu.review.recognise import POST_LN
from deepnet_edu.review.report import as_junit, as_sarif, findings, is_sarif
from deepnet_edu.review.target import Place, Reviewed

SCHEMA = json.loads((Path(__file__).parent / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8"))
ROWS = (
    Row("α on the skip", "FAIL", "the norm sees 1·x + 2·F(x)", "α = 2 (decoder)", "Repair it.", "alpha-on-the-branch"),
    Row("norm outside", "PASS", "the norm sees the sum", "the same"),
    Row("gradient through F", "FAIL", "in 1 of 2 sub-layers none", "everywhere"),
    Row("gain of query and key", "UNKNOWN", "no such weights", "1", "Name them."),
)


@pytest.fixture
def reviewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reviewed:
    monkeypatch.chdir(tmp_path)
    return Reviewed("my models.py:build", Review(ROWS), Place(tmp_path / "sub" / "my models.py", 7))


def valid(text: str) -> dict:
    log = json.loads(text)
    jsonschema.Draft4Validator(SCHEMA).validate(log)
    assert is_sarif(text.encode())
    (run,) = log["runs"]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    return run


def test_the_schema_refuses_what_is_wrong() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft4Validator(SCHEMA).validate({"version": "2.1.0", "runs": [{"results": []}]})


def test_sarif_has_a_result_per_finding_at_its_place(reviewed: Reviewed) -> None:
    run = valid(as_sarif(reviewed))
    assert [(result["ruleId"], result["level"]) for result in run["results"]] == [
        ("alpha-on-the-branch", "error"), ("detached-branch", "error"), ("unseen", "warning"),
    ]  # fmt: skip
    for result in run["results"]:
        (location,) = result["locations"]
        assert location["physicalLocation"] == {
            "artifactLocation": {"uri": "sub/my%20models.py"}, "region": {"startLine": 7},
        }  # fmt: skip
    assert "See docs/museum.md#alpha-on-the-branch" in run["results"][0]["message"]["text"]
    assert "helpUri" not in run["tool"]["driver"]["rules"][0]


def test_sarif_of_a_place_outside_of_the_working_folder_and_of_none(
    reviewed: Reviewed, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = reviewed.place
    assert place is not None
    (place.file.parent / "deeper").mkdir(parents=True)
    monkeypatch.chdir(place.file.parent / "deeper")
    (first, *_) = valid(as_sarif(reviewed))["results"]
    assert first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == place.file.as_uri()
    assert "locations" not in valid(as_sarif(Reviewed("x:y", reviewed.review, None)))["results"][0]


def test_a_public_book_is_linked_by_sarifs_own_field(reviewed: Reviewed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms_of, "PAGE", "https://example.org/museum/{slug}.html")
    (rule, *_) = valid(as_sarif(reviewed))["tool"]["driver"]["rules"]
    assert rule["helpUri"] == "https://example.org/museum/alpha-on-the-branch.html"


def test_what_passes_has_no_result(reviewed: Reviewed) -> None:
    run = valid(as_sarif(Reviewed("a", Review(ROWS[1:2], depth=(0, 1)), reviewed.place)))
    assert run["results"] == run["tool"]["driver"]["rules"] == []


def test_another_design_is_one_warning_and_notes() -> None:
    found = findings(Review(ROWS, POST_LN, (0, 12)))
    assert [(one.name, one.level) for one in found] == [
        ("DeepNorm", "warning"), ("α on the skip", "note"), ("norm outside", "none"), ("gradient through F", "error"),
        ("gain of query and key", "note"),
    ]  # fmt: skip
    assert found[0].message.startswith("Not DeepNorm: this is Post-LN")
    suite = ElementTree.fromstring(as_junit(Reviewed("x", Review(ROWS, POST_LN, (0, 12)), None)))
    assert [suite.get(kind) for kind in ("tests", "failures", "errors", "skipped")] == ["5", "2", "0", "2"]


def test_junit_has_a_case_per_row(reviewed: Reviewed) -> None:
    suite = ElementTree.fromstring(as_junit(reviewed))
    assert [suite.get(kind) for kind in ("tests", "failures", "errors", "skipped")] == ["4", "2", "1", "0"]
    kinds = {case.get("name"): [kind.tag for kind in case] for case in suite}
    assert kinds == {
        "α on the skip": ["failure"], "norm outside": [], "gradient through F": ["failure"],
        "gain of query and key": ["error"],
    }  # fmt: skip
    failure = suite[0][0]
    assert failure.text == "See docs/museum.md#alpha-on-the-branch"
    assert "Repair it." in (failure.get("message") or "")


def test_junit_of_names_that_xml_cannot_hold() -> None:
    row = Row("norm outside", "FAIL", "\x1b[31m\udcff", "x")
    ElementTree.fromstring(as_junit(Reviewed("a\x01.py:b", Review((row,)), None)))


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"runs": []}', b"\xff", b"[" * 100_000, b'{"version": "2.1.0"}'])
def test_what_is_no_sarif(text: bytes) -> None:
    assert not is_sarif(text)
