"""Commands of the course: doctor, lab, explore, progress, build, book."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deepnet_edu.cli.app import Json, Workspace, app, workspace_of
from deepnet_edu.explorers import NAMES as EXPLORERS
from deepnet_edu.messages import UserError


@app.command()
def doctor(workspace: Workspace = None, as_json: Json = False) -> None:
    """Check that lessons can run here, and say what to type where they cannot.

    Example: deepnet-edu doctor --json
    """
    from deepnet_edu.course.doctor import examine
    from deepnet_edu.course.places import WORKSPACE

    findings = examine(workspace or WORKSPACE)
    failed = any(finding.status == "problem" for finding in findings)
    if as_json:
        print(json.dumps({"ready": not failed, "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        console = Console(highlight=False)
        mark = {"ok": "[green]ok[/]", "warning": "[yellow]look[/]", "problem": "[red]PROBLEM[/]"}
        for finding in findings:
            found = escape(f"{finding.name}: {finding.found}")
            console.print(f"{mark[finding.status]:>20}  {found}", soft_wrap=True)
            if finding.mend:
                console.print(f"          fix it with: {finding.mend}", soft_wrap=True, markup=False)
        console.print("Lessons cannot run yet." if failed else "Lessons can run: deepnet-edu lab")
    raise typer.Exit(1 if failed else 0)


@app.command()
def lab(
    lesson: Annotated[str, typer.Argument(help="Number or name of the lesson to open.")] = "00",
    workspace: Workspace = None,
) -> None:
    """Open JupyterLab on your own copy of the lessons; what you edited is never overwritten.

    With BROWSER=none it only prints the address.

    Example: deepnet-edu lab 00
    """
    from deepnet_edu.course import lab as jupyter
    from deepnet_edu.course.places import find_lesson
    from deepnet_edu.course.workspace import update

    name = find_lesson(lesson)
    folder = workspace_of(workspace)
    result = update(folder)
    if result.renewed:
        print("Newer versions of lessons that you had not touched: " + ", ".join(result.renewed))
    for edited, beside in result.beside:
        print(f"There is a newer version of {edited}; yours stays as it is, the new one is {beside}.")
    for _, sentence in result.broken:
        print(sentence, file=sys.stderr)
    raise typer.Exit(jupyter.start(folder, name, browser=os.environ.get("BROWSER") != "none"))


@app.command()
def explore(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"{', '.join(EXPLORERS[:-1])} or {EXPLORERS[-1]}; all by default.")
    ] = None,
    pages: Annotated[
        Path | None, typer.Option(help="Write a page of each into this folder instead, which needs no kernel.")
    ] = None,
    workspace: Workspace = None,
) -> None:
    """Open explorers of depth and α in the browser, without a notebook.

    With BROWSER=none it only prints the address.

    Example: deepnet-edu explore signal
    """
    from deepnet_edu.messages import unknown

    for name in names or []:
        if name not in EXPLORERS:
            raise UserError(unknown("explorer", name, EXPLORERS))
    chosen = list(dict.fromkeys(names or EXPLORERS))
    if pages:
        from deepnet_edu.explorers.pages import write_pages

        for path in write_pages(pages, chosen):
            print(path)
        return
    from deepnet_edu.explorers.app import start

    folder = workspace_of(workspace)
    raise typer.Exit(start(chosen, folder, browser=os.environ.get("BROWSER") != "none"))


@app.command()
def progress(workspace: Workspace = None, as_json: Json = False) -> None:
    """Show which exercises are done, tried and open, lesson by lesson, the time spent, and what is next.

    Example: deepnet-edu progress
    """
    from deepnet_edu.checks.names import lesson_of
    from deepnet_edu.progress import FILE, by_lesson, next_step, read, trouble

    file = workspace_of(workspace) / FILE
    if sentence := trouble(file):
        print(sentence, file=sys.stderr)
    lessons = by_lesson(read(file), lesson_of())
    if as_json:
        print(json.dumps([asdict(lesson) for lesson in lessons], indent=1))
    else:
        for lesson in lessons:
            print(lesson)
        print(next_step(lessons))


@app.command()
def build(
    lessons: Annotated[
        list[str] | None, typer.Argument(help="Lessons whose solutions are executed where needed; all by default.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail if a notebook is not up to date.")
    ] = False,
) -> None:
    """Make lessons/*.ipynb and the executed solutions/*.ipynb from solutions/*.py.

    Example: deepnet-edu build --check
    """
    from deepnet_edu.course.build import build_all
    from deepnet_edu.course.places import SOLUTIONS, find_lesson

    names = [find_lesson(lesson, SOLUTIONS, "py") for lesson in lessons or []]
    for line in build_all(check=check, only=names):
        print(line)


@app.command()
def book(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the book; source and html in it are replaced. [default: build/book]")
    ] = None,
) -> None:
    """Make the web book from the executed solutions, the docs and the library's docstrings; it needs no network.

    Example: deepnet-edu book --out build/book
    """
    from deepnet_edu.course.book import OUT, build_book

    print(f"Open {build_book(out or OUT)}")
