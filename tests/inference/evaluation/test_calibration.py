"""Ranks, coverage and agreement of answers, on a model of which the posterior is known exactly."""

import math

import pytest
import torch

from inference.evaluation import agreement_metrics, calibration_metrics
from inference.evaluation.calibration import DRAWS, chosen_pixels, compared, ranked, simulate
from inference.posterior import Engine, Evidence, Samples, answer
from pyro_rnp import RNP
from tests.conftest import tiny
from tests.linear import SIGMA, Z, exact

SEEN = torch.arange(4) < 2  # the right half of each row is hidden
MASK = SEEN.expand(4, 4)


class Exact(Engine):
    """Independent samples of the exact posterior, made wider or moved."""

    def __init__(self, name="exact", width=1.0, shift=0.0):
        self.name, self.width, self.shift = name, width, shift

    def sample(self, density, settings):
        evidence, w = density.evidence, density.rnp.model.recursion.weight.detach()
        own = w * evidence.seen[0].flatten().unsqueeze(1)
        covariance = (torch.eye(Z).to(w) + own.T @ own / SIGMA**2).inverse()
        mean = evidence.images.flatten(1) @ own @ covariance / SIGMA**2
        tril = torch.linalg.cholesky(covariance)
        e = torch.randn(settings.num_samples, *mean.shape).to(w) @ tril.T
        u = mean + self.shift * covariance.diagonal().sqrt() + self.width * e
        zero = torch.zeros(len(mean)).to(w)
        return Samples(
            u=u,
            weights=torch.full(u.shape[:2], 1 / len(u)).to(w),
            log_weights=None,
            log_evidence=zero,
            log_evidence_error=zero,
            effective_samples=zero + len(u),
            pareto_k=zero,
        )


@pytest.fixture(scope="module")
def linear():
    torch.manual_seed(0)
    return exact(program="flat").eval()


def test_exact_samples_are_calibrated_and_wrong_ones_are_seen(linear):
    wrong = {"narrow": {"width": 0.5}, "wide": {"width": 2.0}, "moved": {"shift": 0.7}}
    engines = [Exact(), *(Exact(name, **how) for name, how in wrong.items())]
    found = calibration_metrics(linear, MASK, engines, num=200)
    right = found.pop("exact")
    assert right["smallest_p"] > 0.01, "also after all tests: times their number"
    assert right["tests"] == len(right["p_values"]) == Z + 4 + 1
    for name in ("z", "pixels"):
        assert abs(right[f"{name}_coverage"] - 0.9) < 4 * right[f"{name}_coverage_error"] < 0.1
        assert right[f"trusted_{name}_coverage"] == right[f"{name}_coverage"]
    assert found["narrow"]["z_coverage"] < 0.65
    assert found["wide"]["z_coverage"] > 0.97
    assert all(scores["smallest_p"] < 1e-6 for scores in found.values())


def test_images_are_asked_about_with_all_of_their_noise(linear):
    """Clamped to [0, 1], as `query` takes images, they would belong to other programs."""
    truth = simulate(linear, 200, seed=1)
    assert truth.images.min() < 0
    assert truth.images.max() > 1
    seen = MASK.expand(truth.images.shape)
    coverage = []
    for images in (truth.images, truth.images.clamp(0, 1)):
        evidence = Evidence(images.where(seen, 0.0), seen, {}, {})
        posterior = answer(linear, evidence, Exact(), progress=False)
        found = compared(posterior, truth, chosen_pixels(truth.canvas, seen[0]))
        coverage.append(float(found.z_inside.mean()))
    assert abs(coverage[0] - 0.9) < 0.05
    assert coverage[1] < 0.75


@pytest.mark.parametrize("method", ["smc", "hmc"])
@pytest.mark.usefixtures("unchecked")
def test_engines_are_calibrated(method, linear):
    how = {"steps": 20, "warmup": 20}
    found = calibration_metrics(linear, MASK, [method], num=100, batch_size=100, **how)[method]
    assert found["images"] == 100
    assert found["trusted"] > 0.9
    assert found["smallest_p"] > 0.01
    for name in ("z", "pixels"):
        assert 0.85 < found[f"{name}_coverage"] < 0.95


def test_ranks_follow_weights_and_equal_values_are_ranked_at_random():
    values = torch.arange(40.0).view(40, 1, 1).expand(-1, 500, 2).contiguous()
    weights = torch.zeros(40, 500)
    weights[:20] = 1 / 20  # the others weigh nothing
    truth = torch.tensor([9.5, 30.0]).expand(500, 2)
    ranks = ranked(values, weights, truth)
    assert set(ranks[:, 0].tolist()) <= {9, 10}
    assert (ranks[:, 1] == DRAWS).all()
    same = ranked(torch.zeros(40, 500, 1), weights, torch.zeros(500, 1))
    assert same.unique().tolist() == list(range(DRAWS + 1))


def test_what_is_no_question_is_refused(linear):
    with pytest.raises(ValueError, match="num must be at least 2, got 1"):
        calibration_metrics(linear, MASK, num=1)
    for seen in (torch.ones(4, 4).bool(), torch.zeros(4, 4).bool()):
        with pytest.raises(ValueError, match="hide some pixels and show some"):
            calibration_metrics(linear, seen)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        calibration_metrics(linear, MASK, num=2, num_samples=0)


@pytest.mark.usefixtures("unchecked")
def test_trusted_answers_agree_with_long_runs_and_wrong_ones_do_not(linear):
    images = simulate(linear, 24).images.clamp(0, 1)
    engines = ["smc", "hmc", Exact("moved", shift=0.7), Exact("wide", width=2.0)]
    how = {"steps": 20, "warmup": 20}
    found = agreement_metrics(linear, images, MASK, engines, num_reference=500, **how)
    for method in ("reference", "smc", "hmc"):
        scores = found[method]
        assert scores["trusted"] > 0.9
        for name in ("z", "z_variance", "pixels", "log_evidence"):
            assert 0.3 < scores[f"{name}_square"] < 2.5, (method, name, scores)
            assert scores[f"{name}_far"] < 0.05
    assert min(found["moved"][name] for name in ("z_square", "pixels_square")) > 20
    assert found["wide"]["z_variance_far"] > 0.9
    assert found["wide"]["z_far"] < 0.1


def test_parts_are_held_against_long_runs_too():
    rnp = RNP(tiny()).eval()
    seen = (torch.arange(8) < 4).expand(8, 8)
    how = {"num_reference": 60, "num_samples": 40, "steps": 2}
    found = agreement_metrics(rnp, torch.rand(2, 1, 8, 8), seen, ["svi"], **how)
    assert found["reference"]["images"] == found["svi"]["images"] == 2
    assert {"actions_square", "actions_variance_far"} <= found["reference"].keys()
    assert all(math.isfinite(value) for value in found["svi"].values())
