"""What all commands share: the application, its errors, tables."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from deepnet_edu.fields import whole_number
from deepnet_edu.messages import UserError, one_line, shown, without_long

#: What Typer raises where it cannot read a command line; its module moves from version to version.
UsageError: Any = typer.BadParameter.__bases__[0]


class Commands(TyperGroup):
    """All commands: what was typed wrong, and a file that cannot be used, end in one short sentence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer does; but no argument may be empty, which would stand for the current folder or for no limit."""
        self.typed = list(args)
        for i, text in enumerate(args):
            option, equals, value = text.partition("=")
            if not text.strip() or (option.startswith("--") and equals and not value.strip()):
                named = option if equals else args[i - 1] if i and args[i - 1].startswith("--") else "The argument"
                raise UserError(
                    f"{named} {shown(value if equals else text)} is empty: give it a value, or leave it out."
                )
        if not args:  # Typer shows its help
            return super().parse_args(ctx, args)
        with self.in_one_sentence(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """As Typer does."""
        with self.in_one_sentence(ctx):
            return super().invoke(ctx)

    @contextmanager
    def in_one_sentence(self, ctx: Any) -> Iterator[None]:
        """What was typed wrong, and what the system says of a file, as an error with a sentence of bounded length."""
        try:
            yield
        except UserError as error:
            error.args = (without_long(str(error.args[0]), self.typed),)
            raise
        except UsageError as error:
            said = one_line(without_long(error.format_message(), self.typed)).rstrip(".")
            raise UsageError(f"{said}. What it expects: {(error.ctx or ctx).command_path} --help") from None
        except OSError as error:
            if error.filename is None:
                raise
            raise UserError(without_long(f"{os.fsdecode(error.filename)}: {error.strerror}.", self.typed)) from error
        except RuntimeError as error:  # of pathlib, before Python 3.13
            if "Symlink loop" not in str(error):
                raise
            raise UserError(f"{error}: give another path.") from error


def whole(option: str, least: int, most: int = 10**9) -> Callable[[Any], int]:
    """How a command reads a whole number, for ``typer.Option(parser=…)``.

    Args:
        option: its name, for the sentence.
        least, most: that the number may be.
    """

    def number(given: Any) -> int:
        value = given if isinstance(given, int) else whole_number(given)
        if value is None or not least <= value <= most:
            raise UserError(f"{option} {shown(given)}: expected a whole number from {least} to {most:,}.")
        return value

    return number


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="How Transformers are made a thousand layers deep. Start with: deepnet-edu lab",
)
Workspace = Annotated[Path | None, typer.Option(help="Folder of your own copies; workspace/ in the clone by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


def _print_version(asked: bool) -> None:
    if asked:
        from deepnet_edu import __version__

        print(f"deepnet-edu {__version__}")
        raise typer.Exit


@app.callback()
def before_any_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """What is read before the command's name."""


def main() -> None:
    """Run the command line; a mistake of the user's is one sentence and exit status 1."""
    # Must be set before torch is loaded: idle threads that spin slow small models down by far.
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
        print(end="", flush=True)
        os.write(sys.stdout.fileno(), b"\n")  # Python may have dropped what it could not write, or keep no buffer
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def workspace_of(given: Path | None) -> Path:
    """The learner's folder.

    Raises:
        UserError: what was given is not a folder.
    """
    from deepnet_edu.course import places

    folder = (given or places.WORKSPACE).resolve()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--workspace {given} is not a folder: give another one, or leave it out.")
    return folder


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Rows under columns, as wide as they need to be where no window limits them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 400
    console.print(table)
