"""Ranks are processes, and starting them takes seconds: each file starts them once, and its tests look at what they saw."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Seconds; on two busy cores a start takes a tenth of it.
LIMIT = 300


def environment(**more: str) -> dict[str, str]:
    """One thread a rank, and this clone's package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DEEPNET_EDU_", "TORCHELASTIC_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TORCH_CPP_LOG_LEVEL": "ERROR", **more}


def torchrun(ranks: int, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """What so many ranks printed."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return finished([*start, *map(str, arguments)], **more)


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


def seen(ranks: int, folder: Path) -> list[dict[str, Any]]:
    """What each of so many ranks of ``worker.py`` saw, by case."""
    done = torchrun(ranks, ROOT / "tests" / "distributed" / "worker.py", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads((folder / f"{ranks}-{rank}.json").read_text()) for rank in range(ranks)]
