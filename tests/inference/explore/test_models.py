"""The models that a visitor may choose."""

import os

import pytest

from inference.explore import models, open_model
from pyro_rnp import RNP
from pyro_rnp.checkpoint import save, shipped
from tests.conftest import tiny


def test_pretrained_models_come_first_and_new_runs_before_old_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert models() == shipped()
    for age, name in enumerate(["runs/new", "runs/deep/old"]):
        save(RNP(tiny()), tmp_path / name)
        os.utime(tmp_path / name / "model.safetensors", (1e9 - age, 1e9 - age))
    (tmp_path / "runs/broken").mkdir()
    (tmp_path / "runs/broken/config.json").write_text("{}")
    assert models() == [*shipped(), "runs/new", "runs/deep/old"]
    assert models(tmp_path / "runs/deep") == [*shipped(), str(tmp_path / "runs/deep/old")]
    assert open_model("runs/new").config == tiny()


def test_a_model_brings_the_guide_that_has_seen_masks(unchecked):
    assert open_model("mnist").guide.masked is not None
    assert open_model("fashion").guide.masked is None
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_model("runs/none")
