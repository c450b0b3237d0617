"""Names that torch and Pyro do not promise, on which the package depends nevertheless.

A failure here names the library that changed and the module of this project that has to follow.
"""

import inspect
import pickle

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Delta, Normal
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule, PyroParam
from pyro.params import param_with_module_name
from torch.distributions import Bernoulli, ContinuousBernoulli, MixtureSameFamily
from torch.func import vmap


def test_pyro_s_stack_of_handlers_holds_plates_and_conditions():
    runtime = pytest.importorskip("pyro.poutine.runtime")
    changed = "pyro.poutine.runtime._PYRO_STACK changed in Pyro: see pyro_rnp.contract"
    assert isinstance(getattr(runtime, "_PYRO_STACK", None), list), changed
    with pyro.plate("five", 5, subsample_size=3, dim=-2) as _:
        (plate,) = runtime._PYRO_STACK
        assert (plate.name, plate.dim, plate.size, plate.subsample_size) == ("five", -2, 5, 3), (
            changed
        )
    with poutine.condition(data={"z": torch.zeros(())}):
        assert list(runtime._PYRO_STACK[-1].data) == ["z"], changed
    assert not runtime._PYRO_STACK, changed


def test_pyro_s_handlers_call_methods_by_the_type_of_a_message():
    seen = []

    class Handler(poutine.messenger.Messenger):
        def _pyro_sample(self, msg):
            seen.append("before")

        def _pyro_post_sample(self, msg):
            seen.append("after")

    with Handler():
        pyro.sample("z", Normal(0.0, 1.0))
    changed = "Messenger._pyro_sample changed in Pyro: see pyro_rnp.contract.OwnSites"
    assert seen == ["before", "after"], changed


def test_pyro_modules_name_their_parameters_in_the_store():
    changed = "PyroModule changed how it names parameters in Pyro: see pyro_rnp.params"

    class Scaled(PyroModule):
        def __init__(self):
            super().__init__("mine")
            positive = torch.distributions.constraints.positive
            self.scale = PyroParam(torch.ones(2), constraint=positive)

        def forward(self):
            return self.scale

    module = Scaled()
    module()
    assert [name for name, _ in module.named_parameters()] == ["scale_unconstrained"], changed
    assert module._pyro_get_fullname("scale") == "mine.scale", changed
    assert "mine.scale" in pyro.get_param_store(), changed
    assert param_with_module_name("rnp.model", "a.b") == "rnp.model$$$a.b", changed


def test_pyro_s_store_leaves_a_weak_reference_in_a_parameter():
    """`Registered.__getstate__` removes it, since it cannot be pickled."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    pyro.param("p", parameter)
    changed = "Pyro's parameter store no longer sets `unconstrained`: see pyro_rnp.params"
    assert "unconstrained" in parameter.__dict__, changed
    parameter.__dict__.pop("unconstrained")
    pickle.dumps(parameter)


def test_pyro_s_elbo_gives_pairs_of_traces():
    def model():
        pyro.sample("z", Normal(0.0, 1.0))

    def guide():
        pyro.sample("z", Delta(torch.zeros(())))

    pairs = list(Trace_ELBO(num_particles=2)._get_traces(model, guide, (), {}))
    changed = "ELBO._get_traces changed in Pyro: see inference.objectives"
    assert [[set(t.nodes) & {"z"} for t in pair] for pair in pairs] == [[{"z"}, {"z"}]] * 2, changed


def test_a_deterministic_site_is_marked_as_one():
    trace = poutine.trace(lambda: pyro.deterministic("d", torch.zeros(()))).get_trace()
    changed = "pyro.deterministic marks its sites otherwise in Pyro: see tests of sites"
    assert trace.nodes["d"]["infer"].get("_deterministic") is True, changed


def test_torch_s_mixture_scores_what_it_pads():
    changed = "MixtureSameFamily changed in torch: see pyro_rnp.priors.mixture.Mixture"
    mixture = MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(3)),
        torch.distributions.Independent(Normal(torch.zeros(3, 2), 1.0), 1),
    )
    assert getattr(mixture, "_num_component", None) == 3, changed
    assert mixture._pad(torch.zeros(5, 2)).shape == (5, 1, 2), changed
    assert "_pad" in inspect.getsource(MixtureSameFamily.log_prob), changed


def test_torch_s_continuous_bernoulli_has_its_normaliser_in_a_method():
    changed = "ContinuousBernoulli changed in torch: see pyro_rnp.likelihoods.ContinuousBernoulli"
    p, x = ContinuousBernoulli(torch.tensor(0.3)), torch.tensor(0.8)
    assert hasattr(p, "_cont_bern_log_norm"), changed
    without = -torch.nn.functional.binary_cross_entropy_with_logits(p.logits, x, reduction="none")
    torch.testing.assert_close(p.log_prob(x), without + p._cont_bern_log_norm(), msg=changed)
    assert not hasattr(Bernoulli, "_cont_bern_log_norm"), changed


def test_torch_tells_passes_and_transforms_apart():
    changed = "{} changed in torch: see pyro_rnp.generated_layers"
    assert torch._C._current_graph_task_id() == -1, changed.format("_current_graph_task_id")
    passes = []
    x = torch.ones(1, requires_grad=True)
    x.register_hook(lambda _: passes.append(torch._C._current_graph_task_id()))
    for _ in range(2):
        (2 * x).sum().backward()
    assert len(set(passes)) == 2, changed.format("_current_graph_task_id")
    assert -1 not in passes, changed.format("_current_graph_task_id")
    active, inside = torch._C._are_functorch_transforms_active, []
    assert not active(), changed.format("_are_functorch_transforms_active")
    vmap(lambda x: inside.append(active()) or x)(torch.ones(2))
    assert inside == [True], changed.format("_are_functorch_transforms_active")


def test_torch_s_compiler_keeps_a_module_under_one_name():
    changed = "torch.compile names the inner module otherwise: see pyro_rnp.params.plain"
    children = dict(torch.compile(torch.nn.Identity()).named_children())
    assert list(children) == ["_orig_mod"], changed
