"""Runs on a Dask cluster: the client keeps the queue and all status files, each worker runs one notebook at a time.

A run is sent to one worker by name, so it is known where it is; a worker that is lost gives it back to the queue. No
disk is shared.
"""

import asyncio
import logging
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepnet_edu import __version__
from deepnet_edu.batch.active import LOG, Active
from deepnet_edu.batch.cluster.remote import RemoteNotebook, Reply, run_here
from deepnet_edu.batch.cluster.workers import check_address, listens
from deepnet_edu.batch.notebook import Notebook
from deepnet_edu.batch.runner import Limits, Reporter, Runner
from deepnet_edu.batch.slots import DeviceSlot
from deepnet_edu.batch.state import Status
from deepnet_edu.batch.watch import describe
from deepnet_edu.files import fault_point, write_atomic
from deepnet_edu.lock import now
from deepnet_edu.messages import UserError

#: How long a scheduler may take to answer, and after which it is said that it is waited for.
CONNECT_S, SAY_S = 10.0, 3.0
#: Between two looks at who belongs to the cluster.
MEMBERS_S = 1.0
#: How long a cluster that is lost is waited for.
LOST_S = 600.0
#: How long a result may take from the worker to here.
RESULT_S = 60.0
#: How many workers may be lost under one run: it may be the run that ends them.
LOSSES = 3
#: What the worker's status of a run says and the client's does not know.
_FOUND = (
    "state", "exit", "host", "pid", "device", "gpu", "versions", "started", "ended", "seconds", "memory_gb", "problems",
    "notes", "audited", "metrics",
)  # fmt: skip


@dataclass
class FarActive(Active):
    """A run on a worker.

    Attributes:
        worker: id of the worker.
        said: number of the cell at work, and the last line.
    """

    worker: str = ""
    said: tuple[int, str] = (0, "")

    def progress(self) -> tuple[int, str]:
        """Number of the cell at work, and the last line, as the worker told them."""
        return self.said


def _to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


class Cluster:
    """A connection to a scheduler, made again when it is lost.

    Args:
        address: of the scheduler, such as ``tcp://127.0.0.1:8786``.
        gpus: whether workers that have a GPU are used.
        say: told what is waited for.

    Raises:
        UserError: Dask is not installed, the address is not one or needs certificates, or there is no answer.
    """

    def __init__(self, address: str, *, gpus: bool = True, say: Callable[[str], None] = _to_stderr) -> None:
        check_address(address)
        from distributed import Security

        if address.startswith("tls") and not Security().get_connection_args("client").get("ssl_context"):
            raise UserError(f"{address} needs certificates: name them to Dask, as docs/batch.md says.")
        self.address, self.gpus, self.say = address, gpus, say
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said by the runner
        for name in ("client", "core", "comm", "batched"):
            logging.getLogger(f"distributed.{name}").setLevel(logging.CRITICAL)
        self.client = self._connect()

    def _connect(self) -> Any:
        from distributed import Client

        try:
            asyncio.run(self._ask())
            return Client(self.address, timeout=CONNECT_S, set_as_default=False)
        except Exception as error:  # of many kinds
            # Dask's, where no connection came about; or where each one was closed at once, which it may not see.
            if type(error) is OSError and not listens(self.address):
                raise UserError(
                    f"No scheduler answers at {self.address}: start one with deepnet-edu scheduler, as docs/batch.md "
                    "says."
                ) from None
            reason = str(error).strip().splitlines()[:1] or [f"nothing in {CONNECT_S:g} s"]
            raise UserError(
                f"{self.address} does not answer as a scheduler ({type(error).__name__}: {reason[0][:200]}): give the "
                "scheduler's own address, which deepnet-edu scheduler prints, and not that of a worker or a web page; "
                "with certificates it begins with tls://."
            ) from None

    async def _ask(self) -> None:
        """See that a scheduler is there; a client would wait without end for a process that says nothing."""
        from distributed import Security
        from distributed.comm import connect
        from distributed.core import send_recv

        async def ask() -> None:
            comm = await connect(self.address, timeout=CONNECT_S, **Security().get_connection_args("client"))
            await send_recv(comm, op="identity", n_workers=0)
            await comm.close()

        waiting = f"Waiting for a scheduler to answer at {self.address}, up to {CONNECT_S:g} s."
        asyncio.get_running_loop().call_later(SAY_S, self.say, waiting)
        await asyncio.wait_for(ask(), CONNECT_S + 1)  # Dask's own limit holds until a process listens

    def members(self) -> dict[str, dict[str, Any]] | None:
        """The usable workers by their ids; None while the scheduler cannot be reached."""
        try:
            if self.client.status == "closed":
                self.client = self._connect()
            if self.client.status != "running":  # Dask is trying to reconnect
                return None
            found = self.client.scheduler_info()["workers"]
        except (OSError, UserError, CancelledError):
            return None
        usable = {one["id"]: {**one, "address": address} for address, one in found.items()}
        return {key: one for key, one in usable.items() if self.gpus or not one["resources"].get("GPU")}

    def close(self) -> None:
        """A worker that still works for this client stops."""
        with suppress(Exception):  # the scheduler may be gone
            self.client.close(timeout=5)


class ClusterRunner(Runner):
    """Runs what is queued on the workers of a cluster, which may come and go.

    Args:
        folder: of the batch.
        runs: what it has to do; only what is queued is run, and each status follows its run.
        notebooks: by the id of the run.
        cluster: where.
        limits: how long, how often, how much.
        watch: who is told.
    """

    def __init__(
        self,
        folder: Path,
        runs: Sequence[Status],
        notebooks: Mapping[str, Notebook],
        cluster: Cluster,
        limits: Limits,
        watch: Reporter,
    ) -> None:
        super().__init__(folder, runs, notebooks, [], limits, watch)
        self.cluster = cluster
        self._topic = f"deepnet-edu-{uuid.uuid4().hex}"
        self._members: dict[str, dict[str, Any]] = {}
        self._by_slot: dict[int, str] = {}
        self._numbers: dict[tuple[str, int], int] = {}
        self._refused: dict[str, str] = {}
        self._losses: Counter[str] = Counter()
        self._asked = -MEMBERS_S
        self._lost: float | None = None
        self._listens = False
        self._empty = False

    def run(self) -> None:
        """Run until nothing is queued; see Runner."""
        try:
            super().run()
        finally:
            self.cluster.close()

    def _go_on(self) -> bool:
        if time.monotonic() - self._asked > MEMBERS_S:
            self._look_for_members()
            self._asked = time.monotonic()
        return super()._go_on()

    def _look_for_members(self) -> None:
        """Make the slots those of the workers that are there now."""
        members = self.cluster.members()
        if members is None:
            if self._lost is None:
                self._lost = time.monotonic()
                self.watch.say(f"{self.cluster.address} is lost: waiting for it, {LOST_S / 60:g} minutes.")
            elif time.monotonic() - self._lost > LOST_S:
                raise UserError(f"{self.cluster.address} is lost: repair the cluster, then continue with --resume.")
            members, self._listens = {}, False
        elif self._lost is not None:
            self._lost = None
            self.watch.say(f"{self.cluster.address} is there again.")
        elif not members and not self._empty:
            self._empty = True
            self.watch.say(f"There is no worker yet: start some with deepnet-edu workers {self.cluster.address}")
        if self._lost is None and not self._listens:  # the connection is a new one
            self._listens = True
            self.cluster.client.subscribe_topic(self._topic, self._hear)
        if members and not self.active and members.keys() <= self._refused.keys():
            raise UserError(self._refused[next(iter(members))])
        self._members = {key: one for key, one in members.items() if key not in self._refused}
        self._by_slot = {
            self._numbers.setdefault((key, n), len(self._numbers)): key
            for key, one in self._members.items()
            for n in range(int(one["resources"].get("GPU", 0)) or one["nthreads"])
        }
        self.slots = [
            DeviceSlot(number, "", None, str(self._members[key]["name"]), 0) for number, key in self._by_slot.items()
        ]

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """A worker says how far it is."""
        for active in self.active:
            if isinstance(active, FarActive) and active.process.key == event[1]["key"]:
                active.said = tuple(event[1]["progress"])

    def _launch(self, run: Status, slot: DeviceSlot, folder: Path, notebook: Notebook) -> Active:
        key = self._by_slot[slot.number]
        worker = self._members[key]
        gpu = bool(worker["resources"].get("GPU"))
        limits = replace(self.limits, retries=0, fail_fast=False)
        fresh = replace(run, state="queued", attempts=0)
        beside = {name: path.read_bytes() for name, path in {**notebook.modules, **notebook.files}.items()}
        task = RemoteNotebook(
            fresh,
            notebook.data,
            notebook.kernel,
            notebook.cells,
            gpu,
            limits,
            __version__,
            self._topic,
            beside,
            str(notebook.working or ""),
        )
        future = self.cluster.client.submit(
            run_here,
            task,
            key=f"{run.id}-{uuid.uuid4().hex}",
            pure=False,
            workers=[worker["address"]],
            resources={"GPU": 1} if gpu else None,
        )
        return FarActive(run, slot, folder, future, notebook.cells + bool(run.parameters), time.monotonic(), worker=key)

    def _look_at_memory(self) -> None:
        """The workers do."""

    def _look_at(self, active: Active) -> None:
        """Take the reply of a run, if it is there; a run whose worker is lost goes back to the queue."""
        assert isinstance(active, FarActive)
        if active.verdict is not None:
            self._fail(active, *active.verdict)
            return
        future = active.process
        if future.status == "pending":
            if self._lost is None and active.worker not in self._members:
                self._lose(active)
            return
        try:
            reply = future.result(timeout=RESULT_S) if future.status == "finished" else None
            error = future.exception(timeout=RESULT_S) if future.status == "error" else None
        except (CancelledError, TimeoutError, OSError):
            reply = error = None
        if reply is not None:
            self._refuse(active, reply.refused) if reply.run is None else self._receive(active, reply)
        elif error is None or type(error).__name__ == "KilledWorker":
            self._lose(active)
        elif isinstance(error, (ImportError, AttributeError)):
            self._refuse(active, f"{active.slot.device} has no deepnet_edu {__version__}: install it there.")
        elif "deserializ" in str(error):
            raise UserError(
                f"The scheduler at {self.cluster.address} cannot read what it is sent: install the same deepnet_edu "
                "and the same distributed there."
            )
        else:
            self._fail(active, "failed", f"its worker could not run it ({type(error).__name__}: {error})")

    def _receive(self, active: Active, reply: Reply) -> None:
        """Write what a run has left, and what became of it."""
        run, found = active.run, reply.run
        assert found is not None
        for name in _FOUND:
            setattr(run, name, getattr(found, name))
        run.attempts += found.attempts - 1  # more than one if the GPU's memory was full
        with (active.folder / LOG).open("ab") as log:
            log.write(reply.log)
        for name, content in reply.files.items():
            write_atomic(active.folder / name, content, "result")
            fault_point("result: copied")
        self._settle(active, False)

    def _lose(self, active: FarActive) -> None:
        """Put a run back into the queue, unless too many workers were lost under it."""
        active.process.cancel()
        self._losses[active.run.id] += 1
        if self.stops or self._losses[active.run.id] % LOSSES == 0:
            several = f", the last of {LOSSES}" if not self.stops else ""
            self._fail(active, "killed", f"its worker {active.slot.device} was lost{several}")
            return
        self.watch.say(f"{active.slot.device} was lost: {describe(active.run)} is queued again.")
        self._put_back(active)
        self._look_for_members()

    def _refuse(self, active: FarActive, sentence: str) -> None:
        """Send nothing more to a worker; the run waits for another."""
        if active.worker not in self._refused:
            self.watch.say(f"REFUSED {sentence}")
        self._refused[active.worker] = sentence
        active.run.attempts -= 1  # it was not even begun
        self._put_back(active)
        self._look_for_members()

    def _put_back(self, active: Active) -> None:
        active.run.state = "queued"
        active.run.write(active.folder)
        self.tries[active.run.id] -= 1
        self.queue.append(active.run)
        self.active.remove(active)
        self.claims.release(active.run.id)

    def _fail(self, active: Active, state: str, sentence: str) -> None:
        run = active.run
        run.state, run.problems, run.ended = state, [sentence], now()
        run.seconds = round(time.monotonic() - active.begin, 2)
        self._settle(active, False)

    def _end(self, active: Active, state: str, sentence: str) -> None:
        active.verdict = (state, sentence)
        active.process.cancel()  # at which the worker ends it

    def _abandon(self, active: Active) -> None:
        active.process.cancel()
