"""What all commands share: the application, its errors, tables."""

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deepnet_edu.messages import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="How Transformers are made a thousand layers deep. Start with: deepnet-edu lab",
)
Workspace = Annotated[Path | None, typer.Option(help="Folder of your own copies; workspace/ in the clone by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


def main() -> None:
    """Run the command line; a mistake of the user's is one sentence and exit status 1."""
    # Must stand before torch is loaded: idle threads that spin slow small models down by far.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A pipe under Windows may not know all letters; a question mark is better than a stack trace.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    status: str | int | None = 0
    try:
        try:
            app()
        except SystemExit as ended:
            status = ended.code
        if sys.stdout is not None:
            sys.stdout.flush()
    except UserError as error:
        status = _tell(str(error))
    except KeyboardInterrupt:
        status = 129 + _tell("Stopped.")
    except OSError as error:
        if error.filename is not None or not _output_is_lost():
            raise
        status = status or _tell(f"What this prints cannot be written ({error.strerror}).")
    sys.exit(status)


def _tell(sentence: str) -> int:
    with contextlib.suppress(OSError):  # a terminal that is gone
        print(sentence, file=sys.stderr, flush=True)
    return 1


def _output_is_lost() -> bool:
    """Whether standard output takes nothing more, on a full disk for example; Python does not try again at its end."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"\n")  # Python may have dropped what it could not write
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Rows under columns, as wide as they need to be where nobody's window limits them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 400
    console.print(table)
