"""Signals that ask a run to end: the step at hand is finished and saved, and the run can be resumed later."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

#: Ctrl-C and ``kill``; a terminal that was closed; and what Slurm, for example, sends some time before its own end.
#: Windows has two of them.
ASKING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
_ALWAYS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """The run was asked to stop, and its state is saved.

    Attributes:
        step: that many steps are done.
        checkpoint: where they are.
        signal: that asked for it.
    """

    def __init__(self, step: int, checkpoint: Path, number: int = signal.SIGTERM) -> None:
        super().__init__(f"Stopped after {step} steps, saved as {checkpoint}: resume with resume=True (--resume).")
        self.step, self.checkpoint, self.signal = step, checkpoint, number


class Stop:
    """While entered, the first signal of ``ASKING`` only sets ``asked``; a SIGINT after it is a KeyboardInterrupt.

    SIGHUP and SIGUSR1 stay ignored where they are, as by ``nohup``, and with a program's own handler where there is
    one. SIGINT is heard even if a shell has a process in the background ignore it. Signals reach the main thread only;
    elsewhere, or where nothing can be saved (``enabled``), nothing changes.
    One of many ranks is ``patient``: what starts it hands Ctrl-C on, and a second one must not end the save.

    Attributes:
        asked: the signal that came first; 0 where none did.
    """

    def __init__(self, enabled: bool, patient: bool = False) -> None:
        self.asked, self._patient = 0, patient
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> "Stop":
        for number in ASKING if self._enabled else ():
            before = signal.getsignal(number)
            if before is None:  # not set by Python, nor to be set back
                continue
            own = before not in (signal.SIG_DFL, signal.SIG_IGN)
            if number in _ALWAYS or before is signal.SIG_DFL or (own and self._patient):  # a rank has its own
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT and not self._patient:
            raise KeyboardInterrupt
        self.asked = self.asked or number
