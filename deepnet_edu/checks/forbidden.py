"""What an exercise forbids, refused wherever in PyTorch a learner has it from."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def refused(names: Sequence[str], error: Callable[[], Exception], autograd: bool) -> Iterator[None]:
    """While it holds, PyTorch's functions of these names raise.

    Args:
        names: such as ``"layer_norm"``, wherever torch has it.
        error: makes what is raised.
        autograd: backward passes raise, too.
    """
    engine, graph = torch.autograd._engine_run_backward, torch.autograd.graph._engine_run_backward

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise error()

    try:
        if autograd:
            torch.autograd._engine_run_backward = torch.autograd.graph._engine_run_backward = refuse
        with _Without(names, error):
            yield
    finally:
        torch.autograd._engine_run_backward, torch.autograd.graph._engine_run_backward = engine, graph


class _Without(TorchFunctionMode):
    def __init__(self, names: Sequence[str], error: Callable[[], Exception]) -> None:
        super().__init__()
        self.names, self.error = names, error

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self.names:
            raise self.error()
        return func(*args, **(kwargs or {}))
