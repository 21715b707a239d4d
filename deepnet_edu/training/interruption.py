"""SIGTERM and Ctrl-C: the step that runs is finished and saved, and the run can go on later."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop, and its state is saved.

    Attributes:
        step: that many steps are done.
        checkpoint: where they are.
    """

    def __init__(self, step: int, checkpoint: Path) -> None:
        super().__init__(f"Stopped after {step} steps, saved as {checkpoint}: go on with resume=True (--resume).")
        self.step, self.checkpoint = step, checkpoint


class Stop:
    """While entered, the first SIGINT or SIGTERM only sets ``asked``; a second SIGINT is a KeyboardInterrupt again.

    Signals reach the main thread only; elsewhere, or where nothing can be saved (``enabled``), all stays as it was.
    One of many ranks is ``patient``: what starts it hands Ctrl-C on, and a second one must not end the save.
    """

    def __init__(self, enabled: bool, patient: bool = False) -> None:
        self.asked, self._patient = False, patient
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> "Stop":
        if self._enabled:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT and not self._patient:
            raise KeyboardInterrupt
        self.asked = True
