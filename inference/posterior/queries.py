"""The posterior of a trained model given pixels, parts of a program, both or neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyro
import torch
from torch import Tensor

from inference.isolation import Snapshot, frozen
from inference.posterior.engine import Engine, Settings, determined, engine
from inference.posterior.evidence import TOLERANCE, Evidence, read_evidence
from inference.posterior.log_density import LogDensity
from inference.posterior.posterior import Posterior
from pyro_rnp import RNP
from pyro_rnp.arguments import whole
from pyro_rnp.checks import Images


@torch.no_grad()
def query(
    rnp: RNP,
    images: Images | None = None,
    *,
    given: Mapping[str, Tensor] | None = None,
    mask: Images | None = None,
    method: str | Engine = "smc",
    num_samples: int = 200,
    num_images: int | None = None,
    steps: int = 200,
    warmup: int = 100,
    chains: int = 4,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    progress: bool | Callable[[], object] = True,
) -> Posterior:
    """Sample the posterior of every site given pixels and sites, by name.

    Several threads may call it at the same time. They take turns, since Pyro has one stack of
    handlers in a process; a thread that runs Pyro by itself meanwhile must hold
    `pyro_rnp.contract.PYRO`.

    Args:
        rnp: the model and its guide, neither of which is changed.
        images: (N, C, H, W) in [0, 1], with any values where the mask hides pixels; a pixel that is
            NaN is not seen either. By default no pixel is seen.
        given: sites, as `z/1` or `a/0` (parts count from 0), to values, (N, d) or (d,) for all
            images: programs of |z| numbers, actions of six in the units of `pyro_rnp.affine`.
            Random sites are held exactly; sites that the model determines are held within
            `tolerance`.
        mask: True or 1 where a pixel is seen: (H, W), (N, H, W) or (N, C, H, W). By default all
            pixels are seen.
        method: an engine, or its name with options: `smc`, particles that go from a normal fitted
            to each image and from the prior to the posterior over temperatures, in independent
            islands (`smc:islands=8,sweeps=2`); `guide`, samples of the guide as they are;
            `importance`, the same, weighted by the model; `svi`, that fitted normal, weighted;
            `hmc`, Hamiltonian chains of each image; `nuts`, chains that move all images as one
            state. Engines of one's own join by `inference.posterior.ENGINES`.
        num_samples: S, at least 1; of all islands or all chains together, of chains at least 4
            each.
        num_images: N where there are no images and values are for all images. By default 1.
        steps: gradient steps of the fitted normal, of svi and before smc, hmc and nuts; 0 or more.
        warmup: transitions of hmc and nuts before the first sample, at least 1.
        chains: chains of hmc and nuts, at least 1.
        tolerance: standard deviation of a determined site around its given value, as a share of
            the range of its numbers; above 0.
        seed: of all that is drawn; the caller's random state stays as it was.
        progress: whether to show a bar where it takes more than five seconds; or a function that is
            called before each evaluation of the model, and ends the query by raising an error.

    Returns:
        S samples of each of N images with their weights, the log evidence and diagnostics. It keeps
        a copy of the model, so that training later does not change what it says.

    Raises:
        TypeError: in one sentence, if an argument is of another kind, as text for a number.
        ValueError: in one sentence, if a site does not exist, or a value, the mask or the images do
            not fit the model; if memory does not hold so many samples; if the engine is not valid
            for the model or the evidence.

    >>> from pyro_rnp import RNPConfig
    >>> rnp = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2, 1), program_size=3))
    >>> images = torch.rand(2, 1, 8, 8)
    >>> right_half_hidden = torch.arange(8) < 4  # of each row
    >>> posterior = query(rnp, images, mask=right_half_hidden.expand(8, 8), steps=5)
    >>> posterior.mean("canvas").shape, posterior.log_evidence.shape
    (torch.Size([2, 1, 8, 8]), torch.Size([2]))
    >>> query(rnp, given={"z": torch.zeros(3)}).weights  # nothing is left to draw
    tensor([[1.]])
    """
    settings = Settings(num_samples, steps, warmup, chains)
    evidence = read_evidence(rnp, images, dict(given or {}), mask, num_images, tolerance)
    return answer(rnp, evidence, method, settings, seed, progress)


@torch.no_grad()
def answer(
    rnp: RNP,
    evidence: Evidence,
    method: str | Engine = "smc",
    settings: Settings | None = None,
    seed: int = 0,
    progress: bool | Callable[[], object] = True,
) -> Posterior:
    """Sample the posterior given evidence that `query` would not read, as pixels beyond [0, 1].

    Images that are drawn from a model with normal noise have such pixels; to clamp them would
    change their likelihood.

    Args:
        rnp: the model and its guide, neither of which is changed.
        evidence: pixels and sites, which are not checked.
        method, seed, progress: as of `query`.
        settings: numbers of samples, steps and chains; by default those of `query`.

    Returns:
        As `query`.

    Raises:
        TypeError: in one sentence, if a number is not whole, or the method no engine.
        ValueError: in one sentence, if a number is out of its range, memory does not hold so many
            samples, or the engine is not valid for the model or the evidence.
    """
    settings = settings or Settings()
    for name, least in {"num_samples": 1, "chains": 1, "warmup": 1, "steps": 0}.items():
        whole(least, **{name: getattr(settings, name)})
    sampler = engine(method)
    with frozen(rnp, seed), pyro.validation_enabled(False):
        density = LogDensity(rnp, evidence, progress)
        sampler.check(density, settings)
        density.check_memory(settings.num_samples)
        snapshot, bars = Snapshot(rnp), density.progress
        samples = sampler.sample(density, settings) if density.size else determined(density)
    fields = {**vars(samples), "notes": (*evidence.notes(rnp.config), *samples.notes)}
    return Posterior(
        method=sampler.name, evidence=evidence, snapshot=snapshot, progress=bars, **fields
    )
