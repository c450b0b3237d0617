"""Queries on hidden pixels whose proposal is the guide that has seen masks."""

from copy import deepcopy

import pytest
import torch
from pyro.distributions import MultivariateNormal, Normal

from inference.posterior import query
from inference.posterior.evidence import read_evidence
from inference.posterior.log_density import LogDensity
from pyro_rnp import RNP
from pyro_rnp.sites import sites
from tests.conftest import tiny
from tests.inference.posterior.test_queries import LEFT, NearTruth, Truth, trained

pytestmark = pytest.mark.usefixtures("unchecked")


def half(random=False):
    """A model, an image that it may have drawn, and the truth given its left half.

    Where all levels are random, the lower guide is untrained, which is the model's own prediction.
    """
    rnp = trained()
    if random:
        rnp = RNP(tiny(program_size=2, steps=(2, 1), stochastic="both", sigma=0.3)).eval()
    torch.manual_seed(1)
    canvas = rnp.sample(1).canvas
    image = (canvas + 0.05 * torch.randn_like(canvas)).clamp(0, 1)
    return deepcopy(rnp), image, Truth(rnp, image, LEFT.float(), {}, {})


def agrees(answer, truth, rnp):
    """Whether the evidence and the mean of every site are those of brute force."""
    pairs = [
        (answer.log_evidence, answer.log_evidence_error, truth.evidence, truth.evidence_error),
        *(
            (answer.mean(name)[0], answer.standard_error(name)[0], *truth.mean(name))
            for name in sites(rnp.config)
        ),
    ]
    return all(
        bool(((a.double() - b).abs() <= 5 * (da.square() + db.square()).sqrt() + 1e-5).all())
        for a, da, b, db in pairs
    )


@pytest.mark.parametrize("random", [False, True])
def test_importance_from_the_masked_guide_is_brute_force(random):
    rnp, image, truth = half(random)
    rnp.guide.masked = NearTruth(truth)
    answer = query(rnp, image, mask=LEFT, method="importance", num_samples=10_000, progress=False)
    assert answer.trusted.all()
    assert answer.effective_samples > 5000, "it is the proposal"
    assert agrees(answer, truth, rnp)


@pytest.mark.parametrize("random", [False, True])
def test_rounds_from_the_masked_guide_are_brute_force(random):
    rnp, image, truth = half(random)
    rnp.guide.masked = NearTruth(truth)
    how = {"method": "importance:rounds=5", "progress": False}
    answer = query(rnp, image, mask=LEFT, num_samples=10_000, **how)
    assert answer.trusted.all()
    assert agrees(answer, truth, rnp)
    assert query(rnp, image, mask=LEFT, num_samples=5, **how).weights.shape == (5, 1)


@pytest.mark.parametrize("prior", ["normal", "studentt", "mixture", "flow"])
@torch.no_grad()
def test_the_density_of_its_samples_is_known_at_any_u(prior):
    rnp = RNP(tiny(masked_guide="full", prior=prior)).eval()
    images, seen = torch.rand(2, 1, 8, 8), torch.arange(8).expand(2, 1, 8, 8) < 4
    density = LogDensity(rnp, read_evidence(rnp, images, {}, seen, None, 0.1))
    u, log_q, _ = density.propose(40, 4)
    log_prob = density.proposal_log_prob(40, 4)
    assert log_prob is not None
    torch.testing.assert_close(log_prob(u), log_q, atol=1e-3, rtol=1e-3)


def test_a_tenth_of_the_prior_bounds_the_weights_of_a_guide_that_is_far_too_narrow():
    rnp, image, truth = half()
    rnp.guide.masked = NearTruth(truth)
    rnp.guide.masked.tril = rnp.guide.masked.tril / 10
    answer = query(rnp, image, mask=LEFT, method="importance", num_samples=10_000, progress=False)
    bound = -truth.evidence + 0.5 * LEFT.sum() * -torch.tensor(2 * torch.pi * 0.04).log() + 2.303
    assert (answer.log_weights <= truth.evidence + bound + 1e-3).all()
    assert agrees(answer, truth, rnp)


def test_the_guide_s_own_samples_have_no_share_of_the_prior():
    rnp, image, truth = half()
    rnp.guide.masked = NearTruth(truth)
    answer = query(rnp, image, mask=LEFT, method="guide", num_samples=2000, progress=False)
    q = rnp.guide.masked.posterior(image)
    torch.testing.assert_close(answer.mean("z"), q.mean, atol=0.1, rtol=0)
    torch.testing.assert_close(answer.covariance("z"), q.covariance_matrix, atol=0.02, rtol=0.1)


class ByRow(torch.nn.Module):
    """A proposal that is the same for all images; it keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def posterior(self, images):
        self.shown.append(images)
        return Normal(torch.full((len(images), 3), 7.0), 0.1).to_event(1)


@torch.no_grad()
def test_it_is_shown_nan_where_pixels_are_hidden_and_whole_images_have_their_own_guide():
    rnp = RNP(tiny()).eval()
    rnp.guide.masked = ByRow()
    images, seen = torch.rand(3, 1, 8, 8), torch.ones(3, 1, 8, 8, dtype=torch.bool)
    seen[1, :, :, 4:] = False
    u, log_q, _ = LogDensity(rnp, read_evidence(rnp, images, {}, seen, None, 0.1)).propose(40)
    (shown,) = rnp.guide.masked.shown
    assert torch.equal(shown.isnan(), ~seen)
    assert torch.equal(shown[seen], images[seen])
    near = (u - 7).abs().amax((0, 2)) < 1
    assert near.tolist() == [False, True, False]
    whole = rnp.guide.posterior(images).log_prob(u)
    torch.testing.assert_close(log_q[:, [0, 2]], whole[:, [0, 2]])


@torch.no_grad()
def test_it_is_not_asked_where_nothing_is_hidden_nothing_seen_or_the_program_given():
    rnp = RNP(tiny(stochastic="actions")).eval()
    rnp.guide.masked = ByRow()
    half, none = torch.arange(8).expand(8, 8) < 4, torch.zeros(8, 8, dtype=torch.bool)
    image = torch.rand(1, 1, 8, 8)
    for given, mask in (({}, None), ({}, none), ({"z": torch.zeros(3)}, half)):
        query(rnp, image, given=given, mask=mask, method="importance", num_samples=30)
    assert not rnp.guide.masked.shown
    answer = query(rnp, image, mask=half, method="guide", num_samples=30)
    assert rnp.guide.masked.shown
    assert answer.samples["z"].mean() > 6


def test_svi_starts_from_it():
    rnp, image, truth = half()
    rnp.guide.masked = NearTruth(truth)
    answer = query(rnp, image, mask=LEFT, method="svi", steps=0, progress=False)
    assert answer.trusted.all()
    assert isinstance(rnp.guide.masked.posterior(image), MultivariateNormal)
