"""The configuration of training: its ranges and its defaults."""

import pytest

from inference.config import TrainConfig
from pyro_rnp import RNPConfig
from tests.inference.training.conftest import config


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 0}, "epochs must be positive, got 0"),
        ({"epochs": None, "minutes": -1.0}, "minutes must be positive"),
        ({"epochs": None, "minutes": float("nan")}, "minutes must be positive"),
        ({"minutes": 1.0}, "epochs and minutes exclude each other"),
        ({"resume": "there"}, "out and resume exclude each other"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"warmup": -1}, "warmup must not be negative"),
    ],
)
def test_values_out_of_range(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        config(tmp_path, **changes)


def test_the_default_trains_the_fast_preset_for_four_minutes():
    default = TrainConfig()
    assert default.model == RNPConfig.preset("fast")
    assert default.duration.total_seconds() == 240


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, False),
        ({"minutes": 29.0}, False),
        ({"minutes": 30.0}, True),
        ({"epochs": 38}, False),  # 29,678 steps of 49,984 images
        ({"epochs": 39}, True),
        ({"minutes": 60.0, "compile": False}, False),
        ({"compile": True}, True),
        ({"minutes": 60.0, "model": RNPConfig(stochastic="both")}, True),
        ({"minutes": 60.0, "recompute_levels": 1}, False),
    ],
)
def test_long_trainings_are_compiled(changes, wanted):
    assert TrainConfig(**changes).compiles(49_984) == wanted
