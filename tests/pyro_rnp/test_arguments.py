"""Values of another kind than an option's are refused in one sentence that names the option."""

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from inference import fit, query
from inference.config import TrainConfig
from inference.posterior.smc import SMCEngine
from pyro_rnp import RNP, RNPConfig, load, save
from pyro_rnp.arguments import check_fields, whole, within
from pyro_rnp.guides import BottomUp

SMALL = RNPConfig(image_size=8, patch_size=4, steps=(2,), program_size=3, hypernet_layers=1)


@dataclass
class Bread:
    slices: int = 3
    crumbs: "float | None" = None
    kind: str = "rye"
    cut: bool = False
    other: object = None


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: RNPConfig(sigma="a"), "sigma must be a number, got 'a'."),
        (lambda: RNPConfig(image_size=28.0), "image_size must be a whole number, got 28.0."),
        (lambda: RNPConfig(rank="4"), "rank must be a whole number or None, got '4'."),
        (lambda: RNPConfig(prior=None), "prior must be text, got None."),
        (lambda: RNPConfig(composed="no"), "composed must be true or false, got 'no'."),
        (lambda: RNPConfig(steps=3), "steps must be whole numbers in brackets, as (4, 4), got 3."),
        (lambda: RNPConfig(steps=(3, "4")), "steps must be whole numbers"),
        (lambda: BottomUp(RNPConfig(), units=12.5), "units must be a whole number, got 12.5."),
        (lambda: SMCEngine(islands=2.5), "islands must be a whole number, got 2.5."),
        (lambda: TrainConfig(classes="3"), "classes must be a list, each of it a whole number or"),
        (lambda: TrainConfig(model="fast"), "model must be RNPConfig, got 'fast'."),
        (lambda: TrainConfig(epochs="3"), "epochs must be a whole number or None, got '3'."),
        (lambda: TrainConfig(minutes="soon"), "minutes must be a number or None, got 'soon'."),
        (lambda: fit(torch.rand(9, 1, 8, 8), epochs="a"), "epochs must be a whole number or None"),
        (lambda: RNP(SMALL).sample("3"), "num_images must be a whole number, got '3'."),
        (lambda: RNP(SMALL).sample(2.5), "num_images must be a whole number, got 2.5."),
        (
            lambda: RNP(SMALL).interpolate(torch.zeros(3), torch.ones(3), "2"),
            "steps must be a whole number, got '2'.",
        ),
        (
            lambda: query(RNP(SMALL), num_samples="9"),
            "num_samples must be a whole number, got '9'.",
        ),
        (
            lambda: query(RNP(SMALL), num_samples=3.5),
            "num_samples must be a whole number, got 3.5.",
        ),
        (
            lambda: query(RNP(SMALL), num_images="2"),
            "num_images must be a whole number, got '2'.",
        ),
        (
            lambda: query(RNP(SMALL), method=3),
            "method must be an engine or its name, as smc, got 3.",
        ),
        (lambda: within(1, heat="warm"), "heat must be a number, got 'warm'."),
    ],
)
def test_a_value_of_another_kind_is_refused_in_one_sentence(made, message):
    with pytest.raises(TypeError) as error:
        made()
    assert str(error.value).startswith(message)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: TrainConfig(optimizer="SGD"), "optimizer must be one of ('Muon', 'Adam'), got"),
        (lambda: TrainConfig(compile="no"), "compile must be one of (True, False, 'auto'), got"),
        (lambda: RNPConfig(learn_scales="yes"), "learn_scales must be one of (True, False, 'pre"),
    ],
)
def test_a_word_that_is_no_choice_is_refused_with_the_choices(made, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        made()


def test_paths_and_numbers_of_devices_are_taken(tmp_path):
    found = TrainConfig(data_root=tmp_path, out=tmp_path / "run", devices=2)
    assert (found.data_root, found.out) == (str(tmp_path), str(tmp_path / "run"))
    assert found.devices == "2"


def test_numbers_of_numpy_are_numbers(tmp_path):
    found = RNPConfig(image_size=np.int64(8), patch_size=4, steps=(np.int64(2),))
    save(RNP(found), tmp_path)
    assert load(tmp_path).config == found
    assert RNP(found, "another").model(None, np.int64(2)).canvas.shape[0] == 2
    check_fields(Bread(np.int64(3), np.float32(0.5), "rye", np.True_))
    whole(1, slices=np.int64(3))
    assert RNPConfig(image_size=np.int64(8), sigma=np.float32(0.5)).image_size == 8


@pytest.mark.parametrize("wrong", [{"slices": 2.5}, {"crumbs": "x"}, {"kind": 3}, {"cut": "yes"}])
def test_fields_of_any_dataclass_are_checked(wrong):
    check_fields(Bread(other="anything"))
    with pytest.raises(TypeError, match=next(iter(wrong))):
        check_fields(Bread(**wrong))


def test_a_number_below_the_smallest_is_out_of_range():
    with pytest.raises(ValueError, match=r"slices must be at least 2, got 1\."):
        whole(2, slices=1)


def test_steps_may_be_a_list():
    config = RNPConfig(steps=[2, 2])
    assert config.steps == (2, 2)
    assert hash(config) == hash(RNPConfig(steps=(2, 2)))


def test_a_part_that_there_is_not_is_refused_by_its_number():
    tree = RNP(SMALL).sample(1)
    assert tree[-1] is tree[1]
    with pytest.raises(IndexError, match=r"There is no part 2; these are 0 to 1\."):
        tree[2]
    with pytest.raises(IndexError, match=r"There is no part 0; this one is a leaf\."):
        tree[0][0]
