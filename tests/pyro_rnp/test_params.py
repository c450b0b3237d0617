"""A model's parameters in Pyro's store: stable names, and what the store says takes effect."""

import copy
import io
import pickle
import subprocess
import sys

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.func import functional_call, grad

from inference.data import ImageSet
from inference.evaluation.metrics import evaluate
from inference.objectives import OBJECTIVES, loss
from inference.posterior import query
from pyro_rnp import RNP, load, save
from tests.conftest import tiny


def svi_of(rnp, rate=0.02):
    return SVI(rnp.model, rnp.guide, pyro.optim.Adam({"lr": rate}), Trace_ELBO())


def loss_of(rnp, images):
    """The loss of the same draws, by a fresh SVI."""
    pyro.set_rng_seed(7)
    return svi_of(rnp).evaluate_loss(images)


def values(rnp):
    return copy.deepcopy(rnp.state_dict())


def moved(rnp, before):
    return sum(not torch.equal(value, before[name]) for name, value in rnp.state_dict().items())


def trained(images, steps=3, **changes):
    rnp, svi = RNP(tiny(**changes)), None
    svi = svi_of(rnp)
    for _ in range(steps):
        svi.step(images)
    return rnp, svi


def test_names_are_the_same_for_every_model_and_can_be_chosen(images):
    found = []
    for name in ("rnp", "rnp", "mine"):
        pyro.clear_param_store()
        rnp = RNP(tiny(), name=name)
        svi_of(rnp).step(images)
        found.append(list(pyro.get_param_store()))
        parts = {"model": rnp.model, "guide": rnp.guide}
        assert set(found[-1]) == {
            f"{name}.{part}$$${path}"
            for part, module in parts.items()
            for path, _ in module.named_parameters()
        }
    assert found[0] == found[1]
    rnp.name = "other"
    assert (rnp.model.name, rnp.guide.name) == ("other", "other")


SECOND_PROCESS = """
import sys, pyro, torch
from tests.pyro_rnp.test_params import *
folder = sys.argv[1]
images = torch.load(f"{folder}/images.pt")
rnp = RNP(tiny())
svi = svi_of(rnp)
pyro.get_param_store().load(f"{folder}/store")
svi.optim.load(f"{folder}/optimiser")
before = loss_of(rnp, images)
pyro.set_rng_seed(8)
after = [svi.step(images) for _ in range(2)]
print([before, *after])
"""


def test_another_process_goes_on_from_a_saved_store_and_optimiser(images, tmp_path):
    rnp, svi = trained(images)
    pyro.get_param_store().save(str(tmp_path / "store"))
    svi.optim.save(str(tmp_path / "optimiser"))
    torch.save(images, tmp_path / "images.pt")
    expected = [loss_of(rnp, images)]
    pyro.set_rng_seed(8)
    expected += [svi.step(images) for _ in range(2)]
    command = [sys.executable, "-c", SECOND_PROCESS, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert eval(said.splitlines()[-1]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("changes", [{}, {"stochastic": "both"}, {"prior": "vamp:components=2"}])
def test_a_store_that_is_loaded_takes_effect_in_this_model_and_in_a_second_one(
    changes, images, tmp_path
):
    rnp, svi = trained(images, **changes)
    pyro.get_param_store().save(str(tmp_path / "store"))
    expected, good = loss_of(rnp, images), values(rnp)
    for _ in range(3):
        svi.step(images)
    assert loss_of(rnp, images) != expected
    second = RNP(tiny(**changes))
    for model in (rnp, second):
        pyro.clear_param_store()
        pyro.get_param_store().load(str(tmp_path / "store"))
        assert loss_of(model, images) == pytest.approx(expected, rel=1e-6)
        assert not moved(model, good)
        svi_of(model).step(images)
        assert moved(model, good) > 0.8 * len(list(model.parameters()))


@pytest.mark.parametrize("how", ["parse", "sample", "save", "query", "evaluate", "loss"])
def test_all_that_uses_a_model_sees_what_the_store_says(how, images, tmp_path):
    rnp, _ = trained(images)
    good = values(rnp)
    pyro.get_param_store().save(str(tmp_path / "store"))
    pyro.clear_param_store()
    second = RNP(tiny())
    pyro.get_param_store().load(str(tmp_path / "store"))
    if how == "parse":
        second.parse(images)
    elif how == "sample":
        second.sample(1)
    elif how == "save":
        save(second, tmp_path / "run")
        second = load(tmp_path / "run")
    elif how == "query":
        query(second, images, method="guide", num_samples=2)
    elif how == "evaluate":
        evaluate(second, ImageSet(images, torch.zeros(4, dtype=torch.long)))
    else:
        loss(OBJECTIVES.make("Trace_ELBO"), second, images)
    if how in ("sample", "loss", "parse"):
        second.take_over()
    assert not moved(second, good)


def test_a_module_that_changes_is_what_learns(images):
    rnp, svi = trained(images)
    rnp.load_state_dict(RNP(tiny()).state_dict(), assign=True)
    rnp.requires_grad_(True)
    before = values(rnp)
    svi.step(images)
    assert moved(rnp, before) > 0.8 * len(before)
    rnp.guide.top.encoder = type(rnp.guide.top.encoder)(tiny(), 6)
    fresh = values(rnp)
    svi.step(images)
    assert moved(rnp, fresh) > 0.8 * len(before)


def test_a_compiled_model_has_the_names_that_it_has_uncompiled(images, tmp_path):
    trained(images)
    names = list(pyro.get_param_store())
    pyro.clear_param_store()
    rnp = RNP(tiny())
    rnp.model.recursion = torch.compile(rnp.model.recursion, backend="eager")
    rnp.model.register()
    rnp.guide.register()
    assert set(pyro.get_param_store()) == set(names)


def test_tensors_of_a_functional_call_do_not_enter_the_store(images):
    rnp, _ = trained(images)
    own = dict(rnp.model.named_parameters())
    name = "recursion.hypernets.0.vectors.bias"

    def total(bias):
        condition = {"z": torch.zeros(4, 3)}
        parameters = {name: bias}
        with poutine.condition(data=condition):
            return functional_call(rnp.model, parameters, (images,)).canvas.sum()

    found = grad(total)(own[name].detach())
    with poutine.condition(data={"z": torch.zeros(4, 3)}):
        wanted = torch.autograd.grad(rnp.model(images).canvas.sum(), own[name])[0]
    torch.testing.assert_close(found, wanted)
    for path, parameter in own.items():
        assert pyro.get_param_store()[f"rnp.model$$${path}"] is parameter


def test_a_handler_that_gives_parameters_other_values_is_refused(images):
    rnp, name = RNP(tiny()), "recursion.hypernets.0.vectors.bias"
    prior = pyro.distributions.Normal(torch.zeros(rnp.model.get_parameter(name).shape), 1.0)
    lifted = poutine.lift(rnp.model, prior={name: prior.to_event(1)})
    with pytest.raises(ValueError, match=r"poutine.lift, gives another value for rnp.model\$\$\$"):
        lifted(images)


def test_values_set_in_the_store_take_effect_and_frozen_parameters_follow(images):
    rnp, _ = trained(images)
    store = pyro.get_param_store()
    name = "rnp.model$$$recursion.hypernets.0.vectors.bias"
    store[name] = torch.full_like(store[name], 0.25)
    rnp.parse(images)
    assert (rnp.model.recursion.hypernets[0].vectors.bias == 0.25).all()
    rnp.model.requires_grad_(False)
    store[name] = torch.full_like(store[name], 0.75).detach()
    svi_of(rnp).step(images)
    bias = rnp.model.recursion.hypernets[0].vectors.bias
    assert (bias == 0.75).all()
    assert not bias.requires_grad


def test_what_does_not_fit_is_told_in_one_sentence(images, tmp_path):
    trained(images)
    pyro.get_param_store().save(str(tmp_path / "store"))
    pyro.clear_param_store()
    pyro.get_param_store().load(str(tmp_path / "store"))
    with pytest.raises(
        ValueError, match=r"this model has .*clear_param_store\(\), or give"
    ) as error:
        RNP(tiny(program_size=4)).parse(images)
    assert "\n" not in str(error.value)


def test_a_second_model_is_trained_by_its_own_parameters_and_the_first_stays(images):
    first = RNP(tiny())
    second = copy.deepcopy(first)
    before = values(first)
    svi_of(first, 0.0).step(images)
    with pytest.warns(UserWarning, match=r"Two models are named 'rnp'.*RNP\(config, name=...\)"):
        svi_of(second, 0.1).step(images)
    assert not moved(first, before)
    assert moved(second, before) > 0.8 * len(before)
    third = RNP(tiny(), name="third")
    before = values(third)
    svi_of(third).step(images)  # no warning
    assert moved(third, before) > 0.8 * len(before)


def test_parameters_in_another_order_of_memory_learn(images):
    rnp = RNP(tiny()).to(memory_format=torch.channels_last)
    before, svi = values(rnp), svi_of(rnp)
    for _ in range(4):  # the encoder's branches start at zero
        svi.step(images)
    assert moved(rnp, before) == len(before)


def test_a_piece_may_be_a_pyro_module(images, tmp_path):
    class Prior(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(3))
            positive = pyro.distributions.constraints.positive
            self.scale = PyroParam(torch.ones(3), constraint=positive)

        def forward(self):
            return pyro.distributions.Normal(self.loc, self.scale).to_event(1)

    rnp = RNP(tiny())
    rnp.model.prior = Prior()
    svi = svi_of(rnp)
    for _ in range(3):
        svi.step(images)
    assert (rnp.model.prior.loc != 0).all()
    assert (rnp.model.prior.scale != 1).all()
    expected = loss_of(rnp, images)
    pyro.get_param_store().save(str(tmp_path / "store"))
    pyro.clear_param_store()
    second = RNP(tiny())
    second.model.prior = Prior()
    pyro.get_param_store().load(str(tmp_path / "store"))
    assert loss_of(second, images) == pytest.approx(expected, rel=1e-6)


class Located(PyroModule):
    """A piece whose parameter Pyro knows as `loc`, or as `name.loc`."""

    def __init__(self, value, name=""):
        super().__init__(name)
        self.loc = nn.Parameter(torch.full((3,), value))

    def forward(self):
        return pyro.distributions.Normal(self.loc, 1.0).to_event(1)


def test_pyro_modules_of_two_models_do_not_become_one(images):
    models = [RNP(tiny(), name=name) for name in "ab"]
    for rnp, value in zip(models, (0.0, 9.0), strict=True):
        rnp.model.prior = Located(value)
    svi_of(models[0], 0.0).step(images)
    with pytest.raises(ValueError, match=r"Two PyroModules have a parameter 'loc'.*__init__"):
        svi_of(models[1], 0.0).step(images)
    for rnp, value in zip(models, (0.0, 9.0), strict=True):
        rnp.model.prior = Located(value, rnp.name)
        svi_of(rnp, 0.0).step(images)
        assert (rnp.model.prior.loc == value).all()


def test_a_model_can_be_pickled_after_steps_and_evaluations(images, tmp_path):
    rnp, _ = trained(images, stochastic="actions")
    evaluate(rnp, ImageSet(images, torch.zeros(4, dtype=torch.long)))
    for again in (
        pickle.loads(pickle.dumps(rnp)),
        torch.load(io.BytesIO(_saved(rnp)), weights_only=False),
        copy.deepcopy(rnp),
    ):
        assert not moved(again, rnp.state_dict())
        assert torch.equal(again.parse(images).canvas, rnp.parse(images).canvas)
    svi_of(rnp).step(images)


def _saved(rnp):
    buffer = io.BytesIO()
    torch.save(rnp, buffer)
    return buffer.getvalue()
