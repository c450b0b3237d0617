"""The contract of engines: one of one's own, by name and as an object."""

import math

import pytest
import torch

from inference.posterior import ENGINES, Engine, Samples, query
from inference.posterior.weights import importance_weights
from pyro_rnp import RNP
from tests.conftest import tiny


class FromPrior(Engine):
    """Importance sampling from N(0, scale^2) of u."""

    name = "from prior"

    def __init__(self, *, scale: float = 1.0) -> None:
        self.q = torch.distributions.Normal(0.0, scale)

    def check(self, density, settings):
        if density.evidence.soft:
            raise ValueError("from prior holds no determined site.")

    def sample(self, density, settings):
        u = self.q.sample((settings.num_samples, len(density.evidence.images), density.size))
        log_weights = density.visit(u) - self.q.log_prob(u).sum(-1)
        found = importance_weights(log_weights)
        return Samples(u=u, log_weights=log_weights, notes=("Mine.",), **found._asdict())


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setitem(ENGINES.pieces, "mine", FromPrior)


@pytest.mark.parametrize("stochastic", ["none", "both"])
def test_an_engine_of_ones_own_samples_the_same_posterior(own, stochastic, images):
    rnp = RNP(tiny(stochastic=stochastic)).eval()
    wanted = query(rnp, images, method="svi", num_samples=2000, steps=60)
    for method in ("mine:scale=1.1", FromPrior(scale=1.1)):
        found = query(rnp, images, method=method, num_samples=2000)
        assert found.method == "from prior"
        assert found.notes[-1] == "Mine."
        assert found.weights.shape == (2000, 4)
        assert found.trusted.all()
        assert wanted.trusted.all()
        error = found.log_evidence_error.hypot(wanted.log_evidence_error)
        assert ((found.log_evidence - wanted.log_evidence).abs() < 5 * error).all()
        error = found.standard_error("z").hypot(wanted.standard_error("z"))
        assert ((found.mean("z") - wanted.mean("z")).abs() < 5 * error).all()


def test_an_engine_refuses_and_is_not_asked_where_nothing_is_random(own, images):
    rnp = RNP(tiny()).eval()
    with pytest.raises(ValueError, match="from prior holds no determined site"):
        query(rnp, images, given={"z/0": torch.zeros(3)}, method="mine")
    found = query(rnp, images, given={"z": torch.zeros(3)}, method=FromPrior())
    assert found.weights.shape == (1, 4)
    assert found.log_weights is None
    assert (found.effective_samples == math.inf).all()


def test_names_and_options_are_those_of_the_registry(own, images):
    known = "guide, importance, svi, smc, hmc, nuts, mine"
    with pytest.raises(ValueError, match=f"one of {known}, got 'min'"):
        query(RNP(tiny()), images, method="min")
    with pytest.raises(ValueError, match=r"has no option 'size'; it has scale"):
        query(RNP(tiny()), images, method="mine:size=2")


@pytest.mark.parametrize("name", ENGINES.pieces)
def test_every_engine_keeps_the_contract(name, images):
    rnp = RNP(tiny(stochastic="actions"))
    sizes = {"num_samples": 24, "steps": 2, "warmup": 2, "chains": 3}
    found = query(rnp, images, method=name, **sizes)
    assert found.method == name == ENGINES.make(name).name
    assert len(found.tree.program) == 24 * 4
    assert found.weights.shape == (24, 4)
    assert found.log_weights.shape == (3 if name == "hmc" else 24, 4)  # islands or samples
    torch.testing.assert_close(found.weights.sum(0), torch.ones(4))
    for each in ("log_evidence", "log_evidence_error", "effective_samples", "pareto_k"):
        assert getattr(found, each).shape == (4,)
    assert found.kind == {"guide": "unweighted", "hmc": "chains", "nuts": "chains"}.get(
        name, "weighted"
    )
    assert bool(found.r_hat) == (found.chains > 1) == (name in ("hmc", "nuts"))
