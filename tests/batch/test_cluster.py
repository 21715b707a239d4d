"""A scheduler and workers on loopback, each a process of its own, killed and added: the batch ends as on one machine.

No kernel is started here; benchmarks/batch_cluster.py does the same at length, and with kernels.
"""

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from benchmarks import batch_cluster, batch_faults
from benchmarks.batch_cluster import (
    START_S,
    Machines,
    at_work,
    machines,
    on_cluster,
    on_one_machine,
    outcome,
    wait_until,
)
from deepnet_edu.batch import active
from deepnet_edu.batch.cluster import dask as cluster
from deepnet_edu.batch.cluster import workers
from deepnet_edu.batch.cluster.dask import Cluster, ClusterRunner
from deepnet_edu.batch.cluster.scheduler import run_scheduler
from deepnet_edu.batch.folder import fill_folder
from deepnet_edu.batch.plan import Request, make_plan
from deepnet_edu.batch.processes import MARK
from deepnet_edu.batch.runner import Limits
from deepnet_edu.batch.slots import DeviceSlot
from deepnet_edu.batch.state import read_batch
from deepnet_edu.batch.watch import Lines
from deepnet_edu.cli import app
from deepnet_edu.files import KILL_AT
from deepnet_edu.messages import UserError
from tests.doors import beyond_loopback, doors
from tests.zygote import Python

pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL"),
    pytest.mark.xdist_group("cluster"),  # one scheduler for all of them
]
COMMAND = ["-c", "from deepnet_edu.cli import main; main()"]


@pytest.fixture(scope="module")
def here() -> Iterator[Machines]:
    """Its processes are forked: they take no seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_cluster, "_start", lambda arguments, environment: Python(*arguments, env=environment))
        with machines() as made:
            yield made


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    batch_cluster.make_notebook(path := tmp_path / "small.ipynb")
    return path


def running(seconds: str) -> list[int]:
    """Processes of runs that last so long."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cmdline()[-1:] == [seconds] and MARK in process.environ():
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def there(here: Machines, *names: str) -> None:
    """Wait until these are the workers that the scheduler knows."""
    known = Cluster(here.address)
    wait_until(lambda: sorted(one["name"] for one in (known.members() or {}).values()) == sorted(names))
    known.close()


def only(here: Machines, name: str, seconds: float) -> None:
    """One worker, whose runs last so long: that of the test before, where it is there still, since a start takes
    seconds."""
    for other in here.workers.keys() - {name}:
        here.kill(other)
    if name in here.workers:
        here.last(name, seconds)
    else:
        here.add(name, seconds=seconds)
    there(here, name)


def test_a_worker_killed_another_added_and_the_scheduler_lost(
    tmp_path: Path, notebook: Path, here: Machines, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cluster"
    only(here, "slow", 77)
    here.add("quick", seconds=0.2)
    future = on_cluster(pool, notebook, 6, folder, here.address)
    wait_until(lambda: "slow" in at_work(folder) and running("77"))
    here.kill("slow")
    wait_until(lambda: not running("77"))  # a run ends with its worker
    here.add("added", seconds=0.2)
    far = future.result(START_S)
    monkeypatch.setattr(active, "start_worker", batch_cluster.stub(0.2))
    alone = on_one_machine(notebook, 6, tmp_path / "alone", 3)
    assert outcome(far) == outcome(alone)
    assert [run.metrics["double"] for run in far] == [0, 2, 4, 6, 8, 10]
    assert sum(run.attempts for run in far) == 7
    assert {run.host for run in far} == {run.host for run in alone}
    assert all((folder / run.id / "notebook.ipynb").exists() for run in far)
    assert (folder / far[0].id / "log.txt").read_text() == "Executing Cell 1\n"
    assert not [*folder.rglob("*.part"), *folder.rglob("claim.json"), *folder.glob("lock.json")]
    # A worker of these, and then no scheduler for a while.
    only(here, "added", 78)
    future = on_cluster(pool, notebook, 2, folder := tmp_path / "lost", here.address)
    wait_until(lambda: "added" in at_work(folder) and running("78"))
    here.scheduler.kill()
    here.scheduler.wait()
    wait_until(lambda: not running("78"))
    here.kill("added")
    here.start_scheduler()
    here.add("quick", seconds=0.2)
    runs = future.result(START_S)
    assert [(run.state, run.metrics) for run in runs] == [("done", {"double": 0}), ("done", {"double": 2})]


def test_what_is_stopped_ends_on_its_worker_too(tmp_path: Path, notebook: Path, here: Machines) -> None:
    only(here, "quick", 79)
    plan = make_plan(Request((notebook.name,), seeds=2), tmp_path)
    (folder := tmp_path / "batch").mkdir()
    fill_folder(folder, plan, [])

    class Impatient(Lines):
        def look(self, active: object, waiting: int) -> None:
            if running("79"):
                runner.stops = 2

    watch = Impatient(2, quiet=True)
    runner = ClusterRunner(folder, plan.runs, plan.notebooks, Cluster(here.address), Limits(), watch)
    runner.run()
    assert [(run.state, run.problems) for run in plan.runs] == [("killed", ["it was stopped"]), ("queued", [])]
    wait_until(lambda: not running("79"))


def test_the_runner_is_killed_and_resumed(tmp_path: Path, notebook: Path, here: Machines) -> None:
    only(here, "quick", 81)
    command = [*COMMAND, "run", notebook.name, "--seeds", "2", "--cluster", here.address, "--resume", "--out", "batch"]
    with Python(*command, cwd=tmp_path) as process:
        wait_until(lambda: running("81"))
        process.kill()
    wait_until(lambda: not running("81"))
    assert sorted(run.state for run in read_batch(tmp_path / "batch")) == ["queued", "running"]
    here.last("quick", 0.2)
    assert Python(*command, cwd=tmp_path, stdout=tmp_path / "said").wait(START_S) == 0
    said = (tmp_path / "said").read_text()
    assert "on quick, slot 0" in said
    assert "2 of 2 runs are done: batch" in said
    assert sorted((run.state, run.attempts) for run in read_batch(tmp_path / "batch")) == [("done", 1), ("done", 2)]


@pytest.mark.parametrize("point", ["result: before", "result: copied"])
def test_the_runner_is_killed_while_a_result_is_copied_back(
    tmp_path: Path, notebook: Path, here: Machines, pool: ThreadPoolExecutor, point: str
) -> None:
    only(here, "quick", 0.1)
    command = [*COMMAND, "run", notebook.name, "--seeds", "3", "--cluster", here.address, "--out", "batch"]
    assert Python(*command, cwd=tmp_path, env={**os.environ, KILL_AT: point}).wait(START_S) == -signal.SIGKILL
    before = read_batch(folder := tmp_path / "batch")  # each is whole
    assert not [run for run in before if run.state == "done"]
    on_cluster(pool, notebook, 3, folder, here.address).result(START_S)
    assert batch_faults.look(folder, {run.id: run for run in before}, seeds=3) == []
    assert sorted(run.attempts for run in read_batch(folder)) == [1, 1, 2]


@pytest.mark.parametrize("point", ["audit: during", "result: before", "result: copied"])
def test_a_worker_is_killed_when_its_run_has_just_ended(
    tmp_path: Path,
    notebook: Path,
    here: Machines,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
) -> None:
    only(here, "quick", 0.1)
    with monkeypatch.context() as patch:
        patch.setenv(KILL_AT, point)
        here.add("doomed", seconds=0.1)
    there(here, "quick", "doomed")  # each gets a run at once
    future = on_cluster(pool, notebook, 3, folder := tmp_path / "batch", here.address)
    assert here.workers["doomed"].wait(START_S) == -signal.SIGKILL
    runs = future.result(START_S)
    assert batch_faults.look(folder, {}, seeds=3) == []
    assert sorted(run.attempts for run in runs) == [1, 1, 2]


def test_a_run_that_loses_many_workers_is_given_up(
    tmp_path: Path, notebook: Path, here: Machines, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(here, "quick", 80)
    monkeypatch.setattr(cluster, "LOSSES", 1)
    future = on_cluster(pool, notebook, 1, folder := tmp_path / "batch", here.address)
    wait_until(lambda: "quick" in at_work(folder) and running("80"))
    here.kill("quick")
    (run,) = future.result(START_S)
    assert (run.state, run.problems) == ("killed", ["its worker quick was lost, the last of 1"])


def test_another_package_is_refused(tmp_path: Path, notebook: Path, here: Machines, pool: ThreadPoolExecutor) -> None:
    for name in list(here.workers):
        here.kill(name)
    here.add("other", seconds=0.2, package="of last week")
    folder = tmp_path / "batch"
    with pytest.raises(UserError, match=r"has deepnet_edu .* \(of last week\) and the batch .*: install the same one"):
        on_cluster(pool, notebook, 2, folder, here.address).result(START_S)
    assert [(run.state, run.attempts) for run in read_batch(folder)] == [("queued", 0)] * 2
    here.add("right", seconds=0.2, gpu=True)
    members = Cluster(here.address)
    wait_until(lambda: len(members.members() or {}) == 2)
    members.gpus = False
    assert [one["name"] for one in (members.members() or {}).values()] == ["other"]
    members.close()
    runs = on_cluster(pool, notebook, 2, folder, here.address).result(START_S)
    assert [(run.state, run.attempts) for run in runs] == [("done", 1)] * 2
    for name in ("other", "right"):
        here.kill(name)


def test_this_machines_workers_are_started_again_and_end(tmp_path: Path, here: Machines) -> None:
    for name in list(here.workers):
        here.kill(name)
    command = [*COMMAND, "workers", here.address, "--gpus", "none", "--slots", "2"]
    members = Cluster(here.address)
    with Python(*command, stdout=tmp_path / "said") as process:

        def pids() -> list[int]:
            return [child.pid for child in psutil.Process(process.pid).children()]

        wait_until(lambda: len(members.members() or {}) == 2)
        first = pids()
        assert len(first) == 2
        for one in (process, here.scheduler):
            assert (addresses := doors(one.pid))
            assert not beyond_loopback(addresses)
        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: len(members.members() or {}) == 2 and first[0] not in pids() and len(pids()) == 2)
        last = pids()
        process.send_signal(signal.SIGINT)
        assert process.wait(START_S) == 0
    members.close()
    assert (tmp_path / "said").read_text().splitlines() == [
        f"2 workers for {here.address}, until Ctrl-C.",
        "Worker 0 has ended (-9): it is started again.",
    ]
    assert not any(psutil.pid_exists(pid) for pid in {*first, *last})


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (b"", "TimeoutError: nothing in 0.5 s"),
        (None, "Error"),  # of which kind depends on when Dask sees that the connection has ended
        (b"HTTP/1.0 400 Bad Request\r\n\r\n", "Error"),
    ],
)
def test_what_listens_and_is_not_a_scheduler_is_said(
    answers: bytes | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web page says nothing until it is asked, and its port is beside the scheduler's."""
    monkeypatch.setattr(cluster, "CONNECT_S", 20 if answers != b"" else 0.5)
    monkeypatch.setattr(cluster, "SAY_S", 60 if answers != b"" else 0.1)
    said: list[str] = []
    with (
        ThreadPoolExecutor(1) as pool,
        socket.create_server(("127.0.0.1", 0)) as server,
        ExitStack() as connections,
    ):
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"

        def answer() -> None:
            """All who come: Dask comes again where it saw the first connection end before it was made."""
            with suppress(OSError):  # closed below
                while True:
                    connection, _ = server.accept()
                    if answers is None:
                        connection.close()
                    else:
                        connections.enter_context(connection)
                        connection.sendall(answers)

        connections.callback(server.shutdown, socket.SHUT_RDWR)  # a close alone wakes no thread that waits in accept
        pool.submit(answer)
        with pytest.raises(
            UserError, match=rf"{address} does not answer as a scheduler \(.*{reason}.*\): give the sch"
        ):
            Cluster(address, say=said.append)
    assert said == ([] if answers != b"" else [f"Waiting for a scheduler to answer at {address}, up to 0.5 s."])


def test_who_listens_and_lets_no_connection_come_about_is_not_called_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask may not see that each connection is closed at once, and then it only says that time is up."""

    async def time_is_up(self: Cluster) -> None:
        raise OSError("Timed out")

    monkeypatch.setattr(Cluster, "_ask", time_is_up)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"{address} does not answer as a scheduler \(OSError: Timed out\)"):
            Cluster(address)
    with pytest.raises(UserError, match=f"No scheduler answers at {address}"):
        Cluster(address)


def test_addresses_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    with pytest.raises(
        UserError, match=r"No scheduler answers at tcp://127\.0\.0\.1:1: start one with deepnet-edu sch"
    ):
        Cluster("tcp://127.0.0.1:1")
    for address in (
        "127.0.0.1:8786",
        "http://x:1",
        "tcp://x",
        "tcp://:8786",
        "tcp://x:1/y",
        "tcp://x:0",
        "tcp://x:65536",
    ):
        with pytest.raises(
            UserError, match=r"is not a scheduler's address: expected one such as tcp://127.0.0.1:8786\."
        ):
            Cluster(address)
    with pytest.raises(UserError, match=r"tls://127.0.0.1:1 needs certificates"):
        Cluster("tls://127.0.0.1:1")
    slot = DeviceSlot(0, "", None, "CPU", 1)
    with pytest.raises(UserError, match="is another machine: say by which address it reaches this one, --host ADDRESS"):
        workers.run_workers("tcp://10.0.0.1:8786", [slot], None, None, print)
    for port in (0, -1, 65536, 10**30):
        with pytest.raises(UserError, match=rf"--port {port}: expected a port from 1 to 65535\."):
            workers.run_workers("tcp://127.0.0.1:8786", [slot], None, port, print)
        with pytest.raises(UserError, match=rf"--port {port}: expected a port"):
            run_scheduler("127.0.0.1", port, print)
    with pytest.raises(UserError, match=r"--port 65535: expected a port from 1 to 65534\."):
        workers.run_workers("tcp://127.0.0.1:8786", [slot, slot], None, 65535, print)
    for host in ("no.such.host.invalid", "192.0.2.1", "a" * 80 + ".x", ""):
        with pytest.raises(UserError, match="this machine cannot listen there"):
            workers.run_workers("tcp://127.0.0.1:8786", [slot], host, None, print)
    taken = pytest.raises(UserError, match=r"cannot listen there \(Address already in use\)")
    with socket.create_server(("127.0.0.1", 0)) as server, taken:
        run_scheduler("127.0.0.1", server.getsockname()[1], print)
    for option in (["--slots", "2"], ["--timings"], ["--gpus", "0"]):
        refused = CliRunner().invoke(app, ["run", "00", "--cluster", "tcp://127.0.0.1:8786", *option]).exception
        assert "are for one machine; a cluster has what deepnet-edu workers gives it" in str(refused)
    monkeypatch.setattr(workers, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"A cluster needs Dask distributed: pip install 'deepnet-edu\[cluster\]'"):
        Cluster("tcp://127.0.0.1:8786")
