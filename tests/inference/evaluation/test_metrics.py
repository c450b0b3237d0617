"""Scores against hand-made cases."""

import math

import pytest
import torch
from pyro.infer import Trace_ELBO

from inference.data import ImageSet
from inference.evaluation.metrics import action_spread, canvas_variance_ratio, evaluate
from inference.evaluation.segmentation import adjusted_rand, by_position, segment
from pyro_rnp import RNP
from tests.conftest import tiny


def test_scores_are_means_over_images(rnp, images):
    data = ImageSet(images, torch.zeros(4, dtype=torch.long))
    scores = evaluate(rnp, data, batch_size=3)
    posterior = rnp.guide.posterior(images)
    loc, scale = posterior.base_dist.loc, posterior.base_dist.scale
    kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum(-1)
    assert scores["kl"] == pytest.approx(kl.mean().item(), rel=1e-5)
    error = (rnp.parse(images).canvas - images).square().sum((1, 2, 3))
    assert scores["sse_mean"] == pytest.approx(error.mean().item(), rel=1e-5)
    assert scores["mse"] == pytest.approx(scores["sse"] / 64)
    power = images.square().sum((1, 2, 3)).mean().item()
    assert scores["explained"] == pytest.approx(1 - scores["sse"] / power, rel=1e-5)
    normaliser = 64 * math.log(0.5 * math.sqrt(2 * math.pi))
    log_likelihood = -scores["sse"] / (2 * 0.5**2) - normaliser
    assert scores["elbo"] == pytest.approx(log_likelihood - scores["kl"], rel=1e-4)


def test_squared_errors_are_of_what_the_likelihood_expects(images):
    rnp = RNP(tiny(likelihood="continuous_bernoulli")).double().eval()
    images = images.double()
    scores = evaluate(rnp, ImageSet(images, torch.zeros(4, dtype=torch.long)), seed=4)
    with torch.no_grad():
        torch.manual_seed(4)
        drawn = rnp.model.recursion(rnp.guide(images)).canvas
        centre = rnp.model.recursion(rnp.guide.posterior(images).mean).canvas
    for name, canvas in {"sse": drawn, "sse_mean": centre}.items():
        p = canvas.clamp(min=1e-4)
        assert p.max() < 0.45, "near 1/2 the formula is 0 / 0"
        expected = p / (2 * p - 1) + 1 / (2 * torch.atanh(1 - 2 * p))
        wanted = (expected - images).square().sum((1, 2, 3))
        assert scores[name] == pytest.approx(wanted.mean().item(), rel=1e-6), name


def test_the_elbo_is_pyro_s(rnp, images):
    images = images.repeat(25, 1, 1, 1)
    data = ImageSet(images, torch.zeros(100, dtype=torch.long))
    ours = torch.tensor([evaluate(rnp, data, seed=s)["elbo"] for s in range(40)])
    losses = [Trace_ELBO().loss(rnp.model, rnp.guide, images) for _ in range(40)]
    theirs = -torch.tensor(losses) / 100
    error = (ours.var() / 40 + theirs.var() / 40).sqrt()
    assert (ours.mean() - theirs.mean()).abs() < 4 * error


def test_evaluation_is_repeatable_and_leaves_the_random_state_alone(rnp, images):
    data = ImageSet(images, torch.zeros(4, dtype=torch.long))
    torch.manual_seed(7)
    first = evaluate(rnp, data)
    after = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(3))
    assert evaluate(rnp, data) == first


def test_blank_images_are_explained_by_no_number(rnp):
    blank = ImageSet(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.long))
    assert math.isnan(evaluate(rnp, blank)["explained"])


def test_known_segments_are_scored_at_every_level(rnp, images):
    truth = torch.randint(-1, 3, (4, 2, 8, 8))
    scores = evaluate(rnp, ImageSet(images, torch.zeros(4, dtype=torch.long), truth))
    tree = rnp.parse(images)
    for depth, name in ((1, "ari_parts"), (2, "ari_subparts")):
        wanted = adjusted_rand(segment(tree, depth), truth[:, depth - 1]).mean().item()
        assert scores[name] == pytest.approx(wanted)
        floor = by_position(truth[:, depth - 1])
        wanted = adjusted_rand(floor, truth[:, depth - 1]).mean().item()
        assert scores[f"{name}_floor"] == pytest.approx(wanted)


def a_set(images):
    return ImageSet(images, torch.zeros(len(images), dtype=torch.long))


def test_the_blank_and_the_mean_training_image_are_scored_beside_the_model(rnp, images):
    train = torch.rand(7, 1, 8, 8)
    scores = evaluate(rnp, a_set(images), batch_size=3, train=a_set(train))
    mean = train.numpy().mean(0)
    assert scores["sse_blank"] == pytest.approx((images.numpy() ** 2).sum() / 4, rel=1e-5)
    wanted = ((images.numpy() - mean) ** 2).sum() / 4
    assert scores["sse_mean_image"] == pytest.approx(wanted, rel=1e-5)
    assert scores["explained_mean_image"] == pytest.approx(1 - wanted / scores["sse_blank"])
    assert {"sse_mean_image", "explained_mean_image"}.isdisjoint(evaluate(rnp, a_set(images)))


def test_a_model_that_ignores_the_image_is_told_by_its_canvases(rnp, images):
    data = a_set(images)
    canvases = rnp.parse(images).canvas.detach().numpy()
    wanted = canvases.var(0, ddof=1).sum() / images.numpy().var(0, ddof=1).sum()
    assert evaluate(rnp, data)["canvas_variance_ratio"] == pytest.approx(wanted, rel=1e-4)
    torch.nn.init.zeros_(rnp.guide.top.encoder[-1].weight)
    assert evaluate(rnp, data)["canvas_variance_ratio"] == pytest.approx(0, abs=1e-9)
    assert canvas_variance_ratio(images, images) == 1
    assert "canvas_variance_ratio" not in evaluate(rnp, data[:1]), "one image differs from none"
    assert "canvas_variance_ratio" not in evaluate(rnp, a_set(images[:1].expand(3, -1, -1, -1)))


def test_how_far_parts_move_is_a_share_of_the_range_of_their_actions(rnp, images):
    config = tiny(
        min_scale=0.2, max_scale=0.6, max_rotation=0.0, max_shear=0.5, max_translation=0.9
    )
    actions = torch.zeros(2, 3, 6)
    actions[0, 1, 3] = 0.1  # a shear, in (-0.5, 0.5)
    assert action_spread(actions, config) == pytest.approx(0.1 / 2**0.5)
    actions[0, 2, 0] = 0.1  # a scale, in (0.2, 0.6)
    assert action_spread(actions, config) == pytest.approx(0.25 / 2**0.5)
    assert math.isnan(action_spread(actions[:1], config)), "one image differs from none"
    found = [node.action for _, node in rnp.parse(images).walk() if node.action is not None]
    wanted = action_spread(torch.stack(found, 1), rnp.config)
    scores = evaluate(rnp, a_set(images), batch_size=3)
    assert scores["action_spread"] == pytest.approx(wanted, rel=1e-4)
    assert "action_spread" not in evaluate(RNP(tiny(program="flat")), a_set(images))


def test_images_of_another_size_are_refused(rnp):
    data = ImageSet(torch.rand(2, 1, 9, 9), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="must have shape"):
        evaluate(rnp, data)
