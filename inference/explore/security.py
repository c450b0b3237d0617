"""Who may speak to the page: one host, one origin, a password outside of this machine."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

BODY = 16 << 20
"""Bytes that a request may carry; what an upload may hold is checked again before it is read."""
PAUSE = 0.5
"""Seconds that a wrong password waits for its answer; the next guess of the same client is looked
at after that, so that guessing takes long."""
FRAMES = "frame-ancestors 'self' http://localhost:* http://127.0.0.1:* vscode-webview:"
"""Who may show the page inside of a page of its own: notebooks of this machine."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is that of this machine for itself.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class Gate:
    """An ASGI application in front of another, which hands on what may pass and refuses the rest.

    A request passes if it names this server as its host (a name that somebody else's DNS points
    here does not), comes from no page of another origin, is not too large, and brings the password
    where there is one: once by HTTP's basic scheme, under any user name, then by a cookie.

    Args:
        app: the application behind it.
        host: the address that the server listens on. Of the loopback addresses only requests from
            this machine pass.
        password: None asks for none.
    """

    def __init__(self, app: Any, host: str = "127.0.0.1", password: str | None = None) -> None:
        self.app, self.host, self.password = app, host, password
        self.names = {"localhost", host.lower(), socket.gethostname().lower()}
        self.token = secrets.token_urlsafe(32)
        self.cookie = f"rnp-{hashlib.sha256(self.token.encode()).hexdigest()[:8]}"
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on a request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1")
                   for name, value in scope["headers"]}  # fmt: skip
        refused = self.refuses(scope, headers)
        if refused is not None:
            await _refuse(scope, receive, send, 403, refused)
        elif not self.knows(headers) and not await self._guessed(scope, headers):
            asks = [(b"www-authenticate", b'Basic realm="pyro-rnp explore", charset="UTF-8"')]
            await _refuse(scope, receive, send, 401, "This page asks for a password.", asks)
        elif not _fits(headers):
            said = f"The request has more than {BODY >> 20} MiB, or does not say how many."
            await _refuse(scope, receive, send, 413, said)
        else:
            await self.app(scope, receive, self._with_headers(send))

    def refuses(self, scope: Scope, headers: dict[str, str]) -> str | None:
        """Say why a request does not come from this server's own page, or None if it does.

        Args:
            scope: ASGI's.
            headers: by lower-case names.
        """
        client = (scope.get("client") or ("",))[0]
        if is_loopback(self.host) and client and not is_loopback(client):
            return f"This page is for its own machine alone, not for {client}."
        at = headers.get("host", "")
        origin = headers.get("origin")
        try:
            name = (urlsplit(f"//{at}").hostname or "").lower()
            from_here = origin is None or urlsplit(origin).netloc.lower() == at.lower()
        except ValueError:
            return "The request has an address that cannot be read."
        known = name in self.names or is_loopback(name)
        if not (known or (not is_loopback(self.host) and _address(name) is not None)):
            return "Open the page by the address that the command printed."
        if not from_here:
            return "A page of another origin may not ask here."
        foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if foreign and headers.get("sec-fetch-mode") != "navigate":
            return "A page of another origin may not ask here."
        return None

    def knows(self, headers: dict[str, str]) -> bool:
        """Whether a request brings the cookie of this server, or no password is asked for.

        Args:
            headers: by lower-case names.
        """
        if self.password is None:
            return True
        # Not by http.cookies, which stops at a cookie of another page that it cannot read.
        pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        given = [value for name, _, value in pairs if name == self.cookie]
        return any(hmac.compare_digest(one.encode(), self.token.encode()) for one in given)

    async def _guessed(self, scope: Scope, headers: dict[str, str]) -> bool:
        """Whether a request brings the password; guesses of one client wait for one another."""
        if "authorization" not in headers:
            return False
        client = (scope.get("client") or ("",))[0]
        turn = self._turns.setdefault(client, asyncio.Lock())
        async with turn:
            right = self._is_password(headers["authorization"])
            if not right:
                await asyncio.sleep(PAUSE)
        return right

    def _is_password(self, given: str) -> bool:
        scheme, _, coded = given.partition(" ")
        try:
            _, _, word = base64.b64decode(coded.strip()).partition(b":")
        except (binascii.Error, ValueError):
            return False
        wanted = (self.password or "").encode()
        return scheme.lower() == "basic" and hmac.compare_digest(word, wanted)

    def _with_headers(self, send: Send) -> Send:
        async def sends(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                more = [(b"content-security-policy", FRAMES.encode()),
                        (b"referrer-policy", b"no-referrer")]  # fmt: skip
                if self.password is not None:
                    kept = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
                    more.append((b"set-cookie", kept.encode()))
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        return sends


def _fits(headers: dict[str, str]) -> bool:
    """Whether a request says how many bytes it carries, and they are not too many."""
    length = headers.get("content-length", "0")
    return "transfer-encoding" not in headers and length.isdecimal() and int(length) <= BODY


async def _refuse(
    scope: Scope,
    receive: Receive,
    send: Send,
    status: int,
    said: str,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": said})
        return
    kept = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    start = {"type": "http.response.start", "status": status, "headers": kept + (headers or [])}
    await send(start)
    await send({"type": "http.response.body", "body": said.encode()})
