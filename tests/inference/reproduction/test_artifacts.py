"""What a result says of how it was made."""

import torch

from inference.reproduction import artifacts
from inference.reproduction.artifacts import Clock
from inference.run import Run
from inference.system import hardware
from pyro_rnp import RNP, save
from tests.conftest import tiny


def test_a_result_names_weights_machine_and_time(tmp_path, monkeypatch):
    save(RNP(tiny()), tmp_path)
    now = iter([100.0, 107.5])
    monkeypatch.setattr(artifacts.time, "monotonic", lambda: next(now))
    found = Clock().made(tmp_path, num=3)
    assert found.pop("hardware") == hardware(torch.device("cpu"))
    assert found == {"num": 3, "weights": Run(tmp_path).fingerprint, "seconds": 7.5}
