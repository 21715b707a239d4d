"""Signals by which a user, a scheduler, or a terminal that closes asks a batch to stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: What counts as Ctrl-C once, however often it comes: a terminal that closes may say so twice.
GENTLE = [getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name)]


@contextmanager
def hearing(ask: Callable[[int], None]) -> Iterator[None]:
    """While entered, signals do not end this process but are told.

    Args:
        ask: is given 1 for Ctrl-C, 2 for SIGTERM, and 0 for what counts as Ctrl-C once.
    """
    weights = {signal.SIGINT: 1, signal.SIGTERM: 2, **dict.fromkeys(GENTLE, 0)}

    def hear(number: int, _: Any) -> None:
        ask(weights[signal.Signals(number)])

    main = threading.current_thread() is threading.main_thread()  # a worker of a cluster runs it elsewhere
    # Under nohup a closed terminal is ignored, and stays so.
    heard = [one for one in weights if one not in GENTLE or signal.getsignal(one) != signal.SIG_IGN]
    before = {number: signal.signal(number, hear) for number in heard if main}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
