"""Runs by flags: begun anew, resumed or taken as they are."""

import pytest
import torch

import inference.training
from inference.reproduction import recipes
from inference.reproduction.recipes import trained
from inference.run import Run
from pyro_rnp import RNP, save
from tests.conftest import tiny


def test_a_run_without_a_checkpoint_is_begun_anew_and_one_with_is_gone_on_with(
    tmp_path, monkeypatch
):
    asked, folder = [], tmp_path / "run"

    def train(config):
        asked.append((config.epochs, config.out, config.resume))
        folder.mkdir(exist_ok=config.resume is not None)
        save(RNP(tiny()), folder, {"training": {"data": "digits"}})
        if len(asked) == 2:
            (folder / "last.ckpt").touch()
        if len(asked) == 3:
            (folder / "metrics.json").write_text("{}")

    monkeypatch.setattr("inference.training.train", train)
    monkeypatch.setattr(recipes, "to_flags", lambda config: [])
    for _ in range(2):
        with pytest.raises(ValueError, match="did not end"):
            trained(folder, ["--epochs=1"])
    assert trained(folder, ["--epochs=1"]) == {}
    new = (1, str(folder), None)
    assert asked == [new, new, (None, None, str(folder))]


def test_a_run_that_began_with_other_weights_is_not_taken_for_one_that_did_not(
    tmp_path, monkeypatch
):
    first, tuned = tmp_path / "first", tmp_path / "tuned"
    model = tiny()
    save(RNP(model), first, {"training": {"data": "digits"}})
    notes = {"training": {"data": "digits"}, "started": Run(first).fingerprint}
    save(RNP(model), tuned, notes)
    (tuned / "metrics.json").write_text("{}")
    monkeypatch.setattr(recipes, "to_flags", lambda config: [])
    flags = [f"--start={first}"]
    assert trained(tuned, flags) == {}
    save(RNP(model), first)  # other weights
    with pytest.raises(ValueError, match="does not say that it began"):
        trained(tuned, flags)


SEVERAL = ["--devices=2", "--devices=0,1", "--devices=[0,1]", "--num_nodes=2"]
ALL = ["--devices=auto", "--devices=-1"]


@pytest.mark.parametrize("flag", [*SEVERAL, *ALL])
def test_a_run_of_several_processes_is_left_to_its_own_script(monkeypatch, tmp_path, flag):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="is trained in one process"):
        trained(tmp_path / "run", [flag, "--epochs=1"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("cards", [0, 1])
@pytest.mark.parametrize("flag", [*ALL, "--devices=1", "--devices=3,", "--devices=[3]"])
def test_devices_that_are_one_are_trained_in_this_process(monkeypatch, tmp_path, flag, cards):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    began = []
    monkeypatch.setattr(inference.training, "train", began.append)
    with pytest.raises(ValueError, match="did not end"):
        trained(tmp_path / "run", [flag, "--epochs=1"])
    written = {"--devices=[3]": "--devices=3,"}.get(flag, flag)  # a list, as Lightning reads it
    assert [f"--devices={config.devices}" for config in began] == [written]


def test_all_devices_of_a_run_on_the_processor_are_one(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(inference.training, "train", lambda config: None)
    with pytest.raises(ValueError, match="did not end"):
        trained(tmp_path / "run", ["--devices=auto", "--accelerator=cpu", "--epochs=1"])
