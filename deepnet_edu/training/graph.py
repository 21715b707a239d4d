"""A whole training step as one CUDA graph: recorded once, then replayed without Python."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from deepnet_edu.messages import UserError
from deepnet_edu.model import Batch

#: Steps before the recording, on a stream of their own, as PyTorch's documentation of CUDA graphs asks: libraries
#: choose their kernels and take their memory in them.
WARM = 3


class GraphedStep:
    """A step on the device: the first times it is taken as it is, then it is recorded, then replayed.

    All batches must have one shape: the graph reads them where the first ones were.

    Args:
        step: takes the batches and returns loss and gradient norm, without a look at any number.
    """

    def __init__(self, step: Callable[[tuple[Batch, ...]], tuple[Tensor, Tensor]]) -> None:
        self.step = step
        self.batches: tuple[Batch, ...] = ()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.seen: tuple[Tensor, Tensor] | None = None
        self.taken = 0

    def __call__(self, batches: tuple[Batch, ...]) -> tuple[Tensor, Tensor]:
        """Loss and gradient norm of one step.

        Raises:
            UserError: a batch has another shape than the first.
        """
        self._fill(batches)
        if self.graph is None:
            self.taken += 1
            self.seen = self._ordinary() if self.taken <= WARM else self._record()
        if self.graph is not None:
            self.graph.replay()
        assert self.seen is not None
        return self.seen

    def _fill(self, batches: tuple[Batch, ...]) -> None:
        """Put the batches where the graph reads them."""
        given, known = _shapes(batches), _shapes(self.batches)
        if not self.batches:
            self.batches = tuple(Batch(*(_copy(getattr(batch, f.name)) for f in fields(Batch))) for batch in batches)
            return
        if given != known:
            raise UserError(
                f"cuda_graph=True replays steps of one shape: the first batch had {known}, this one {given}. "
                "Leave cuda_graph out, or give batches of one shape, packed ones for example."
            )
        for here, batch in zip(self.batches, batches, strict=True):
            for field in fields(Batch):
                tensor = getattr(here, field.name)
                if tensor is not None:
                    tensor.copy_(getattr(batch, field.name))

    def _ordinary(self) -> tuple[Tensor, Tensor]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            seen = self.step(self.batches)
        torch.cuda.current_stream().wait_stream(side)
        return seen

    def _record(self) -> tuple[Tensor, Tensor]:
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            return self.step(self.batches)


def _copy(tensor: Any) -> Any:
    return None if tensor is None else tensor.clone()


def _shapes(batches: tuple[Batch, ...]) -> list[list[Any]]:
    """Shapes of all that the batches have."""
    found = [[getattr(batch, field.name) for field in fields(Batch)] for batch in batches]
    return [[None if tensor is None else tuple(tensor.shape) for tensor in one] for one in found]
