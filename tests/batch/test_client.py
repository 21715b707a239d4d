"""A message that a kernel does not send, or that is not received, does not let a run wait for
ever: messages are lost here on purpose."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import zmq

from deepnet_edu.batch import client as clients
from deepnet_edu.batch import inside
from deepnet_edu.batch.client import Client, LostReplyError
from deepnet_edu.batch.inside import QUESTION
from deepnet_edu.batch.plan import Request, make_plan
from deepnet_edu.batch.run import run_batch
from deepnet_edu.batch.runner import Limits
from deepnet_edu.batch.slots import make_slots
from tests.batch.conftest import write_notebook

#: A kernel that, from this cell on, does not send what is in ``lost``, once each.
DROP = """
kernel, lost = get_ipython().kernel, set()
def drop(stream, what, content=None, *args, kernel=kernel, lost=lost, **options):
    if isinstance(what, str) and what in lost and content.get("execution_state") != "busy":
        lost.remove(what)
        return kernel.session.msg(what, content)
    return type(kernel.session).send(kernel.session, stream, what, content, *args, **options)
kernel.session.send = drop
"""
#: The worker does not read as long as a cell puts out more than anybody keeps for it by default.
FLOOD = """
import os, signal, time
from IPython.display import display
os.kill(os.getppid(), signal.SIGSTOP)
for number in range(2000):
    display({"x/y": str(number)}, raw=True)
time.sleep(0.5)
os.kill(os.getppid(), signal.SIGCONT)
"""
SAID = "the kernel is done with a cell and did not say how it ended: its reply was lost; run it again"


def test_a_run_ends_whatever_its_kernel_does_not_say(working: Path) -> None:
    """With no limit of time. All in one test: a kernel takes seconds to start."""
    ends, never = "lost |= {'status'}\nprint('said')", "print('never')"
    slow = f"import time\ntime.sleep({2 * clients.ASK_S})\nprint('slow')"
    write_notebook(Path("idle.ipynb"), DROP, ends, slow, FLOOD, parameters=None)
    write_notebook(Path("raises.ipynb"), DROP, f"{ends}\n1 / 0", never, parameters=None)
    write_notebook(Path("reply.ipynb"), DROP, "lost |= {'execute_reply'}", never, parameters=None)
    write_notebook(Path("both.ipynb"), DROP, "lost |= {'execute_reply', 'status'}", parameters=None)
    names = ("idle", "raises", "reply", "both")
    plan, folder = make_plan(Request(tuple(f"{name}.ipynb" for name in names))), working / "out"
    runs = {run.notebook: run for run in run_batch(plan, folder, make_slots("none", 2, []), Limits(), quiet=True)}
    assert {name: (run.state, run.problems) for name, run in runs.items()} == {
        "idle": ("done", []),
        "raises": ("failed", ["cell 2 raised ZeroDivisionError: division by zero", "did not run: cell 3"]),
        "reply": ("failed", [SAID, "did not run: cell 3"]),
        "both": ("failed", [SAID]),
    }
    cells = nbformat.read(folder / runs["idle"].id / "notebook.ipynb", as_version=4).cells
    assert [cell.outputs[0].text for cell in cells[1:3]] == ["said\n", "slow\n"]
    assert [output.data["x/y"] for output in cells[3].outputs] == [str(number) for number in range(2000)]


def test_a_kernel_says_whether_it_is_within_a_cell() -> None:
    said = []
    session = SimpleNamespace(send=lambda stream, what, content, parent, ident: said.append((what, content)))

    async def do_execute(code: str) -> dict[str, str]:
        kernel.control_handlers[QUESTION](None, None, {})
        if code == "raise":
            raise SystemExit
        return {"status": "ok"}

    published = SimpleNamespace(schedule=lambda _what: None)
    kernel: Any = SimpleNamespace(
        do_execute=do_execute, shell_handlers={}, control_handlers={}, session=session, iopub_thread=published
    )
    inside._answer(kernel)
    assert asyncio.run(kernel.do_execute("1")) == {"status": "ok"}
    with pytest.raises(SystemExit):
        asyncio.run(kernel.do_execute("raise"))
    kernel.shell_handlers[QUESTION](None, None, {})
    assert said == [("deepnet_edu_reply", {"running": number}) for number in (1, 1, 0)]


async def arrival(channel: zmq.Socket[bytes]) -> None:
    """Until there is a message, which a busy machine may take its time to bring."""
    while not channel.poll(0):
        await asyncio.sleep(0.01)


@dataclass
class Kernel:
    """The other end of a client's channels; it is late as soon as it does not answer at once."""

    client: Client
    shell: zmq.Socket[bytes]
    control: zmq.Socket[bytes]
    published: zmq.Socket[bytes]

    async def receive(self, channel: zmq.Socket[bytes]) -> dict[str, Any]:
        """The next message."""
        await arrival(channel)
        self.who, message = self.client.session.recv(channel)
        assert message is not None
        return message

    async def asked(self, channel: zmq.Socket[bytes]) -> dict[str, Any]:
        """A question, which is the only one."""
        await asyncio.sleep(0.3)
        question = await self.receive(channel)
        assert question["msg_type"] == QUESTION
        assert not self.shell.poll(0)
        assert not self.control.poll(0)
        return question

    def reply(self, channel: zmq.Socket[bytes], request: dict[str, Any], **content: Any) -> None:
        """To what was received last."""
        kind = request["msg_type"].replace("request", "reply")
        self.client.session.send(channel, kind, content, request, ident=self.who)

    def publish(self, request: dict[str, Any], state: str) -> None:
        """How it is with a request."""
        self.client.session.send(self.published, "status", {"execution_state": state}, request)


Talk = Callable[[Callable[[Kernel], Awaitable[None]]], None]


@pytest.fixture
def talk(working: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Does what a kernel does in a test."""
    monkeypatch.setattr(clients, "LOOK_S", 0.01)
    monkeypatch.setattr(clients, "ASK_S", 0.1)

    def run(talking: Callable[[Kernel], Awaitable[None]]) -> None:
        client = Client(transport="ipc", ip="k", shell_port=1, iopub_port=2, control_port=3)
        with zmq.Context() as context, ExitStack() as stack:
            kinds = (zmq.ROUTER, zmq.XPUB, zmq.ROUTER)
            shell, published, control = [stack.enter_context(context.socket(kind)) for kind in kinds]
            for number, socket in enumerate((shell, published, control), 1):
                socket.linger = 0
                socket.bind(f"ipc://k-{number}")

            async def begin() -> None:
                client.start_channels(stdin=False, hb=False)
                await arrival(published)  # a later subscriber gets nothing of before
                try:
                    await asyncio.wait_for(talking(Kernel(client, shell, control, published)), 10)
                finally:
                    client.stop_channels()

            asyncio.run(begin())

    return run


async def execute(kernel: Kernel) -> "tuple[dict[str, Any], asyncio.Task[dict[str, Any]]]":
    """A request that has arrived, and someone who waits for its reply."""
    kernel.client.execute("1")
    task = asyncio.ensure_future(kernel.client.shell_channel.get_msg())
    await asyncio.sleep(0.05)
    return await kernel.receive(kernel.shell), task


def test_a_reply_that_comes_while_something_is_sent_is_heard_at_once(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nbclient sends, for a widget that captures output."""
    monkeypatch.setattr(clients, "LOOK_S", 1000.0)

    async def talking(kernel: Kernel) -> None:
        request, task = await execute(kernel)
        kernel.reply(kernel.shell, request, status="ok")
        time.sleep(0.1)  # it comes, and nothing is woken yet
        kernel.client.shell_channel.send(kernel.client.session.msg("comm_msg", {}))
        assert (await task)["content"]["status"] == "ok"

    talk(talking)


def test_a_reply_for_which_nobody_is_woken_is_found(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "ASK_S", 1000.0)

    async def talking(kernel: Kernel) -> None:
        request, task = await execute(kernel)
        kernel.reply(kernel.shell, request, status="ok")
        time.sleep(0.1)
        zmq.Socket.shadow(kernel.client.shell_channel.socket.underlying).get(zmq.EVENTS)  # which takes the waking away
        assert (await task)["content"]["status"] == "ok"

    talk(talking)


def test_a_cell_that_computes_is_waited_for(talk: Talk) -> None:
    """Nothing is asked among the requests: an answer could come within the cell, where its outputs would be lost."""

    async def talking(kernel: Kernel) -> None:
        request, task = await execute(kernel)
        for _ in range(2):
            kernel.reply(kernel.control, await kernel.asked(kernel.control), running=1)
        await asyncio.sleep(0.05)
        kernel.reply(kernel.shell, request, status="ok")
        assert (await task)["content"]["status"] == "ok"

    talk(talking)


def test_a_kernel_that_has_not_begun_is_waited_for(talk: Talk) -> None:
    """It may begin with the cell before it comes to the question, and come to it within the cell."""

    async def talking(kernel: Kernel) -> None:
        request, task = await execute(kernel)
        who = kernel.who
        kernel.reply(kernel.control, await kernel.asked(kernel.control), running=0)
        kernel.reply(kernel.shell, await kernel.asked(kernel.shell), running=1)
        await kernel.asked(kernel.control)
        kernel.who = who
        kernel.reply(kernel.shell, request, status="ok")
        assert (await task)["content"]["status"] == "ok"

    talk(talking)


def test_a_kernel_that_has_come_to_the_question_and_sent_no_reply_has_lost_it(talk: Talk) -> None:
    async def talking(kernel: Kernel) -> None:
        _, task = await execute(kernel)
        kernel.reply(kernel.control, await kernel.asked(kernel.control), running=0)
        kernel.reply(kernel.shell, await kernel.asked(kernel.shell), running=0)
        with pytest.raises(LostReplyError, match="its reply was lost"):
            await task

    talk(talking)


def test_that_the_kernel_is_idle_is_made_up_for_once_it_has_come_to_a_later_question(talk: Talk) -> None:
    """What it published of a question before the reply may be read after it, and outputs follow."""

    async def talking(kernel: Kernel) -> None:
        published = kernel.client.iopub_channel
        request, task = await execute(kernel)
        who = kernel.who
        kernel.reply(kernel.control, await kernel.asked(kernel.control), running=0)
        early = await kernel.asked(kernel.shell)
        kernel.who = who
        kernel.reply(kernel.shell, request, status="ok")
        await task
        kernel.publish(early, "busy")
        kernel.publish(request, "busy")  # for an output
        parents = [(await published.get_msg())["parent_header"]["msg_id"] for _ in range(2)]
        assert parents == [early["header"]["msg_id"], request["header"]["msg_id"]]
        idle = asyncio.ensure_future(published.get_msg())
        kernel.reply(kernel.control, await kernel.asked(kernel.control), running=0)
        kernel.publish(await kernel.asked(kernel.shell), "busy")
        message = await idle
        assert message["msg_type"] == "status"
        assert message["content"] == {"execution_state": "idle"}
        assert message["parent_header"]["msg_id"] == request["header"]["msg_id"]

    talk(talking)
