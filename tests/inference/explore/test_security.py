"""Who may speak to the page."""

import asyncio
import base64

import pytest

from inference.explore import security
from inference.explore.security import BODY, Gate

HERE = "127.0.0.1:8080"


async def _app(scope, receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"page"})


def ask(*args, **kwargs):
    """The messages with which a gate answers a request."""
    return asyncio.run(request(*args, **kwargs))


async def request(gate, headers=(), *, client="127.0.0.1", kind="http", host=HERE):
    said = []

    async def send(message):
        said.append(message)

    async def receive():
        return {"type": f"{kind}.connect"}

    given = {"host": host, **dict(headers)}
    encoded = [(name.encode(), value.encode()) for name, value in given.items()]
    scope = {"type": kind, "path": "/", "headers": encoded, "client": (client, 5)}
    await gate(scope, receive, send)
    return said


def status(*args, **kwargs):
    return ask(*args, **kwargs)[0]["status"]


def basic(password, user="me"):
    return {"authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(security, "PAUSE", 0.0)


@pytest.mark.parametrize("host", [HERE, "localhost:8080", "[::1]:8080"])
def test_its_own_page_may_ask(host):
    assert status(Gate(_app), host=host) == 200
    assert status(Gate(_app), {"origin": f"http://{host}"}, host=host) == 200
    (accepted,) = ask(Gate(_app), {"origin": f"http://{host}"}, host=host, kind="websocket")
    assert accepted["type"] == "websocket.accept"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:8081", "null", "https://localhost.evil"]
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_other_origins_are_refused(origin, kind):
    (first, *_) = ask(Gate(_app), {"origin": origin}, kind=kind)
    if kind == "http":
        assert first["status"] == 403
    else:
        assert first["type"] == "websocket.close"


def test_a_page_of_another_site_embeds_nothing_but_may_link():
    foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert status(Gate(_app), foreign) == 403
    assert status(Gate(_app), {**foreign, "sec-fetch-mode": "navigate"}) == 200


@pytest.mark.parametrize("headers", [{"host": "["}, {"host": "//["}, {"origin": "http://["}])
def test_an_address_that_cannot_be_read_is_refused(headers):
    assert status(Gate(_app), headers) == 403


@pytest.mark.parametrize("host", ["rebound.example:8080", "192.168.0.9:8080", ""])
def test_another_name_of_this_address_is_refused(host):
    assert status(Gate(_app), host=host) == 403


def test_only_this_machine_may_ask_where_the_loopback_address_is_served():
    assert status(Gate(_app), client="192.168.0.9") == 403
    assert status(Gate(_app, "0.0.0.0"), client="192.168.0.9") == 200


def test_others_are_asked_for_a_password_once():
    gate = Gate(_app, "0.0.0.0", "secret word")
    far = {"client": "192.168.0.9", "host": "192.168.0.2:8080"}
    first = ask(gate, **far)[0]
    assert first["status"] == 401
    assert dict(first["headers"])[b"www-authenticate"].startswith(b"Basic")
    assert ask(gate, **far, kind="websocket")[0]["type"] == "websocket.close"
    for wrong in ("", "secret", "secret word "):
        assert status(gate, basic(wrong), **far) == 401
    assert status(gate, {"authorization": "Basic !"}, **far) == 401
    assert status(gate, {"authorization": "Bearer secret word"}, **far) == 401
    let_in = ask(gate, basic("secret word"), **far)[0]
    assert let_in["status"] == 200
    cookie = dict(let_in["headers"])[b"set-cookie"].decode()
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "secret" not in cookie
    kept = {"cookie": cookie.partition(";")[0]}
    assert ask(gate, kept, **far, kind="websocket")[0]["type"] == "websocket.accept"
    assert status(gate, {"cookie": f"{gate.cookie}=other"}, **far) == 401
    for foreign in ("foo[bar]=1", 'a={"b": 1}', "alone", "two words=1", ""):
        assert status(gate, {"cookie": f"{foreign}; {kept['cookie']}; {foreign}"}, **far) == 200
    assert status(Gate(_app, "0.0.0.0", "secret word"), kept, **far) == 401, "of another server"


def test_guesses_of_a_client_wait_for_one_another(monkeypatch):
    gate, answered, pause, waiting = Gate(_app, "0.0.0.0", "secret"), [], asyncio.sleep, []

    async def sleep(seconds):
        waiting.append(seconds)
        assert len(waiting) <= 1, "two guesses wait at the same time"
        for _ in range(20):
            await pause(0)
        waiting.pop()

    async def guess(name, headers, client="192.168.0.9"):
        said = await request(gate, headers, client=client, host="192.168.0.2:8080")
        answered.append((name, said[0]["status"]))

    async def guesses():
        let_in = await request(gate, basic("secret"), host="192.168.0.2:8080")
        cookie = dict(let_in[0]["headers"])[b"set-cookie"].decode().partition(";")[0]
        monkeypatch.setattr(security.asyncio, "sleep", sleep)
        await asyncio.gather(
            *(guess(f"wrong {i}", basic(f"guess {i}")) for i in range(3)),
            guess("right", basic("secret")),
            guess("another client", basic("secret"), "192.168.0.8"),
            guess("one with a cookie", {"cookie": cookie}),
            guess("one without a guess", {}),
        )

    asyncio.run(guesses())
    assert sorted(answered[:3]) == [
        ("another client", 200), ("one with a cookie", 200), ("one without a guess", 401)
    ]  # fmt: skip
    assert answered[3:] == [*((f"wrong {i}", 401) for i in range(3)), ("right", 200)]


def test_a_name_in_somebody_elses_dns_is_refused_with_a_password_too():
    gate = Gate(_app, "0.0.0.0", "secret")
    assert status(gate, basic("secret"), host="rebound.example:8080") == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": str(BODY + 1)},
        {"content-length": "many"},
        {"transfer-encoding": "chunked"},
    ],
)
def test_what_is_too_large_or_of_unknown_size_is_refused_unread(headers):
    assert status(Gate(_app), headers) == 413
    assert status(Gate(_app), {"content-length": str(BODY)}) == 200


def test_other_sites_may_not_show_the_page_in_theirs():
    headers = dict(ask(Gate(_app))[0]["headers"])
    assert b"frame-ancestors 'self'" in headers[b"content-security-policy"]
    assert b"set-cookie" not in headers
