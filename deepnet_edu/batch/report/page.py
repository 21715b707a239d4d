"""One HTML page about a batch: what failed, means over seeds, sweeps, and every notebook. It needs nothing else."""

import os
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from itertools import islice
from pathlib import Path
from string import Template
from typing import Any

from deepnet_edu.batch.active import log_tail
from deepnet_edu.batch.judge import NOTEBOOK
from deepnet_edu.batch.report.plots import sweep_pictures
from deepnet_edu.batch.report.render import notebook_html, plain, read_cells, traceback_of
from deepnet_edu.batch.report.summary import (
    SEED,
    Estimate,
    Group,
    compare,
    failed,
    group_runs,
    is_number,
    names_of,
    summarize,
)
from deepnet_edu.batch.state import BATCH, Status
from deepnet_edu.batch.worker import PARTIAL
from deepnet_edu.files import read_bytes, read_json
from deepnet_edu.messages import UserError

#: Above this the page leaves notebooks out, good ones first, and says where they are.
MOST_BYTES = 45_000_000
#: Each takes a tenth of a second.
MOST_PICTURES = 12
_CLASSES = {"done": "good", "queued": "note", "running": "note"}
MARK = "<!-- deepnet-edu report -->"


def check_page(path: Path) -> None:
    """See that the page replaces nothing but a page.

    Raises:
        UserError: there is something else.
    """
    try:
        found = read_bytes(path)
        theirs = bool(found) and MARK.encode() not in found[:100]
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another --out.") from None
    except ValueError:  # a folder, a pipe, or larger than any page
        theirs = True
    if theirs:
        raise UserError(f"{path} is not a report, and stays as it is: choose another --out.")


def page(folder: Path, runs: Sequence[Status], other: tuple[str, Sequence[Status]] | None = None) -> str:
    """The report.

    Args:
        folder: of the batch.
        runs: its runs.
        other: name and runs of a batch to compare with.
    """
    groups = group_runs(runs)
    runs = sorted((run for group in groups for run in group.runs), key=lambda run: not failed(run))
    parts = {
        "Summary": _summary(folder, runs),
        "Failures": "".join(_failure(folder, i, run) for i, run in enumerate(runs) if failed(run)),
        "Notes": _noted(runs),
        "Means": _means(groups),
        "Sweeps": _sweeps(groups),
        "Comparison": _comparison(other[0], compare(runs, other[1])) if other else "",
        "Runs": _runs(runs),
        "Notebooks": _notebooks(folder, runs),
    }
    shown = {name: html for name, html in parts.items() if html}
    template = files("deepnet_edu.batch.report").joinpath("page.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", template, re.DOTALL)
    return Template(template).substitute(
        title=escape(f"Batch {folder.resolve().name}"),
        script_hash=f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}",
        contents="".join(f'<a href="#{name.lower()}-part">{name}</a>' for name in shown),
        body="\n".join(
            f'<section id="{name.lower()}-part" aria-labelledby="{name.lower()}-head">'
            f'<h2 id="{name.lower()}-head">{name}</h2>\n{html}\n</section>'
            for name, html in shown.items()
        ),
    )


def _summary(folder: Path, runs: Sequence[Status]) -> str:
    found = summarize(runs)
    try:
        batch = read_json(folder / BATCH, links=False)
    except (OSError, ValueError):
        batch = {}
    batch = batch if isinstance(batch, dict) else {}
    command = batch.get("command")
    states = [
        f'<span class="{_CLASSES.get(state, "bad")}">{count} {state}</span>' for state, count in found["states"].items()
    ]
    whole = found["seconds_from_first_to_last"]
    facts = {
        "runs": f"{found['runs']}: {', '.join(states)}",
        "time": f"{_time(found['seconds_of_runs'])} of all runs together"
        + (f", {_time(whole)} from the first start to the last end" if whole is not None else ""),
        "hosts": escape(", ".join(found["hosts"])),
        "devices": escape(", ".join(found["devices"])),
        "versions": escape(", ".join(f"{name} {' / '.join(v)}" for name, v in found["versions"].items() if v)),
        "seeds": escape(", ".join(map(str, found["seeds"]))),
        "profile": escape(plain(batch.get("profile", ""))),
        "created": escape(plain(batch.get("created", ""))),
        "command": f"<code>{escape(' '.join(map(plain, command)))}</code>" if isinstance(command, list) else "",
    }
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items() if value) + "</dl>"


def _failure(folder: Path, number: int, run: Status) -> str:
    said = "".join(f"<li>{escape(problem)}</li>" for problem in run.problems)
    traceback = None
    try:
        traceback = traceback_of(read_cells(_notebook_of(folder, run)))
    except Exception as error:  # it may be any file
        said += f"<li>{escape(str(error)[:300])}</li>"
    if traceback is None:
        traceback = plain(log_tail(_folder_of(folder, run)))
    return (
        f'<h3><span class="bad">{escape(run.state)}</span> <a href="#notebook-{number}">{escape(_name(run))}</a></h3>'
        f"<ul>{said}</ul>" + (f'<pre class="error">{escape(traceback)}</pre>' if traceback else "")
    )


def _noted(runs: Sequence[Status]) -> str:
    """Notes: not failures, but what a reader of the numbers should know."""
    said = [
        f'<li><a href="#notebook-{i}">{escape(_name(run))}</a>: {escape(note)}</li>'
        for i, run in enumerate(runs)
        for note in run.notes
    ]
    return f"<ul>{''.join(said)}</ul>" if said else ""


def _means(groups: Sequence[Group]) -> str:
    good = [run for group in groups for run in group.good]
    lists = {name for run in good for name, value in run.metrics.items() if isinstance(value, list)}
    metrics = [name for name in names_of(good, "metrics") if name not in lists]
    if not metrics:
        return ""
    parameters = [name for name in names_of(good, "parameters") if name != SEED]
    several = len({(group.notebook, group.code) for group in groups}) > len({group.notebook for group in groups})
    rows = [
        [group.notebook, group.profile]
        + [group.code] * several
        + [group.parameters.get(name) for name in parameters]
        + [f"{len(group.good)} of {len(group.runs)}"]
        + [group.metric(name) or _different(run.metrics.get(name) for run in group.good) for name in metrics]
        for group in groups
    ]
    columns = ["notebook", "profile", *["code"] * several, *parameters, "runs that count", *metrics]
    return (
        '<p class="note">Means over seeds ± half the width of their 95% t-interval. n is the number of seeds; one '
        "seed has no interval. Runs that failed do not count.</p>" + _table("means", columns, map(_cells, rows))
    )


def _different(values: Iterable[Any]) -> str:
    """What is not a number has no mean: its values, each once."""
    return " / ".join(dict.fromkeys(_text(value) for value in values if value is not None))


def _sweeps(groups: Sequence[Group]) -> str:
    pictures = sweep_pictures(groups)
    shown = [
        f'<p class="note">{escape(found)}</p>'
        if isinstance(found, str)
        else f"<figure>{found._repr_mimebundle_()['text/html']}</figure>"
        for found in islice(pictures, MOST_PICTURES)
    ]
    rest = next(pictures, None) is not None
    note = f'<p class="note">The first {MOST_PICTURES} pictures; --csv has all numbers.</p>' if rest else ""
    return note + "".join(shown)


def _comparison(name: str, rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return f"<p>No run of this batch has the notebook, profile and parameters of a run of {escape(name)}.</p>"
    parameters = list(dict.fromkeys(key for row in rows for key in row["parameters"]))
    columns = ["notebook", "profile", *parameters, "metric", "here", "there", "here − there"]
    values = [
        [row["notebook"], row["profile"]]
        + [row["parameters"].get(key) for key in parameters]
        + [row["metric"], row["first"], row["second"], row["difference"] or "no seed in common"]
        for row in rows
    ]
    return (
        f'<p class="note">Against {escape(name)}: means over the seeds that both batches have, and the mean of the '
        "differences seed by seed ± half the width of its 95% t-interval.</p>"
        + _table("comparison", columns, map(_cells, values))
    )


def _runs(runs: Sequence[Status]) -> str:
    parameters = [name for name in names_of(runs, "parameters") if name != SEED]
    metrics = names_of(runs, "metrics")
    rows = []
    for i, run in enumerate(runs):
        words = [run.id, run.profile, run.state, f"SEED={run.seed}"]
        words += [f"{name}={value}" for name, value in run.parameters.items()]
        link = f'<td><a href="#notebook-{i}">{escape(run.id)}</a></td>'
        cells = _cells([run.profile]) + f'<td class="{_class(run)}">{escape(run.state)}</td>'
        cells += _cells([run.seed, *(run.parameters.get(name) for name in parameters)])
        cells += _cells([round(run.seconds or 0.0, 1), run.memory_gb, run.attempts, run.device])
        cells += _cells([run.metrics.get(name) for name in metrics])
        rows.append(
            f' data-state="{escape(run.state)}" data-notebook="notebook-{i}" data-words="{escape(" ".join(words))}">'
            + link
            + cells
        )
    states = "".join(f"<option>{escape(state)}</option>" for state in dict.fromkeys(run.state for run in runs))
    columns = ["run", "profile", "state", "seed", *parameters, "seconds", "GB", "attempts", "device", *metrics]
    return (
        '<div class="filters"><label>Only runs with <input id="words" type="search" placeholder="DEPTH=100"></label>'
        f'<label>State <select id="state"><option value="">all</option>{states}</select></label>'
        f'<span id="count" role="status">{len(runs)} of {len(runs)} runs</span></div>' + _table("runs", columns, rows)
    )


def _notebooks(folder: Path, runs: Sequence[Status]) -> str:
    """Failures first, so that they are there whatever does not fit."""
    parts, room = [], MOST_BYTES
    for i, run in enumerate(runs):
        html = _notebook(_notebook_of(folder, run), run, room)
        room -= _size(html)
        mark = f'<span class="{_class(run)}">{escape(run.state)}</span>'
        parts.append(
            f'<details id="notebook-{i}"><summary>{mark} {escape(_name(run))}</summary>'
            f"<template>\n{html}</template></details>"
        )
    return '<noscript><p class="note">Notebooks open with JavaScript only.</p></noscript>' + "\n".join(parts)


def _notebook(path: Path, run: Status, room: int) -> str:
    """In at most ``room`` bytes, or a sentence that says where it is."""
    if not os.path.lexists(path):
        return f"<p>{'Not yet.' if run.state in ('queued', 'running') else 'It left no notebook.'}</p>"
    elsewhere = f"<p>Too much for this page: it is in {escape(f'{run.id}/{path.name}')}.</p>"
    if path.lstat().st_size > room:
        return elsewhere
    try:
        html = notebook_html(read_cells(path))
    except Exception as error:  # strange notebooks fail in many ways, and the report has other runs to show
        return f"<p>{path.name} cannot be shown ({escape(repr(error)[:300])}).</p>"
    return html if _size(html) <= room else elsewhere


def _size(html: str) -> int:
    """In bytes, whatever letters a notebook has put out."""
    return len(html.encode(errors="replace"))


def _folder_of(folder: Path, run: Status) -> Path:
    """A run's folder, never outside the batch, whatever a status file says."""
    return folder / Path(run.id).name


def _notebook_of(folder: Path, run: Status) -> Path:
    """The whole notebook; of a run that was cut off what it had got to, not what an earlier attempt has left."""
    return _folder_of(folder, run) / (NOTEBOOK if run.audited else PARTIAL)


def _name(run: Status) -> str:
    parameters = [f"{name} = {value}" for name, value in run.parameters.items() if name != SEED]
    return ", ".join([f"{run.notebook} ({run.profile})", *parameters, f"seed {run.seed}"])


def _table(name: str, columns: Sequence[str], rows: Iterable[str]) -> str:
    """Rows are their cells' HTML, or attributes, ``>`` and cells."""
    head = "".join(f'<th scope="col"><button type="button">{escape(column)}</button></th>' for column in columns)
    body = "\n".join(f"<tr{row}</tr>" if row.startswith(" ") else f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="table of {name}"><table id="{name}">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _cells(values: Iterable[Any]) -> str:
    return "".join(map(_cell, values))


def _cell(value: Any) -> str:
    number = value.mean if isinstance(value, Estimate) else value
    if is_number(number):
        return f'<td class="number" data-value="{number!r}">{escape(_text(value))}</td>'
    return f"<td>{escape(_text(value))}</td>"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"{len(value)} values, last {_text(value[-1])}" if value else "no values"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _class(run: Status) -> str:
    return "bad" if failed(run) else _CLASSES.get(run.state, "bad")


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
