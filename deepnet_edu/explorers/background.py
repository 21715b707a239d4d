"""Measuring in a thread while sliders stay free: started a moment after the last move, cancelled by the next one."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from deepnet_edu.explorers.settings import Tick

Result = TypeVar("Result")
NAME = "deepnet_edu explorer"
#: After this many seconds without a move a measurement begins.
REST_S = 0.2
#: Seconds between two reports of progress.
TELL_S = 0.2
#: Told instead of a share while another explorer measures.
WAITING = -1.0


class Cancelled(Exception):
    """Raised inside a measurement whose result is no longer wanted."""


class Background:
    """One measurement of one explorer. In a kernel one at a time is run: a deep model takes memory."""

    _one_at_a_time = threading.Lock()

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(
        self,
        measure: Callable[[Tick], Result],
        show: Callable[[Result], None],
        tell: Callable[[float], None],
        fail: Callable[[Exception], None],
    ) -> None:
        """Cancel what runs, and measure as soon as nothing has been started for a while.

        Args:
            measure: gets a :data:`Tick`, and returns what ``show`` gets.
            show, tell, fail: called from the thread with the result, the share that is done (or ``WAITING``), or what
                went wrong; not after a cancellation.
        """
        self.cancel()
        stop = self._stop = threading.Event()
        told = 0.0

        def tick(share: float) -> None:
            nonlocal told
            if stop.is_set():
                raise Cancelled
            if time.monotonic() > told + TELL_S:
                told = time.monotonic()
                tell(share)

        def run() -> None:
            if stop.wait(REST_S):
                return
            if not self._one_at_a_time.acquire(blocking=False):
                tell(WAITING)
                while not self._one_at_a_time.acquire(timeout=TELL_S):
                    if stop.is_set():
                        return
            try:
                import torch  # here, in its own thread: pictures need none

                torch.set_flush_denormal(True)  # holds for a thread: vanished gradients would take five times as long
                tick(0.0)
                result = measure(tick)
                tick(1.0)
                show(result)
            except Cancelled:
                pass
            except Exception as error:  # whatever it is, it must reach the learner and not the log
                if not stop.is_set():
                    fail(error)
            finally:
                self._one_at_a_time.release()

        self._thread = threading.Thread(target=run, name=NAME, daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Nothing of the measurement that runs will be shown; it ends at its next tick."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of what runs; whether it came."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()
