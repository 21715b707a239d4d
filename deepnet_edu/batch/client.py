"""What a run's worker hears of its kernel: it waits for no word that does not come.

nbclient waits for a cell's reply, and for the message that the kernel is idle, without an end. Either can fail to
arrive. A widget that captures output has nbclient write to the kernel while it waits to be woken for the reply; writing
takes the waking away, and the reply stays unread (https://github.com/jupyter/nbclient/issues/312). A kernel whose own
code raises sends none. So here one looks again by itself; and when nothing has come for a while, the kernel is asked.
It answers one request after the other: once it has answered, what it did not send before is lost.
"""

import math
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

import zmq
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from traitlets import Type

from deepnet_edu.batch.inside import QUESTION

#: Between two looks for what has arrived.
LOOK_S = 1.0
#: From a request, or the last that was heard of it, until the kernel is asked.
ASK_S = 2.0


class LostReplyError(RuntimeError):
    """The kernel is done with a request, and has not said how it ended."""


class _Channel(AsyncZMQSocketChannel):
    """One that looks again by itself.

    Attributes:
        shell: the channel of requests and replies.
    """

    shell: "_Shell"

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
        """The next message.

        Args:
            timeout: seconds; None for no limit.

        Raises:
            queue.Empty: there was none in time.
            LostReplyError: there will be none.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            self.shell.ask_if_late()
            left = max(end - time.monotonic(), 0)
            try:
                message = await super().get_msg(min(left, LOOK_S))
            except Empty:
                if left <= LOOK_S:
                    raise
            else:
                if (heard := self._heard(message)) is not None:
                    return heard

    def _heard(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """What is told of a message."""
        raise NotImplementedError


class _Shell(_Channel):
    """Sends requests, and receives a reply to each.

    The kernel is asked twice: first beside the requests, which it answers at any time, whether it is within a cell. If
    it is not, it is asked among them: there some kernels would answer within a cell, and its outputs would be lost.

    Attributes:
        beside: channel of what is answered at any time.
        request: the last one, by its id.
        replied: whether its reply has come.
    """

    beside: AsyncZMQSocketChannel

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.shell = self
        self.request, self.replied = "", True
        self._question, self._question_beside, self._since = "", "", time.monotonic()

    def send(self, msg: dict[str, Any]) -> None:
        """The message as it is; a task that waits for one is woken if one has come meanwhile."""
        super().send(msg)
        self.socket.get(zmq.EVENTS)
        if not msg["header"]["msg_type"].startswith("comm_"):  # to those there is no reply
            self.request, self.replied = msg["header"]["msg_id"], False
            self._begin()

    def ask_if_late(self) -> None:
        """Have the kernel answer, if it has said nothing for a while of the last request."""
        if self._question or time.monotonic() - self._since < ASK_S:
            return
        if not self._question_beside:
            self._question_beside = self._ask(self.beside.send)
            return
        _, answer = self.session.recv(self.beside.socket)  # which does not wait
        if answer is not None and answer["parent_header"].get("msg_id") == self._question_beside:
            self._begin()
            if not answer["content"]["running"]:
                self._question = self._ask(super().send)

    def is_past(self, message: dict[str, Any]) -> bool:
        """Whether the kernel has sent a message after all that it had to say of the last request."""
        return self.replied and message["parent_header"].get("msg_id") == self._question

    def _begin(self) -> None:
        """Nothing is asked now."""
        self._question, self._question_beside, self._since = "", "", time.monotonic()

    def _ask(self, send: Callable[[dict[str, Any]], None]) -> str:
        question = self.session.msg(QUESTION, {})
        send(question)
        return str(question["header"]["msg_id"])

    def _heard(self, message: dict[str, Any]) -> dict[str, Any] | None:
        parent = message["parent_header"].get("msg_id")
        if parent == self.request:
            self.replied = True
            self._begin()  # what was asked earlier may have been answered within the cell
        elif parent == self._question:
            self._begin()
            if not message["content"]["running"] and not self.replied:
                raise LostReplyError("the kernel is done with a cell and did not say how it ended: its reply was lost")
            return None
        return message


class _Published(_Channel):
    """Receives outputs, and at the end of each cell that the kernel is idle: if that was lost, it is made up for."""

    def _heard(self, message: dict[str, Any]) -> dict[str, Any] | None:
        if self.shell.is_past(message):
            idle = {"msg_type": "status", "content": {"execution_state": "idle"}}
            return {**message, **idle, "parent_header": {"msg_id": self.shell.request}}
        return message


class Client(AsyncKernelClient):
    """A client of a kernel that has loaded :mod:`deepnet_edu.batch.inside`; no other is thought to lose replies."""

    shell_channel_class = Type(_Shell)
    iopub_channel_class = Type(_Published)

    def start_channels(self, *args: Any, **options: Any) -> None:
        """As it is."""
        self.iopub_channel.shell = self.shell_channel
        self.shell_channel.beside = self.control_channel
        super().start_channels(*args, **options)
