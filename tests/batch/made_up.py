"""Folders of batches that were never run."""

import json
from pathlib import Path
from typing import Any

from deepnet_edu.batch.state import Status
from deepnet_edu.course.places import RECORD_MIME


def make_run(folder: Path, name: str, cells: list[dict[str, Any]] | None = None, **fields: Any) -> Status:
    """A run as its runner leaves it; ``name`` is its id, ``cells`` its notebook."""
    given = {
        "notebook": name.partition(".")[0],
        "state": "done",
        "attempts": 1,
        "host": "here",
        "device": "CPU",
        "hashes": {"notebook": "a" * 64, "package": "b" * 64},
        "versions": {"python": "3.11.2", "torch": "2.13.0", "deepnet_edu": "0.1.0"},
        "queued": "2026-01-01T10:00:00+00:00",
        "started": "2026-01-01T10:00:00+00:00",
        "ended": "2026-01-01T10:01:30+00:00",
        "seconds": 90.0,
        "audited": True,
    }
    run = Status(id=name, **{**given, **fields})
    (folder / name).mkdir(parents=True)
    run.write(folder / name)
    if cells is not None:
        (folder / name / "notebook.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5}))
    return run


def code(source: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "source": source.splitlines(keepends=True), "outputs": list(outputs)}


def shown(**data: Any) -> dict[str, Any]:
    """An output by kind: ``html``, ``svg``, ``png``, ``plain``, ``markdown``."""
    kinds = {
        "html": "text/html", "svg": "image/svg+xml", "png": "image/png", "plain": "text/plain",
        "markdown": "text/markdown", "record": RECORD_MIME,
    }  # fmt: skip
    return {"output_type": "display_data", "data": {kinds[name]: value for name, value in data.items()}}


def raised(name: str, value: str) -> dict[str, Any]:
    lines = [f"\x1b[31m{name}\x1b[39m", "Traceback (most recent call last)", f"----> 1 here\n{name}: {value}"]
    return {"output_type": "error", "ename": name, "evalue": value, "traceback": lines}


def make_sweep(folder: Path, seeds: int = 3) -> list[Status]:
    """DEPTH × RESIDUAL × seeds of which one raised; ``batch.json`` besides."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "batch.json").write_text(
        json.dumps(
            {
                "version": 1,
                "created": "2026-01-01T10:00:00+00:00",
                "command": ["deepnet-edu", "run", "00", "--sweep", "DEPTH=100,400"],
                "profile": "smoke",
                "notebooks": [],
                "package": {"version": "0.1.0", "sha256": "b" * 64},
            }
        )
    )
    runs = []
    for depth in (100, 400):
        for rule in ("deepnorm", "post_ln"):
            for seed in range(seeds):
                bad = (depth, rule, seed) == (400, "post_ln", 1)
                loss = depth / 1000 + (rule == "post_ln") + seed / 10
                fields: dict[str, Any] = {"metrics": {"loss": loss, "verdict": "PASS", "losses": [1.0, loss]}}
                if bad:
                    fields = {"state": "failed", "exit": 1, "problems": ["cell 2 raised ValueError: loss is <nan>"]}
                output = raised("ValueError", "loss is <nan>") if bad else shown(plain=f"recorded: loss = {loss}")
                words = {"cell_type": "markdown", "source": ["# Depth\n", "Says [much](glossary.md) <b>here</b>."]}
                runs.append(
                    make_run(
                        folder,
                        f"00_x.{len(runs):012x}",
                        [words, code(f"DEPTH = {depth}\nprint(1 < 2)", output)],
                        seed=seed,
                        profile="smoke",
                        parameters={"DEPTH": depth, "RESIDUAL": rule, "SEED": seed},
                        **fields,
                    )
                )
    return runs
