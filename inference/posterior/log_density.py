"""A model, conditioned on what is given, as a density of one vector u for each image.

u holds all that is random and not given, in coordinates in which it is a standard normal before
any evidence is seen, as far as priors are normal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.reparam.reparam import Reparam
from torch import Tensor
from torch.distributions import (
    Independent,
    MixtureSameFamily,
    Normal,
    Transform,
    TransformedDistribution,
    biject_to,
    constraints,
)
from tqdm import tqdm

from inference.posterior.evidence import Evidence
from inference.system import available_memory
from inference.traces import latent_sites, log_joint, per_image
from pyro_rnp import RNP, ParseTree

AT_ONCE = 1000
"""Images that are run together."""


class MaskedLikelihood(Reparam):
    """Observe some pixels alone.

    `poutine.mask` masks whole images, which is what a batch is made of; pixels are inside an event.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def apply(self, msg: Any) -> Any:
        fn = msg["fn"]
        if not (isinstance(fn, Independent) and fn.reinterpreted_batch_ndims == 3):
            raise ValueError("A mask needs a likelihood in which pixels are independent.")
        pixels: Any = fn.base_dist
        return {**msg, "fn": pixels.mask(self.mask).to_event(3)}


class NonCentered(Reparam):
    """A random site at the place u in coordinates in which its prior is standard.

    Where the prior is a normal, whatever it is transformed to, u is a standard normal, whatever
    stands above (the non-centred form); else u is the value without its bounds. Pyro's
    `LocScaleReparam` and `TransformReparam` do as much for a site that is still to be drawn; here
    u comes from outside, one vector for all sites of an image.
    """

    def __init__(self, u: Tensor) -> None:
        self.u = u

    def apply(self, msg: Any) -> Any:
        fn, value = msg["fn"], self.u
        normal, transforms = base_normal(fn)
        if normal is None:
            (transform,) = transforms
            value = transform(self.u)
            density = fn.log_prob(value) + transform.log_abs_det_jacobian(self.u, value)
        else:
            density = dist.Normal(0.0, 1.0).log_prob(self.u).sum(-1)
            value = normal.loc + normal.scale * value
            for transform in transforms:
                value = transform(value)
        return {"fn": dist.Delta(value, density, 1), "value": value, "is_observed": True}


def base_normal(fn: Any) -> tuple[Any, list[Transform]]:
    """A normal and what transforms it to `fn`; or None and what makes `fn` of unbounded numbers."""
    found: Any = fn
    transforms: list[Transform] = []
    while not isinstance(found, Normal):
        if isinstance(found, TransformedDistribution):
            transforms = [*found.transforms, *transforms]
        elif isinstance(found, MixtureSameFamily):  # which of unbounded numbers has them all
            return None, [biject_to(constraints.real_vector)]
        elif not isinstance(found, Independent):
            return None, [biject_to(_support(fn))]
        found = found.base_dist
    return found, transforms


def _support(fn: Any) -> Any:
    """Where values of a distribution lie; anywhere, if it does not say."""
    try:
        return fn.support
    except NotImplementedError:
        return constraints.real_vector


def whiten(fn: Any, value: Tensor) -> tuple[Tensor, Tensor]:
    """The u of a value, and log |d value / d u|: what undoes `NonCentered`."""
    normal, transforms = base_normal(fn)
    u = value
    for transform in reversed(transforms):
        u = transform.inv(u)
    if normal is None:
        return u, transforms[0].log_abs_det_jacobian(u, value)
    u = (u - normal.loc) / normal.scale
    return u, dist.Normal(0.0, 1.0).log_prob(u).sum(-1) - fn.log_prob(value)


class LogDensity:
    """The model, conditioned on the evidence, as a density of u."""

    def __init__(self, rnp: RNP, evidence: Evidence, progress: bool = False) -> None:
        self.rnp, self.evidence, self.progress = rnp, evidence, progress
        trace: Any = poutine.trace(self._model(1)).get_trace()
        drawn = per_image(latent_sites(trace))
        self.nbytes: int = trace.nodes["_RETURN"]["value"].nbytes
        """Of the trees of one sample of all images."""
        self.sizes = {name: site["value"].shape[-1] for name, site in drawn.items()}
        self.size = sum(self.sizes.values())

    def check_memory(self, num: int) -> None:
        """Raise unless memory holds the trees of so many samples, in pieces and then as one.

        Raises:
            ValueError: if it does not.
        """
        n, needed = len(self.evidence.images), 2 * self.nbytes * (num if self.size else 1)
        free = available_memory(self.rnp.device)
        if needed > free:
            raise ValueError(
                f"num_samples of {num} for {n} images needs {needed / 2**30:.1f} GiB of memory, "
                f"and {free / 2**30:.1f} are free; take fewer num_samples, or fewer images at a "
                "time."
            )

    def _model(self, copies: int, u: Tensor | None = None) -> Any:
        """A Pyro model of all evidence, several times over; with u, nothing is random."""
        evidence = self.evidence.repeat(copies)
        sites: dict[str, Reparam] = {"x": MaskedLikelihood(evidence.seen)}
        if u is not None:
            sites |= {name: NonCentered(own) for name, own in self.apart(u).items()}
        conditioned = poutine.condition(self.rnp.model, data=evidence.hard)
        shown = poutine.reparam(conditioned, config=sites)

        def model() -> ParseTree:
            met: Any = poutine.trace(shown).get_trace(evidence.images).nodes
            with pyro.plate("given", len(evidence.images), dim=-1):
                for name, (value, tolerance) in evidence.soft.items():
                    around = dist.Normal(met[name]["value"], tolerance).to_event(1)
                    pyro.sample(f"{name}/given", around, obs=value)
            return met["_RETURN"]["value"]

        return poutine.block(model, hide_types=["param"])

    def model(self) -> None:
        """The same as a Pyro model with one random site, u, (N, D), of no density of its own."""
        with pyro.plate("asked", len(self.evidence.images), dim=-1):
            u = pyro.sample("u", dist.ImproperUniform(constraints.real_vector, (), (self.size,)))
        self._model(1, u)()

    def apart(self, u: Tensor) -> dict[str, Tensor]:
        """The share of u that each random site has."""
        return dict(zip(self.sizes, u.split(list(self.sizes.values()), -1), strict=True))

    def log_joint(self, u: Tensor) -> tuple[Tensor, ParseTree]:
        """Log p(u, the evidence), (copies * N,), in nats, and the trees."""
        model = self._model(len(u) // len(self.evidence.images), u)
        trace: Any = poutine.trace(model).get_trace()
        return log_joint(trace, len(u)), trace.nodes["_RETURN"]["value"]

    def at(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, ParseTree]:
        """At values of the random sites: u, log |d values / d u|, log p(values, ...), the trees."""
        n = len(next(iter(values.values())))
        model = poutine.condition(self._model(n // len(self.evidence.images)), data=dict(values))
        trace: Any = poutine.trace(model).get_trace()
        places = [whiten(trace.nodes[name]["fn"], values[name]) for name in self.sizes]
        log_det = torch.stack([log_det for _, log_det in places]).sum(0)
        tree = trace.nodes["_RETURN"]["value"]
        return torch.cat([u for u, _ in places], -1), log_det, log_joint(trace, n), tree

    def visit(self, u: Tensor) -> tuple[Tensor, ParseTree]:
        """`log_joint` of samples, (S, N, D), a few at a time: (S, N), and S * N trees."""
        some = self._few(u, "weighing")
        pieces = [self.log_joint(few.flatten(0, 1)) for few in some]
        log_p = torch.cat([value for value, _ in pieces]).unflatten(0, u.shape[:2])
        return log_p, ParseTree.join([tree for _, tree in pieces])

    def log_likelihood(self, tree: ParseTree) -> Tensor | None:
        """Log p(pixels that are seen | canvas) of S * N trees, (S, N), in nats; None of none."""
        n = len(self.evidence.images)
        if not self.evidence.seen.any():
            return None
        found = []
        for canvas in tree.canvas.split(n * max(1, AT_ONCE // n)):
            evidence = self.evidence.repeat(len(canvas) // n)
            fn = self.rnp.model.likelihood(canvas)
            found.append(
                MaskedLikelihood(evidence.seen).apply({"fn": fn})["fn"].log_prob(evidence.images)
            )
        return torch.cat(found).unflatten(0, (-1, n))

    def _few(self, samples: Tensor, what: str) -> Iterable[Tensor]:
        """Samples a few at a time, with a bar where that takes long."""
        few = samples.split(max(1, AT_ONCE // len(self.evidence.images)))
        return tqdm(few, what, disable=not self.progress, delay=5)

    def propose(self, num: int) -> tuple[Tensor, Tensor, Tensor, ParseTree]:
        """Samples of the guide, or, where no pixel is seen, of the prior.

        Returns:
            u, (num, N, D), log q(u) and log p(u, the evidence), (num, N), and num * N trees.
        """
        blind = not self.evidence.seen.any()
        images = self.evidence.images if blind else self.filled()
        drawn, densities, fits, trees = [], [], [], []
        for k in self._few(torch.arange(num), "proposing"):
            if blind:
                trace = poutine.trace(self._model(len(k))).get_trace()
            else:
                guide = poutine.condition(self.rnp.guide, data=self.evidence.repeat(len(k)).hard)
                trace = poutine.trace(guide).get_trace(images.repeat(len(k), 1, 1, 1))
            values = {name: trace.nodes[name]["value"] for name in self.sizes}
            u, log_det, log_values, tree = self.at(values)
            log_q = sum(trace.nodes[name]["fn"].log_prob(values[name]) for name in self.sizes)
            drawn.append(u.view(len(k), -1, self.size))
            densities.append((log_q + log_det).view(len(k), -1))
            fits.append((log_values + log_det).view(len(k), -1))
            trees.append(tree)
        return torch.cat(drawn), torch.cat(densities), torch.cat(fits), ParseTree.join(trees)

    def filled(self, rounds: int = 20) -> Tensor:
        """Images whose hidden pixels are what the model expects there.

        A guide that has only seen whole images is asked again about what it said of the image
        before, from blank on (Rezende et al., 2014); of all rounds the most probable counts.
        """
        evidence, model = self.evidence, self.rnp.model
        if evidence.seen.all():
            return evidence.images
        images = best = evidence.images
        most: Tensor | None = None
        guide = poutine.condition(self.rnp.guide, data=evidence.hard)
        for _ in range(rounds):
            guided = latent_sites(poutine.trace(guide).get_trace(images))
            _, _, fits, tree = self.at({name: site["value"] for name, site in guided.items()})
            better = fits > (-math.inf if most is None else most)
            most = fits if most is None else torch.maximum(fits, most)
            best = torch.where(better.view(-1, 1, 1, 1), images, best)
            expected = model.likelihood(tree.canvas).mean.clamp(0, 1)
            images = torch.where(evidence.seen, evidence.images, expected)
        return best
