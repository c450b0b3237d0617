"""Simulation-based calibration (Talts et al., 2018): ranks of what made the data are uniform."""

import jaxtyping
import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, TraceMeanField_ELBO
from scipy.stats import chisquare

from inference.posterior import query
from pyro_rnp import RNP
from tests.conftest import tiny

IMAGES, DRAWS, BINS = 80, 99, 10


@pytest.fixture(scope="module")
def world():
    jaxtyping.config.update("jaxtyping_disable", True)  # checks of shapes take half the time
    yield make()
    jaxtyping.config.update("jaxtyping_disable", False)


def make():
    """A tiny RNP, programs of its prior, their images, and its guide after some training."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()  # of what tests before left there
    config = tiny(
        **{"image_size": 6, "patch_size": 4, "steps": (1,), "program_size": 2, "sigma": 0.02},
        **{"placement": "bicubic", "min_scale": 0.4, "max_scale": 0.9, "part_weight": 0.0},
        **{"hypernet_layers": 1, "encoder_blocks": 1},
    )
    rnp = RNP(config)
    with torch.no_grad():
        # An untrained program changes so fast with z that no sampler of this length follows.
        rnp.model.recursion.hypernets[0].trunk[0].weight.mul_(0.2)
    rnp.eval().model.requires_grad_(False)

    def simulate(n):
        with torch.no_grad():
            z = rnp.model.prior().sample((n,))
            return z, rnp.model.likelihood(rnp.model.run(z).canvas).sample()

    svi = SVI(rnp.model, rnp.guide, pyro.optim.Adam({"lr": 3e-3}), TraceMeanField_ELBO())
    with pyro.validation_enabled(False):
        for _ in range(400):
            svi.step(simulate(64)[1])
    return rnp, *simulate(IMAGES)


def departure(truth, draws):
    """p-value of uniform ranks for each dimension: chi-square over `BINS` equal bins."""
    ranks = (draws < truth).sum(0)  # (images, dimensions), 0 to DRAWS
    counts = [torch.bincount(r * BINS // (DRAWS + 1), minlength=BINS) for r in ranks.T]
    return [float(chisquare(c.numpy()).pvalue) for c in counts], counts


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")  # it halves the time
def test_nuts_is_calibrated_and_the_guide_s_departure_is_measured(world, capsys):
    rnp, truth, images = world
    how = {"jit_compile": True, "ignore_jit_warnings": True}
    kernel = NUTS(rnp.model, max_tree_depth=4, **how)
    mcmc = MCMC(kernel, num_samples=2 * DRAWS, warmup_steps=60, disable_progbar=True)
    with pyro.validation_enabled(False):
        mcmc.run(images)
    exact = mcmc.get_samples()["z"][::2]
    with torch.no_grad():
        amortised = rnp.guide.posterior(images).sample((DRAWS,))
    nuts, guide = departure(truth, exact), departure(truth, amortised)
    with capsys.disabled():
        for name, (p, counts) in {"NUTS": nuts, "guide": guide}.items():
            far = [(c.cumsum(0) / c.sum() - torch.arange(1, BINS + 1) / BINS).abs() for c in counts]
            print(f"\n{name}: p of uniform ranks {p}, counts {[c.tolist() for c in counts]}, "
                  f"distance from uniform {[round(float(f.max()), 2) for f in far]}")  # fmt: skip
    assert min(nuts[0]) > 1e-3
    assert all(0 <= p <= 1 for p in guide[0])
    wrong = departure(truth, exact.mean(0) + 0.5 * (exact - exact.mean(0)))
    assert min(wrong[0]) < 1e-3, "ranks would show a posterior half as wide"


@pytest.mark.parametrize("method", ["smc", "hmc:leaps=4"])
def test_particles_and_chains_are_calibrated_and_the_fit_s_departure_is_measured(
    method, world, capsys
):
    rnp, truth, images = world
    how = {"num_samples": 104, "steps": 50, "warmup": 20, "chains": 8, "progress": False}
    found = query(rnp, images.clamp(0, 1), method=method, **how)
    fitted = query(rnp, images.clamp(0, 1), method="svi", num_samples=100, steps=50)
    exact, plain = found.resample(DRAWS, "z"), fitted.resample(DRAWS, "z")
    mine, svi = departure(truth, exact), departure(truth, plain)
    share = float(found.trusted.float().mean())
    inside = ((exact < truth).sum(0) - (DRAWS - 1) / 2).abs() <= 0.45 * DRAWS
    with capsys.disabled():
        print(f"\n{method}: p of uniform ranks {mine[0]}, {share:.0%} trusted; svi {svi[0]}; "
              f"90 % intervals hold {float(inside.float().mean()):.1%}")  # fmt: skip
    assert min(mine[0]) > 1e-3
    assert 0.82 < inside.float().mean() < 0.97
