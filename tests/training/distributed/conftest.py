"""Ranks are processes, and starting them takes seconds: a file starts them once, its tests look at what they saw."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from deepnet_edu.model import build_model
from deepnet_edu.training import train
from tests.training.distributed.cases import MODEL, RECIPE, TASK, run_of

ROOT = Path(__file__).parents[3]
#: Seconds; on two busy cores a start takes a tenth of it.
LIMIT = 300


def environment(**more: str) -> dict[str, str]:
    """One thread a rank, and this clone's package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DEEPNET_EDU_", "TORCHELASTIC_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TORCH_CPP_LOG_LEVEL": "ERROR", **more}


#: How ranks of a module are started: as deepnet-edu train --gpus does, and as on many machines.
LAUNCH = [sys.executable, "-c", "import sys; from deepnet_edu.training.distributed.launch import launch; "
    "sys.exit(launch(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))"]  # fmt: skip
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
#: The command, a model that is small, and two ranks of this machine.
COMMAND = [sys.executable, "-c", "from deepnet_edu.cli import main; main()"]
SMALL = [
    f"--set={text}"
    for text in ("decoder_layers=2", "d_model=16", "n_heads=2", "d_ff=16", "save_every=5", "sequences=4", "length=16")
]
CPU = ["--gpus=2", "--device=cpu"]


@contextmanager
def training(*arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """deepnet-edu train, which does not outlive the block; nor do its ranks, which end with it."""
    process = subprocess.Popen(
        [*COMMAND, "train", *arguments], env=environment(**more), cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(what: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> None:
    """Until it is true; the process must live so long."""
    end = time.monotonic() + LIMIT
    while not what():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def wait_for_steps(process: subprocess.Popen[str], out: Path, steps: int) -> None:
    """Until a run that the process trains has as many."""
    table = out / "metrics.csv"
    wait_until(lambda: table.exists() and table.read_text().count("\n") > steps, process)


def finished(command: Sequence[str], **more: str) -> subprocess.CompletedProcess[str]:
    """The command, killed with all that it has started where it hangs."""
    process = subprocess.Popen(
        command, env=environment(**more), cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate()
        raise AssertionError(f"{command} hangs: {out}{err}") from None
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def seen(ranks: int, folder: Path, start: Sequence[str]) -> list[dict[str, Any]]:
    """What each of this many ranks of ``worker.py`` saw, by case."""
    done = finished([*start, "tests.training.distributed.worker", str(folder)])
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads((folder / f"{ranks}-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.fixture(autouse=True)
def hangup_is_heard() -> Iterator[None]:
    """As in a terminal, also where the tests were started by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all ranks write."""
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="session")
def single(folder: Path, one_thread: None) -> list[float]:
    """Losses of a run of one process."""
    return in_one_process(run_of(folder, "single"))


@pytest.fixture(scope="session")
def four(folder: Path) -> list[dict[str, Any]]:
    """What each of four ranks saw."""
    return seen(4, folder, [*TORCHRUN, "--nproc-per-node=4", "-m"])


@pytest.fixture(scope="session")
def two(folder: Path, single: list[float], four: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each of two ranks saw, which have continued the runs of others, too."""
    return seen(2, folder, [*LAUNCH, "2"])


def in_one_process(out: Path, **changes: Any) -> list[float]:
    """Losses of the run that all plans have, in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        recipe = replace(RECIPE, **changes)
        return train(build_model(MODEL), TASK, recipe, out=out, resume=True, progress=False).loss
    finally:
        torch.set_default_dtype(torch.float32)
