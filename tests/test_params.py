"""Every module has its own parameters in Pyro's store."""

import copy

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_rnp import RNP
from tests.conftest import tiny


def test_a_second_model_is_trained_by_its_own_parameters(images):
    first = RNP(tiny())
    second = copy.deepcopy(first)
    frozen = copy.deepcopy(first.state_dict())
    SVI(first.model, first.guide, pyro.optim.Adam({"lr": 0.0}), Trace_ELBO()).step(images)
    SVI(second.model, second.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(images)
    for name, before in frozen.items():
        assert torch.equal(first.state_dict()[name], before), name
    assert any(not torch.equal(second.state_dict()[k], v) for k, v in frozen.items())
