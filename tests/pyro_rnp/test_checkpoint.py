"""What is saved comes back bit for bit, and what is damaged is named."""

import json

import pytest
import safetensors.torch
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


@pytest.mark.parametrize("guide", ["diagonal", "refined:steps=2"])
def test_a_model_in_float64_comes_back_as_it_was(tmp_path, guide, images):
    rnp = RNP(tiny(guide=guide)).double().eval()
    with torch.no_grad():
        rnp.model.recursion.hypernets[0].trunk[0].weight.add_(1e-12)
    save(rnp, tmp_path)
    found = load(tmp_path)
    assert torch.get_default_dtype() == torch.float32
    for name, value in found.state_dict().items():
        assert value.dtype == torch.float64
        assert torch.equal(value, rnp.state_dict()[name]), name
    assert torch.equal(found.parse(images).canvas, rnp.parse(images).canvas)


def test_mixed_precision_comes_back_as_the_widest_in_which_a_model_runs(tmp_path, images):
    for kinds, wanted in (
        ((torch.float32, torch.float64), torch.float64),
        ((torch.bfloat16, torch.float32), torch.float32),
        ((torch.float16, torch.float16), torch.float32),
    ):
        rnp = RNP(tiny()).to(kinds[0])
        rnp.guide.to(kinds[1])
        save(rnp, tmp_path)
        found = load(tmp_path)
        assert {p.dtype for p in found.parameters()} == {wanted}
        for name, value in rnp.state_dict().items():
            assert torch.equal(value.to(wanted), found.state_dict()[name]), name
        found.parse(images)


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


def test_damaged_weights_are_named_and_do_not_replace_the_older_ones(tmp_path):
    first, second = RNP(tiny()), RNP(tiny())
    save(first, tmp_path)
    save(second, tmp_path)
    path, older = tmp_path / "model.safetensors", tmp_path / "previous.safetensors"
    good, data = older.read_bytes(), bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"checksum .* older .*previous.safetensors works"):
        load(tmp_path)
    save(second, tmp_path)
    assert older.read_bytes() == good
    save(second, tmp_path)
    assert older.read_bytes() == good, "the same weights again leave the older ones"
    load(tmp_path)


def test_a_file_without_a_checksum_loads(tmp_path):
    rnp = RNP(tiny())
    save(rnp, tmp_path)
    safetensors.torch.save_file(rnp.state_dict(), tmp_path / "model.safetensors")
    load(tmp_path)
