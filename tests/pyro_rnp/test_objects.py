"""Pieces that are given as objects: they train, are saved, loaded, sampled and asked like any."""

import gc
import json
import math
import pickle
from copy import deepcopy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from inference.posterior import query
from inference.run import Run
from pyro_rnp import RNP, RNPConfig, load, save
from pyro_rnp.checkpoint import load_weights
from pyro_rnp.compositions import Sum
from pyro_rnp.config import PIECES
from pyro_rnp.encoder import Encoder
from pyro_rnp.guides import BottomUp, DiagonalNormal, Refined
from pyro_rnp.placements import Bicubic
from pyro_rnp.priors import GaussianMixture, StudentT, VampPrior
from pyro_rnp.registry import PRIORS
from tests.conftest import tiny


class Sparse(nn.Module):
    """A prior that takes no configuration."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(3))

    def forward(self):
        return dist.Laplace(torch.zeros_like(self.log_scale), self.log_scale.exp()).to_event(1)


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 6)

    def posterior(self, images):
        loc, log_scale = self.layer(images.flatten(1)).chunk(2, -1)
        return dist.Normal(loc, log_scale.clamp(-5, 2).exp()).to_event(1)


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-1.0))

    def forward(self, canvas):
        return dist.Laplace(canvas, self.log_scale.exp()).to_event(3)


class Dim(Bicubic):
    """A placement that lets half of the light through."""

    def canvas(self, pixels, to_source, size):
        return super().canvas(pixels, to_source, size) / 2


def own():
    return {"prior": Sparse(), "guide": Linear(), "likelihood": Wide()}


def step(rnp, images, rate=1e-2):
    svi = SVI(rnp.model, rnp.guide, pyro.optim.Adam({"lr": rate}), Trace_ELBO())
    assert math.isfinite(svi.step(images))


def test_objects_train_save_load_sample_and_answer(tmp_path, images):
    pieces = own()
    rnp = RNP(tiny(), "own", **pieces)
    assert all(rnp.pieces()[field] is piece for field, piece in pieces.items())
    before = {name: p.detach().clone() for name, p in rnp.named_parameters()}
    step(rnp, images)
    for name in ("model.prior.log_scale", "guide.top.layer.weight", "model.likelihood.log_scale"):
        assert not torch.equal(before[name], rnp.get_parameter(name)), name
    save(rnp, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model"]["prior"] == (
        f'object:type="{__name__}.Sparse"'
    )
    found = load(tmp_path, **own())
    assert found.config == rnp.config
    assert torch.equal(found.parse(images).canvas, rnp.parse(images).canvas)
    assert found.sample(3).canvas.shape == (3, 1, 8, 8)
    answer = query(found, images[:1], method="importance", num_samples=5)
    assert answer.log_evidence.isfinite().all()
    again = Run(tmp_path).load(**own())
    assert torch.equal(again.parse(images).canvas, rnp.parse(images).canvas)


def test_objects_follow_the_model_s_precision(images):
    rnp = RNP(tiny(), **own()).double()
    assert rnp.parse(images).canvas.dtype == torch.float64
    assert rnp.sample(2).program.dtype == torch.float64


def test_what_is_missing_or_of_another_class_is_told_in_one_sentence(tmp_path):
    save(RNP(tiny(), prior=Sparse(), likelihood=Wide()), tmp_path)
    here = __name__.replace(".", r"\.")
    with pytest.raises(
        ValueError,
        match=rf"^This model's prior was given as an object of {here}\.Sparse; give it: "
        r"load\(run, prior=\.\.\.\), or RNP\(config, prior=\.\.\.\)\.$",
    ):
        load(tmp_path, likelihood=Wide())
    with pytest.raises(ValueError, match=r"likelihood was given as .*; give it: load\(run, likel"):
        load(tmp_path, prior=Sparse())
    with pytest.raises(ValueError, match=rf"an object of {here}\.Sparse, got one of {here}\.Wide"):
        load(tmp_path, prior=Wide(), likelihood=Wide())
    with pytest.raises(TypeError, match=r"no argument 'priors'; pieces are prior, guide, "):
        load(tmp_path, priors=Sparse())
    load(tmp_path, prior=Sparse(), likelihood=Wide(), guide="refined:steps=1")


def test_a_class_may_move_to_another_module(tmp_path):
    rnp = RNP(tiny(), prior=Sparse())
    save(rnp, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace(f"{__name__}.Sparse", "__main__.Sparse"))
    load(tmp_path, prior=Sparse())


def test_objects_are_no_choice_by_name():
    assert "object" not in PRIORS.describe()
    assert all("object" not in registry.pieces for registry in PIECES.values())
    for text in ("object", "object:kind=1", 'object:type=""'):
        with pytest.raises(ValueError, match="There is no prior 'object'"):
            RNPConfig(prior=text)
    with pytest.raises(ValueError, match="was given as an object of my.module.Mine"):
        RNP(RNPConfig(prior='object:type="my.module.Mine"'))


def test_a_piece_of_the_package_may_be_made_by_hand(tmp_path, images):
    config = tiny()
    rnp = RNP(config, prior=GaussianMixture(config, components=5))
    assert rnp.model.prior.loc.shape == (5, 3)
    step(rnp, images)
    save(rnp, tmp_path)
    found = load(tmp_path, prior=GaussianMixture(config, components=5))
    assert torch.equal(found.model.prior.loc, rnp.model.prior.loc)
    with pytest.raises(ValueError, match=r"prior.loc it holds \(5, 3\) and the configuration w"):
        load(tmp_path, prior=GaussianMixture(config, components=4))


def test_an_object_may_stand_in_for_a_name_and_a_name_for_an_object(tmp_path, images):
    config = tiny(prior="mixture:components=5")
    save(RNP(config), tmp_path)
    found = load(tmp_path, prior=GaussianMixture(config, components=5))
    assert found.config.prior == 'object:type="pyro_rnp.priors.mixture.GaussianMixture"'
    assert load(tmp_path).config == config
    save(found, tmp_path / "other")
    assert load(tmp_path / "other", prior="mixture:components=5").config == config
    assert RNP(config, prior="studentt:df=3.0").model.prior.df == 3


def test_a_placement_and_a_composition_as_objects(tmp_path, images):
    config, torch_state = tiny(), torch.get_rng_state()
    plain = RNP(config, placement="bicubic")
    torch.set_rng_state(torch_state)
    rnp = RNP(config, placement=Dim(config), composition=Sum(config))
    torch.testing.assert_close(rnp.parse(images)[0].canvas, plain.parse(images)[0].canvas / 2)
    step(rnp, images)
    save(rnp, tmp_path)
    found = load(tmp_path, placement=Dim(config), composition=Sum(config))
    assert torch.equal(found.parse(images).canvas, rnp.parse(images).canvas)
    with pytest.raises(ValueError, match="The program flat places no parts; leave out placement="):
        RNP(tiny(program="flat"), placement=Dim(config))


def test_a_lower_guide_as_an_object(tmp_path, images):
    config = tiny(stochastic="actions")
    rnp = RNP(config, lower_guide=BottomUp(config))
    step(rnp, images)
    save(rnp, tmp_path)
    found = load(tmp_path, lower_guide=BottomUp(config))
    assert torch.equal(found.parse(images).canvas, rnp.parse(images).canvas)
    with pytest.raises(ValueError, match="needs random sites below the top; set stochastic"):
        RNP(tiny(), lower_guide=BottomUp(config))


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        ({"prior": Sparse}, r"^prior must be an object, got the class Sparse; make one\.$"),
        ({"prior": lambda: None}, r"^prior must be a torch\.nn\.Module, got builtins\.function\.$"),
        ({"prior": dist.Normal(0.0, 1.0)}, r"got pyro\S*Normal; a distribution is what its forw"),
        ({"guide": nn.Linear(3, 3)}, r"^guide must have posterior, which torch.*Linear has not\.$"),
        ({"prior": Linear()}, r"^prior must have forward, which \S*Linear has not\.$"),
        ({"placement": Sparse()}, "^placement must have blank"),
        ({"composition": 3}, "^composition must have __call__, which builtins.int has not"),
    ],
)
def test_what_is_no_piece_is_told_in_one_sentence(pieces, sentence):
    with pytest.raises(ValueError, match=sentence):
        RNP(tiny(), **pieces)


def test_two_models_may_share_a_piece(images):
    prior = Sparse()
    one, two = RNP(tiny(), "one", prior=prior), RNP(tiny(), "two", prior=prior)
    for rnp in (one, two, one):
        before = prior.log_scale.detach().clone()
        step(rnp, images)
        assert not torch.equal(before, prior.log_scale)
    assert one.model.prior.log_scale is two.model.prior.log_scale


@pytest.mark.parametrize("make", [VampPrior, Refined])
def test_a_piece_that_keeps_its_model_serves_one_at_a_time(make, images):
    field = "prior" if make is VampPrior else "guide"
    piece = make(tiny())
    rnp = RNP(tiny(), **{field: piece})
    canvas = rnp.parse(images).canvas
    with pytest.raises(ValueError, match=f"This {make.__name__} is the {field} of another RNP"):
        RNP(tiny(), **{field: piece})
    assert torch.equal(rnp.parse(images).canvas, canvas)
    other = RNP(tiny(), "other", **{field: deepcopy(piece)})
    step(other, images)
    assert torch.equal(rnp.parse(images).canvas, canvas)
    del rnp
    gc.collect()
    RNP(tiny(), **{field: piece})


def test_copies_and_pickles_work_and_are_their_own(images):
    rnp = RNP(tiny(), **{**own(), "prior": VampPrior(tiny(), components=2)})
    canvas = rnp.parse(images).canvas
    for i, copy in enumerate((deepcopy(rnp), pickle.loads(pickle.dumps(rnp)))):
        assert torch.equal(copy.parse(images).canvas, canvas)
        assert copy.model.prior.guide[0] is copy.guide
        copy.name = f"copy-{i}"
        step(copy, images)
        assert torch.equal(rnp.parse(images).canvas, canvas)
        assert not torch.equal(copy.parse(images).canvas, canvas)


def test_pieces_may_share_a_network(tmp_path, images):
    class Encoded(Linear):
        def __init__(self, encoder):
            super().__init__()
            self.encoder, self.layer = encoder, nn.Linear(6, 6)

        def posterior(self, images):
            return super().posterior(self.encoder(images))

    class Noise(Wide):
        def __init__(self, encoder):
            super().__init__()
            self.encoder = encoder

    def pieces():
        encoder = Encoder(tiny(), 6)
        return {"guide": Encoded(encoder), "likelihood": Noise(encoder)}

    rnp = RNP(tiny(), **pieces())
    step(rnp, images)
    assert rnp.model.likelihood.encoder is rnp.guide.top.encoder
    save(rnp, tmp_path)
    found = load(tmp_path, **pieces())
    assert torch.equal(found.parse(images).canvas, rnp.parse(images).canvas)


def test_weights_are_loaded_in_part_where_a_piece_is_another(tmp_path, images):
    old = RNP(tiny(prior="mixture:components=2"))
    save(old, tmp_path)
    path = tmp_path / "model.safetensors"
    rnp = RNP(tiny(prior="flow:layers=1,units=3"))
    with pytest.raises(ValueError, match=r"another architecture: at model\.prior\."):
        load_weights(rnp, path)
    prior = {name: p.clone() for name, p in rnp.model.prior.state_dict().items()}
    new, unused = load_weights(rnp, path, partial=True)
    assert new == [f"model.prior.{name}" for name in sorted(prior)]
    assert unused == [f"model.prior.{name}" for name in ("loc", "log_scale", "logits")]
    assert torch.equal(rnp.parse(images).canvas, old.parse(images).canvas)
    assert all(torch.equal(p, prior[name]) for name, p in rnp.model.prior.state_dict().items())
    assert load_weights(RNP(old.config), path) == ([], [])
    bigger = RNP(tiny(prior="mixture:components=3"))
    names = [f"model.prior.{name}" for name in ("loc", "log_scale", "logits")]
    assert load_weights(bigger, path, partial=True) == (names, names)
    small = {"network_units": 7, "hypernet_units": 9, "program_size": 2, "encoder_units": 8}
    other = RNP(tiny(**small, encoder_channels=9, steps=(2,), image_size=9, patch_size=4))
    with pytest.raises(ValueError, match="another architecture"):
        load_weights(other, path, partial=True)


def test_pieces_without_weights_take_the_place_of_others(tmp_path):
    save(RNP(tiny()), tmp_path)
    assert load(tmp_path, prior=StudentT(tiny())).model.prior.df == 4
    assert load(tmp_path, guide=DiagonalNormal(tiny())).config.guide.startswith("object:")
