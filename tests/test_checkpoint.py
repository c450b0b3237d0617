"""What is saved comes back bit for bit, and what is damaged is named."""

import json

import pytest
import torch

from pyro_rnp import RNP, load, save
from tests.conftest import tiny


@pytest.fixture
def folder(tmp_path, rnp):
    save(rnp, tmp_path / "run", {"training": {"data": "digits"}})
    return tmp_path / "run"


def test_the_parse_is_the_same_bit_for_bit(folder, rnp, images):
    before, after = rnp.parse(images).sites(), load(folder).parse(images).sites()
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name], after[name]), name


def test_a_loaded_model_is_in_evaluation_mode(folder):
    assert not load(folder).model.training


def test_nothing_but_the_two_files_is_left(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/config\.json does not exist"):
        load(tmp_path / "nowhere")


def test_weights_that_are_not_there(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors does not exist"):
        load(folder)


def test_another_architecture(folder):
    save(RNP(tiny(network_units=6)), folder.parent / "other")
    (folder.parent / "other" / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"another architecture: at .* it holds \("):
        load(folder)


def test_more_levels_are_no_other_architecture(folder, rnp):
    notes = json.loads((folder / "config.json").read_text())
    notes["model"]["steps"] = [2, 2, 2]
    (folder / "config.json").write_text(json.dumps(notes))
    assert load(folder).config.depth == 3  # one hypernetwork serves every level


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_cut_short(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=name):
        load(folder)
