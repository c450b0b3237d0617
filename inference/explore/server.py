"""The server of the page, which other programs start: a command, a script, a notebook."""

from __future__ import annotations

import secrets
import socket
import threading
import time
import webbrowser
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from inference.explore.security import Gate, is_loopback
from pyro_rnp import RNP

PASSWORD = "PYRO_RNP_PASSWORD"
"""The environment variable that gives a password."""
STARTING = 30.0
"""Seconds that a server may take to start."""


def need_nicegui() -> None:
    """Say in one sentence that the page's library is not installed, if it is not.

    Raises:
        ValueError: if NiceGUI is missing.
    """
    if find_spec("nicegui") is None:
        raise ValueError("The page needs NiceGUI; install it: pip install 'pyro-rnp[explore]'.")


def listen(host: str, port: int) -> socket.socket:
    """Take the address that the server listens on.

    Args:
        host: an address or a name of this machine.
        port: from 0 to 65535; 0 takes a free one.

    Raises:
        ValueError: in one sentence, if there is no such address or the port is taken.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port must lie in [0, 65535], got {port}.")
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(kind, socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"host must be an address of this machine, got {host}.") from error
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(address)
        taken.listen(128)
    except PermissionError as error:
        taken.close()
        raise ValueError(f"Port {port} may not be used; give one from 1024 on.") from error
    except OSError as error:
        taken.close()
        if error.errno == 98 or "in use" in str(error):
            raise ValueError(f"Port {port} of {host} is taken; give another one.") from error
        raise ValueError(f"host must be an address of this machine, got {host}.") from error
    return taken


class Server:
    """One server in a process: NiceGUI has one application.

    Args:
        host: the address to listen on.
        port: 0 takes a free one.
        password: None asks for none on the loopback address and makes one for others.

    Raises:
        ValueError: in one sentence, if NiceGUI is missing or the address cannot be had.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, password: str | None = None) -> None:
        need_nicegui()
        import uvicorn

        from inference.explore.page import application

        if password is None and not is_loopback(host):
            password = secrets.token_urlsafe(9)
        self.socket = listen(host, port)
        self.host, self.password = host, password
        self.port = self.socket.getsockname()[1]
        self.uvicorn = uvicorn.Server(
            uvicorn.Config(
                Gate(application(), host, password), log_level="warning", access_log=False,
                server_header=False, ws="websockets-sansio", ws_max_size=1 << 20,
                timeout_graceful_shutdown=1,
            )
        )  # fmt: skip

    def url(self, path: str = "/") -> str:
        """The address of a page."""
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{f'[{name}]' if ':' in name.strip('[]') else name}:{self.port}{path}"

    def run(self) -> None:
        """Serve until the process is told to stop."""
        self.uvicorn.run(sockets=[self.socket])

    def start(self) -> None:
        """Serve in a thread, and return once requests are answered.

        Raises:
            RuntimeError: if the server does not start.
        """
        threading.Thread(target=self.run, name="explore", daemon=True).start()
        self.wait()

    def wait(self) -> None:
        """Return once requests are answered.

        Raises:
            RuntimeError: if that takes too long.
        """
        until = time.monotonic() + STARTING
        while not self.uvicorn.started:
            if time.monotonic() > until:
                raise RuntimeError("The server did not start.")
            time.sleep(0.02)
