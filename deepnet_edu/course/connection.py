"""How JupyterLab and Voila send what a kernel says to the browser: at once."""

from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class PromptConnection(ZMQChannelsWebsocketConnection):
    """Jupyter's connection, without the wait of small packets.

    TCP holds a small packet until the one before it is acknowledged, and a browser takes up to 40 ms to do that
    (Nagle's algorithm and delayed acknowledgement). A slider's move is answered by a handful of small messages.
    """

    def connect(self) -> Any:
        """Connect, and switch that off."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()
