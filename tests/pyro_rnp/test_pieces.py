"""Every piece with every other: one step of learning, the same sites, batches, files."""

from copy import deepcopy
from functools import partial
from itertools import product

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO

from inference.traces import latent_sites
from pyro_rnp import RNP, load, save
from pyro_rnp.config import STOCHASTIC
from pyro_rnp.registry import (
    COMPOSITIONS,
    GUIDES,
    LIKELIHOODS,
    LOWER_GUIDES,
    PLACEMENTS,
    PRIORS,
)
from tests.conftest import tiny

pytestmark = pytest.mark.usefixtures("unchecked")

OPTIONS = {
    "mixture": "mixture:components=3",
    "vamp": "vamp:components=2",
    "flow": "flow:layers=2,units=20",
    "lowrank": "lowrank:rank=2",
    "refined": "refined:steps=2",
}
LEARNED = ("normal", "laplace")
"""Likelihoods whose scale may be learned."""


def small(**changes):
    values = {"image_size": 6, "patch_size": 4, "steps": (2, 1), "encoder_blocks": 1}
    return tiny(**{**values, **changes})


def stirred(config):
    """A model away from its start, where corrections, flows and branches are zero."""
    rnp = RNP(config)
    with torch.no_grad():
        for p in rnp.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return rnp


def one_step(rnp, images, objective, covered=False):
    """A step of SVI; every parameter must have a finite gradient that is not zero.

    Zero it may be, or not there at all, where later parts may cover earlier ones whole.
    """
    seen = {}

    def note(name, grad):
        seen[name] = grad.clone()

    for name, p in rnp.named_parameters():
        p.register_hook(partial(note, name))
    svi = SVI(rnp.model, rnp.guide, pyro.optim.Adam({"lr": 1e-3}), objective)
    assert torch.isfinite(torch.tensor(svi.step(images)))
    for name, _ in rnp.named_parameters():
        if rnp.config.prior == "types" and name.startswith("model.prior."):
            # of what images of a class share, single ones say nothing
            continue
        assert covered or name in seen, f"{name} has no gradient"
        assert name not in seen or seen[name].isfinite().all(), name
        assert covered or seen[name].abs().max() > 0, name
    assert all(p.isfinite().all() for p in rnp.parameters())


def the_same_sites(rnp, images):
    guide = poutine.trace(rnp.guide).get_trace(images)
    model = poutine.trace(poutine.replay(rnp.model, trace=guide)).get_trace(images)
    assert list(latent_sites(guide)) == list(latent_sites(model))
    for name, site in latent_sites(guide).items():
        assert site["fn"].batch_shape == model.nodes[name]["fn"].batch_shape == (len(images),)
        assert site["fn"].event_shape == model.nodes[name]["fn"].event_shape, name
    return set(latent_sites(model))


def batch_equals_singles(rnp, images):
    rnp, images = deepcopy(rnp).double(), images.double()
    whole = rnp.parse(images).sites()
    for i in range(len(images)):
        for name, value in rnp.parse(images[i : i + 1]).sites().items():
            torch.testing.assert_close(value[0], whole[name][i], rtol=1e-7, atol=1e-9, msg=name)


def saved_and_loaded_alike(rnp, images, folder):
    save(rnp, folder)
    again = load(folder)
    assert again.config == rnp.config
    canvases = []
    for model in (rnp, again):
        torch.manual_seed(0)
        canvases += [model.parse(images).canvas, model.sample(2).canvas]
    assert torch.equal(canvases[0], canvases[2])
    assert torch.equal(canvases[1], canvases[3])


@pytest.mark.parametrize("guide", GUIDES.pieces)
@pytest.mark.parametrize("prior", PRIORS.pieces)
def test_every_combination(prior, guide, tmp_path):
    likelihoods, lower = [*LIKELIHOODS.pieces], [*LOWER_GUIDES.pieces]
    turn = [*PRIORS.pieces].index(prior) + [*GUIDES.pieces].index(guide)
    for i, stochastic in enumerate(STOCHASTIC, turn):  # with each likelihood at another turn
        likelihood = likelihoods[i % len(likelihoods)]
        pyro.clear_param_store()
        config = small(
            prior=OPTIONS.get(prior, prior),
            guide=OPTIONS.get(guide, guide),
            likelihood=likelihood + ":learned=true" * (likelihood in LEARNED and turn % 2),
            stochastic=stochastic,
            lower_guide=lower[i % len(lower)] if stochastic != "none" else "bottom_up",
        )
        rnp, images = stirred(config), torch.rand(2, 1, 6, 6).round()
        one_step(rnp, images, (TraceMeanField_ELBO, Trace_ELBO)[turn // 2 % 2]())
        rnp.eval()
        below = {"programs": "z", "actions": "a", "both": "za", "none": ""}[stochastic]
        wanted = {"z"} | {f"{k}/{path}" for k in below for path in ("0", "1", "0/0", "1/0")}
        assert the_same_sites(rnp, images) == wanted
        batch_equals_singles(rnp, images)
        saved_and_loaded_alike(rnp, images, tmp_path / str(i))


@pytest.mark.parametrize("placement", PLACEMENTS.pieces)
@pytest.mark.parametrize("composition", COMPOSITIONS.pieces)
@pytest.mark.parametrize("lower_guide", LOWER_GUIDES.pieces)
def test_every_way_to_paint(placement, composition, lower_guide, tmp_path):
    rest = product((False, True), ("canvas", "decoding"))
    for i, (composed, feedback) in enumerate(rest):
        pyro.clear_param_store()
        config = small(
            placement=placement,
            composition=composition,
            composed=composed,
            feedback=feedback,
            pixel_layers=("generated", "shared")[(i + (lower_guide == "top_down")) // 2 % 2],
            lower_guide=lower_guide,
            stochastic="both,actions",
            hypernet="per_level",
        )
        rnp, images = stirred(config), torch.rand(2, 1, 6, 6)
        one_step(rnp, images, TraceMeanField_ELBO(), covered=composition == "over")
        rnp.eval()
        assert the_same_sites(rnp, images) == {"z", *("z/0", "a/0", "z/1", "a/1", "a/0/0", "a/1/0")}
        batch_equals_singles(rnp, images)
        saved_and_loaded_alike(rnp, images, tmp_path / str(i))
        tree = rnp.parse(images)
        for depth in (1, 2):
            shares = tree.contributions(depth)
            torch.testing.assert_close(shares.sum(1), tree.canvas, rtol=1e-4, atol=1e-5)
