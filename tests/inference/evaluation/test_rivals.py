"""The models of Pyro's examples have its sizes, and their pieces do what they say."""

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceGraph_ELBO

from inference.evaluation import rivals
from inference.evaluation.rivals import AIR, MLPVAE, RIVALS, svi_step

AIR_PARAMETERS = 6_106_993
VAE_PARAMETERS = 688_884
"""Counted in the examples of Pyro 1.9.1."""


def small_air(**changes):
    return AIR(**{"image_size": 10, "hidden": 6, "window": 4, "units": 5, "code": 3, **changes})


def test_sizes_are_those_of_the_examples():
    for kind, count in (("vae", VAE_PARAMETERS), ("air", AIR_PARAMETERS)):
        assert sum(p.numel() for p in RIVALS[kind].make().parameters()) == count
    assert AIR().chances == pytest.approx([7 / 15, 3 / 7, 1 / 3])


@pytest.mark.parametrize("make", [lambda: MLPVAE(10, 6, 3), small_air])
def test_model_and_guide_draw_the_same_sites(make):
    rival, images = make(), torch.rand(4, 1, 10, 10)
    guide = poutine.trace(rival.guide).get_trace(images)
    model = poutine.trace(poutine.replay(rival.model, guide)).get_trace(images)
    assert set(guide.stochastic_nodes) == set(model.stochastic_nodes)
    assert model.observation_nodes == ["x"]
    model.compute_log_prob()
    latent = [model.nodes[name] for name in (*guide.stochastic_nodes, "x") if name != "images"]
    assert {tuple(site["log_prob"].shape) for site in latent} == {(4,)}


@pytest.mark.parametrize("half", ["model", "guide"])
def test_a_window_that_is_not_there_ends_the_rest(half):
    air, images = small_air(steps=3), torch.rand(100, 1, 10, 10)
    trace = poutine.trace(getattr(air, half)).get_trace(images)
    trace.compute_log_prob()
    there = torch.stack([trace.nodes[f"present/{t}"]["value"][:, 0] for t in range(3)])
    assert (there.diff(dim=0) <= 0).all()
    assert there.sum(0).unique().tolist() == [0, 1, 2, 3]
    for t in range(3):
        for name in (f"where/{t}", f"what/{t}"):
            assert (trace.nodes[name]["log_prob"] == 0).equal(there[t] == 0)


def test_a_place_and_its_inverse():
    where = torch.tensor([[2.0, 0.3, -0.4], [3.0, 0.0, 1.0]])
    assert rivals._inverse(rivals._inverse(where)).allclose(where)
    image = torch.zeros(1, 1, 40, 40)
    image[..., 20:, 20:] = 1  # shown in the whole of a window on that quarter
    quarter = rivals._inverse(torch.tensor([[2.0, -1.0, -1.0]]))
    seen = rivals._seen(image, quarter, 10)
    assert (seen == 1).all()
    drawn = rivals._seen(torch.ones(1, 1, 10, 10), torch.tensor([[2.0, -1.0, -1.0]]), 40)
    assert (drawn[0, 0, 22:-2, 22:-2] > 0.999).all()
    assert (drawn[0, 0, :19, :19] == 0).all()


def test_a_loop_learns_and_leaves_the_store_of_parameters_alone():
    air, images = small_air(), torch.rand(8, 1, 10, 10)
    pyro.param("decoder$$$0.weight", torch.ones(2))
    step = svi_step(air, images, TraceGraph_ELBO(), lambda _: 3e-2)
    losses = torch.tensor([step() for _ in range(30)])
    assert losses[-5:].mean() < losses[:5].mean() - 10
    assert pyro.param("decoder$$$0.weight").equal(torch.ones(2))
    assert len(pyro.get_param_store()) == 1


def test_learning_rates_go_by_names():
    air = small_air()
    rates = {name: RIVALS["air"].learning_rate(name) for name, _ in air.named_parameters()}
    assert rates["inference.baseline.weight"] == rates["inference.first.baseline_h"] == 1e-3
    assert rates["inference.lstm.weight_ih"] == rates["decoder.0.weight"] == 1e-4
