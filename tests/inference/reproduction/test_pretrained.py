"""Pretrained models: found by name, with a card that says how each was trained."""

import json
import re
import shlex
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file

from inference.cli import train_config
from inference.config import TrainConfig
from inference.reproduction import pretrained as shipping
from inference.reproduction.pretrained import card, ship
from inference.run import Run
from pyro_rnp import RNP, checkpoint, load, save
from pyro_rnp.checkpoint import shipped
from tests.conftest import tiny


@pytest.fixture
def run(tmp_path):
    config = TrainConfig(data="digits", data_root="/there", size=8, epochs=3, seed=7, model=tiny())
    notes = asdict(config)
    del notes["model"]
    folder = tmp_path / "run"
    save(RNP(config.model), folder, {"training": notes})
    metrics = {"test_sse": 12.3456, "images_seen": 1500, "seconds": 4000.0, "skipped_steps": 0}
    metrics |= {"parameters": 99, "test_sse_error": 0.25, "hardware": "2 CPU cores"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "curves").mkdir()
    line = "epoch,images_seen,val_sse\n0,500.0,20.0\n"
    (folder / "curves" / "metrics.csv").write_text(line)
    return folder


@pytest.fixture
def weights(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    monkeypatch.setattr(checkpoint, "SHIPPED", folder)
    return folder


def test_what_is_shipped_is_found_by_its_name(run, weights, images):
    folder = ship(run, "small", weights)
    assert {p.name for p in folder.iterdir()} == {
        "config.json", "model.safetensors", "metrics.json", "curve.json", "README.md",
    }  # fmt: skip
    wanted = load(run).parse(images).canvas
    assert torch.equal(load("small").parse(images).canvas, wanted)
    assert len(Run("small").data().test) == 360
    for path in folder.iterdir():
        assert b"/there" not in path.read_bytes()
    assert Run(folder).curve == Run(run).curve
    assert Run(folder).curve[0]["val_sse"] == 20.0


def test_a_run_folder_goes_before_a_name(run, weights, monkeypatch):
    ship(run, "run", weights)
    (weights / "run" / "model.safetensors").write_bytes(b"")
    monkeypatch.chdir(run.parent)
    load("run")
    monkeypatch.chdir(run)
    with pytest.raises(ValueError, match="damaged"):
        load("run")


def test_the_card_has_the_command_that_made_it(run, weights):
    text = (ship(run, "small", weights) / "README.md").read_text()
    command = re.search(r"`pyro-rnp train (.*)`", text)[1]
    config = train_config(shlex.split(command))
    assert (config.model, config.epochs, config.seed) == (tiny(), 3, 7)
    assert "1 h 7 min on 2 CPU cores" in text
    assert "| `test_sse` | 12.35 ± 0.25 |" in text


def test_a_run_that_began_with_another_s_weights_is_shipped_like_any(run, weights):
    notes = json.loads((run / "config.json").read_text())
    notes["training"] |= {"start": "/there/run", "learn": "guide"}
    (run / "config.json").write_text(json.dumps(notes))
    folder = ship(run, "tuned", weights)
    text = (folder / "README.md").read_text()
    assert "--learn=guide " in text
    assert "--start RUN`, seed 7, from another run's weights." in text
    assert Run(folder).config.start == "RUN"
    assert "/there" not in (folder / "config.json").read_text()


def test_the_card_says_that_a_run_began_with_another_s_weights(run):
    metrics = json.loads((run / "metrics.json").read_text())
    plain = card("small", Run(run).config, metrics)
    begun = card("small", replace(Run(run).config, start="/somewhere"), metrics)
    assert "--start" not in plain
    assert "--start RUN`, seed 7, from another run's weights." in begun
    assert "/somewhere" not in begun
    begun = card("small", replace(Run(run).config, start="omniglot"), metrics)
    assert "--start=omniglot" in begun
    assert "seed 7, from the weights of `omniglot`." in begun


@pytest.mark.parametrize("name", shipped())
def test_each_that_comes_along_says_what_it_is_and_is_small(name):
    folder = checkpoint.SHIPPED / name
    config, metrics = Run(folder).config, json.loads((folder / "metrics.json").read_text())
    assert (folder / "model.safetensors").stat().st_size <= 10_000_000
    assert load(name).config == config.model
    data = "omniglot" if name == "one-shot" else name.partition("-")[0]
    assert config.data.partition("-")[0] == data
    assert config.data_root is None
    text = (folder / "README.md").read_text()
    command = re.search(r"`pyro-rnp train (.*) --data-root DIR`", text)[1]
    assert train_config(shlex.split(command)) == replace(config, out=None)
    assert f"| `test_sse` | {metrics['test_sse']:.4g} ± " in text
    points = Run(folder).curve
    assert points[-1]["images_seen"] == metrics["images_seen"]
    errors = [point["val_sse"] for point in points]
    assert errors[-1] <= 1.01 * min(errors), "it learned to the end"
    assert metrics["test_explained"] > 0.5
    masked = folder / checkpoint.MASKED
    parameters = sum(x.numel() for x in load_file(masked).values()) if masked.exists() else 0
    assert text == card(name, config, metrics, parameters)
    assert ("none of them learned from" in text) == (data == "omniglot")
    assert ("with random levels" in text) == (config.model.stochastic != "none")
    assert ("`test_kl_z` is the top program's share" in text) == ("`test_kl_z` |" in text)


def test_a_name_that_there_is_not_gets_those_that_are(run, weights):
    ship(run, "small", weights)
    with pytest.raises(FileNotFoundError, match="Pretrained models: small"):
        load("smal")


def test_what_cannot_be_shipped_is_refused_and_leaves_nothing(run, weights, monkeypatch):
    monkeypatch.setattr(shipping, "LARGEST", 10)
    with pytest.raises(ValueError, match="a pretrained model has at most 10"):
        ship(run, "small", weights)
    monkeypatch.undo()
    (run / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match="let the run end"):
        ship(run, "small", weights)
    assert not weights.exists()


@pytest.mark.parametrize("name", ["../evil", "", ".hidden", "a/b"])
def test_a_name_is_no_path(run, weights, name):
    with pytest.raises(ValueError, match="A name is made of letters"):
        ship(run, name, weights)
    assert not weights.exists()


def test_an_installed_package_is_not_written_into(run, tmp_path, monkeypatch):
    package = tmp_path / "place" / "pyro_rnp"
    package.mkdir(parents=True)
    monkeypatch.setattr(shipping, "SHIPPED", package / "weights")
    with pytest.raises(FileNotFoundError, match="is an installed package.* with --to"):
        ship(run, "small")
    assert not list(package.iterdir())
    assert ship(run, "small", tmp_path / "mine") == tmp_path / "mine" / "small"
    (package.parent / "pyproject.toml").touch()  # a checkout
    assert ship(run, "small") == package / "weights" / "small"
    assert '`pyro_rnp.load("small")`' in (package / "weights" / "small" / "README.md").read_text()


def test_names_are_not_used_twice(run, weights):
    ship(run, "small", weights)
    with pytest.raises(FileExistsError, match="small exists already"):
        ship(run, "small", weights)
