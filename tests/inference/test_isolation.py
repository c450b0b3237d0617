"""What training changes in its process is put back, whatever happens."""

import logging
import os
import random

import lightning
import numpy as np
import pytest
import torch

from inference import isolation
from inference.isolation import VARIABLES, isolated


@pytest.mark.parametrize("ends", [None, KeyboardInterrupt])
@pytest.mark.parametrize("seed", [None, "7"])
def test_the_process_is_as_it_was(ends, seed, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        if seed is not None:
            monkeypatch.setenv(name, seed)
    kept, used, log = [], [], logging.getLogger("lightning.pytorch")
    monkeypatch.setattr(isolation, "keep_large_blocks", kept.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    level, states = log.level, (torch.get_rng_state(), np.random.get_state()[1].tolist())
    own = random.getstate()
    try:
        with isolated():
            lightning.seed_everything(3, workers=True, verbose=False)
            log.setLevel(logging.ERROR)
            if ends is not None:
                raise ends
    except KeyboardInterrupt:
        assert ends is not None
    assert random.getstate() == own
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert [os.environ.get(name) for name in VARIABLES] == [seed, seed]
    assert (log.level, used, kept) == (level, [5], [False])
