"""The library leaves the process, Pyro, torch and the model as they were."""

import gc
import logging
import os
import pickle
import random
import threading
import weakref

import lightning
import numpy as np
import pyro
import pytest
import torch

from inference import isolation
from inference.data import ImageSet
from inference.evaluation.latent_space import collect_programs
from inference.evaluation.metrics import evaluate
from inference.evaluation.reconstruction import reconstruction_metrics
from inference.isolation import VARIABLES, frozen, isolated
from inference.objectives import OBJECTIVES, check, loss
from inference.posterior import intervene, query
from pyro_rnp import RNP
from pyro_rnp.class_model import SameClass
from tests.conftest import tiny

OBJECTIVE = OBJECTIVES.make("Trace_ELBO")


def labelled(images):
    return ImageSet(images, torch.zeros(len(images), dtype=torch.long))


USES = {
    "query": lambda rnp, x: query(rnp, x, method="svi", steps=2, num_samples=4),
    "evaluate": lambda rnp, x: evaluate(rnp, labelled(x), particles=2),
    "intervene": lambda rnp, x: intervene(rnp, rnp.parse(x), {"z/0": torch.zeros(3)}),
    "reconstruction_metrics": lambda rnp, x: reconstruction_metrics(rnp, x),
    "collect_programs": lambda rnp, x: collect_programs(rnp, labelled(x)),
    "check": lambda rnp, x: check(OBJECTIVE, rnp, x),
    "loss": lambda rnp, x: loss(OBJECTIVE, rnp, x).backward(),
}


@pytest.mark.parametrize("use", USES)
def test_the_store_and_the_model_stay_as_they_were(use, images):
    rnp = RNP(tiny(stochastic="actions")).train()
    rnp.guide.top.requires_grad_(False)
    learning = [p.requires_grad for p in rnp.parameters()]
    own = pyro.param("own", torch.tensor(2.0), constraint=pyro.distributions.constraints.positive)
    before = {k: v.clone() for k, v in rnp.state_dict().items()}
    USES[use](rnp, images)
    assert list(pyro.get_param_store()) == ["own"]
    assert torch.equal(pyro.param("own"), own)
    assert rnp.training
    assert [p.requires_grad for p in rnp.parameters()] == learning
    assert all(torch.equal(v, before[k]) for k, v in rnp.state_dict().items())
    pickle.dumps(rnp)


def test_a_piece_s_own_parameters_in_the_store_are_used(images):
    rnp = RNP(tiny())
    posterior = rnp.guide.top.posterior

    def shifted(images):
        fn = posterior(images)
        return type(fn)(fn.base_dist.__class__(
            fn.mean + pyro.param("shift", torch.zeros(3)), fn.stddev), 1)  # fmt: skip

    rnp.guide.top.posterior = shifted
    rnp.model(images)
    pyro.param("shift", torch.full((3,), 1e3))
    answer = query(rnp, images, method="guide", num_samples=50)
    assert (answer.mean("z") > 900).all()
    assert (pyro.param("shift") == 1e3).all()


@pytest.mark.parametrize(
    "use", ["query", "evaluate", "intervene", "reconstruction_metrics", "check"]
)
def test_the_random_state_stays_as_it_was(use, images):
    rnp = RNP(tiny(stochastic="both"))
    before = torch.get_rng_state()
    USES[use](rnp, images)
    assert torch.equal(torch.get_rng_state(), before)


def test_models_that_were_evaluated_can_go(images):
    rnp = RNP(tiny())
    parameters = [weakref.ref(p) for p in rnp.parameters()]
    evaluate(rnp, labelled(images))
    del rnp
    gc.collect()
    assert not [p for p in parameters if p() is not None]


def test_threads_ask_at_the_same_time_and_get_their_own_answers(images):
    models = [RNP(tiny(stochastic="actions")) for _ in range(2)]

    def ask(i, found):
        for use in ("query", "evaluate", "loss"):
            if use == "query":
                answer = query(models[i % 2], images, method="importance", num_samples=20, seed=i)
                found.append(answer.log_evidence)
            elif use == "evaluate":
                scores = evaluate(models[i % 2], labelled(images), seed=i, particles=3)
                found.append(torch.tensor([scores["elbo"], scores["iw_bound"]]))
            else:
                found.append(loss(OBJECTIVE, models[i % 2], images).isfinite())

    alone = [[] for _ in range(6)]
    for i, found in enumerate(alone):
        ask(i, found)
    together = [[] for _ in range(6)]
    start, errors = threading.Barrier(6), []

    def run(i):
        start.wait()
        try:
            ask(i, together[i])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)


def test_samples_and_parses_wait_for_a_query(images):
    rnp, disturbed = RNP(tiny(stochastic="both")), []
    ask = {"method": "importance", "num_samples": 20, "seed": 3}
    alone = query(rnp, images, **ask).log_evidence
    done = threading.Event()

    def draw():
        while not done.is_set():
            rnp.sample(2)
            parsed = rnp.parse(images, sample=True, grad=True)
            disturbed.append(not parsed.canvas.requires_grad)

    thread = threading.Thread(target=draw)
    thread.start()
    answers = [query(rnp, images, **ask).log_evidence for _ in range(5)]
    done.set()
    thread.join()
    assert all(torch.equal(answer, alone) for answer in answers)
    assert disturbed
    assert not any(disturbed)


def test_a_backward_pass_while_another_thread_asks_has_all_gradients(images):
    rnp = RNP(tiny(stochastic="both")).train()
    found = loss(OBJECTIVE, rnp, images)
    with frozen(rnp):
        assert not rnp.parse(images, grad=True).canvas.requires_grad
        thread = threading.Thread(target=found.backward)
        thread.start()
        thread.join()
    assert all(p.grad is not None for p in rnp.parameters())


def test_a_query_waits_for_the_thread_that_uses_pyro(images):
    rnp, seen = RNP(tiny()), []

    def slow(*args):
        seen.append(threading.get_ident())
        return plain(*args)

    plain = rnp.model.recursion.forward
    rnp.model.recursion.forward = slow
    threads = [threading.Thread(target=lambda: USES["query"](rnp, images)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns = [now for before, now in zip([None, *seen], seen, strict=False) if now != before]
    assert len(turns) == 3, "each thread asks to the end before the next begins"


def test_a_model_of_classes_leaves_the_store_alone_too(images):
    rnp = RNP(tiny(prior="types"))
    loss(OBJECTIVE, rnp, images, images_per_class=2).backward()
    assert not pyro.get_param_store()
    assert isinstance(SameClass(rnp, 2).prior, type(rnp.model.prior))


@pytest.mark.parametrize("ends", [None, KeyboardInterrupt])
@pytest.mark.parametrize("seed", [None, "7"])
def test_the_process_is_as_it_was(ends, seed, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        if seed is not None:
            monkeypatch.setenv(name, seed)
    kept, used, log = [], [], logging.getLogger("lightning.pytorch")
    monkeypatch.setattr(isolation, "keep_large_blocks", kept.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    level, states = log.level, (torch.get_rng_state(), np.random.get_state()[1].tolist())
    own = random.getstate()
    try:
        with isolated():
            lightning.seed_everything(3, workers=True, verbose=False)
            log.setLevel(logging.ERROR)
            if ends is not None:
                raise ends
    except KeyboardInterrupt:
        assert ends is not None
    assert random.getstate() == own
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert [os.environ.get(name) for name in VARIABLES] == [seed, seed]
    assert (log.level, used, kept) == (level, [5], [False])
