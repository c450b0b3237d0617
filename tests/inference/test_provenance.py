"""What a result says of how it was made."""

import hashlib

import torch

from inference import system as provenance
from inference.reproduction.artifacts import Clock
from inference.run import fingerprint
from inference.system import hardware
from pyro_rnp import RNP, save
from tests.conftest import tiny


def test_a_result_names_weights_machine_and_time(tmp_path, monkeypatch):
    save(RNP(tiny()), tmp_path)
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    now = iter([100.0, 107.5])
    monkeypatch.setattr(provenance.time, "monotonic", lambda: next(now))
    found = Clock().made(tmp_path, num=3)
    assert found.pop("hardware") == hardware(torch.device("cpu"))
    assert found == {"num": 3, "weights": digest[:12], "seconds": 7.5}
    save(RNP(tiny(program_size=5)), tmp_path)
    assert fingerprint(tmp_path) != digest[:12]


def test_one_core_is_one_core(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert hardware(torch.device("cpu")).endswith(", 1 core")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert hardware(torch.device("cpu")).endswith(", 2 cores")
