"""Small notebooks, and a working folder of its own for each test."""

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest

from deepnet_edu.batch.plan import BatchPlan as BatchPlan
from deepnet_edu.batch.plan import Request, make_plan
from deepnet_edu.batch.worker import END_MIME
from deepnet_edu.course.places import RECORD_MIME

#: Notebooks of an earlier version: test_before.py reads them, and they are not run.
collect_ignore = ["before"]

PARAMETERS = 'PROFILE = "cpu"\nSEED = 0\nRATE = 3e-4\nDEEP = False\nNAME = "x"\nDEPTH = 2 * 50'

#: Stands for a worker whose kernel is the sleep: it takes no second to start.
SCRIPT = """
sleep 0.2 || exit 4
sed "s/777/$((2 * $1))/" "$0.ipynb" > partial.ipynb
"""


def write_notebook(path: Path, *sources: str, parameters: str | None = PARAMETERS, kernel: str = "python3") -> Path:
    """A notebook with a cell of parameters and the given cells."""
    made = nbformat.v4.new_notebook()
    made.metadata.kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
    if parameters is not None:
        made.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    made.cells += [nbformat.v4.new_code_cell(source) for source in sources]
    path.parent.mkdir(exist_ok=True, parents=True)
    nbformat.write(made, path)
    return path


@pytest.fixture
def working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def planned(working: Path) -> Callable[..., BatchPlan]:
    """The plan of notebooks in the working folder."""

    def plan(*notebooks: str, profile: str = "cpu", seeds: int = 0, **options: tuple[str, ...]) -> BatchPlan:
        return make_plan(Request(notebooks, profile, options.get("given", ()), options.get("sweeps", ()), seeds))

    return plan


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner looks after its runs more often than it does after notebooks: here they end at once."""
    monkeypatch.setattr("deepnet_edu.batch.runner.LOOK_S", 0.01)


@pytest.fixture
def stub(tmp_path: Path) -> list[str]:
    """The command of ``SCRIPT``, which leaves a notebook that recorded twice its seed."""

    def cell(source: str, data: dict[str, object]) -> dict[str, object]:
        output = {"output_type": "display_data", "data": data, "metadata": {}}
        return {"cell_type": "code", "execution_count": 1, "metadata": {}, "outputs": [output], "source": source}

    notebook = {
        "cells": [cell("kit.record(double=1)", {RECORD_MIME: {"double": 777}}), cell(END_MIME, {END_MIME: {}})],
        "metadata": {"papermill": {"duration": 1.0}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (tmp_path / "stub.ipynb").write_text(json.dumps(notebook))
    (tmp_path / "stub").write_text(SCRIPT)
    return ["sh", str(tmp_path / "stub")]


def stand_in(*command: str) -> Callable[..., "subprocess.Popen[bytes]"]:
    """What starts a worker, with ``command`` and the run's seed in the worker's place."""

    def start(
        task: dict[str, Any], folder: Path, environment: Mapping[str, str], log: int
    ) -> "subprocess.Popen[bytes]":
        given = [*command, str(task["parameters"].get("SEED", 0))]
        return subprocess.Popen(given, cwd=folder, env=dict(environment), stdin=subprocess.PIPE, stderr=log)

    return start
