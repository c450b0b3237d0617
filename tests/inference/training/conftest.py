"""A small training for the tests of this folder."""

import pytest

from inference.config import TrainConfig
from inference.data import Splits, load_data
from tests.conftest import tiny

CONFIG = tiny(image_size=28, patch_size=6)


def splits(n=64):
    """A few digits."""
    data = load_data("digits")
    return Splits(data.train[:n], data.validation[:8], data.test[:8])


@pytest.fixture
def few(monkeypatch):
    """Train on a few digits."""
    made = splits()
    monkeypatch.setattr("inference.config.load_data", lambda *_, **__: made)
    return made


def config(folder, **changes):
    """A configuration of one epoch of four steps; without a folder for a run to resume."""
    out = None if folder is None else str(folder)
    values = {"epochs": 1, "batch_size": 16, "out": out, "model": CONFIG}
    return TrainConfig(**{**values, **changes})
