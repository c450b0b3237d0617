"""Nothing that belongs to the user changes behind his back."""

import logging
import os
import pkgutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pyro
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from matplotlib import pyplot

import inference
import pyro_rnp
from inference import fit
from inference import plotting as figures
from inference.config import TrainConfig
from inference.data import ImageSet, Splits, load_data
from inference.evaluation.completion import completion_metrics
from inference.evaluation.latent_space import collect_programs, embed, latent_space_metrics
from inference.evaluation.metrics import evaluate
from inference.evaluation.one_shot import class_log_likelihood, exemplars
from inference.evaluation.part_dictionary import build_dictionary, collect_parts
from inference.evaluation.reconstruction import reconstruction_metrics
from inference.evaluation.sample_quality import sample_quality_metrics
from inference.evaluation.segmentation import segment
from inference.posterior import half_mask, intervene, move, query
from inference.reproduction.figures import FigureInputs, figure_5
from inference.training import train
from inference.training.diagnostics import Diagnostics, problems
from pyro_rnp import RNP, load, save
from pyro_rnp.class_model import SameClass
from tests.conftest import tiny

ROOT = Path(__file__).parents[2]


def state():
    """All that is not ours, but Python's random state, by which beartype picks what to check."""
    torch_state, (kind, numbers, *rest) = torch.get_rng_state(), np.random.get_state()
    loggers = [logging.getLogger(name) for name in sorted(logging.root.manager.loggerDict)]
    return {
        "torch": torch_state.tolist(),
        "numpy": (kind, numbers.tolist(), *rest),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warnings": list(warnings.filters),
        "logging": {log.name: log.level for log in [logging.root, *loggers] if log.level},
        "signals": [signal.getsignal(s) for s in sorted(signal.valid_signals())],
        "store": {name: value.clone() for name, value in pyro.get_param_store().items()},
        "checks": pyro.settings.get("validate_distributions_pyro"),
        "torch's checks": torch.distributions.Distribution._validate_args,
        "precision": torch.get_float32_matmul_precision(),
        "anomalies": torch.is_anomaly_enabled(),
        "pyro": pyro.settings.get(),
        "excepthook": sys.excepthook,
        "backend": matplotlib.get_backend(),
        "figures": pyplot.get_fignums(),
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "folder": Path.cwd(),
    }


class Raise(Callback):
    """Fails after the first step."""

    def on_train_batch_end(self, *_):
        raise RuntimeError("mine")


class Interrupt(Callback):
    """Presses Ctrl-C after the first step."""

    def on_train_batch_end(self, *_):
        signal.raise_signal(signal.SIGINT)


def raises(call, *args, **kwargs):
    """Call a function that fails."""
    with pytest.raises((RuntimeError, KeyboardInterrupt)):
        call(*args, **kwargs)


def calls(rnp, images, folder):
    """What the packages offer, by name."""
    save(rnp, folder / "run")
    data = ImageSet(images, torch.arange(len(images)) % 2)
    splits = Splits(data, data, data)
    tree = rnp.parse(images)
    answer = query(rnp, images[:2], num_samples=4, steps=2)
    parts = collect_parts(rnp, images, depth=1)
    plots = folder / "plots"
    plots.mkdir()
    given = FigureInputs(rnp, splits, plots, num=20, clusters=2)
    left = half_mask("left", 8)
    out, model = str(folder / "trained"), tiny(image_size=28, patch_size=6)
    run = TrainConfig(epochs=1, batch_size=16, out=out, model=model)
    twins = RNP(tiny(prior="types")).eval()
    space = collect_programs(rnp, data)
    found = {
        "load": lambda: load(folder / "run"),
        "load a pretrained model": lambda: load("mnist"),
        "save": lambda: save(rnp, folder / "again"),
        "a model": lambda: SameClass(twins, 2),
        "parse": lambda: rnp.parse(images),
        "data": lambda: load_data("digits"),
        "evaluate": lambda: evaluate(rnp, data, particles=2),
        "intervene": lambda: intervene(rnp, tree, {"a/1": move(tree[1].action, x=0.1)}, react=True),
        "completion": lambda: completion_metrics(
            rnp, images, left, images, ("guide",), num_samples=2
        ),
        "segments": lambda: segment(tree, 1),
        "numbers of parses": lambda: reconstruction_metrics(rnp, images),
        "numbers of the space": lambda: (latent_space_metrics(space, space), embed(space.programs)),
        "numbers of samples": lambda: sample_quality_metrics(rnp, splits, 8),
        "a dictionary": lambda: build_dictionary(parts, 2),
        "ratios": lambda: class_log_likelihood(twins, images[:2], images[:2], num_samples=3),
        "exemplars": lambda: exemplars(twins, images[:1], 2),
        "to_dict": lambda: answer.to_dict(0),
        "drawn": lambda: answer.resample(3),
        "diagnostics": lambda: (problems(rnp, images), Diagnostics().look(rnp, images, 1)),
        "a picture": lambda: figures.posterior_figure(answer, plots / "a.png", images[:2]),
        "a figure of the paper": lambda: figure_5(given),
        "train": lambda: train(run),
        "fit": lambda: fit(images, tiny(), out=folder / "fitted", epochs=1, batch_size=8),
        "fit that raises": lambda: raises(fit, images, tiny(), out=folder / "b", callbacks=Raise()),
        "fit that is stopped": lambda: raises(
            fit, images, tiny(), out=folder / "c", callbacks=Interrupt()
        ),
    }
    for method in ("guide", "importance", "svi", "nuts"):
        found[method] = lambda method=method: query(
            rnp, images[:2], method=method, num_samples=8, steps=2, warmup=1, chains=2
        )
    return found


def test_what_is_the_users_stays_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("inference.reproduction.figures.SHOWN", 2)
    digits = load_data("digits")
    few = Splits(digits.train[:32], digits.validation[:8], digits.test[:8])
    monkeypatch.setattr("inference.config.load_data", lambda *_, **__: few)
    rnp = RNP(tiny(stochastic="both")).eval()
    pyro.param("mine", torch.ones(1))
    offered = calls(rnp, torch.rand(40, 1, 8, 8), tmp_path)
    torch.manual_seed(1)
    for name, call in offered.items():
        before = state()
        call()
        after = state()
        for what, value in before.items():
            assert after[what] == value, f"{name}: {what}"


def test_imports_and_pictures_leave_everything_as_it_was(tmp_path):
    """In a process of their own, which draws with another backend than ours."""
    modules = [
        f"{package.__name__}.{found.name}"
        for package in (pyro_rnp, inference) for found in pkgutil.iter_modules(package.__path__)
    ]  # fmt: skip
    assert "inference.plotting" in modules
    code = f"""
import importlib, random, signal
import matplotlib, numpy, torch
import inference, pyro_rnp
def state():
    return [dict(matplotlib.rcParams), torch.get_rng_state().tolist(), random.getstate(),
            str(numpy.random.get_state()), str(signal.getsignal(signal.SIGINT)),
            torch.get_num_threads(), str(torch.get_default_dtype())]
before = state()
for name in {modules!r}:
    importlib.import_module(name)
assert state() == before, "imports"
images = torch.rand(2, 1, 28, 28)
before = state()
rnp = pyro_rnp.load("mnist")
answer = inference.posterior.query(rnp, images, method="importance", num_samples=2)
inference.training.diagnostics.problems(rnp, images)
inference.plotting.posterior_figure(answer, {str(tmp_path / "p.png")!r}, images)
assert state() == before, "calls"
assert matplotlib.get_backend() == "svg"
from matplotlib import pyplot
assert not pyplot.get_fignums()
"""
    environment = {**os.environ, "MPLBACKEND": "svg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.png").stat().st_size > 100


STATE = """
import logging, os, random, signal, sys, threading, warnings
import matplotlib, numpy, pyro, torch
def state():
    logs = [logging.root, *(v for _, v in sorted(logging.root.manager.loggerDict.items()))]
    logs = [log for log in logs if isinstance(log, logging.Logger)]
    return {
        "backend": matplotlib.get_backend(auto_select=False),
        "rcParams": {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != "backend"},
        "pyplot": "matplotlib.pyplot" in sys.modules,
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(numpy.random.get_state()),
        "random": random.getstate(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "running": sorted(thread.name for thread in threading.enumerate() if not thread.daemon),
        "signals": [str(signal.getsignal(s)) for s in sorted(signal.valid_signals())],
        "warnings": (list(warnings.filters), warnings.showwarning),
        "store": sorted((k, v.tolist()) for k, v in pyro.get_param_store().items()),
        "levels": {log.name: (log.level, log.propagate, len(log.handlers)) for log in logs},
        "disabled": logging.root.manager.disable,
        "environment": dict(os.environ),
        "pyro": pyro.settings.get(),
        "checks": torch.distributions.Distribution._validate_args,
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "hooks": (sys.excepthook, sys.displayhook, sys.stdout, sys.stderr),
        "folder": os.getcwd(),
    }
"""


def test_a_script_that_fits_finds_everything_as_it_was(tmp_path):
    """In a process of its own, with states of its own; Python's random state is among them."""
    code = f"""{STATE}
from inference import fit
from tests.conftest import tiny
random.seed(3), numpy.random.seed(4), torch.manual_seed(5), torch.set_num_threads(2)
warnings.filterwarnings("ignore", "mine")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
logging.getLogger("mine").setLevel(logging.DEBUG)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
pyro.param("mine", torch.ones(2))
images = torch.rand(40, 1, 8, 8)
def stop(run, scores):
    if "error" in str(run.path):
        raise ZeroDivisionError
    if "Ctrl-C" in str(run.path):
        signal.raise_signal(signal.SIGINT)
for ends, size in dict(well=8, error=8, **{{"Ctrl-C": 8}}, refused=9).items():
    before, ended = state(), "well"
    how = dict(epochs=2, batch_size=8, callbacks=stop, progress=ends == "well")
    try:
        fit(images, tiny(image_size=size), out=ends, **how)
    except (ZeroDivisionError, KeyboardInterrupt, ValueError) as error:
        ended = type(error).__name__
    wanted = dict(well="well", error="ZeroDivisionError", refused="ValueError")
    assert ended == wanted.get(ends, "Interrupted"), (ends, ended)
    after = state()
    after["levels"] = {{name: after["levels"].get(name) for name in before["levels"]}}
    for what in before:
        assert before[what] == after[what], (ends, what, before[what], after[what])
"""
    environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
