"""Flags that ask for a configuration."""

from dataclasses import replace

import pytest

from inference.cli import train_config
from inference.config import TrainConfig
from inference.reproduction.recipes import to_flags
from pyro_rnp import RNPConfig

CONFIGS = {
    "defaults": TrainConfig(),
    "ours": TrainConfig(
        data="omniglot",
        epochs=29,
        batch_size=60,
        images_per_class=6,
        elbo="Trace_ELBO",
        classes=[3, 1],
        seed=2,
        model=RNPConfig.preset(
            "fast", program_size=64, steps=(5, 5), prior="types:contrast=30.0", composed=True
        ),
    ),
    "paper": TrainConfig(
        preset="omniglot",
        minutes=2.5,
        binarize=True,
        schedule="constant",
        warmup=0,
        model=RNPConfig.preset("omniglot", rank=8),
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_flags_of_a_configuration_ask_for_it(name):
    config = CONFIGS[name]
    elsewhere = replace(config, data_root="/there", out="here")
    assert to_flags(elsewhere) == to_flags(config)
    assert train_config(to_flags(config)) == config


def test_what_is_as_ever_needs_no_flags():
    assert to_flags(TrainConfig()) == []
