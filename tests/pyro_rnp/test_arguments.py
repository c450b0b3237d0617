"""Values of another kind than an option's are refused in one sentence that names the option."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from inference import fit, query
from inference.config import TrainConfig
from pyro_rnp import RNP, RNPConfig
from pyro_rnp.arguments import check_fields, whole
from pyro_rnp.registry import within

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
        (lambda: RNPConfig(steps=3), "steps must be whole numbers, one for each level, as (4, 4)"),
        (lambda: RNPConfig(steps=(3, "4")), "steps must be whole numbers"),
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


def test_numbers_of_numpy_are_numbers():
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
