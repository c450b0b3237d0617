"""A run's folder says what made it."""

from dataclasses import asdict, replace

import pytest

from inference.cli import train_config
from inference.config import TrainConfig
from inference.reproduction.recipes import flags, portable
from inference.run import curve, training_of
from pyro_rnp import RNP, RNPConfig, save
from tests.conftest import tiny

CONFIGS = {
    "defaults": TrainConfig(),
    "ours": TrainConfig(
        data="omniglot",
        epochs=29,
        batch_size=60,
        drawings=6,
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
    assert flags(elsewhere) == flags(config)
    assert train_config(flags(config)) == config


def test_what_is_as_ever_needs_no_flags():
    assert flags(TrainConfig()) == []


def test_a_folder_says_how_its_model_was_trained(tmp_path):
    config = TrainConfig(data="mnist", data_root="/there", epochs=3, model=tiny())
    notes = asdict(config)
    del notes["model"]
    save(RNP(config.model), tmp_path, {"training": notes})
    assert training_of(tmp_path) == config
    assert "/there" not in str(portable(tmp_path))
    assert portable(tmp_path)["training"]["epochs"] == 3
    save(RNP(config.model), tmp_path)
    with pytest.raises(ValueError, match="does not say how"):
        training_of(tmp_path)


def test_a_curve_is_that_of_all_parts_of_a_run(tmp_path):
    head = "epoch,images_seen,loss,seconds,val_elbo,val_sse\n"
    for name, lines in {
        "curves": "0,,3.0,,,\n0,100.0,,9.0,-5.0,30.0\n1,200.0,,18.0,-4.0,25.0\n",
        "curves-2": "1,200.0,,18.0,-4.0,24.0\n2,300.0,,27.0,-3.0,20.0\n",
        "curves-10": "2,300.0,,27.0,-3.0,19.0\n3,400.0,,40.0,-2.0,15.0\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(head + lines)
    rows = curve(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["val_sse"] for row in rows] == [30.0, 24.0, 19.0, 15.0]
    assert rows[-1] == {
        "epoch": 4, "images_seen": 400.0, "seconds": 40.0, "val_elbo": -2.0, "val_sse": 15.0,
    }  # fmt: skip
    with pytest.raises(FileNotFoundError, match="holds no curves"):
        curve(tmp_path / "curves")
