"""The launcher of ranks: what listens, who may write, what ends with it, and how it says what happened."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from deepnet_edu.messages import UserError
from deepnet_edu.parallel import launch as launcher
from deepnet_edu.parallel.launch import launch
from deepnet_edu.training.log import read_metrics
from tests.doors import beyond_loopback, doors, family
from tests.parallel.conftest import ROOT, environment
from tests.parallel.test_runs import CPU, SMALL, started, wait_for_steps

#: One that needs no PyTorch: it takes what it does on rank 0, and on the others, from its arguments.
RANK = "tests.parallel.rank"


def running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_until_ended(processes: list[psutil.Process], seconds: float) -> None:
    end = time.monotonic() + seconds
    while any(running(one) for one in processes):
        assert time.monotonic() < end, processes
        time.sleep(0.1)


def test_ranks_listen_on_loopback_alone_and_end_with_a_killed_launcher(tmp_path: Path) -> None:
    out, temporary = tmp_path / "run", tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-c", "from deepnet_edu.cli import main; main()", "train", "laptop-1000", *SMALL, *CPU]
    where = {"TMPDIR": str(temporary), "GLOO_SOCKET_IFNAME": "no such interface"}
    process = subprocess.Popen(
        [*command, "--set=steps=100000", "--plan=pipeline=2", f"--out={out}"], env=environment(**where), cwd=ROOT,
        text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for_steps(out, 2)
        assert (addresses := doors(process.pid))  # those of gloo
        assert not beyond_loopback(addresses)
        (meeting,) = temporary.glob("deepnet_edu_*")
        assert meeting.stat().st_mode & 0o777 == 0o700
        ranks = family(process.pid)[1:]
        assert len(ranks) == 2
    finally:
        process.kill()
    wait_until_ended(ranks, 20)
    _, errors = process.communicate(timeout=20)
    assert f"Process {process.pid}, which had started the ranks, has ended. All ranks have stopped; resume" in errors
    assert "Traceback" not in errors
    assert not [path.name for path in temporary.iterdir() if path.name.startswith(("deepnet_edu_", "torchelastic_"))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_during_the_start_ends_all_without_a_traceback(number: int, tmp_path: Path) -> None:
    """PyTorch is still being loaded; a signal in training itself is in test_runs.py."""
    process = started("laptop-1000", *SMALL, "--set=steps=100000", *CPU, f"--out={tmp_path / 'run'}")
    end = time.monotonic() + 60
    while len(family(process.pid)) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("ranks", "status"),
    [
        (["exit 0", "exit 0"], 0),
        (["exit 1", "exit 0"], 1),
        (["exit 143", "exit 143"], 143),
        (["exit 0", "exit 143"], 143),
        (["exit 1", "wait"], 1),
        (["kill", "wait"], 1),
        (["exit 1", "stubborn"], 1),
        (["wait for a signal", "wait for a signal"], 128 + signal.SIGUSR1),
        (["exit 0 after a signal", "exit 0 after a signal"], 0),  # it was done before
    ],
)
def test_the_exit_status_tells_what_became_of_the_ranks(
    ranks: list[str], status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(launcher, "GRACE", 2.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    handlers = {number: signal.getsignal(number) for number in launcher.SIGNALS}
    if "signal" in ranks[0]:
        # Whenever it comes: a rank holds it back until it can answer.
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        monkeypatch.setitem(handlers, signal.SIGUSR1, signal.SIG_DFL)
    assert launch(2, RANK, ranks) == status
    assert {number: signal.getsignal(number) for number in launcher.SIGNALS} == handlers
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("other", "who"), [("kill", "All ranks were"), ("exit 143", "A rank was")])
def test_ranks_killed_are_said(other: str, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=rf"{who} killed \(SIGKILL\)\. Resume after the last checkpoint: again"):
        launch(2, RANK, ["kill", other], again="again")


def test_no_place_to_meet_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"none can be made \(No such file or directory\): set TMPDIR to one"):
        launch(2, RANK, ["exit 0", "exit 0"])


def test_an_ignored_hangup_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGHUP)).start()
    assert launch(2, RANK, ["ignores SIGHUP", "ignores SIGHUP"]) == 0


def address(text: str) -> SimpleNamespace:
    return SimpleNamespace(family=socket.AF_INET, address=text)


@pytest.mark.parametrize(
    ("interfaces", "name"),
    [
        ({"eth0": ["10.0.0.2"], "lo": ["127.0.0.1"]}, "lo"),
        ({"lo": ["127.0.0.1", "10.0.0.7"], "lo0": ["127.0.0.1"]}, "lo0"),  # gloo would take either address
        ({"eth0": ["10.0.0.2"], "lo": []}, ""),
    ],
)
def test_loopback_is_found_by_its_address(
    interfaces: dict[str, list[str]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {key: [address(one) for one in given] for key, given in interfaces.items()}
    monkeypatch.setattr(launcher, "psutil", SimpleNamespace(net_if_addrs=lambda: found))
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth0")
    if name:
        shared = launcher._environment(2)
        assert (shared["GLOO_SOCKET_IFNAME"], shared["NCCL_SOCKET_IFNAME"]) == (name, f"={name}")
    else:
        with pytest.raises(UserError, match=r"no network interface here has the address 127\.0\.0\.1 alone"):
            launcher._environment(2)


def test_an_ended_run_has_all_its_steps(tmp_path: Path) -> None:
    """With a plan that talks by every kind of message, to its end: status 0, and nothing is left of the meeting."""
    out = tmp_path / "run"
    process = started("laptop-1000", *SMALL, "--set=steps=2", *CPU, "--plan=shard=2", f"--out={out}")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert len(read_metrics(out).loss) == 2
