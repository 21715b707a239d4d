"""Which runner is at work on which run: a lock in each run's folder, which beats, and those of other runners."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deepnet_edu import lock
from deepnet_edu.batch.state import CLAIM, make_way
from deepnet_edu.lock import Holder, holder, release, take, touched

#: Before it is said for whom a runner waits that has nothing else to do.
WAIT_S = 10.0


class Claims:
    """What this runner has claimed, and what it knows of others.

    Args:
        folder: of the batch.
        say: is told for whom this runner waits, and whose run it takes over.

    Attributes:
        mine: the locks that this process holds.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self.mine: set[Path] = set()
        self._seen: dict[str, tuple[Holder, int | None, float]] = {}
        self._dead: dict[str, tuple[Holder, int | None]] = {}
        self._waits: float | None = None
        self._told: set[Holder] = set()

    def take(self, run: str) -> bool:
        """Claim a run by its id; False if another runner is at work on it."""
        path = self.folder / run / CLAIM
        make_way(path)
        dead, before = self._dead.pop(run, (None, None))
        if take(path, over=dead if touched(path) == before else None) is not None:
            return False
        self.mine.add(path)
        return True

    def release(self, run: str) -> None:
        """Give a run back."""
        path = self.folder / run / CLAIM
        release(path)
        self.mine.discard(path)

    def taker(self, run: str) -> Holder | None:
        """The process that has taken over a run of this one, for example while its machine slept."""
        found = holder(self.folder / run / CLAIM)
        return None if found is None or found.is_me else found

    def is_free(self, run: str) -> bool:
        """Whether no process works on a run any more. A claim of another machine must be silent for a while."""
        path = self.folder / run / CLAIM
        found = holder(path)
        if found is None or not found.alive:
            return True
        known, clock = (found, touched(path)), time.monotonic()
        if run not in self._seen or self._seen[run][:2] != known:
            self._seen[run] = (*known, clock)
        elif found.elsewhere and clock - self._seen[run][2] > lock.SILENCE:
            who = f"process {found.pid} on {found.host}"
            self.say(f"{who} has given no sign of life for {lock.SILENCE:g} s: its run {run} is taken over.")
            self._dead[run] = known
            return True
        return False

    def wait(self, runs: Sequence[str]) -> None:
        """Say for whom this runner waits, once it has waited for a while.

        Args:
            runs: of others, that it waits for; none if it has something to do itself.
        """
        clock = time.monotonic()
        self._waits = (self._waits or clock) if runs else None
        if self._waits is None or clock - self._waits < WAIT_S:
            return
        for run in runs:
            found = holder(self.folder / run / CLAIM)
            if found is not None and found not in self._told:
                self._told.add(found)
                self.say(f"Waiting for {found}: it is at work on {run}.")
