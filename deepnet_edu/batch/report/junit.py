"""A batch as JUnit XML, which continuous integration shows."""

import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from deepnet_edu.batch.folder import OWN
from deepnet_edu.batch.state import Status
from deepnet_edu.batch.watch import describe
from deepnet_edu.files import check_output, is_junit, write_output
from deepnet_edu.messages import UserError


def check_place(path: Path, folder: Path) -> None:
    """See that the file can be written, before a night's work and not after it.

    Args:
        path: of the file.
        folder: of the batch; it need not be there yet, and the file may go into it or beside it.

    Raises:
        UserError: the file cannot be written, is a file of the batch itself, or holds something else.
    """
    place, own = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if place == own or (place.is_relative_to(own) and place.relative_to(own).parts[0] in OWN):
        raise UserError(f"--junit {path} is the place of the batch's own files: choose another file.")
    comes = folder.resolve().is_relative_to(path.parent.resolve())
    check_output("--junit", path, "JUnit", is_junit, folder_comes=comes)


def write_junit(path: Path, name: str, runs: Sequence[Status]) -> None:
    """A test case per run; what did not run is an error, what the audit found a failure.

    Args:
        path: of the file.
        name: of the batch.
        runs: all of them.

    Raises:
        UserError: the file cannot be written, or holds something else.
    """
    failed = [run for run in runs if run.state not in ("done", "queued", "running")]
    suite = ElementTree.Element(
        "testsuite",
        name=_printable(name),
        tests=str(len(runs)),
        failures=str(sum(run.state == "failed" for run in failed)),
        errors=str(sum(run.state != "failed" for run in failed)),
        skipped=str(sum(run.state in ("queued", "running") for run in runs)),
        time=f"{sum(run.seconds or 0.0 for run in runs):.2f}",
    )
    for run in runs:
        who, what, time = _printable(run.notebook), _printable(describe(run)), f"{run.seconds or 0.0:.2f}"
        case = ElementTree.SubElement(suite, "testcase", classname=who, name=what, time=time)
        if run in failed:
            kind = "failure" if run.state == "failed" else "error"
            message = _printable("; ".join(run.problems) or run.state)
            ElementTree.SubElement(case, kind, message=message, type=run.state)
        elif run.state != "done":
            ElementTree.SubElement(case, "skipped", message=run.state)
        if run.notes:
            ElementTree.SubElement(case, "system-out").text = "\n".join(map(_printable, run.notes))
    text = ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
    write_output("--junit", path, "JUnit", is_junit, text)


def _printable(text: str) -> str:
    """Text without what XML cannot hold: control characters, such as a traceback's colours, and letters of no text."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
