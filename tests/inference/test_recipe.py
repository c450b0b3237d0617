"""Flags that ask for a configuration."""

from dataclasses import asdict, replace

import pytest

from inference.cli import train_config
from inference.config import TrainConfig
from inference.reproduction.recipes import portable, to_flags
from pyro_rnp import RNP, RNPConfig
from pyro_rnp.checkpoint import save
from tests.conftest import tiny

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


def test_of_runs_to_begin_with_a_pretrained_model_alone_is_named(tmp_path, monkeypatch):
    config = train_config(["--start=omniglot", "--prior=types", "--images_per_class=2"])
    flags = to_flags(config)
    assert flags[0] == "--start=omniglot"
    assert train_config(flags) == config
    notes = {k: v for k, v in asdict(config).items() if k != "model"}
    save(RNP(tiny()), tmp_path / "omniglot", {"training": notes})
    assert portable(tmp_path / "omniglot")["training"]["start"] == "omniglot"
    monkeypatch.chdir(tmp_path)
    assert "--start=omniglot" not in to_flags(config), "a folder of that name wins"
    assert portable("omniglot")["training"]["start"] == "RUN"


def test_what_is_as_ever_needs_no_flags():
    assert to_flags(TrainConfig()) == []
