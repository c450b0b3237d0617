"""Slow questions in a process of their own."""

import asyncio
import os
import runpy
import subprocess
import sys
import threading
import time

import pyro
import pytest
import torch
from torch import nn

from inference.explore import Session, Worker
from inference.explore.worker import _workers
from pyro_rnp import RNP
from pyro_rnp.registry import PRIORS
from tests.conftest import tiny

CONFIG = tiny(steps=(2,), program_size=2)
ENDLESS = {"num_samples": 8, "steps": 10**7, "methods": ("importance", "svi")}
QUICK = {"num_samples": 10, "methods": ("importance",)}


@pytest.fixture(scope="module")
def worker():
    """One for all tests, since a process takes seconds to start."""
    torch.manual_seed(0)
    worker = Worker(RNP(CONFIG).eval())
    yield worker
    worker.close()


@pytest.fixture
def session(worker):
    session = Session(worker.rnp)
    session.draw(torch.rand(1, 8, 8))
    return session


def until(worker, done):
    """Answers that arrive until something is true."""
    found = []
    for _ in range(3000):
        found += worker.poll()
        if done(found):
            return found
        time.sleep(0.05)
    raise AssertionError("nothing came")


def answers(worker):
    return until(worker, lambda _: not worker.busy)


def test_the_fast_answer_comes_first(session, worker):
    worker.ask(session.question(num_samples=10, methods=("guide", "importance")))
    found = answers(worker)
    assert [answer.method for answer in found] == ["guide", "importance"]
    direct = session.complete("importance", num_samples=10)
    assert torch.allclose(found[1].mean, direct.mean, atol=1e-5)
    assert found[1].notes == direct.notes


def test_a_newer_question_ends_the_older(session, worker):
    worker.ask(session.question(**ENDLESS))
    until(worker, len)  # now the second engine runs
    process = worker._process
    session.draw(torch.rand(1, 8, 8))
    worker.ask(session.question(**QUICK))
    found = answers(worker)
    assert [answer.method for answer in found] == ["importance"]
    expected = session.complete("importance", num_samples=10)
    assert torch.allclose(found[0].mean, expected.mean, atol=1e-5)
    assert worker._process is process


def test_a_question_is_called_off(session, worker):
    worker.ask(session.question(**ENDLESS))
    until(worker, len)
    worker.cancel()
    assert not worker.busy
    assert worker.poll() == []
    worker.ask(session.question(**QUICK))
    assert len(answers(worker)) == 1


def test_parses_do_not_wait_for_a_slow_question(session, worker):
    worker.ask(session.question(**ENDLESS))
    until(worker, len)
    session.draw(torch.rand(1, 8, 8))
    assert session.parse().canvas.isfinite().all()  # the lock on Pyro is free
    assert worker.busy


def test_a_process_that_died_is_told_and_replaced(session, worker):
    worker.ask(session.question(**ENDLESS))
    until(worker, len)
    worker._process.kill()
    with pytest.raises(ValueError, match="has ended; ask again"):
        answers(worker)
    assert not worker.busy
    worker.ask(session.question(**QUICK))
    worker.cancel()  # before the new process listens
    worker.ask(session.question(**QUICK))
    assert len(answers(worker)) == 1


def test_an_engine_that_refuses_leaves_the_answer_to_the_next(session, worker):
    session.keep("a/0")
    worker.ask(session.question(num_samples=10, methods=("guide", "importance")))
    assert [answer.method for answer in answers(worker)] == ["importance"]
    worker.ask(session.question(num_samples=10, methods=("guide",)))
    with pytest.raises(ValueError, match="The guide cannot hold a/0"):
        answers(worker)
    assert not worker.busy


def test_answers_are_awaited_without_blocking(session, worker):
    async def ask():
        beats = 0

        async def heart():
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0.01)

        beating = asyncio.create_task(heart())
        question = session.question(num_samples=10, methods=("guide", "importance"))
        found = [answer.method async for answer in worker.answers(question, every=0.01)]
        beating.cancel()
        return found, beats

    found, beats = asyncio.run(ask())
    assert found == ["guide", "importance"]
    assert beats > 1, "other things went on while it waited"


def test_a_newer_question_ends_the_waiting_for_the_older(session, worker):
    async def both():
        async def first():
            return [a.method async for a in worker.answers(session.question(**ENDLESS))]

        waiting = asyncio.create_task(first())
        await asyncio.sleep(0)
        newer = [a.method async for a in worker.answers(session.question(**QUICK))]
        return await waiting, newer

    older, newer = asyncio.run(both())
    assert "svi" not in older
    assert newer == ["importance"]


def test_the_process_ends_with_the_one_that_asked(tmp_path):
    script = tmp_path / "asks.py"
    script.write_text(
        "import os, time, torch\n"
        "from inference.explore import Session, Worker\n"
        "from pyro_rnp import RNP\n"
        "from tests.conftest import tiny\n"
        "session = Session(RNP(tiny()))\n"
        "session.draw(torch.rand(1, 8, 8))\n"
        "worker = Worker(session.rnp)\n"
        f"worker.ask(session.question(**{ENDLESS!r}))\n"
        "while not worker.poll(): time.sleep(0.1)\n"
        "print(worker._process.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYRO_RNP_UNCHECKED": "1"}
    ran = subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, check=True, timeout=300
    )
    for _ in range(600):
        try:
            os.kill(int(ran.stdout), 0)
        except ProcessLookupError:
            break
        with open(f"/proc/{int(ran.stdout)}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                break
        time.sleep(0.1)
    else:
        raise AssertionError("the process is still there")
    assert "Traceback" not in ran.stderr


class Hidden(nn.Module):
    """A prior that another process cannot import."""

    def forward(self):
        return pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1)


def test_a_model_that_cannot_be_handed_over_gets_one_sentence(session, monkeypatch):
    monkeypatch.setattr(Hidden, "__module__", "nowhere")
    worker = Worker(RNP(CONFIG, prior=Hidden()))
    try:
        worker.ask(session.question(**QUICK))
        with pytest.raises(ValueError, match=r"cannot load the model: .*nowhere.Hidden.*[^.]\.$"):
            answers(worker)
    finally:
        worker.close()


PIECES = """
import pyro.distributions as dist
import torch
from torch import nn
from pyro_rnp.registry import PRIORS

@PRIORS.add("wide")
class Wide(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(config.program_size))

    def forward(self):
        return dist.Normal(self.loc, 2.0).to_event(1)
"""


def test_pieces_of_ones_own_are_handed_over_by_their_file(tmp_path, monkeypatch):
    own = tmp_path / "pieces.py"
    own.write_text(PIECES)
    monkeypatch.setenv("PYRO_RNP_PIECES", str(own))
    runpy.run_path(own)
    try:
        session = Session(RNP(tiny(steps=(2,), program_size=2, prior="wide")).eval())
    finally:
        del PRIORS.pieces["wide"]
    with torch.no_grad():
        session.rnp.model.prior.loc.fill_(0.5)
    session.draw(torch.rand(1, 8, 8))
    worker = Worker(session.rnp)
    try:
        worker.ask(session.question(**QUICK))
        (found,) = answers(worker)
    finally:
        worker.close()
    assert torch.allclose(found.mean, session.complete("importance", num_samples=10).mean)


def test_a_worker_that_is_closed_for_good_starts_no_process(session):
    worker = Worker(session.rnp)
    worker.close(final=True)
    with pytest.raises(ValueError, match="page that asks is closed"):
        worker.ask(session.question(**QUICK))
    assert worker._process is None


def test_nothing_is_left_of_a_worker_that_is_closed(session, worker):
    worker.close()
    threads = threading.active_count()
    worker.ask(session.question(**ENDLESS))
    until(worker, len)
    process = worker._process
    worker.close()
    assert process.poll() is not None
    assert threading.active_count() == threads
    assert worker.poll() == []
    worker.close()


def test_only_so_many_processes_live_at_once(session, monkeypatch):
    monkeypatch.setattr("inference.explore.worker.WORKERS", 2)
    for other in list(_workers):
        other.close()
    first, second, third = (Worker(session.rnp) for _ in range(3))
    try:
        first.ask(session.question(**ENDLESS))
        second.ask(session.question(**QUICK))
        with pytest.raises(ValueError, match="2 other questions are at work; ask again later"):
            third.ask(session.question(**QUICK))
        assert not third.busy
        assert third._process is None
        answers(second)
        third.ask(session.question(**QUICK))  # in the place of the one that is idle
        assert second._process is None
        assert len(answers(third)) == 1
        assert first.busy
        second.ask(session.question(**QUICK))
        assert third._process is None
        assert len(answers(second)) == 1
    finally:
        for worker in (first, second, third):
            worker.close()


def test_an_idle_process_ends_and_the_next_question_starts_another(session, monkeypatch):
    monkeypatch.setattr("inference.explore.worker.IDLE", 3.0)
    worker = Worker(session.rnp)
    try:
        for _ in range(2):
            worker.ask(session.question(num_samples=2000, methods=("importance",)))
            assert len(answers(worker)) == 1
            assert worker._process.wait(timeout=60) == 0
            assert worker.poll() == []
    finally:
        worker.close()


def test_a_large_question_never_waits_for_a_process_that_is_itself_sending():
    """Both ends of a pipe that is full would wait for each other, and every visitor with them."""
    torch.manual_seed(0)
    rnp = RNP(tiny(image_size=160, channels=3, encoder_halvings=5)).eval()
    session, worker = Session(rnp), Worker(rnp)
    session.draw(torch.rand(3, 160, 160))
    worker.ask(session.question(num_samples=16, methods=("importance",)))
    try:
        until(worker, lambda _: worker._ready)
        while not worker._pipe.poll():  # its answer has begun to arrive, and is not taken
            time.sleep(0.05)
        worker.cancel()
        again = threading.Thread(target=worker.ask, args=(session.question(**QUICK),), daemon=True)
        again.start()
        again.join(20)
        stuck = again.is_alive()
        assert not stuck
        assert answers(worker)[-1].method == "importance"
    finally:
        worker._process.kill()  # which frees a thread that is stuck
        worker.close()
