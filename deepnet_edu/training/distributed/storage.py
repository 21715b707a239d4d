"""Tensors on the disk, written by all ranks, read by as many others: PyTorch's distributed checkpoint in safetensors.

Each rank writes one file, ``shard-00001-…`` for rank 0, of what it alone has and its share of what several have. What
is read may have been cut in any other way, or come from one process.
"""

import warnings
from pathlib import Path

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from deepnet_edu import files
from deepnet_edu.files import digest


def write(folder: Path, tensors: dict[str, Tensor]) -> dict[str, tuple[int, str]]:
    """Write what this rank has, whole tensors and shards (DTensors), together with all other ranks.

    Args:
        folder: one that all ranks see.
        tensors: by the names that a single process gives them.

    Returns:
        Size and SHA-256 of this rank's files, by name.

    Raises:
        OSError: it failed on a rank; on all of them.
    """
    files.write_point(folder)
    try:
        dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        raise _reason(error) from None
    mine = sorted(folder.glob(f"shard-{dist.get_rank() + 1:05}-*"))
    return {file.name: (file.stat().st_size, digest(file)) for file in mine}


def read(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill tensors in place, with all other ranks where there are any.

    Args:
        folder: with safetensors files that :func:`write` or one process has written.
        tensors: of this rank; shards get their part.

    Raises:
        OSError: it failed on a rank; on all of them.
        ValueError: a tensor is missing, or has another shape.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process: as it should be
            alone = not dist.is_initialized()
            dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=alone)
    except CheckpointException as error:
        raise _reason(error) from None
    except (RuntimeError, KeyError) as error:
        raise ValueError(str(error)) from None


def _reason(error: CheckpointException) -> Exception:
    """What happened on the first rank where it did."""
    cause = next(iter(error.failures.values()))[0]
    return cause if isinstance(cause, OSError) else ValueError(str(cause))
