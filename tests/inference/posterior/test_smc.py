"""The engine of particles: its errors hold, and an engine that is broken is not trusted."""

import pytest
import torch

from inference.posterior import half_mask, islands, log_density, query, smc
from pyro_rnp import RNP
from tests.conftest import tiny

pytestmark = pytest.mark.usefixtures("unchecked")
SEEN = half_mask("right", 8)


@pytest.fixture(scope="module")
def asked(unchecked):
    """A model whose posteriors are narrow beside its prior, and an image that it made, 12 times."""
    torch.manual_seed(0)
    rnp = RNP(tiny(sigma=0.05)).eval()
    with torch.no_grad():
        image = rnp.sample(1).canvas + 0.05 * torch.randn(1, 1, 8, 8)
    return rnp, image.clamp(0, 1).repeat(12, 1, 1, 1)


def ask(asked, method="smc", num_samples=64, **options):
    rnp, images = asked
    return query(rnp, images, mask=SEEN, method=method, num_samples=num_samples, **options)


def test_errors_are_those_of_independent_answers_to_the_same_question(asked):
    found = ask(asked, steps=50)
    assert found.trusted.all()
    assert found.notes == ()
    error = found.log_evidence_error
    apart = (found.log_evidence - found.log_evidence.mean()) / error
    assert 0.3 < apart.square().mean() < 2.5
    error, mean = found.standard_error("z"), found.mean("z")
    assert 0.3 < ((mean - mean.mean(0)) / error).square().mean() < 2.5
    share = error.square() / found.variance("z")
    assert (found.effective_samples * share.mean(1)).mean() == pytest.approx(1, rel=0.3)
    assert found.weights.std(0).min() > 0, "islands count by their evidence"
    every = found.diagnostics
    assert every.keys() == {"acceptance", "moved", "ancestors", "temperatures"}
    assert ((every["acceptance"] > 0.2) & (every["acceptance"] < 1)).all()
    assert every["moved"].mean() > 0.1
    assert ((every["ancestors"] > 1) & (every["ancestors"] < 64)).all()
    assert (every["temperatures"] >= 2).all()
    assert found.to_dict(0)["diagnostics"]["acceptance"] == pytest.approx(
        float(every["acceptance"][0])
    )


@pytest.mark.parametrize(
    ("method", "why", "remedy"),
    [
        ("smc:temperatures=1", "1 temperatures are too few", "smc:temperatures=10"),
        ("smc:step=0.0", "particles stand still", "another step: smc:step=0.2"),
    ],
)
def test_a_path_that_is_too_short_and_particles_that_stand_still_are_not_trusted(
    asked, method, why, remedy
):
    found = ask(asked, method, steps=0)
    assert not found.trusted.any()
    assert why in found.notes[-1]
    assert found.notes[-1].endswith(f"{remedy}.")


def test_islands_that_disagree_are_not_trusted(asked, monkeypatch):
    run_islands = smc.run_islands

    def stuck(*args):
        run = run_islands(*args)
        run.u[:, 0, :3] += 3.0  # one island of the first three images
        run.log_evidence[0, 3:6] += 20.0
        run.log_evidence[0, :3] = run.log_evidence[1:, :3].amax(0)
        return run

    monkeypatch.setattr(smc, "run_islands", stuck)
    found = ask(asked, steps=50)
    assert found.trusted.tolist() == [False] * 6 + [True] * 6
    assert found.notes[-1].startswith("The posterior of 6 of 12 images is unreliable: the islands ")
    assert "the log evidence is uncertain" in found.notes[-1]


def test_an_island_that_holds_all_the_weight_tells_no_error(asked):
    values, weights = torch.randn(24, 2, 3), torch.full((24, 2), 1e-9)
    weights[::8, 0] = 1 / 3  # the first of eight islands
    weights[0::8, 1] = weights[1::8, 1] = 1 / 6
    error = islands.island_error(values, weights / weights.sum(0), 8)
    assert error[0].isinf().all()
    assert error[1].isfinite().all()
    assert (islands.independent(values, weights / weights.sum(0), 8) < 10).all()


def test_a_single_island_is_never_trusted_and_knows_no_error(asked):
    found = ask(asked, "smc:islands=1", steps=20)
    assert not found.trusted.any()
    assert found.standard_error("z").isinf().all()
    assert "of one island no error is known; take two islands or more" in found.notes[-1]


def test_particles_that_memory_does_not_hold_are_refused(asked, monkeypatch):
    monkeypatch.setattr(log_density, "available_memory", lambda _: 2**24)
    with pytest.raises(ValueError, match="particles that move .* take fewer num_samples"):
        ask(asked, num_samples=60_000)


@pytest.mark.parametrize("num", [1, 5, 21])
def test_any_number_of_samples_can_be_had(asked, num):
    rnp, images = asked
    found = query(rnp, images[:2], method="smc:islands=4", num_samples=num, steps=2)
    assert found.weights.shape == (num, 2)
    torch.testing.assert_close(found.weights.sum(0), torch.ones(2))
    assert found.islands == min(num, 4)
    assert found.log_evidence_error.isinf().all() == (num == 1)
    wanted = found.log_weights.logsumexp(0) - torch.tensor(float(num)).log()
    torch.testing.assert_close(wanted, found.log_evidence)


def test_groups_of_images_and_seeds(asked, monkeypatch):
    rnp, images = asked
    how = {"num_samples": 16, "steps": 2, "mask": SEEN}
    one, again, other = (query(rnp, images[:3], seed=seed, **how) for seed in (0, 0, 1))
    assert one.method == "smc"
    assert torch.equal(one.u, again.u)
    assert not torch.equal(one.u, other.u)
    monkeypatch.setattr(smc, "MEMORY", 1)
    apart = query(rnp, images[:3], **how)
    assert apart.u.shape == one.u.shape
    assert (apart.log_evidence - one.log_evidence).abs().max() < 5 * one.log_evidence_error.max()


@pytest.mark.parametrize("option", ["islands=0", "sweeps=0", "leaps=0", "temperatures=0"])
def test_options_out_of_range_are_refused(asked, option):
    with pytest.raises(ValueError, match=f"{option.split('=')[0]} must be at least 1"):
        ask(asked, f"smc:{option}")


def test_a_particle_by_itself_is_refused(asked):
    with pytest.raises(ValueError, match="particles must be at least 2, or 0"):
        ask(asked, "smc:particles=1")
