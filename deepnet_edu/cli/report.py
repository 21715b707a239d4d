"""The command that says what became of a batch."""

import os
from pathlib import Path
from typing import Annotated

import typer

from deepnet_edu.cli.app import Json, app
from deepnet_edu.messages import UserError


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="runs/NAME", help="Folder of the batch.")],
    other: Annotated[
        Path | None, typer.Option("--compare", metavar="runs/OTHER", help="Also how metrics differ from this batch's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The page; report.html in the batch's folder by default.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Also a file for the results as JUnit XML.")] = None,
    as_json: Json = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a line per run, or per difference with --compare.")
    ] = False,
) -> None:
    """Make one HTML page of a batch: failures, means over seeds, sweeps, all notebooks. It loads nothing else.

    Example: deepnet-edu report runs/depths --compare runs/yesterday
    """
    from deepnet_edu.batch.folder import runs_as_they_are
    from deepnet_edu.batch.report.junit import check_place, write_junit
    from deepnet_edu.batch.report.page import check_page, page
    from deepnet_edu.batch.report.summary import as_differences, as_plain, as_table, compare
    from deepnet_edu.files import json_text, write_atomic

    if as_json and as_csv:
        raise UserError("--json and --csv are two forms of the same: give one of them.")
    if out and (as_json or as_csv):
        raise UserError("--out names the page: --json and --csv print, and > FILE keeps what they print.")
    batches = {}
    for one in (folder, other) if other else (folder,):
        batches[one] = runs_as_they_are(one)
        if not batches[one]:
            raise UserError(f"{one} holds no batch: expected a folder that deepnet-edu run --out made.")
    runs, differences = batches[folder], compare(batches[folder], batches[other]) if other else []
    path = out or folder / "report.html"
    if not (as_csv or as_json):
        check_page(path)
        if junit and os.path.realpath(junit) == os.path.realpath(path):
            raise UserError(f"--junit {junit} is the page's own place: choose another file.")
    if junit:
        check_place(junit, folder)
        write_junit(junit, folder.resolve().name, runs)
    if as_csv:
        print(as_differences(differences) if other else as_table(runs), end="")
    elif as_json:
        print(json_text(as_plain(runs, differences if other else None), indent=1, ensure_ascii=False))
    else:
        html = page(folder, runs, (other.name, batches[other]) if other else None)
        try:
            write_atomic(path, html.encode(errors="backslashreplace"))  # a notebook's name need not be UTF-8
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}): choose another --out.") from None
        print(path)
