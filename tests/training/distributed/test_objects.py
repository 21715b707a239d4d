"""What ranks tell each other: data is read, a program is refused; where they meet, no other user may write."""

import copyreg
import os
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import distributed_c10d
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorProperties, TensorStorageMetadata

from deepnet_edu.messages import UserError
from deepnet_edu.training.distributed.objects import Data, only_data
from deepnet_edu.training.distributed.ranks import MEETING, _read, _written, meet


class Program:
    """A pickle that runs something."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.call = (function, given)

    def __reduce__(self) -> Any:
        return self.call


def sent(value: Any) -> Any:
    """As PyTorch's object collectives give it."""
    tensor, size = distributed_c10d._object_to_tensor(value, torch.device("cpu"), None)
    with only_data():
        return distributed_c10d._tensor_to_object(tensor, int(size), None)


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, (True, "text")]},
        TensorStorageMetadata(TensorProperties(torch.bfloat16), torch.Size([2, 3]), []),
        [MetadataIndex("weight", torch.Size([1]), 0)],
        torch.float64,
    ],
)
def test_data_is_read(value: Any) -> None:
    assert sent(value) == value


def test_an_error_of_another_rank_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(
        copyreg.dispatch_table, OSError, raising=False
    )  # Dask's, where a test has loaded it; no rank does
    error, stack = sent((OSError(28, "No space left on device"), traceback.extract_stack()))
    assert (error.errno, type(stack)) == (28, traceback.StackSummary)


@pytest.mark.parametrize(
    "program",
    [
        Program(os.system, "touch /tmp/ran"),
        Program(eval, "1 + 1"),
        Program(__import__, "antigravity"),
        Program(getattr, torch.Tensor, "backward"),
        Program(torch.load, "file"),
        Program(torch.hub.load, "repository"),
        [Program(print, "ran")],
    ],
)
def test_a_program_is_refused(program: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="which is not data: it was not loaded"):
        sent(program)


@pytest.mark.parametrize("name", ["load", "distributed.checkpoint.load", "Tensor.__reduce__"])
def test_a_name_with_dots_leads_nowhere(name: str) -> None:
    text = f"\x80\x04\x8c\x05torch\x8c{chr(len(name))}{name}\x93.".encode("latin-1")
    assert pickle.loads(text)
    with pytest.raises(pickle.UnpicklingError):
        Data(__import__("io").BytesIO(text)).load()


def test_outside_pytorch_is_as_it_was() -> None:
    with only_data():
        assert distributed_c10d._unpickler is Data
    assert distributed_c10d._unpickler is pickle.Unpickler


@pytest.mark.parametrize(
    "value", [1.5, [1, "ä\x00"], {"a": [Path("x/y"), True]}, Path("z"), [torch.half, [2]], [None, "no"]]
)
def test_what_is_said_as_text_arrives(value: Any) -> None:
    assert _read(_written(value, torch.device("cpu"))) == value


def met(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {MEETING: str(folder), "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    return meet()


def test_ranks_meet_in_a_private_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "meeting"
    with pytest.raises(UserError, match="where ranks meet: No such file or directory"):
        met(folder, monkeypatch)
    folder.mkdir(mode=0o700)
    store, rank, size = met(folder, monkeypatch)
    store.set("key", "value")
    assert (store.get("key"), rank, size) == (b"value", 0, 1)
    assert (folder / "store").exists()
    folder.chmod(0o711)
    with pytest.raises(UserError, match="another user can write there: it must be yours, mode 0700"):
        met(folder, monkeypatch)
    folder.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UserError, match="another user can write there"):
        met(folder, monkeypatch)
    monkeypatch.undo()
    (link := tmp_path / "link").symlink_to(folder)
    with pytest.raises(UserError, match="another user can write there"):
        met(link, monkeypatch)
