"""Execute solutions with papermill, each in a process of its own, and look at what really happened.

Neither papermill's exit status nor a notebook's metadata is proof: a cell that calls sys.exit(0) counts as success
there, and an exception in a widget's callback hides in widget state. So each result is audited.
"""

import ast
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import nbformat
import torch
import yaml  # type: ignore[import-untyped]
from nbformat import NotebookNode
from papermill import inspect_notebook

from deepnet_edu.course.header import timings
from deepnet_edu.course.kit import PROFILES
from deepnet_edu.course.places import RECORD_MIME, SOLUTIONS, TIMINGS
from deepnet_edu.explorers.base import FAULT
from deepnet_edu.files import write_atomic
from deepnet_edu.messages import UserError, unknown

_WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


@dataclass
class Run:
    """One executed notebook.

    Attributes:
        lesson: its name.
        profile: at which size.
        parameters: set by the user.
        output: the executed notebook.
        problems: what the audit found, a sentence each; empty if all is well.
        seconds: wall time, start of the kernel included.
        memory_gb: largest memory of the kernel, None where the system does not say.
        recorded: what ``kit.record`` wrote.
    """

    lesson: str
    profile: str
    parameters: dict[str, Any]
    output: Path
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory_gb: float | None = None
    recorded: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        memory = f", {self.memory_gb:.1f} GB" if self.memory_gb else ""
        head = f"{'FAILED' if self.problems else 'ok':>6}  {self.lesson} ({self.profile}, {self.seconds:.0f} s{memory})"
        return "\n".join([f"{head}: {self.output}", *(f"        {problem}" for problem in self.problems)])


def plan(lessons: Sequence[str], profile: str, given: Sequence[str], folder: Path) -> list[Run]:
    """What is to be run, checked against every notebook before anything starts.

    Args:
        lessons: their names.
        profile: one of ``kit.PROFILES``.
        given: parameters as ``NAME=VALUE``.
        folder: where the results go.

    Raises:
        UserError: a profile, parameter or value that does not exist or does not fit; the sentence says what does.
    """
    if profile not in PROFILES:
        raise UserError(unknown("profile", profile, PROFILES))
    if set("{}") & set(str(folder)):  # papermill would take them for a template
        raise UserError(f"The folder {folder} has braces in its name: choose another --out.")
    runs = []
    for lesson in lessons:
        source = SOLUTIONS / f"{lesson}.ipynb"
        if not source.exists():
            raise UserError(f"{lesson} has no solution yet: make it with deepnet-edu build {lesson[:2]}.")
        known = inspect_notebook(str(source))
        parameters = {}
        for text in given:
            name, equals, value = text.partition("=")
            if not equals:
                raise UserError(
                    f"Cannot read the parameter {text!r}: expected NAME=VALUE, for example --set DEPTH=100."
                )
            if name not in known:
                raise UserError(f"{lesson}: {unknown('parameter', name, known)}")
            parameters[name] = _value(lesson, name, value, known[name]["default"])
        said = "".join(f".{name}={_file_safe(str(value))}" for name, value in parameters.items())
        runs.append(Run(lesson, profile, parameters, folder / f"{lesson}.{profile}{said}.ipynb"))
    return runs


def _value(lesson: str, name: str, text: str, default: str) -> Any:
    """``text`` as the type of the parameter's default, as it stands in the notebook."""
    kind: type
    try:
        kind = type(ast.literal_eval(default))
    except (ValueError, SyntaxError):
        kind = str  # computed in the notebook, as PROFILE is
    if name == "PROFILE" and text not in PROFILES:
        raise UserError(f"{lesson}: {unknown('PROFILE', text, PROFILES)}")
    if kind is str:
        return text
    try:
        value = ast.literal_eval(text)
    except Exception:  # what people type fails in many ways
        value = None
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        expected = _KINDS.get(kind, f"a {kind.__name__}")
        raise UserError(f"{lesson}: {name}={text!r} does not fit: expected {expected}, as in {name}={default}.")
    return value


def _file_safe(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-+" else "_" for letter in text)[:40]


def execute(run: Run) -> None:
    """Run one notebook and audit it. The result stands under its name when it is whole and good; under ``.partial``
    until then, and under ``.failed`` if the audit found something.

    Raises:
        UserError: the folder of results cannot be written.
        KeyboardInterrupt: the user ended it; the kernel has ended too.
    """
    partial = run.output.with_suffix(".partial.ipynb")
    try:
        run.output.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{run.output.parent} cannot be written ({error.strerror}): choose another --out.") from error
    command = [sys.executable, "-m", "papermill", str(SOLUTIONS / f"{run.lesson}.ipynb"), str(partial)]
    command += ["--cwd", str(run.output.parent), "--no-progress-bar", "--log-level", "ERROR"]
    command += ["--parameters_yaml", yaml.safe_dump(run.parameters)] if run.parameters else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DEEPNET_EDU_")}
    environment |= {"OMP_WAIT_POLICY": "PASSIVE", "DEEPNET_EDU_PROFILE": run.profile}
    begin = time.monotonic()
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        assert process.stderr is not None
        said = process.stderr.read()
        run.memory_gb = _wait(process)
    except BaseException:
        process.terminate()  # papermill ends its kernel
        process.wait()
        raise
    run.seconds = time.monotonic() - begin
    try:
        notebook = nbformat.read(partial, as_version=4)
    except Exception:  # missing, or cut off in the middle
        run.problems.append(f"papermill left no whole notebook: {said.strip()[-300:] or 'it said nothing'}")
        run.output = partial
        return
    run.problems += audit(notebook)
    if process.returncode and not run.problems:
        run.problems.append(f"papermill ended with status {process.returncode}: {said.strip()[-300:]}")
    run.recorded = recorded(notebook)
    if run.problems:  # an earlier good result stays
        run.output = run.output.with_suffix(".failed.ipynb")
    os.replace(partial, run.output)


def _wait(process: "subprocess.Popen[str]") -> float | None:
    """Wait for the end; the largest memory of the process or of what it started, in GB, where the system says."""
    if not hasattr(os, "wait4"):
        process.wait()
        return None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit / 1e9


def audit(notebook: NotebookNode) -> list[str]:
    """What went wrong in an executed notebook, a sentence each: errors in outputs and in widget state, cells that did
    not run, a run that took no time.

    Args:
        notebook: as papermill wrote it.
    """
    problems = []
    code = [(n, cell) for n, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code" and cell.source.strip()]
    for n, cell in code:
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"cell {n} raised {output.ename}: {output.evalue.strip()[:200]}")
    for widget in notebook.metadata.get("widgets", {}).get(_WIDGET_STATE, {}).get("state", {}).values():
        for output in widget.get("state", {}).get("outputs", []) or []:
            if output.get("output_type") == "error":
                problems.append(f"a widget's callback raised {output.get('ename')}: {output.get('evalue', '')[:200]}")
        if FAULT in str(said := widget.get("state", {}).get("value", "")):
            problems.append(re.sub(r"<[^>]*>", "", str(said))[:200])
    skipped = [str(n) for n, cell in code if cell.execution_count is None]
    if skipped:
        problems.append(f"did not run: cell{'s' if len(skipped) > 1 else ''} {', '.join(skipped)}")
    if not code:
        problems.append("there is no code in it")
    if not notebook.metadata.get("papermill", {}).get("duration"):
        problems.append("it took no time: nothing was executed")
    return problems


def recorded(notebook: NotebookNode) -> dict[str, Any]:
    """All that ``kit.record`` wrote into a notebook; a later value replaces an earlier one of the same name."""
    found: dict[str, Any] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            found |= output.get("data", {}).get(RECORD_MIME, {})
    return found


def keep_timings(runs: Sequence[Run]) -> None:
    """Write time and memory of the runs that went well, with default parameters, into docs/timings.json."""
    lessons = timings()
    for run in runs:
        if run.problems or run.parameters:
            continue
        gpu = run.profile in ("gpu", "record") and torch.cuda.is_available()
        lessons.setdefault(run.lesson, {})[run.profile] = {
            "seconds": round(run.seconds),
            "memory_gb": None if run.memory_gb is None else round(run.memory_gb, 2),
            "device": torch.cuda.get_device_name(0) if gpu else "CPU",
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__.partition("+")[0],
            "date": date.today().isoformat(),
        }
    record = {"made_by": "make course", "lessons": dict(sorted(lessons.items()))}
    write_atomic(TIMINGS, json.dumps(record, indent=1) + "\n")
