"""Names in a state_dict, under which saved weights are found again: they must never change."""

import subprocess
import sys

import pytest
from safetensors import safe_open

from pyro_rnp import RNP, RNPConfig, load
from pyro_rnp.checkpoint import SHIPPED, load_config, shipped
from tests.conftest import tiny

DEFAULT = """
    guide.top.encoder.0.conv1.bias guide.top.encoder.0.conv1.weight
    guide.top.encoder.0.conv2.bias guide.top.encoder.0.conv2.weight
    guide.top.encoder.0.skip.bias guide.top.encoder.0.skip.weight
    guide.top.encoder.1.conv1.bias guide.top.encoder.1.conv1.weight
    guide.top.encoder.1.conv2.bias guide.top.encoder.1.conv2.weight
    guide.top.encoder.1.skip.bias guide.top.encoder.1.skip.weight
    guide.top.encoder.4.bias guide.top.encoder.4.weight
    guide.top.encoder.6.bias guide.top.encoder.6.weight
    model.recursion.hypernets.0.layers.0.basis model.recursion.hypernets.0.layers.1.basis
    model.recursion.hypernets.0.layers.2.basis model.recursion.hypernets.0.layers.3.basis
    model.recursion.hypernets.0.trunk.0.bias model.recursion.hypernets.0.trunk.0.weight
    model.recursion.hypernets.0.trunk.1.bias model.recursion.hypernets.0.trunk.1.weight
    model.recursion.hypernets.0.vectors.bias model.recursion.hypernets.0.vectors.weight
"""
MORE = {
    "prior=types": "model.prior.logit model.prior.turn",
    "prior=mixture": "model.prior.loc model.prior.log_scale model.prior.logits",
    "prior=vamp": "model.prior.logits model.prior.raw",
    "prior=flow:layers=1": """
        model.prior.networks.0.layers.0.bias model.prior.networks.0.layers.0.weight
        model.prior.networks.0.layers.1.bias model.prior.networks.0.layers.1.weight""",
    "guide=flow:layers=1": """
        guide.top.couplings.0.nn.layers.0.bias guide.top.couplings.0.nn.layers.0.weight
        guide.top.couplings.0.nn.layers.1.bias guide.top.couplings.0.nn.layers.1.weight""",
    "likelihood=normal:learned=true": "model.likelihood.log_scale",
    "likelihood=laplace:learned=true": "model.likelihood.log_scale",
    "stochastic=programs,none": """
        guide.lower.eye.0.bias guide.lower.eye.0.weight
        guide.lower.eye.2.bias guide.lower.eye.2.weight
        guide.lower.networks.z1.0.bias guide.lower.networks.z1.0.weight
        guide.lower.networks.z1.2.bias guide.lower.networks.z1.2.weight
        guide.lower.places.z1 model.scales.z1""",
}
"""What a choice adds to the names of the default."""
SAME = ("prior=studentt", "guide=lowrank", "guide=full", "guide=map", "guide=refined")


def names(choice: str) -> set[str]:
    field, _, value = choice.partition("=")
    return set(RNP(tiny(**{field: value} if field else {})).state_dict())


@pytest.mark.parametrize("choice", ["", *SAME])
def test_pieces_without_parameters_of_their_own_leave_the_names_as_they_are(choice):
    assert names(choice) == set(DEFAULT.split())


@pytest.mark.parametrize("choice", MORE)
def test_a_piece_adds_its_own_names(choice):
    assert names(choice) == set(DEFAULT.split()) | set(MORE[choice].split())


def test_a_flat_decoder_has_a_sequence_of_layers_in_place_of_the_hypernetwork():
    encoder = {name for name in DEFAULT.split() if name.startswith("guide")}
    assert names("program=flat") == encoder | {
        f"model.recursion.layers.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("name", shipped())
def test_shipped_weights_have_the_names_of_the_model_and_load(name):
    with safe_open(SHIPPED / name / "model.safetensors", "pt") as file:
        stored = sorted(file.keys())
    assert sorted(RNP(load_config(SHIPPED / name)[0]).state_dict()) == stored
    assert sorted(load(name).state_dict()) == stored


@pytest.mark.parametrize("preset", ["fashion", "omniglot"])
def test_the_paper_s_presets_have_one_set_of_names(preset):
    mnist, found = (RNP(RNPConfig.preset(name)).state_dict() for name in ("mnist", preset))
    assert set(found) == set(mnist)


def test_factored_weights_have_gains_and_two_lists_of_matrices():
    config = tiny(weights="factored", pixel_layers="shared", hypernet="per_level")
    own, found = "model.recursion.hypernets.1.layers.", set(RNP(config).state_dict())
    sets = ((0, 8), (1, 2))
    wanted = {f"{own}{i}.{ab}.{j}" for i, layers in sets for ab in "ab" for j in range(layers)}
    wanted |= {f"{own}{i}.gains.{kind}" for i, _ in sets for kind in ("weight", "bias")}
    shared = {f"{own}{i}.weights.0" for i in (2, 3)}
    assert {name for name in found if name.startswith(own)} == wanted | shared


def test_importing_the_package_alone_registers_every_piece():
    program = (
        "from pyro_rnp import RNP; from pyro_rnp import registry as r; "
        "print(*(','.join(sorted(kind.pieces)) for kind in (r.PRIORS, r.GUIDES, r.LOWER_GUIDES, "
        "r.LIKELIHOODS, r.PROGRAMS, r.COMPOSITIONS, r.PLACEMENTS)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [
        "flow,mixture,normal,studentt,types,vamp",
        "diagonal,flow,full,lowrank,map,refined",
        "bottom_up,top_down",
        "bernoulli,continuous_bernoulli,laplace,normal",
        "flat,recursive",
        "noisy_or,over,sum",
        "bicubic,bilinear,continuous",
    ]
