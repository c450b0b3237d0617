"""Shapes and types are checked at run time, warnings are errors, and every test has a seed."""

import os
from functools import partial
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# One thread: as many processes may run side by side, and no number depends on how busy they are.
os.environ.setdefault("OMP_NUM_THREADS", "1")

checked = [] if "PYRO_RNP_UNCHECKED" in os.environ else ["pyro_rnp", "inference"]
hook = install_import_hook(checked, "beartype.beartype")

import jaxtyping  # noqa: E402
import pyro  # noqa: E402
import torch  # noqa: E402

import inference.cli  # noqa: E402, F401
from inference.posterior.engine import ENGINES  # noqa: E402
from pyro_rnp import RNP, RNPConfig  # noqa: E402

DATA = Path(os.environ.get("PYRO_RNP_DATA", Path(__file__).parents[1] / "data"))


@pytest.fixture(autouse=True)
def _seeded():
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    with pyro.validation_enabled():
        yield


@pytest.fixture
def double():
    """Numbers are of float64 by default."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def unchecked():
    """Shapes are not checked, where that would take as long as all else; other tests do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def brief(monkeypatch):
    """Particles of `smc` hardly move: for tests of what is done with answers, not of answers."""
    few = partial(ENGINES.pieces["smc"], islands=2, sweeps=1, leaps=1, temperatures=3)
    monkeypatch.setitem(ENGINES.pieces, "smc", few)


def tiny(**changes) -> RNPConfig:
    """A configuration small enough for loops: 8x8 images, 5x5 patches, 2 parts of 2 sub-parts."""
    values = {
        "image_size": 8,
        "patch_size": 5,
        "steps": (2, 2),
        "program_size": 3,
        "hypernet_layers": 2,
        "hypernet_units": 5,
        "network_units": 4,
        "encoder_blocks": 2,
        "encoder_channels": 3,
        "encoder_layers": 2,
        "encoder_units": 6,
    }
    return RNPConfig(**{**values, **changes})


@pytest.fixture
def rnp() -> RNP:
    """A tiny model in evaluation mode."""
    return RNP(tiny()).eval()


@pytest.fixture
def images() -> torch.Tensor:
    """Four 8x8 images."""
    return torch.rand(4, 1, 8, 8)


def pytest_collection_modifyitems(items):
    for item in items:
        # Markers alone: keywords are names of folders too, and `data` is one.
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("data") and not DATA.is_dir():
            item.add_marker(pytest.mark.skip(reason="set PYRO_RNP_DATA to the data folder"))
