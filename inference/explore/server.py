"""The server of the page, which other programs start: a command, a script, a notebook."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import threading
import time
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from inference.explore.security import Gate, is_loopback
from inference.explore.shelf import Shelf
from pyro_rnp import RNP

PASSWORD = "PYRO_RNP_PASSWORD"
"""The environment variable that gives a password, which asks for it on the loopback address too."""
WORDS = 1 << 20
"""Bytes of a message from the page."""
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
    """The server of a process, which has one, since NiceGUI has one application.

    Args:
        shelf: models and images of the page at `/`.
        host: the address to listen on.
        port: 0 takes a free one.
        password: None takes that of `PASSWORD`, else asks for none on a loopback address and makes
            one for others.

    Raises:
        ValueError: in one sentence, if NiceGUI is missing or the address cannot be had.
    """

    def __init__(
        self, shelf: Shelf, host: str = "127.0.0.1", port: int = 0, password: str | None = None
    ) -> None:
        need_nicegui()
        import uvicorn

        from inference.explore.page import application

        password = password or os.environ.get(PASSWORD) or None
        if password is None and not is_loopback(host):
            password = secrets.token_urlsafe(9)
        self.socket = listen(host, port)
        self.host, self.password = host, password
        self.port: int = self.socket.getsockname()[1]
        self.pages = 1
        config = uvicorn.Config(
            Gate(application(shelf), host, password),
            log_level="warning",
            log_config=None,  # loggers stay as they are
            access_log=False,
            server_header=False,
            ws="wsproto",
            ws_max_size=WORDS,
            ws_per_message_deflate=False,  # the limit is of what was unpacked
            timeout_graceful_shutdown=1,
        )
        self.uvicorn = uvicorn.Server(config)

    def url(self, path: str = "/") -> str:
        """Return the address of a page.

        Args:
            path: where it is on the server.
        """
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{name}]' if ':' in name else name}:{self.port}{path}"

    def add(self, shelf: Shelf) -> str:
        """Serve a page of further models, and return its path.

        Args:
            shelf: its models and images.
        """
        from inference.explore.page import add_page

        self.pages += 1
        add_page(f"/{self.pages}", shelf)
        return f"/{self.pages}"

    def run(self) -> None:
        """Serve until the process is told to stop."""
        self.uvicorn.run(sockets=[self.socket])

    def wait(self) -> None:
        """Return once requests are answered.

        Raises:
            RuntimeError: if that takes too long.
        """
        until = time.monotonic() + STARTING
        while not self.uvicorn.started:
            if time.monotonic() > until:
                raise RuntimeError("The server of the page did not start.")
            time.sleep(0.02)

    def open(self, path: str = "/") -> None:
        """Open a page in the browser once it is there.

        Args:
            path: where it is on the server.
        """
        self.wait()
        webbrowser.open(self.url(path))


class Explorer:
    """A page that is served; a notebook shows it.

    Args:
        url: its address.
        password: None where it asks for none.
    """

    def __init__(self, url: str, password: str | None = None) -> None:
        self.url, self.password = url, password

    def __repr__(self) -> str:
        return f"Explorer({self.url!r})"

    def _repr_html_(self) -> str:
        frame = "width:100%;height:60rem;border:1px solid #d9dde3"
        return f'<iframe src="{self.url}" title="{self.url}" style="{frame}"></iframe>'


_running: list[Server] = []


def explore(
    rnp: RNP | str | Path = "mnist",
    images: Any = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    open: bool | None = None,
    password: str | None = None,
) -> Explorer:
    """Serve a page on which one draws, sees the parse, and takes hold of the parts.

    The server is a thread of this process, and ends with it. A second call adds a page to it.

    Args:
        rnp: the model; or the name of a pretrained one, or a run folder.
        images: to take in turn, and to take parts from, as `RNP.parse` takes them. By default test
            images of the data that the model learned from where they are at hand, else digits.
        host: the address to listen on, by default this machine's alone. Others need a password.
        port: from 0 to 65535; 0 takes a free one.
        open: whether to open a browser; by default unless a notebook shows the page.
        password: to ask for; by default that of the environment variable `PYRO_RNP_PASSWORD`, or
            one that is made where others than this machine can reach the page.

    Returns:
        The page with its `url` and its `password`.

    Raises:
        FileNotFoundError, ValueError: in one sentence, if there is no such model, it does not read
            such images, the address cannot be had, or NiceGUI is not installed; ValueError also if
            a page is served already and another host, port or password is asked for.
    """
    need_nicegui()
    shelf = Shelf(rnp, images)
    if not _running:
        server = Server(shelf, host, port, password)
        threading.Thread(target=server.run, name="explore", daemon=True).start()
        server.wait()
        _running.append(server)
        path = "/"
    else:
        server = _running[0]
        same = (host, port or server.port, password or server.password)
        if same != (server.host, server.port, server.password):
            raise ValueError(f"This process serves pages at {server.url()} already.")
        path = server.add(shelf)
    if open or (open is None and "ipykernel" not in sys.modules):
        server.open(path)
    return Explorer(server.url(path), server.password)


def serve(shelf: Shelf, host: str = "127.0.0.1", port: int = 8080, open: bool = True) -> None:
    """Serve the page until the process is told to stop, and print where it is.

    Args:
        shelf: models and images.
        host: the address to listen on.
        port: from 0 to 65535; 0 takes a free one.
        open: whether to open a browser.

    Raises:
        ValueError: in one sentence, if the address cannot be had or NiceGUI is not installed.
    """
    server = Server(shelf, host, port)
    print(f"The page is at {server.url()} until Ctrl+C ends it.", flush=True)
    if server.password is not None and not os.environ.get(PASSWORD):
        print(f"Its password, with any user name: {server.password}", flush=True)
    if not is_loopback(host):
        print("The connection is not encrypted; use it in a network that you trust.", flush=True)
    if open:
        threading.Thread(target=server.open, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):  # how one ends it
        server.run()
