"""Runs that begin with the weights of another, with a piece exchanged."""

from dataclasses import replace

import pyro
import pytest
import torch
from lightning.pytorch.callbacks import Timer
from pyro.distributions import Normal
from pyro.infer import Trace_ELBO
from torch import nn

from inference import Run, fit
from inference.config import TrainConfig
from inference.training import train
from inference.training.module import Training
from inference.training.start import begin, freeze
from pyro_rnp import RNP, load
from tests.conftest import tiny
from tests.inference.training.conftest import CONFIG, config

QUIET = {"epochs": 1, "batch_size": 8, "progress": False}


@pytest.fixture
def first(few, tmp_path):
    """A run of the prior normal."""
    return train(config(tmp_path / "first"))


def test_the_same_architecture_takes_all_and_says_nothing(first):
    rnp = RNP(CONFIG)
    assert begin(rnp, Run(first)) == ([], "")
    assert all(torch.equal(v, load(first).state_dict()[n]) for n, v in rnp.state_dict().items())


def test_an_exchanged_piece_is_new_and_the_rest_goes_on(first, tmp_path):
    flow = replace(CONFIG, prior="flow")
    folder = train(config(tmp_path / "flow", start=str(first), model=flow))
    log = (folder / "log.txt").read_text()
    assert "(prior normal, here flow). New: prior. Left out: nothing." in log
    back = train(config(tmp_path / "back", start=str(folder)))
    assert (
        "(prior flow, here normal). New: nothing. Left out: prior."
        in (back / "log.txt").read_text()
    )
    assert Run(folder).started == Run(first).fingerprint


def test_a_guide_of_another_head_keeps_the_layers_that_fit(first):
    rnp = RNP(replace(CONFIG, guide="lowrank:rank=2"))
    new, sentence = begin(rnp, Run(first))
    assert "New: guide (2 of" in sentence
    assert all(name.startswith("guide.top.") for name in new)


def test_another_size_of_images_is_told(first):
    _, sentence = begin(RNP(replace(CONFIG, image_size=40)), Run(first))
    assert "image_size 28, here 40" in sentence


def test_what_is_new_learns_alone_also_after_a_stop(first, tmp_path):
    flow = replace(CONFIG, prior="flow")
    how = {"learn": "new", "start": str(first), "model": flow, "schedule": "constant"}
    folder = train(config(tmp_path / "flow", **how))
    whole = train(config(tmp_path / "whole", **how, epochs=2))
    train(config(None, resume=str(folder), epochs=2, **how))
    before, after, same = (load(f).state_dict() for f in (first, folder, whole))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(torch.equal(after[name], value) for name, value in same.items())
    torch.manual_seed(0)
    assert any(
        not torch.equal(after[name], value)
        for name, value in RNP(flow).state_dict().items()
        if name.startswith("model.prior")
    )
    with pytest.raises(ValueError, match="no parameter of this model is new"):
        train(config(tmp_path / "none", start=str(first), learn="new"))
    with pytest.raises(ValueError, match="A new piece that learns alone needs"):
        config(tmp_path / "none", learn="new")


class Wide(nn.Module):
    """A normal prior whose scale is learned, but for a constant that is not."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(3))
        self.fixed = nn.Parameter(torch.zeros(3), requires_grad=False)

    def forward(self):
        return Normal(self.fixed, self.log_scale.exp()).to_event(1)


def test_an_object_learns_in_a_copy_and_the_run_gives_it_back(tmp_path):
    images, prior = torch.rand(40, 1, 8, 8), Wide()
    run = fit(images, tiny(), out=tmp_path / "run", prior=prior, **QUIET)
    assert prior.log_scale.tolist() == [0, 0, 0]
    learned = run.load().model.prior
    assert isinstance(learned, Wide)
    assert learned.log_scale.abs().min() > 0
    assert learned.fixed.tolist() == [0, 0, 0]
    assert learned is not run.load().model.prior
    with pytest.raises(ValueError, match=r"give it: load\(run, prior=\.\.\.\)"):
        Run(run.path).load()
    assert isinstance(Run(run.path).load(prior=Wide()).model.prior, Wide)
    again = fit(images, resume=run, **{**QUIET, "epochs": 2})
    assert not torch.equal(again.load().model.prior.log_scale, learned.log_scale)
    assert fit(images, resume=run.path, prior=Wide(), **{**QUIET, "epochs": 3}).ended
    with pytest.raises(ValueError, match="was trained with prior object.*Wide.*, not normal"):
        fit(images, resume=run.path, prior="normal", **{**QUIET, "epochs": 4})
    match = r"prior was given as an object of .*Wide; give it: fit\(\.\.\., prior=\.\.\.\)\.$"
    with pytest.raises(ValueError, match=match):
        fit(images, resume=run.path, **{**QUIET, "epochs": 4})


class Scaled(nn.Module):
    """A likelihood whose scale is learned."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-1.0))

    def forward(self, canvas):
        return Normal(canvas, self.log_scale.exp()).to_event(3)


def test_a_run_gives_its_objects_to_one_that_starts_from_it_but_for_what_is_exchanged(tmp_path):
    images, pieces = torch.rand(40, 1, 8, 8), {"prior": Wide(), "likelihood": Scaled()}
    first = fit(images, tiny(), out=tmp_path / "first", **pieces, **QUIET)
    flow = fit(images, start=first, prior="flow", out=tmp_path / "flow", learn="new", **QUIET)
    assert flow.objects.keys() == {"likelihood"}
    assert flow.model_config.prior == "flow"
    learned = first.load().model.likelihood.log_scale
    assert torch.equal(flow.load().model.likelihood.log_scale, learned), "its weights are taken"
    same = fit(images, start=first, out=tmp_path / "same", **QUIET)
    assert same.objects == pieces
    fresh = fit(images, tiny(), start=first, out=tmp_path / "fresh", **QUIET)
    assert fresh.objects == {}
    assert fresh.model_config.prior == "normal"
    with pytest.raises(ValueError, match=r"likelihood was .*; give it: fit\(\.\.\., likelihood="):
        fit(images, start=first.path, prior="flow", out=tmp_path / "none", **QUIET)
    assert not (tmp_path / "none").exists()


def test_a_run_starts_from_another_with_an_object(tmp_path, few):
    first = fit(few, CONFIG, out=tmp_path / "first", **QUIET)
    run = fit(few, start=first, prior=Wide(), learn="new", out=tmp_path / "new", **QUIET)
    assert "New: prior." in (run.path / "log.txt").read_text()
    before, after = first.load().state_dict(), run.load().state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def alone(rnp, first, few, learn="prior"):
    """The training of a model in which the prior learns alone."""
    freeze(rnp, learn, [])
    config = TrainConfig(learn=learn, start=str(first), model=rnp.config)
    return Training(rnp, config, few, Timer(), Run(first))


@pytest.mark.parametrize("prior", ["flow:layers=2", "mixture:components=3", "vamp:components=2"])
@pytest.mark.parametrize("stochastic", ["none", "both"])
def test_a_prior_alone_learns_what_it_learns_of_all(first, few, prior, stochastic):
    rnp = RNP(replace(CONFIG, prior=prior, stochastic=stochastic))
    with torch.no_grad():
        for p in rnp.parameters():
            p.add_(0.1 * torch.randn_like(p))
    images, found = few.train[:8].images, []
    module = alone(rnp, first, few)
    assert module.prior_alone
    learning = [p for p in rnp.parameters() if p.requires_grad]
    rnp.model.register_forward_hook(lambda *_: pytest.fail("the model need not run"))
    torch.manual_seed(0)
    found.append(torch.autograd.grad(module.loss_per_image(images), learning))
    rnp.model._forward_hooks.clear()
    torch.manual_seed(0)
    whole = Trace_ELBO().differentiable_loss(rnp.model, rnp.guide, images) / 8
    found.append(torch.autograd.grad(whole, learning))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
        assert mine.abs().max() > 0


def test_a_prior_with_latents_of_its_own_learns_from_the_whole_objective(first, few):
    rnp = RNP(replace(CONFIG, prior="types"))
    assert not alone(rnp, first, few).prior_alone
    rnp = RNP(replace(CONFIG, prior="flow"))
    assert not alone(rnp, first, few, "all").prior_alone
    rnp = RNP(CONFIG, prior=Shared())
    assert not alone(rnp, first, few).prior_alone


class Shared(nn.Module):
    """A prior around a centre that is drawn once for all images."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(CONFIG.program_size))

    def forward(self):
        centre = pyro.sample("centre", Normal(0.0, 1.0))
        return Normal(centre.expand_as(self.log_scale), self.log_scale.exp()).to_event(1)


def test_all_but_the_prior_stays(first, few, tmp_path):
    run = fit(few, start=first, prior="flow", learn="prior", out=tmp_path / "flow", **QUIET)
    before, after = load(first).state_dict(), run.load().state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    fresh = RNP(run.model_config).model.prior.state_dict()
    assert not all(torch.equal(after[f"model.prior.{n}"], v) for n, v in fresh.items())
    assert run.metrics["images_seen"] == len(few.train)


def test_a_prior_without_parameters_has_nothing_to_learn(first, few, tmp_path):
    with pytest.raises(ValueError, match=r"prior normal has nothing to learn; .* --prior flow"):
        fit(few, start=first, learn="prior", out=tmp_path / "none", **QUIET)
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="A prior that learns alone needs .* --start"):
        TrainConfig(learn="prior")
