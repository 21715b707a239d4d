"""The launcher of ranks: what listens, who may write, what ends with it, and how it says what happened."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from deepnet_edu.messages import UserError
from deepnet_edu.training.distributed import launch as launcher
from deepnet_edu.training.distributed.launch import launch
from deepnet_edu.training.distributed.process import run_rank
from deepnet_edu.training.distributed.ranks import MEETING
from tests.doors import beyond_loopback, doors, family
from tests.training.distributed.conftest import CPU, LIMIT, ROOT, SMALL, training, wait_for_steps, wait_until

#: One that needs no PyTorch: it takes what it does on rank 0, and on the others, from its arguments.
RANK = "tests.training.distributed.rank"


def running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_ranks_listen_on_loopback_alone_and_end_with_a_killed_launcher(tmp_path: Path) -> None:
    out, temporary = tmp_path / "run", tmp_path / "tmp"
    temporary.mkdir()
    asked = [*SMALL, *CPU, "--set=steps=100000", "--plan=pipeline=2", f"--out={out}"]
    where = {"TMPDIR": str(temporary), "GLOO_SOCKET_IFNAME": "no such interface"}
    with training("laptop-1000", *asked, **where) as process:
        wait_for_steps(process, out, 2)
        assert (addresses := doors(process.pid))  # those of gloo
        assert not beyond_loopback(addresses)
        (meeting,) = temporary.glob("deepnet_edu_*")
        assert meeting.stat().st_mode & 0o777 == 0o700
        ranks = family(process.pid)[1:]
        assert len(ranks) == 2
        process.kill()
        wait_until(lambda: not any(running(one) for one in ranks))
        _, errors = process.communicate(timeout=LIMIT)
    assert f"Process {process.pid}, which had started the ranks, has ended. All ranks have stopped; resume" in errors
    assert "Traceback" not in errors
    assert not [path.name for path in temporary.iterdir() if path.name.startswith(("deepnet_edu_", "torchelastic_"))]


def test_a_signal_during_the_start_ends_all_without_a_traceback(tmp_path: Path) -> None:
    """PyTorch is still being loaded; a signal in training itself is in test_command.py, and others are below."""
    with training("laptop-1000", *SMALL, "--set=steps=100000", *CPU, f"--out={tmp_path / 'run'}") as process:
        wait_until(lambda: len(family(process.pid)) == 3, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", launcher.SIGNALS)
def test_a_signal_that_had_to_wait_for_a_rank_ends_it_without_a_word(
    number: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The launcher holds it back until the rank can answer."""
    (meeting := tmp_path / "meeting").mkdir(mode=0o700)
    child = os.fork()
    if not child:
        status = 99
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, launcher.SIGNALS)
            os.kill(os.getpid(), number)
            os.environ |= {MEETING: str(meeting), "RANK": "0", "WORLD_SIZE": "1"}
            run_rank(lambda: 98, "cpu", "again")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 97
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + number
    assert capfd.readouterr() == ("", "")


@contextmanager
def sending(number: int, handler: signal.Handlers | None = None) -> Iterator[None]:
    """A signal to this process, again and again: the first may come before all ranks are there."""
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.1):
            os.kill(os.getpid(), number)

    # One of our own: what comes before or after the launcher's would end the tests.
    before = signal.signal(number, handler or (lambda *_: None))
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(number, before)


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
    ],
)
def test_the_exit_status_tells_what_became_of_the_ranks(
    ranks: list[str], status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launcher, "GRACE", 0.5 if "stubborn" in ranks else LIMIT)
    assert launched(ranks, monkeypatch, tmp_path) == status


@pytest.mark.parametrize("number", launcher.SIGNALS)
def test_a_signal_is_handed_on_and_the_exit_status_tells_it(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with sending(number):
        assert launched(["wait for a signal"] * 2, monkeypatch, tmp_path) == 128 + number


def test_ranks_that_were_done_before_a_signal_are_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with sending(signal.SIGUSR1):
        assert launched(["exit 0 after a signal"] * 2, monkeypatch, tmp_path) == 0


def test_an_ignored_hangup_stays_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with sending(signal.SIGHUP, signal.SIG_IGN):
        assert launched(["ignores SIGHUP"] * 2, monkeypatch, tmp_path) == 0


def launched(ranks: list[str], monkeypatch: pytest.MonkeyPatch, temporary: Path) -> int:
    """The launcher's exit status; signals are as they were, and nothing is left of the meeting."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    handlers = {number: signal.getsignal(number) for number in launcher.SIGNALS}
    status = launch(len(ranks), RANK, ranks)
    assert {number: signal.getsignal(number) for number in launcher.SIGNALS} == handlers
    assert not list(temporary.iterdir())
    return status


@pytest.mark.parametrize(("other", "who"), [("kill", "All ranks were"), ("exit 143", "A rank was")])
def test_ranks_killed_are_said(other: str, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=rf"{who} killed \(SIGKILL\)\. Resume after the last checkpoint: again"):
        launch(2, RANK, ["kill", other], again="again")


def test_no_place_to_meet_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"none can be made \(No such file or directory\): set TMPDIR to one"):
        launch(2, RANK, ["exit 0", "exit 0"])


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
