"""The bar of a run: loss, tokens a second, and how much of the device's peak that is."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm

#: Steps over which the rate is taken.
RECENT = 20
#: Seconds between drawings in a terminal, and where the bar goes to a file.
LOOKED_AT, TO_FILE = 0.2, 30.0


class Bar:
    """A tqdm bar with time left, loss, tokens a second and model FLOPs utilisation. Use as a context manager.

    The rate is that of the last steps, on the clock, with all that happens between them; the first step of a process,
    which may compile, does not count.

    Args:
        steps: of the whole run.
        start: steps that were taken before, where a run is resumed.
        progress: whether to show anything.
        peak: of the device, floating point operations a second; None where not known.
    """

    def __init__(
        self,
        steps: int,
        *,
        start: int = 0,
        progress: bool = True,
        peak: float | None = None,
    ) -> None:
        how: dict[str, Any] = {"total": steps, "initial": start, "unit": "step", "mininterval": LOOKED_AT}
        try:
            self._bar = tqdm(disable=not progress, miniters=1, dynamic_ncols=True, **how)
        except OSError:  # it cannot be seen, as in _seen
            self._bar = tqdm(disable=True, **how)
        if progress and not (sys.stderr.isatty() or hasattr(self._bar, "container")):  # goes to a file
            self._bar.mininterval = TO_FILE
        self._peak = peak
        self._tokens, self._flops = 0, 0.0
        self._marks: deque[tuple[float, int, float]] = deque(maxlen=RECENT + 1)

    @property
    def rate(self) -> float | None:
        """Tokens a second, None before the second step."""
        return self._per_second(1)

    @property
    def utilisation(self) -> float | None:
        """Model FLOPs utilisation, a share of the peak; None where that or the operations are not known."""
        flops = self._per_second(2)
        return flops / self._peak if flops and self._peak else None

    def _per_second(self, which: int) -> float | None:
        if len(self._marks) < 2:
            return None
        first, last = self._marks[0], self._marks[-1]
        return (last[which] - first[which]) / (last[0] - first[0]) if last[0] > first[0] else None

    @property
    def text(self) -> str:
        """The text after the bar, without the loss."""
        if self.rate is None:
            return ""
        share = "" if self.utilisation is None else f", {self.utilisation:.0%} of peak"
        return f", {self.rate:,.0f} tokens/s{share}"

    def update(self, loss: float, tokens: int, flops: float | None = None) -> None:
        """One more step.

        Args:
            loss: nats per token.
            tokens: that this step has read.
            flops: that the model needs for them, see :func:`deepnet_edu.planning.flops_per_token`; None: not known.
        """
        self._tokens += tokens
        self._flops += flops or 0.0
        self._marks.append((time.perf_counter(), self._tokens, self._flops))
        if not self._bar.disable:
            with self._seen():
                self._bar.set_postfix_str(f"loss {loss:.3f}{self.text}", refresh=False)  # update() decides when to draw
                self._bar.update()

    def close(self) -> None:
        """Draw once more, and leave the bar as it is."""
        with self._seen():
            self._bar.close()

    @contextmanager
    def _seen(self) -> Iterator[None]:
        """The bar is drawn no more where it cannot be seen: the terminal was closed, or its file's disk is full."""
        try:
            yield
        except OSError:
            self._bar.disable = True

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
