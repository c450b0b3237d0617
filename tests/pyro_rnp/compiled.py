"""`RNP.compile`: the same numbers and gradients, and what is left as it was."""

import copy
import pickle

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO

from pyro_rnp import RNP, compiling, load, save
from pyro_rnp.contract import DensitiesOnly
from tests.conftest import tiny

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")  # which Dynamo looks at
# Dynamo records and derives the graph, and torch runs it, without a C++ compiler.
BACKEND = {"backend": "aot_eager"}


def pair(**changes):
    """A model, and a copy of it that is compiled, in float64."""
    torch._dynamo.reset()
    few = {"steps": (2, 1), "encoder_blocks": 1, "encoder_layers": 1, "hypernet_layers": 1}
    plain = RNP(tiny(**{**few, **changes})).double()
    with torch.no_grad():
        for p in plain.parameters():
            p.add_(0.3 * torch.randn_like(p))
    other = copy.deepcopy(plain)
    other.name = "other"
    other.compile(**BACKEND)
    return plain, other


def graphs(rnp):
    """The list that grows with each run of a compiled function."""
    found = []
    for module in rnp.modules():
        kept = getattr(module, "_compiled", None)
        if kept is not None:

            def run(*args, f=kept.run):
                found.append(1)
                return f(*args)

            module._compiled = kept._replace(run=run)
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {
            "feedback": "canvas",
            "composed": True,
            "placement": "continuous",
            "composition": "over",
            "steps": (2,),
        },
        {"feedback": "decoding", "pixel_layers": "shared", "steps": (1, 2)},
        {"program": "flat"},
    ],
)
def test_losses_and_gradients_are_those_of_the_plain_model(changes, images):
    found = []
    for rnp in pair(**changes):
        pyro.clear_param_store()
        torch.manual_seed(0)
        loss = Trace_ELBO().differentiable_loss(rnp.model, rnp.guide, images.double())
        gradients = torch.autograd.grad(loss, list(rnp.parameters()), allow_unused=True)
        found.append([loss, *(g for g in gradients if g is not None)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rnp.parse(images).canvas, other_canvas(rnp, images))


def other_canvas(rnp, images):
    """What the same weights draw when they are not compiled."""
    return copy.deepcopy(rnp).parse(images).canvas


def test_parsing_sampling_and_svi_run_compiled(images):
    _, rnp = pair()
    ran = graphs(rnp)
    rnp.parse(images)
    assert len(ran) == 2, "encoder and recursion"
    rnp.sample(4)
    assert len(ran) == 3
    svi = SVI(rnp.model, rnp.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    before = [p.clone() for p in rnp.parameters()]
    svi.step(images.double())
    assert len(ran) == 5
    assert any(not torch.equal(p, q) for p, q in zip(rnp.parameters(), before, strict=True))


def test_without_inference_only_what_learns_is_compiled(images):
    _, rnp = pair()
    rnp.compile(inference=False, **BACKEND)
    ran = graphs(rnp)
    rnp.parse(images)
    assert not ran
    rnp.parse(images, grad=True)
    assert len(ran) == 2


def test_an_intervention_reaches_what_follows_it(images):
    plain, rnp = pair()
    action = torch.tensor([0.3, 0.3, 0.0, 0.0, -0.5, 0.5], dtype=torch.float64)
    nodes = []
    for each in (plain, rnp):
        torch.manual_seed(0)
        changed = poutine.do(each.model, {"a/0": action.expand(4, -1)})
        nodes.append(poutine.trace(changed).get_trace(images.double()).nodes)
    for name in ("a/1", "z/1/0", "canvas"):
        torch.testing.assert_close(nodes[1][name]["value"], nodes[0][name]["value"])
    assert not torch.allclose(nodes[1]["a/0"]["value"], action)


@pytest.mark.parametrize(
    "changes",
    [
        {"stochastic": "both", "feedback": "decoding"},
        {"stochastic": "programs,actions", "lower_guide": "top_down"},
    ],
)
@pytest.mark.parametrize("share", [None, 0.5])
def test_random_levels_train_as_in_the_plain_model(share, changes, images):
    seen = images.double().where(torch.rand(images.shape) < 0.9, torch.nan)
    found, ran = [], []
    for rnp in pair(**changes):
        ran = graphs(rnp)
        rnp.guide.settled_share = share
        torch.manual_seed(0)
        with DensitiesOnly(together=True):
            loss = Trace_ELBO().differentiable_loss(rnp.model, rnp.guide, seen)
        gradients = torch.autograd.grad(loss, list(rnp.parameters()), allow_unused=True)
        found.append([loss, *(g for g in gradients if g is not None)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-9, atol=1e-9)
    assert len(ran) == 2 + (changes.get("lower_guide") == "top_down"), (
        "encoders and the guide's run"
    )


def test_a_value_from_outside_reaches_what_follows_it_in_a_compiled_run(images):
    found = []
    for rnp in pair(stochastic="both", feedback="decoding", steps=(2,)):
        value = torch.full((4, 6), 0.1, dtype=torch.float64)
        trace = poutine.Trace()
        trace.add_node("a/0", name="a/0", type="sample", value=value, is_observed=False, infer={})
        torch.manual_seed(0)
        with DensitiesOnly(together=True):
            guide = poutine.replay(rnp.guide, trace)
            nodes = poutine.trace(guide).get_trace(images.double()).nodes
        assert nodes["a/0"]["value"] is value
        found.append(nodes)
    torch.testing.assert_close(found[0]["z/0"]["fn"].mean, found[1]["z/0"]["fn"].mean)


def test_random_levels_parse_as_they_are(images):
    plain, rnp = pair(stochastic="both", steps=(2,))
    ran, values = graphs(rnp), []
    for each in (plain, rnp):
        torch.manual_seed(0)
        values.append(each.parse(images, sample=True).canvas)
    torch.testing.assert_close(*values)
    assert len(ran) == 1, "the encoder alone"


def test_a_compiled_model_is_copied_pickled_and_saved_as_any_other(tmp_path, images):
    plain, rnp = pair()
    canvas = rnp.parse(images).canvas
    save(rnp, tmp_path)
    for again in (copy.deepcopy(rnp), pickle.loads(pickle.dumps(rnp)), load(tmp_path).double()):
        assert not graphs(again)
        torch.testing.assert_close(again.parse(images).canvas, canvas)
    assert rnp.state_dict().keys() == plain.state_dict().keys()


def test_where_nothing_compiles_a_warning_says_so_and_the_model_runs(monkeypatch, images):
    def broken(*_, **__):
        raise RuntimeError("no compiler\nof any kind")

    rnp = RNP(tiny())
    canvas = rnp.parse(images).canvas
    monkeypatch.setattr(compiling.torch, "compile", broken)
    with pytest.warns(UserWarning, match=r"does not work here \(no compiler\).*g\+\+"):
        rnp.compile()
    assert torch.equal(rnp.parse(images).canvas, canvas)
