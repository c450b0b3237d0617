"""The command and the function that serve the page, without the page itself."""

import base64
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from inference.explore import explore, server
from inference.explore.server import Server, listen, need_nicegui
from inference.explore.shelf import Shelf
from pyro_rnp import RNP, RNPConfig
from tests.scripts.helpers import refused

SMALL = RNPConfig(image_size=8, patch_size=4, steps=(2, 1), program_size=3)


async def _app(scope, receive, send):
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


@pytest.fixture
def pages(monkeypatch):
    """Paths of pages that are added to a server, which ends with the test."""
    added = []
    page = SimpleNamespace(
        application=lambda shelf: _app, add_page=lambda path, shelf: added.append(path)
    )
    monkeypatch.setitem(sys.modules, "inference.explore.page", page)
    monkeypatch.setattr(server, "_running", [])
    monkeypatch.delenv(server.PASSWORD, raising=False)
    yield added
    for running in server._running:
        running.uvicorn.should_exit = True


def read(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as page:
        return page.read().decode()


def test_mistakes(monkeypatch, capsys, tmp_path):
    def no(*args):
        return refused(monkeypatch, capsys, "explore.py", "--open=false", *args)

    assert "does not exist" in no(tmp_path / "no")
    assert "port must lie in [0, 65535], got 70000" in no("--port=70000")
    assert "--port must be a whole number" in no("--port=many")
    assert "host must be an address of this machine, got 192.0.2.1." in no("--host=192.0.2.1")
    assert "--hots" in no("--hots=1")
    assert "data set" in no("--data=nothing")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"Port {port} of 127.0.0.1 is taken" in no(f"--port={port}")


def test_without_nicegui_a_sentence_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    said = refused(monkeypatch, capsys, "explore.py")
    assert "pip install 'pyro-rnp[explore]'" in said
    with pytest.raises(ValueError, match=r"pyro-rnp\[explore\]"):
        need_nicegui()


def test_help_imports_no_nicegui(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nicegui", None)  # importing it raises an error
    monkeypatch.setattr(sys, "argv", ["pyro-rnp", "explore", "--help"])
    from inference.commands import main

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "--port" in capsys.readouterr().out


def test_a_free_port_is_found_and_another_name_is_told():
    with listen("127.0.0.1", 0) as taken:
        assert taken.getsockname()[1] > 0
    with pytest.raises(ValueError, match="host must be an address"):
        listen("no such host", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_others_than_this_machine_need_a_password(pages, monkeypatch, host):
    made = Server(Shelf(RNP(SMALL)), host)
    made.socket.close()
    assert (made.password is None) == (host == "127.0.0.1")
    assert made.url().startswith("http://127.0.0.1:")
    assert made.password is None or made.password not in made.url()
    monkeypatch.setenv(server.PASSWORD, "word")
    given = Server(Shelf(RNP(SMALL)), host)
    given.socket.close()
    assert given.password == "word"


def test_explore_serves_pages_from_python(pages):
    images = torch.rand(3, 1, 8, 8)
    first = explore(RNP(SMALL), images, open=False, password="word")
    user = {"Authorization": f"Basic {base64.b64encode(b'any:word').decode()}"}
    assert read(first.url, **user) == "/"
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        read(first.url)
    refused.value.close()
    wrong = {"Authorization": f"Basic {base64.b64encode(b'any:worm').decode()}"}
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        read(first.url, **wrong)
    assert refused.value.read() == b"This page asks for a password."
    refused.value.close()
    second = explore(RNP(SMALL), open=False, password="word")
    assert pages == ["/2"]
    assert read(second.url, **user) == "/2"
    assert first.url in first._repr_html_()
    assert "word" not in f"{first!r} {first._repr_html_()}"
    with pytest.raises(ValueError, match="serves pages at"):
        explore(RNP(SMALL), port=1, open=False)


def test_images_that_the_model_does_not_read_are_refused(pages):
    with pytest.raises(ValueError, match="8"):
        explore(RNP(SMALL), torch.rand(2, 1, 9, 9), open=False)
    assert not server._running


def test_a_page_changes_no_filter_of_warnings_and_says_nothing(tmp_path):
    """In a process of its own, since NiceGUI has one application."""
    script = tmp_path / "serves.py"
    script.write_text(
        "import urllib.request, warnings\n"
        "from inference.explore import explore\n"
        "from pyro_rnp import RNP\n"
        "from tests.conftest import tiny\n"
        "import nicegui\n"
        "before = list(warnings.filters)\n"
        "page = explore(RNP(tiny()), open=False)\n"
        "found = urllib.request.urlopen(page.url, timeout=60).read()\n"
        "assert b'Recursive neural programs' in found\n"
        "assert warnings.filters == before, set(warnings.filters) ^ set(before)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYRO_RNP_UNCHECKED": "1"}
    env.pop("PYTEST_CURRENT_TEST", None)  # NiceGUI behaves otherwise in tests
    ran = subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    assert "Warning" not in ran.stderr


def test_an_interrupt_ends_the_command_without_a_complaint(tmp_path):
    script = Path(__file__).parents[3] / "scripts" / "explore.py"
    env = {**os.environ, "PYTHONPATH": str(script.parents[1]), "PYRO_RNP_UNCHECKED": "1"}
    env.pop("PYTEST_CURRENT_TEST", None)  # NiceGUI behaves otherwise in tests
    with subprocess.Popen(
        [sys.executable, str(script), "--port=0", "--open=false"],
        env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            said = process.stdout.readline()
            url = re.search(r"http://127\.0\.0\.1:\d+/", said)[0]
            assert "Recursive neural programs" in read(url)
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, complaints
    assert "Traceback" not in complaints
