"""What ranks may send each other as objects: data, and never a program.

This package tells other ranks in plain text what there is to tell (:class:`.ranks.Ranks`). PyTorch's
distributed checkpoints and its pipelines pickle plans, shapes and errors; as long as ranks are joined, what comes is
read by a list of what may be in it, since a program in the place of a rank could otherwise run code here.
"""

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from enum import Enum
from traceback import FrameSummary, StackSummary
from typing import Any

import torch
from torch.distributed import distributed_c10d

#: Where records are defined that PyTorch sends.
_RECORDS = ("torch.distributed.checkpoint.", "torch.distributed.pipelining.")
#: Where errors are defined.
_ERRORS = ("builtins", "torch", "safetensors", "safetensors_rust", "deepnet_edu")


class Data(pickle.Unpickler):
    """Reads records, shapes, dtypes and errors, of modules that are there already."""

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle names.

        Raises:
            pickle.UnpicklingError: it is anything else.
        """
        found = getattr(sys.modules.get(module), name, None)
        if _is_data(module, found):
            return found
        raise pickle.UnpicklingError(f"Another rank has sent {module}.{name}, which is not data: it was not loaded.")


def _is_data(module: str, found: Any) -> bool:
    if isinstance(found, torch.dtype) or found in (torch.Size, torch.serialization._get_layout, FrameSummary):
        return True
    if not isinstance(found, type):
        return False
    if issubclass(found, Exception) or found is StackSummary:
        return module.split(".")[0] in (*_ERRORS, "traceback")
    is_record = is_dataclass(found) or issubclass(found, Enum) or hasattr(found, "_fields")
    return is_record and module.startswith(_RECORDS)


@contextmanager
def only_data() -> Iterator[None]:
    """While entered, objects that come from other ranks are data, or refused (pickle.UnpicklingError)."""
    before = distributed_c10d._unpickler
    distributed_c10d._unpickler = Data
    try:
        yield
    finally:
        distributed_c10d._unpickler = before
