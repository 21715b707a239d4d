"""The order in which a run reads its data: everything once an epoch, and a place in it that can be kept."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from deepnet_edu.fields import check_whole

Item = TypeVar("Item")


class Epochs(Generic[Item]):
    """Item after item without end, each once an epoch; seed and epoch decide the order, and nothing else does.

    Args:
        order: makes an epoch's order from NumPy's generator of that epoch; never empty.
        seed: of all epochs.
        data: what is ordered, by its :func:`fingerprint`: a place in one set of data means nothing in another.
    """

    def __init__(
        self, order: Callable[[np.random.Generator], Sequence[Item] | NDArray[Any]], seed: int, data: str
    ) -> None:
        self._make, self.seed, self.data = order, seed, data
        self._enter(0)

    def _enter(self, epoch: int) -> None:
        self.epoch, self.position = epoch, 0
        self.order = self._make(np.random.default_rng((self.seed, epoch)))

    def next(self) -> Item:
        """The next item; after the last of an epoch comes the first of the next."""
        if self.position == len(self.order):
            self._enter(self.epoch + 1)
        self.position += 1
        return self.order[self.position - 1]

    def state(self) -> dict[str, Any]:
        """Where the run is, as plain JSON."""
        return {"data": self.data, "seed": self.seed, "epoch": self.epoch, "position": self.position}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state` was asked.

        Raises:
            ValueError: the state is of other data, of another seed, or damaged; the place is as it was.
        """
        for name, here in (("data", self.data), ("seed", self.seed)):
            if state.get(name) != here:
                raise ValueError(
                    f"The saved place is of {name} {state.get(name)!r}, these are read with {name} {here!r}: "
                    "resume with the same data and settings, or start a new run."
                )
        epoch, position = state.get("epoch"), state.get("position")
        if not (isinstance(epoch, int) and isinstance(position, int) and epoch >= 0):
            raise ValueError(f"epoch={epoch!r}, position={position!r}: expected two whole numbers, 0 or more.")
        before = self.epoch, self.position, self.order
        self._enter(epoch)
        if not 0 <= position <= len(self.order):
            length = len(self.order)
            self.epoch, self.position, self.order = before
            raise ValueError(f"position={position}: expected 0 to {length}, what an epoch has.")
        self.position = position


def check_numbers(least: int, **numbers: int) -> None:
    """Settings by name that must be ``least`` or more: asked before the data are read, which may take long.

    Raises:
        ValueError: one of them is not.
    """
    for name, value in numbers.items():
        check_whole(name, value, least, 2**63 - 1)


def fingerprint(*parts: NDArray[Any] | int) -> str:
    """16 hexadecimal digits that change with the tokens and settings in ``parts``, and with nothing else."""
    digest = sha256()
    for part in parts:
        digest.update(part.data if isinstance(part, np.ndarray) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
