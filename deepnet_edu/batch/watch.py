"""Watching a batch: a live table in a terminal, plain lines elsewhere."""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from deepnet_edu.batch.active import Active
from deepnet_edu.batch.slots import ask_gpus
from deepnet_edu.batch.state import Status

#: Between two redraws of the table, and two questions to nvidia-smi, which takes a tenth of a second.
REDRAW_S = 0.5
ASK_S = 5.0


class Lines:
    """A line when a run begins, and one when it ends, with what was wrong.

    Args:
        total: how many runs there are.
        done: how many need not run again.
        quiet: nothing of that, since a script reads the JSON at the end; other sentences go to standard error.
    """

    def __init__(self, total: int, done: int = 0, *, quiet: bool = False) -> None:
        self.total, self.count, self.quiet = total, done, quiet
        self.console = Console(highlight=False, soft_wrap=True, stderr=quiet)

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def started(self, active: Active) -> None:
        """A run has begun."""
        self._tell(f" start  {describe(active.run)} on {active.slot.device}, slot {active.slot.number}")

    def ended(self, run: Status, again: str) -> None:
        """A run has ended; ``again`` says how it is tried again, if it is."""
        self.count += not again
        self._tell(f"{result(run)} [{self.count}/{self.total}]")
        for sentence in (*run.problems, *run.notes):
            self._tell(f"        {sentence}")
        if again:
            self._tell(f"        It is tried again, {again}.")

    def look(self, active: Sequence[Active], waiting: int) -> None:
        """Nothing is said between begin and end."""

    def say(self, sentence: str) -> None:
        """Something that the user should know."""
        with self.heard():
            self.console.print(escape(plain(sentence)))

    def _tell(self, line: str) -> None:
        if not self.quiet:
            self.say(line)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """While entered, a terminal or a pipe that is gone ends what is said, and not the batch."""
        try:
            yield
        except (OSError, SystemExit):  # rich leaves the program when a pipe is broken
            self.console.quiet = True


class LiveTable(Lines):
    """Lines of what has ended, and under them a table of what runs, redrawn twice a second."""

    def __init__(self, total: int, done: int = 0) -> None:
        super().__init__(total, done)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._drawn = self._asked = 0.0
        self._gpus: dict[str, str] = {}

    def __enter__(self) -> "LiveTable":
        with self.heard():
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.heard():
            self._live.stop()

    def started(self, active: Active) -> None:
        """The table shows it."""

    def look(self, active: Sequence[Active], waiting: int) -> None:
        """Redraw, if it is time."""
        clock = time.monotonic()
        if clock - self._drawn < REDRAW_S:
            return
        if clock - self._asked > ASK_S and any(one.slot.gpu is not None for one in active):
            rows = ask_gpus("index,memory.used,memory.total,utilization.gpu")
            self._gpus = {
                index: f"{int(used) / 1024:.1f} of {int(total) / 1024:.0f} GB, {busy}%"
                for index, used, total, busy in rows
                if used.isdigit() and total.isdigit()  # some GPUs say [N/A]
            }
            self._asked = clock
        with self.heard():
            self._live.update(self.table(active, waiting), refresh=True)
        self._drawn = clock

    def table(self, active: Sequence[Active], waiting: int) -> Table:
        """What runs: slot, run, time, cell, GPU, last line."""
        title = f"{self.count} of {self.total} ended, {len(active)} at work, {waiting} waiting"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column in ("slot", "run", "time", "cell"):
            table.add_column(column, no_wrap=True)
        table.add_column("GPU" if self._gpus else "")
        table.add_column("last line", no_wrap=True, overflow="ellipsis", ratio=1)
        for one in active:
            cell, said = one.progress()
            seconds = int(time.monotonic() - one.begin)
            table.add_row(
                str(one.slot.number),
                escape(describe(one.run)),
                f"{seconds // 60}:{seconds % 60:02}",
                f"{cell} of {one.cells}",
                self._gpus.get(str(one.slot.gpu), ""),
                escape(plain(said)),
            )
        return table


def plain(text: str) -> str:
    """``text`` without what would move a terminal's cursor or change its title."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def describe(run: Status) -> str:
    """A run as people name it: its notebook, profile and parameters."""
    given = " ".join(f"{name}={value}" for name, value in run.parameters.items())
    return f"{run.notebook} ({run.profile}{', ' if given else ''}{given})"


def result(run: Status) -> str:
    """How a run has ended, in a line."""
    memory = f", {run.memory_gb:.1f} GB" if run.memory_gb else ""
    head = "ok" if run.state == "done" else run.state.upper()
    return f"{head:>6}  {describe(run)}, {run.seconds or 0.0:.0f} s{memory}: {run.id}"


def go_on(folder: str, options: Sequence[str] = ()) -> str:
    """The command that continues a batch, with its slots and limits."""
    return shlex.join(["deepnet-edu", "run", "--resume", "--out", folder, *options])
