"""`check`: the pieces of the project keep the laws, and each law has a piece that breaks it."""

import random
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints

from pyro_rnp import RNP, check
from pyro_rnp.compositions import Over
from pyro_rnp.config import PIECES
from pyro_rnp.guides import DiagonalNormal, TopDown
from pyro_rnp.laws import CONTRACTS, LAWS, broken, kind_of
from pyro_rnp.placements import Bilinear, Continuous
from pyro_rnp.priors import GaussianMixture, VampPrior
from tests.conftest import tiny
from tests.pyro_rnp.test_contract import ZukoGuide, ZukoPrior

CONFIG = tiny(stochastic="both")


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in CONTRACTS for name in PIECES[kind].pieces]
)
def test_the_pieces_that_come_with_the_project_keep_the_laws(kind, name):
    assert type(check(name, CONFIG, kind)) is PIECES[kind].pieces[name]


class Prior(nn.Module):
    """A prior that is good; those below change one thing."""

    def __init__(self):
        super().__init__()
        self.register_buffer("loc", torch.zeros(3))
        self.log_scale = nn.Parameter(torch.zeros(3))

    def normal(self):
        return dist.Normal(self.loc, self.log_scale.exp())

    def forward(self):
        return self.normal().to_event(1)


class Guide(nn.Module):
    """A guide that is good."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def posterior(self, images):
        return dist.Normal(self.layer(images.flatten(1)), 1.0).to_event(1)


class Likelihood(nn.Module):
    """A likelihood that is good."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, canvas):
        return dist.Normal(canvas, self.log_scale.exp()).to_event(3)


class Unshaped(Prior):
    def forward(self):
        return self.normal()


class UnshapedGuide(Guide):
    def posterior(self, images):
        return dist.Normal(self.layer(images.flatten(1)).squeeze(0), 1.0).to_event(1)


class Flattened(Likelihood):
    """It works for a batch of images alone, and not for particles."""

    def forward(self, canvas):
        return super().forward(canvas.flatten(0, -4))


class Kept(Prior):
    def __init__(self):
        super().__init__()
        self.scale = self.log_scale.exp()


class Failing(Prior):
    def forward(self):
        return self.normals()


class Deterministic(Guide):
    """A distribution that cannot be scored."""

    class Sampler(dist.TorchDistribution):
        arg_constraints = dist.Normal.arg_constraints
        has_rsample = True

        def __init__(self, loc):
            self.loc = loc
            super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

        def rsample(self, sample_shape=()):
            return self.loc.expand(*sample_shape, *self.loc.shape)

        def log_prob(self, value):
            raise NotImplementedError("no density")

    def posterior(self, images):
        return self.Sampler(self.layer(images.flatten(1)))


class DrawsZ(Prior):
    def forward(self):
        pyro.sample("z", self.normal().to_event(1))
        return super().forward()


class Scaled(Likelihood):
    def forward(self, canvas):
        scale = pyro.sample("scale", dist.LogNormal(self.log_scale, 1.0))
        return dist.Normal(canvas, scale.view(-1, 1, 1, 1)).to_event(3)


class InPlace(Guide):
    def posterior(self, images):
        return super().posterior(images.sub_(0.5))


class Infinite(Likelihood):
    def forward(self, canvas):
        return dist.Normal(canvas, 0 * self.log_scale.exp(), validate_args=False).to_event(3)


class Restless(Likelihood):
    def forward(self, canvas):
        return super().forward(canvas + torch.rand_like(canvas))


class OfAll(Guide):
    def posterior(self, images):
        return super().posterior(images - images.mean())


class Listed(Prior):
    def __init__(self):
        super().__init__()
        self.locs = [torch.zeros(3, requires_grad=True)]

    def forward(self):
        return dist.Normal(self.locs[0], self.log_scale.exp()).to_event(1)


class Detached(Prior):
    def normal(self):
        return dist.Normal(self.loc, self.log_scale.detach().exp())


class Steep(Guide):
    """The gradient of a square root at 0 is infinite."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def posterior(self, images):
        loc = self.layer(images.flatten(1)) * self.scale.sqrt()
        return dist.Normal(loc, 1.0).to_event(1)


class Rounded(Likelihood):
    def forward(self, canvas):
        return super().forward(canvas.detach())


class Single(Prior):
    def normal(self):
        return dist.Normal(torch.zeros(3), self.log_scale.exp().float())


class Cpu(Prior):
    def normal(self):
        return dist.Normal(torch.zeros(3).to(self.loc.dtype), self.log_scale.exp())


class Light(Likelihood):
    """Pixels above 0 alone, while a missing pixel is 0."""

    def forward(self, canvas):
        return dist.LogNormal(canvas, self.log_scale.exp()).to_event(3)


class Heavy(Likelihood):
    """A distribution without a mean that Pyro knows."""

    def forward(self, canvas):
        class Unknown(dist.Normal):
            @property
            def mean(self):
                raise NotImplementedError

        return Unknown(canvas, self.log_scale.exp()).to_event(3)


class SeesMissing(Guide):
    sees_missing = True

    def posterior(self, images):
        loc = self.layer(images.flatten(1))
        return dist.Normal(loc, 1.0, validate_args=False).to_event(1)


class Short(TopDown):
    """It gives the first number alone."""

    def forward(self, *args):
        return tuple(value[:, :1] for value in super().forward(*args))


class Negative(TopDown):
    def forward(self, *args):
        mean, deviation = super().forward(*args)
        return mean, -deviation


class Bright(Bilinear):
    def patch(self, appearance):
        return 2 * super().patch(appearance)


class Everywhere(Bilinear):
    def canvas(self, pixels, to_source, size):
        return super().canvas(pixels, to_source, size) + 0.1


class Blurred(Continuous):
    """A leaf that shows beyond its frame."""

    def leaf(self, appearance, to_source, size):
        return self._pixels(appearance, to_source, size)


class Stuck(Bilinear):
    def canvas(self, pixels, to_source, size):
        return super().canvas(pixels, to_source.detach(), size)


class Small(Bilinear):
    """It draws at the size of the patch."""

    def canvas(self, pixels, to_source, size):
        return super().canvas(pixels, to_source, self.shape[-1])


class Doubled(Over):
    def __call__(self, placed, covers):
        return 2 * super().__call__(placed, covers)


class Averaged(Over):
    """Shares by the mean over images."""

    def __call__(self, placed, covers):
        return super().__call__(placed, covers) * placed.mean(1, keepdim=True).clamp(0, 1)


class Summed(Over):
    def __call__(self, placed, covers):
        return super().__call__(placed, covers).sum(0)


class Noisy(Over):
    def __call__(self, placed, covers):
        return super().__call__(placed, covers) * torch.rand(())


class Erasing(Over):
    def __call__(self, placed, covers):
        placed.clamp_(max=0.5)
        return super().__call__(placed, covers)


class Chance(Over):
    def __call__(self, placed, covers):
        return super().__call__(placed, covers) * pyro.sample("opacity", dist.Uniform(0, 1))


made = partial(partial, config=CONFIG)
BROKEN = [
    ("object", "prior", lambda: dist.Normal(0, 1), "must be a torch.nn.Module, got pyro"),
    ("object", "guide", lambda: Prior(), "guide must have posterior, which .*Prior has not"),
    ("copy", "prior", Kept, "must be one that copy.deepcopy copies: .* is computed anew"),
    ("call", "prior", Failing, "prior Failing: forward with no arguments raised AttributeError: "),
    ("call", "prior", Unshaped, r"event shape \(3,\) and batch shape \(\), got \(\) with batch"),
    ("shape", "guide", UnshapedGuide, r"batch shape \(1,\), got \(3,\) with batch shape \(\)"),
    ("shape", "likelihood", Flattened, r"batch shape \(2, 3\), got \(1, 8, 8\) with .* \(6,\)"),
    ("call", "lower_guide", made(Short), r"a, 1 below .* mean must be a tensor of shape \(2, 6\)"),
    ("call", "placement", made(Small), r"canvas must be a tensor of shape \(2, 1, 8, 8\), got"),
    ("call", "composition", made(Summed), r"shares must be .* \(3, 2, 1, 8, 8\), got \(2, 1, 8, 8"),
    ("plate", "likelihood", Scaled, "'scale' stands inside of the plate of images"),
    ("plate", "composition", made(Chance), "'opacity' stands inside of the plate of images"),
    ("names", "prior", DrawsZ, "must not draw the model's own site 'z'"),
    ("arguments", "guide", InPlace, "leave its arguments as they are, but changed images"),
    ("arguments", "composition", made(Erasing), "but changed placed in place"),
    ("finite", "likelihood", Infinite, "finite numbers, got nan for log_prob of its own sample"),
    ("density", "guide", Deterministic, "drawn and scored; Sampler raised NotImplementedError: no"),
    ("range", "lower_guide", made(Negative), "standard deviation must be positive, got -"),
    ("range", "placement", made(Bright), r"patch must lie in \[0, 1\], got values from .* to 1."),
    (
        "range",
        "composition",
        made(Doubled),
        r"shares must lie in \[0, 1\], got values .* to 2",
    ),
    ("outside", "placement", made(Everywhere), "canvas must be 0 outside .*, got 0.1 of a patch"),
    ("outside", "placement", made(Blurred), "leaf must be 0 outside of the patch's frame, got"),
    ("moments", "likelihood", Heavy, "with a mean, .* and a support; Independent has not both"),
    ("missing", "likelihood", Light, "take 0 at missing pixels, .* raised Expected value argument"),
    ("missing", "guide", SeesMissing, "must leave out missing pixels, but gave nan of images"),
    ("deterministic", "likelihood", Restless, "the same for the same arguments, but .* log_prob"),
    ("deterministic", "composition", made(Noisy), "gave another shares the second time"),
    ("alone", "guide", OfAll, "each image by itself, but log_prob of an image differs"),
    ("alone", "composition", made(Averaged), "each image by itself, but shares of an image"),
    ("registered", "prior", Listed, r"another tensor of shape \(3,\) that requires gradients"),
    ("gradient", "prior", Detached, "a gradient to each of its parameters, but log_scale gets"),
    ("gradient", "guide", Steep, "must have finite gradients, got (inf|-inf|nan) for scale"),
    ("differentiable", "likelihood", Rounded, "from log_prob to canvas, got none"),
    ("differentiable", "placement", made(Stuck), "gradient from canvas to to_source, got none"),
    ("precision", "prior", Single, "in float64 sample is torch.float32; make constants by"),
    ("device", "prior", Cpu, "on another device than the CPU it mixes tensors of both"),
]


@pytest.mark.parametrize(("law", "kind", "make", "sentence"), BROKEN)
def test_a_piece_that_breaks_a_law_is_told_which(law, kind, make, sentence):
    piece = make()
    found = broken(piece, CONFIG, kind)
    assert found is not None, "the piece passes"
    assert found[0] == law, found
    with pytest.raises(ValueError, match=sentence) as error:
        check(piece, CONFIG, kind)
    assert str(error.value).count("\n") == 0
    assert len(str(error.value)) < 500


def test_each_law_has_a_piece_that_breaks_it():
    assert {law for law, *_ in BROKEN} == {"object", "copy", "call", *LAWS}


@pytest.mark.parametrize("make", [Prior, Guide, Likelihood])
def test_the_pieces_that_are_changed_are_good_before(make):
    piece = make()
    assert check(piece, CONFIG) is piece
    assert kind_of(piece) == make.__name__.lower()


class Global(Prior):
    """A latent of its own, one for all images."""

    def forward(self):
        mu = pyro.sample("mu", dist.Normal(self.loc, self.log_scale.exp()).to_event(1))
        return dist.Normal(mu, 1.0).to_event(1)


class Constrained(PyroModule):
    def __init__(self):
        super().__init__()
        self.register_buffer("loc", torch.zeros(3))
        self.scale = PyroParam(torch.ones(3), constraints.positive)

    def forward(self):
        return dist.Normal(self.loc, self.scale).to_event(1)


class Normalised(Guide):
    """Its images depend on each other in training alone; a part of it is frozen."""

    def __init__(self):
        super().__init__()
        self.eye = nn.Sequential(nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.eye[0].requires_grad_(False)
        self.layer = nn.Linear(4, 6)

    def posterior(self, images):
        loc = self.layer(self.eye(images.flatten(1))).unflatten(-1, (2, 3))
        each = dist.Normal(loc, 1.0).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=loc[..., 0]), each)


class Joint(Likelihood):
    """Pixels that depend on each other, so that none may be missing."""

    def forward(self, canvas):
        base = dist.Normal(canvas.flatten(-3), self.log_scale.exp()).to_event(1)
        shape = canvas.shape[-3:]
        view = dist.transforms.ReshapeTransform((shape.numel(),), shape)
        return WithMean(base, [view])


class WithMean(dist.TransformedDistribution):
    @property
    def mean(self):
        return self.transforms[0](self.base_dist.mean)


class Counted(Over):
    """A composition with no base class's help, and without shares of its own."""

    opaque = False

    def __call__(self, placed, covers):
        assert covers is None


@pytest.mark.parametrize(
    "make", [Global, Constrained, Normalised, Joint, lambda: Counted(CONFIG), ZukoPrior, ZukoGuide]
)
def test_unusual_pieces_that_keep_the_laws_are_good(make):
    piece = make()
    assert check(piece, CONFIG) is piece


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 3},
        {"steps": (2, 1, 2), "stochastic": "none,both,actions"},
        {"steps": (3,), "stochastic": "programs"},
        {"image_size": 12, "composed": True, "feedback": "decoding", "placement": "continuous"},
    ],
)
def test_pieces_keep_the_laws_at_other_shapes(changes):
    config = tiny(**{"stochastic": "both", **changes})
    for kind, name in [
        *(("prior", "vamp"), ("guide", "flow"), ("lower_guide", "bottom_up")),
        *(("likelihood", "bernoulli"), ("placement", "continuous"), ("composition", "over")),
    ]:
        check(name, config, kind)


@pytest.mark.parametrize("kind", CONTRACTS)
def test_the_kind_is_known_from_the_base_class_or_the_methods(kind):
    for name in PIECES[kind].pieces:
        piece = PIECES[kind].make(name, CONFIG)
        assert kind_of(piece) == kind


@pytest.mark.parametrize(
    ("piece", "kind", "sentence"),
    [
        (Prior, None, "check takes an object, .* got the class Prior"),
        ("flow", None, "check takes an object, or text with a kind, got the text 'flow'"),
        (dist.Normal(0, 1), None, "It is not clear which kind of piece Normal is; say kind= one"),
        (nn.Module(), None, "It is not clear which kind of piece Module is"),
        ("flow", "priors", "kind must be one of prior, guide, .* got 'priors'"),
        ("flwo", "prior", r"There is no prior 'flwo' \(did you mean flow\?\)"),
    ],
)
def test_what_is_no_piece_is_told(piece, kind, sentence):
    with pytest.raises(ValueError, match=sentence):
        check(piece, CONFIG, kind)


def test_a_lower_guide_needs_random_sites():
    with pytest.raises(ValueError, match="needs random sites below the top; set stochastic"):
        check(TopDown(CONFIG), tiny())


def test_a_check_leaves_all_as_it_was():
    """Random states, Pyro's parameter store, the piece, and the model that it serves."""
    rnp = RNP(CONFIG, prior=VampPrior(CONFIG, components=2))
    rnp.model.register()
    store = dict(pyro.get_param_store().items())
    before = {name: value.clone() for name, value in rnp.state_dict().items()}
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    wanted = torch.rand(2).tolist(), np.random.rand(), random.random()
    mixture = GaussianMixture(CONFIG)
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    rnp.eval()
    check(rnp.model.prior, CONFIG)
    check(mixture, CONFIG)
    with pytest.raises(ValueError, match="own site"):
        check(DrawsZ(), CONFIG)
    assert (torch.rand(2).tolist(), np.random.rand(), random.random()) == wanted
    assert not any(module.training for module in rnp.modules())
    assert rnp.model.prior.guide[0] is rnp.guide
    assert all(torch.equal(value, before[name]) for name, value in rnp.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in rnp.parameters())
    now = dict(pyro.get_param_store().items())
    assert now.keys() == store.keys()
    assert all(now[name] is store[name] for name in store)
    RNP(CONFIG, prior=GaussianMixture(CONFIG), guide=DiagonalNormal(CONFIG))


@pytest.mark.parametrize(
    ("field", "piece", "sentence"),
    [
        ("prior", Unshaped, r"event shape \(3,\)"),
        ("guide", lambda: nn.Linear(3, 3), "must have posterior"),
        ("likelihood", lambda: nn.Linear(3, 3), "forward with canvas of shape .* raised Runtime"),
        ("placement", made(Small), "canvas must be a tensor of shape"),
        ("composition", made(Summed), "shares must be"),
        ("lower_guide", made(Short), "must be a tensor of shape"),
    ],
)
def test_a_model_looks_at_shapes_when_it_is_made(field, piece, sentence):
    torch.manual_seed(0)
    piece = piece()
    torch.manual_seed(0)
    RNP(CONFIG)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=sentence):
        RNP(CONFIG, **{field: piece})
    assert field == "lower_guide" or wanted is not None


def test_shapes_are_looked_at_without_a_trace(images):
    """A piece draws in its constructor and its calls, and the model's weights are the same."""
    weights = []
    guide = Normalised().train()
    before = {name: value.clone() for name, value in guide.state_dict().items()}
    RNP(CONFIG, guide=guide)
    assert all(module.training for module in guide.modules())
    assert all(torch.equal(value, before[name]) for name, value in guide.state_dict().items())
    RNP(CONFIG, prior=Constrained())
    assert not list(pyro.get_param_store()), "a PyroModule registers its parameters when it is used"
    for given in ({}, {"likelihood": Likelihood()}):
        torch.manual_seed(0)
        weights.append(RNP(CONFIG, **given).guide.state_dict())
        weights[-1]["next"] = torch.rand(1)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
