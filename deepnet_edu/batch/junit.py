"""A batch as JUnit XML, which continuous integration shows."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from deepnet_edu.batch.state import Status
from deepnet_edu.batch.watch import describe
from deepnet_edu.files import write_atomic


def write_junit(path: Path, name: str, runs: Sequence[Status]) -> None:
    """A test case per run; what did not run is an error, what the audit found a failure.

    Args:
        path: of the file.
        name: of the batch.
        runs: all of them.

    Raises:
        OSError: the file cannot be written.
    """
    failed = [run for run in runs if run.state not in ("done", "queued", "running")]
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(runs)),
        failures=str(sum(run.state == "failed" for run in failed)),
        errors=str(sum(run.state != "failed" for run in failed)),
        skipped=str(sum(run.state in ("queued", "running") for run in runs)),
        time=f"{sum(run.seconds for run in runs):.2f}",
    )
    for run in runs:
        case = ElementTree.SubElement(
            suite, "testcase", classname=run.notebook, name=describe(run), time=f"{run.seconds:.2f}"
        )
        if run in failed:
            kind = "failure" if run.state == "failed" else "error"
            message = _printable("; ".join(run.problems) or run.state)
            ElementTree.SubElement(case, kind, message=message, type=run.state)
        elif run.state != "done":
            ElementTree.SubElement(case, "skipped", message=run.state)
    write_atomic(path, ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n")


def _printable(text: str) -> str:
    """Without the control characters that XML cannot hold, such as the colours of a traceback."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
