"""A review for continuous integration: findings as JUnit XML and as SARIF 2.1.0."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote
from xml.etree import ElementTree

import deepnet_edu
from deepnet_edu.messages import one_line
from deepnet_edu.review.checklist import Review
from deepnet_edu.review.museum import link, rooms
from deepnet_edu.review.target import Place, Reviewed

#: SARIF's word for how much a finding matters; none is for what passes.
Level = Literal["error", "warning", "note", "none"]
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
#: A fault whatever the model is meant to be.
ALWAYS = {"gradient through F"}


@dataclass(frozen=True)
class Finding:
    """A row as continuous integration shows it; ``room`` is empty where it passes."""

    name: str
    level: Level
    message: str
    room: str


def findings(review: Review) -> list[Finding]:
    """All rows. Of a model of another design one finding says so, and rows that differ from DeepNorm are notes."""
    found = []
    if review.design:
        found.append(Finding("DeepNorm", "warning", review.headline, "another-design"))
    for row in review.rows:
        level: Level = {"PASS": "none", "FAIL": "error", "UNKNOWN": "warning"}[row.status]  # type: ignore[assignment]
        if review.design and row.status != "PASS" and row.name not in ALWAYS:
            level = "note"
        message = f"{row.name}: {row.found}; expected {row.expected}."
        found.append(Finding(row.name, level, f"{message} {row.mend}".strip(), row.room))
    return found


def as_junit(reviewed: Reviewed) -> str:
    """A test case per row: what differs is a failure, what could not be judged an error, a note is skipped."""
    cases = findings(reviewed.review)
    unknown = {row.name for row in reviewed.review.rows if row.status == "UNKNOWN"}
    kinds = [
        {"none": "", "note": "skipped"}.get(case.level, "error" if case.name in unknown else "failure")
        for case in cases
    ]
    suite = ElementTree.Element(
        "testsuite",
        name=one_line(f"deepnet-edu review {reviewed.target}"),
        tests=str(len(cases)),
        failures=str(kinds.count("failure")),
        errors=str(kinds.count("error")),
        skipped=str(kinds.count("skipped")),
    )
    for case, kind in zip(cases, kinds, strict=True):
        one = ElementTree.SubElement(suite, "testcase", classname=one_line(reviewed.target), name=case.name)
        if kind:
            result = ElementTree.SubElement(one, kind, message=one_line(case.message))
            result.text = f"See {link(case.room)}"
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def as_sarif(reviewed: Reviewed) -> str:
    """A result per finding at the place of the target; a rule per room of the museum."""
    found = [finding for finding in findings(reviewed.review) if finding.level != "none"]
    slugs = list(dict.fromkeys(finding.room for finding in found))
    results = []
    for finding in found:
        result: dict[str, Any] = {
            "ruleId": finding.room,
            "ruleIndex": slugs.index(finding.room),
            "level": finding.level,
            "message": {"text": f"{finding.message} See {link(finding.room)}"},
        }
        if reviewed.place:
            result["locations"] = [{"physicalLocation": _location(reviewed.place)}]
        results.append(result)
    driver = {
        "name": "deepnet-edu review",
        "version": deepnet_edu.__version__,
        "rules": [_rule(slug) for slug in slugs],
    }
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, ensure_ascii=False) + "\n"


def is_sarif(found: bytes) -> bool:
    """Whether a file with these bytes is one of SARIF's."""
    try:
        log = json.loads(found)
    except (ValueError, RecursionError):
        return False
    return isinstance(log, dict) and "version" in log and isinstance(log.get("runs"), list)


def _rule(slug: str) -> dict[str, Any]:
    room = rooms()[slug]
    published = f"\n\nPublished: {room.published}" if room.published else ""
    rule: dict[str, Any] = {
        "id": slug,
        "shortDescription": {"text": room.title},
        "fullDescription": {"text": room.text},
        "help": {
            "text": f"{room.text}\n\n{room.repair}{published}\n\n{link(slug)}",
            "markdown": f"{room.text}\n\n**Repair.** {room.repair}{published}\n\n{link(slug)}",
        },
    }
    if link(slug).startswith("https:"):  # SARIF has no relative address here
        rule["helpUri"] = link(slug)
    return rule


def _location(place: Place) -> dict[str, Any]:
    """The file from the working folder, as GitHub wants it; outside of that, its full address."""
    path = Path(os.path.relpath(place.file))
    outside = ".." in path.parts
    uri = place.file.resolve().as_uri() if outside else quote(path.as_posix())
    return {"artifactLocation": {"uri": uri}, "region": {"startLine": place.line}}
