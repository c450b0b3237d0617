"""Slow questions in a process of their own."""

import time

import pytest
import torch

from inference.explore import Session, Worker
from pyro_rnp import RNP, RNPConfig

CONFIG = RNPConfig(image_size=8, patch_size=4, steps=(2,), program_size=2)


@pytest.fixture
def session():
    torch.manual_seed(0)
    session = Session(RNP(CONFIG))
    session.draw(torch.rand(1, 8, 8))
    return session


def wait(worker):
    found = []
    for _ in range(600):
        found += worker.poll()
        if not worker.busy:
            return found
        time.sleep(0.1)
    raise AssertionError("no answer in a minute")


def test_answers_come_one_after_another(session):
    worker = Worker(session.rnp)
    try:
        worker.ask(session.question(num_samples=10, steps=5, methods=("guide", "importance")))
        found = wait(worker)
        assert [answer.method for answer in found] == ["guide", "importance"]
        direct = session.complete("importance", num_samples=10, steps=5)
        assert torch.allclose(found[1].mean, direct.mean, atol=1e-5)
        worker.ask(session.question(num_samples=100, steps=10**6, methods=("svi",)))
        for _ in range(5):
            worker.poll()
            time.sleep(0.1)
        worker.ask(session.question(num_samples=10, methods=("importance",)))
        assert [answer.method for answer in wait(worker)] == ["importance"]
    finally:
        worker.close()
    assert worker._process is None
