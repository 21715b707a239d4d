"""A record that grows run by run: what is there is not run again, and each row is written before the next begins."""

import argparse
import json
import platform
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import date
from importlib.metadata import version
from math import inf, isfinite
from pathlib import Path
from typing import Any

from benchmarks.depth import processor
from deepnet_edu.files import read_json, write_atomic
from deepnet_edu.messages import unknown

Row = dict[str, Any]


def options(
    description: str, record: Path, parts: Collection[str], given: Sequence[str] | None = None
) -> argparse.Namespace:
    """``only``, ``smoke``, ``out`` and ``minutes`` from the command line; what contradicts them ends the program.

    Args:
        description: of the program.
        record: where it writes unless told otherwise.
        parts: what ``--only`` can name.
        given: the arguments; by default the program's own.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", nargs="+", metavar="PART", default=list(parts), help=f"of {', '.join(parts)}")
    parser.add_argument("--smoke", action="store_true", help="tiny; needs --out")
    parser.add_argument("--out", type=Path, default=record, help="the record")
    parser.add_argument("--minutes", type=float, default=inf, help="begin no run after this many minutes")
    found = parser.parse_args(given)
    for part in found.only:
        if part not in parts:
            parser.error(unknown("part", part, parts))
    if found.smoke and found.out == record:
        parser.error("--smoke measures nothing that a record should hold: add --out FILE.")
    if not found.minutes > 0:
        parser.error(f"--minutes {found.minutes:g}: expected a positive number.")
    return found


def complete(
    out: Path, head: Row, plan: Iterable[Row], perform: Callable[[Row], Row], minutes: float = inf
) -> list[Row]:
    """All rows of ``out``, after those of ``plan`` that it lacks were run.

    Args:
        out: the record; made where there is none.
        head: what the record says of itself; device, versions and date are added.
        plan: the settings of each run, which are the beginning of its row.
        perform: makes the rest of the row from the settings.
        minutes: begin no run after this many.
    """
    end = time.monotonic() + 60 * minutes
    rows = read(out)
    missing = lacking(rows, plan)
    print(f"{len(rows)} runs recorded, {len(missing)} to go", flush=True)
    for settings in missing:
        if time.monotonic() > end:
            print("The minutes are spent: the same command resumes here.", flush=True)
            break
        rows.append(settings | perform(settings))
        save(out, head, rows)
        print(*settings.values(), flush=True)
    return rows


def lacking(rows: Sequence[Row], plan: Iterable[Row]) -> list[Row]:
    """The settings of ``plan`` that no row has, each once."""
    missing: list[Row] = []
    for settings in plan:
        if settings not in missing and not any(settings.items() <= row.items() for row in rows):
            missing.append(settings)
    return missing


def read(out: Path) -> list[Row]:
    """The rows of a record, none where there is no such file."""
    return list(read_json(out)["runs"]) if out.exists() else []


def save(out: Path, head: Row, rows: list[Row]) -> None:
    """The whole record: its head in lines of its own, then a line for each row."""
    versions = {name: version(name) for name in ("torch", "deepnet-edu")}
    about = head | {
        "date": date.today().isoformat(),
        "device": f"{processor()}, CPU, one thread",
        "versions": {"python": platform.python_version()} | versions,
    }
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    text = json.dumps(about, indent=1, ensure_ascii=False).removesuffix("\n}")
    write_atomic(out, text + f',\n "runs": [\n{lines}\n]\n}}\n')


def rounded(values: Iterable[float], digits: int = 4) -> list[float | None]:
    """Numbers of this many digits, as JSON has them; None for what is not finite."""
    return [float(f"{value:.{digits}g}") if isfinite(value) else None for value in values]
