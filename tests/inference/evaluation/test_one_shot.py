"""One-shot classification and new exemplars, against Gaussians whose evidence is known."""

import math
import zipfile
from io import BytesIO

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from PIL import Image

from inference.data import ImageSet
from inference.evaluation.one_shot import (
    class_log_likelihood,
    exemplars,
    read_episodes,
    within_class_covariance,
)
from inference.posterior import intervene
from pyro_rnp import RNP
from tests.by_hand import stirred
from tests.conftest import DATA, tiny
from tests.linear import PIXELS, SIGMA, Z, with_types


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def drawn(rnp, z):
    return rnp.model.likelihood(rnp.model.recursion(z).canvas).sample().clamp(0, 1)


def test_it_is_what_the_evidence_of_a_test_gains_by_an_example(double):
    rnp = with_types()
    prior = rnp.model.prior
    with torch.no_grad():
        w = rnp.model.recursion.weight
        tests, examples = drawn(rnp, torch.randn(3, Z)), drawn(rnp, torch.randn(2, Z))
    own = w @ w.T + SIGMA**2 * torch.eye(PIXELS)
    between = w @ prior.axes.T @ prior.share.diag() @ prior.axes @ w.T
    covariance = torch.cat([torch.cat([own, between], 1), torch.cat([between, own], 1)])
    pair = dist.MultivariateNormal(torch.zeros(2 * PIXELS), covariance)
    alone = dist.MultivariateNormal(torch.zeros(PIXELS), own)
    found = torch.stack(
        [class_log_likelihood(rnp, tests, examples, 200, seed) for seed in range(60)]
    )
    found = found.exp()
    for t, test in enumerate(tests.flatten(1)):
        for e, example in enumerate(examples.flatten(1)):
            wanted = pair.log_prob(torch.cat([test, example]))
            wanted = (wanted - alone.log_prob(example) - alone.log_prob(test)).exp()
            error = found[:, t, e].std() / math.sqrt(60)
            assert (found[:, t, e].mean() - wanted).abs() < 4 * error
            assert error < 0.1 * wanted


def test_exemplars_are_like_the_example_where_classes_are_alike(double):
    rnp = with_types()
    prior = rnp.model.prior
    with torch.no_grad():
        prior.logit.copy_(torch.tensor([8.0, -8.0, 0.0]))
        example = drawn(rnp, torch.randn(1, Z))
        posterior = rnp.guide.posterior(example)
        made = exemplars(rnp, example, 20_000).program @ prior.axes.T
    mean = prior.share * (prior.axes @ posterior.mean[0])
    spread = (prior.axes @ posterior.covariance_matrix[0] @ prior.axes.T).diagonal()
    variance = 1 - prior.share**2 + prior.share**2 * spread
    assert ((made.mean(0) - mean).abs() < 5 * (variance / 20_000).sqrt()).all()
    assert ((made.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / 20_000)).all()


@pytest.mark.parametrize(("how", "factor"), [({"spread": 1.0}, 1.0), ({}, 0.25)])
def test_exemplars_vary_by_the_covariance_that_is_given(double, how, factor):
    rnp = with_types()
    mix = torch.randn(Z, Z)
    wanted = mix @ mix.T
    with torch.no_grad():
        example = drawn(rnp, torch.randn(1, Z)).clamp(0, 1)
        mean = rnp.guide.posterior(example).mean[0]
        made = exemplars(rnp, example, 20_000, covariance=wanted, **how).program
    wanted = factor * wanted
    error = (wanted.diagonal().outer(wanted.diagonal()) + wanted.square()) / 20_000
    assert ((made.mean(0) - mean).abs() < 5 * (wanted.diagonal() / 20_000).sqrt()).all()
    assert ((torch.cov(made.T) - wanted).abs() < 5 * error.sqrt()).all()


@pytest.mark.parametrize("stochastic", ["none", "both"])
def test_exemplars_keep_what_parts_of_the_example_deviate_by(stochastic, images):
    rnp = stirred(stochastic=stochastic).eval()
    parsed = rnp.parse(images[:1])
    still = exemplars(rnp, images[:1], 3, covariance=torch.zeros(3, 3))
    torch.testing.assert_close(still.canvas, parsed.canvas.expand(3, -1, -1, -1))
    made = exemplars(rnp, images[:1], 3, seed=5, covariance=torch.eye(3))
    again = exemplars(rnp, images[:1], 3, seed=5, covariance=torch.eye(3))
    assert torch.equal(made.canvas, again.canvas)
    assert (made.canvas[0] - made.canvas[1]).abs().max() > 1e-4
    for i in range(3):
        alone = intervene(rnp, parsed, {"z": made.program[i]})
        torch.testing.assert_close(made.canvas[i], alone.canvas[0])


def test_the_covariance_is_that_within_classes():
    rnp = RNP(tiny()).eval()
    labels = torch.tensor([4, 1, 4, 4, 1, 7]).repeat(101)[:603]
    data = ImageSet(torch.rand(603, 1, 8, 8), labels)
    z = rnp.guide.posterior(data.images).mean.double()
    apart = [z[labels == c] - z[labels == c].mean(0) for c in (1, 4, 7)]
    wanted = sum(x.T @ x for x in apart) / 600
    torch.testing.assert_close(
        within_class_covariance(rnp, data), wanted.float().detach(), rtol=1e-4, atol=1e-8
    )
    for labels in (torch.zeros(6, dtype=torch.long), torch.arange(6)):
        with pytest.raises(ValueError, match="labelled classes of two images or more"):
            within_class_covariance(rnp, ImageSet(torch.rand(6, 1, 8, 8), labels))
    with pytest.raises(ValueError, match=r"spread must be at least 0, got -1\."):
        exemplars(rnp, torch.rand(1, 1, 8, 8), 3, covariance=torch.eye(3), spread=-1.0)
    with pytest.raises(ValueError, match="of one image, got 2"):
        exemplars(rnp, torch.rand(2, 1, 8, 8), 3)


def test_each_test_gets_the_example_that_makes_it_most_probable():
    rnp = RNP(tiny(prior="types")).eval()
    with torch.no_grad():
        rnp.model.prior.logit.fill_(6.0)
        last = rnp.guide.top.encoder[-1]  # to the mean, then to the scale, of three numbers
        last.weight[:3].mul_(30)
        last.weight[3:].zero_()
        last.bias[3:].fill_(-5)
    examples = torch.rand(4, 1, 8, 8)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(class_log_likelihood(rnp, examples[order], examples).argmax(1), order)
    state = torch.get_rng_state()
    found = [class_log_likelihood(rnp, examples, examples[:3], 7, seed) for seed in (1, 1, 2)]
    assert torch.equal(state, torch.get_rng_state())
    assert found[0].shape == (4, 3)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_without_samples_the_means_of_the_posteriors_stand_for_them():
    rnp = RNP(tiny(prior="types")).eval()
    tests, examples = torch.rand(4, 1, 8, 8), torch.rand(3, 1, 8, 8)
    prior, (z, known) = rnp.model.prior, (rnp.guide.posterior(x).mean for x in (tests, examples))
    wanted = [prior.like(one).log_prob(z) - prior().log_prob(z) for one in known]
    torch.testing.assert_close(
        class_log_likelihood(rnp, tests, examples, 0), torch.stack(wanted, 1)
    )


def test_a_test_gains_by_an_example_what_the_example_gains_by_the_test(double):
    rnp = with_types()
    with torch.no_grad():
        tests, examples = drawn(rnp, torch.randn(3, Z)), drawn(rnp, torch.randn(2, Z))
    there = class_log_likelihood(rnp, tests, examples, 0)
    back = class_log_likelihood(rnp, examples, tests, 0)
    assert there.std() > 0.1
    torch.testing.assert_close(there, back.T)


def test_a_prior_that_knows_no_classes_is_refused(rnp, images):
    with pytest.raises(ValueError, match=r"prior normal does not know.*--prior types"):
        class_log_likelihood(rnp, images, images)
    with pytest.raises(ValueError, match=r"prior normal does not know.*--prior types"):
        exemplars(rnp, images[:1], 3)


def png(ink):
    buffer = BytesIO()
    Image.fromarray(~ink).convert("1").save(buffer, "png")
    return buffer.getvalue()


def test_runs_are_read_with_their_truth(tmp_path):
    ink = np.random.default_rng(0).random((4, 105, 105)) < 0.1
    with zipfile.ZipFile(tmp_path / "runs.zip", "w") as archive:
        pairs = [("item01", "class02"), ("item02", "class01")]
        labels = [f"run01/test/{t}.png run01/training/{c}.png" for t, c in pairs]
        archive.writestr("run01/class_labels.txt", "\n".join(labels) + "\n")
        for name, drawing in zip(
            ("test/item01", "test/item02", "training/class01", "training/class02"), ink, strict=True
        ):
            archive.writestr(f"run01/{name}.png", png(drawing))
    (run,) = read_episodes(tmp_path / "runs.zip")
    assert run.truth.tolist() == [1, 0]
    assert run.tests.shape == run.examples.shape == (2, 1, 28, 28)
    small = torch.from_numpy(ink[3].astype(np.float32)).view(1, 1, 105, 105)
    wanted = torch.nn.functional.interpolate(small, size=28, mode="area")
    torch.testing.assert_close(run.examples[1:], wanted)


@pytest.mark.data
def test_the_published_runs_are_twenty_of_twenty():
    path = DATA / "omniglot-py" / "all_runs.zip"
    if not path.exists():
        pytest.skip("all_runs.zip is not there")
    runs = read_episodes(path)
    assert len(runs) == 20
    assert all(run.tests.shape == run.examples.shape == (20, 1, 28, 28) for run in runs)
    assert all(sorted(run.truth.tolist()) == list(range(20)) for run in runs)
    assert 0.02 < runs[0].tests.mean() < 0.3, "ink is 1"


@pytest.mark.parametrize("content", [None, b"no zip"])
def test_files_that_are_not_the_runs_get_one_sentence(content, tmp_path):
    path = tmp_path / "runs.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((FileNotFoundError, ValueError), match=r"runs.zip (does not exist|is not)"):
        read_episodes(path)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "b")
    with pytest.raises(ValueError, match=r"other.zip is not .*class_labels"):
        read_episodes(tmp_path / "other.zip")


def test_a_damaged_drawing_gets_one_sentence(tmp_path):
    path = tmp_path / "runs.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("run01/class_labels.txt", "run01/test/a.png run01/training/b.png")
        archive.writestr("run01/test/a.png", bytes(range(256)) * 8)
    content = path.read_bytes()
    place = content.index(bytes(range(60, 70))) if bytes(range(60, 70)) in content else 150
    path.write_bytes(content[:place] + b"\xff" * 9 + content[place + 9 :])
    with pytest.raises(ValueError, match=r"runs.zip is not Omniglot's all_runs.zip"):
        read_episodes(path)
