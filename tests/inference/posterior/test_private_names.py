"""Details of Pyro that queries and objectives lean on beyond its documented interface.

Each test names the detail, so that a new version of Pyro that changes it fails here first.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.infer.reparam.reparam import Reparam
from pyro.poutine.messenger import Messenger


def pyro_changed(detail):
    return f"Pyro {pyro.__version__} changed {detail}; inference.traces and .posterior rely on it."


def model():
    with pyro.plate("images", 3, dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.ones(3))
    return "returned"


@pytest.fixture
def nodes():
    return poutine.trace(model).get_trace().nodes


def test_a_plate_is_a_sample_site_that_site_is_subsample_tells_apart(nodes):
    try:
        from pyro.poutine.util import site_is_subsample
    except ImportError:
        pytest.fail(pyro_changed("pyro.poutine.util.site_is_subsample"))
    kinds = {name: site["type"] for name, site in nodes.items() if name[0] != "_"}
    assert kinds == dict.fromkeys(("images", "z", "x"), "sample"), pyro_changed("types of sites")
    plates = [name for name in kinds if site_is_subsample(nodes[name])]
    assert plates == ["images"], pyro_changed("site_is_subsample")


def test_a_trace_has_the_fields_of_sites_and_what_the_program_returned(nodes):
    wanted = {"fn", "value", "is_observed", "scale", "cond_indep_stack"}
    assert wanted <= nodes["z"].keys(), pyro_changed("the fields of a trace's site")
    names = [frame.name for frame in nodes["z"]["cond_indep_stack"]]
    assert names == ["images"], pyro_changed("cond_indep_stack, the plates of a site")
    assert nodes["_RETURN"]["value"] == "returned", pyro_changed("the node _RETURN of a trace")


def test_compute_log_prob_leaves_its_terms_at_the_sites_of_its_filter():
    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob(lambda _, site: site["is_observed"])
    terms = [name for name, site in trace.nodes.items() if "log_prob_sum" in site]
    assert "x" in terms, pyro_changed("log_prob_sum, which Trace.compute_log_prob leaves at a site")
    assert "z" not in terms, pyro_changed("the filter of Trace.compute_log_prob")
    wanted = dist.Normal(trace.nodes["z"]["value"], 1.0).log_prob(torch.ones(3))
    assert torch.equal(trace.nodes["x"]["log_prob"], wanted), pyro_changed("log_prob of a site")


def test_a_messenger_scales_a_site_by_its_method_pyro_sample():
    class Twice(Messenger):
        def _pyro_sample(self, msg):
            msg["scale"] = msg["scale"] * 2

    once, twice = (poutine.trace(m).get_trace() for m in (model, Twice()(model)))
    twice = poutine.trace(poutine.replay(Twice()(model), trace=once)).get_trace()
    found = twice.log_prob_sum() / once.log_prob_sum()
    assert float(found) == pytest.approx(2), pyro_changed("Messenger._pyro_sample or scale")


def test_a_reparam_takes_and_gives_a_message_with_three_fields():
    class Fixed(Reparam):
        def apply(self, msg):
            assert {"fn", "value"} <= msg.keys(), pyro_changed("the message of Reparam.apply")
            value = torch.full((3,), 0.5)
            density = torch.full((3,), -7.0)
            return {"fn": dist.Delta(value, density), "value": value, "is_observed": True}

    trace = poutine.trace(poutine.reparam(model, config={"z": Fixed()})).get_trace()
    trace.compute_log_prob()
    found = trace.nodes["z"]["log_prob"].tolist()
    assert found == [-7.0] * 3, pyro_changed("how Reparam.apply sets an observed site")


def test_divergences_are_listed_by_chain():
    def potential(params):
        return params["e"].square().sum() / 2

    kernel = NUTS(potential_fn=potential, step_size=0.1, max_tree_depth=2)
    start = {"e": torch.zeros(2)}
    mcmc = MCMC(kernel, 8, warmup_steps=1, initial_params=start, disable_progbar=True)
    mcmc.run()
    found = mcmc.diagnostics().get("divergences")
    assert isinstance(found, dict), pyro_changed("MCMC.diagnostics()['divergences']")
    assert [len(rows) for rows in found.values()] == [0], pyro_changed("divergences by chain")


def test_pixels_of_a_likelihood_can_be_masked_below_their_event():
    fn = dist.Normal(torch.zeros(2, 1, 4, 4), 1.0).to_event(3)
    what = "Independent.base_dist, .reinterpreted_batch_ndims or .mask of torch and Pyro"
    assert fn.reinterpreted_batch_ndims == 3, pyro_changed(what)
    masked = fn.base_dist.mask(torch.zeros(2, 1, 4, 4, dtype=torch.bool)).to_event(3)
    assert masked.log_prob(torch.ones(2, 1, 4, 4)).tolist() == [0, 0], pyro_changed(what)
