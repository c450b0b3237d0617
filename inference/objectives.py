"""Training objectives by name, and the weight of their KL terms.

An objective is an ELBO class of Pyro with a `differentiable_loss`; its options are that class's
own. A loss is in nats and of a whole batch.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.util import check_model_guide_match
from torch import Tensor
from torch.distributions import Distribution

from inference.isolation import alone
from inference.traces import Traces, latent_sites, sample_sites, trace_both
from pyro_rnp import RNP
from pyro_rnp.arguments import whole, within
from pyro_rnp.class_model import SameClass
from pyro_rnp.contract import DensitiesOnly
from pyro_rnp.kl import site_kl
from pyro_rnp.priors import Types
from pyro_rnp.registry import Registry
from pyro_rnp.sites import drawn

OBJECTIVES: Registry[ELBO] = Registry("objective")


class _Surrogate:
    """A loss that is differentiated and never read as a number.

    Pyro's own losses are read at every step, for which a device's queue must run empty. The
    gradient is right if every site of the guide is reparametrised, which `check` makes sure of.
    """

    num_particles: int
    together = True
    """Whether siblings' random sites may be one, see `DensitiesOnly`; an objective without this
    attribute sees every site in its traces."""

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a batch, a tensor without dimensions, in nats."""
        particles = self.num_particles if self.num_particles > 1 else None
        traces = _traces(model, guide, particles, *args, **kwargs)
        return self.total(traces) / self.num_particles

    def total(self, traces: Traces) -> Any:
        """Return the loss of a batch, summed over particles, in nats."""
        return _log_prob_sum(traces.guide) - _log_prob_sum(traces.model)


def _traces(model: Any, guide: Any, particles: int | None, *args: Any, **kwargs: Any) -> Traces:
    """Return `trace_both`; with Pyro's validation on, warn of sites that only one of them has."""
    traces = trace_both(model, guide, *args, particles=particles, **kwargs)
    if is_validation_enabled():
        check_model_guide_match(traces.model, traces.guide)
    return traces


def _log_prob_sum(trace: poutine.Trace) -> Any:
    own = sample_sites(trace)
    return trace.log_prob_sum(lambda name, _: name in own)


@OBJECTIVES.add("Trace_ELBO")
class TraceELBO(_Surrogate, Trace_ELBO):
    """The evidence lower bound with its KL terms at the guide's samples.

    It is valid for every guide whose samples are reparametrised.

    Args:
        num_particles: samples of the guide for each image, side by side.
    """

    def __init__(self, *, num_particles: int = 1) -> None:
        super().__init__(**_particles(num_particles))


@OBJECTIVES.add("TraceMeanField_ELBO")
class TraceMeanFieldELBO(_Surrogate, TraceMeanField_ELBO):
    """The evidence lower bound with each site's KL in closed form where torch has one.

    It is valid if guide and model draw the same sites in the same order, so that the guide's
    distribution of a site depends on no site that the model draws later.

    Args:
        num_particles: samples of the guide for each image, side by side.
    """

    def __init__(self, *, num_particles: int = 1) -> None:
        super().__init__(**_particles(num_particles))

    def total(self, traces: Traces) -> Any:
        loss: Any = 0.0
        traces.model.compute_log_prob(lambda _, site: site["is_observed"])
        for name, site in sample_sites(traces.model).items():
            if site["is_observed"]:
                loss = loss - site["log_prob_sum"]
            else:
                q = traces.guide.nodes[name]
                loss = loss + site["scale"] * self.kl(q["fn"], site["fn"], q["value"])
        return loss

    def kl(self, q: Distribution, p: Distribution, value: Tensor) -> Tensor:
        """Return the KL of a site, summed over the batch, in nats; see `site_kl`.

        Args:
            q: distribution of the site in the guide.
            p: distribution of the site in the model.
            value: the value that the guide drew.
        """
        return site_kl(q, p, value).sum()


def _particles(n: int) -> dict[str, Any]:
    whole(1, num_particles=n)
    return {"num_particles": n, "vectorize_particles": n > 1, "max_plate_nesting": 1}


@OBJECTIVES.add("FreeBits_ELBO")
class FreeBitsELBO(TraceMeanFieldELBO):
    """The mean-field bound in which the KL of each site counts as `nats` or more.

    The KL of a site is averaged over the batch before the comparison, so that a site can carry that
    much information about an image at no cost. It is valid where `TraceMeanField_ELBO` is.

    Source: Kingma et al., "Improved variational inference with inverse autoregressive flow", 2016.

    Args:
        nats: the least KL of a site, in nats for each image, at least 0.
    """

    together = False

    def __init__(self, *, nats: float = 1.0) -> None:
        super().__init__()
        within(0, nats=nats)
        self.nats = nats

    def kl(self, q: Distribution, p: Distribution, value: Tensor) -> Tensor:
        """Return the KL of a site with its floor, summed over the batch, in nats."""
        each = site_kl(q, p, value)
        return each.numel() * each.mean().clamp(min=self.nats)


@OBJECTIVES.add("RenyiELBO")
class RenyiELBO(Trace_ELBO):
    """The Rényi bound over `num_particles` samples of each image.

    With alpha = 0 it is the importance-weighted bound; as alpha nears 1 it nears the evidence lower
    bound. Pyro's class of this name has no differentiable loss; this one has.

    Source: Li and Turner, "Rényi divergence variational inference", 2016.

    Args:
        alpha: the order of the divergence, from -100 to 100 but not 1.
        num_particles: samples of the guide for each image, at least 2.

    Raises:
        ValueError: if alpha is 1, or there is one particle only.
    """

    together = True

    def __init__(self, *, alpha: float = 0.0, num_particles: int = 5) -> None:
        if alpha == 1 or num_particles < 2:
            raise ValueError("RenyiELBO needs an alpha other than 1 and two or more particles.")
        within(-100, 100, alpha=alpha)
        super().__init__(**_particles(num_particles))
        self.alpha = alpha

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        return float(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return float(loss.detach())

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        particles = self.num_particles
        traces = _traces(model, guide, particles, *args, **kwargs)
        weights: Any = 0.0  # (particles, N)
        for sign, trace in ((1, traces.model), (-1, traces.guide)):
            trace.compute_log_prob()
            for site in sample_sites(trace).values():
                weights = weights + sign * site["log_prob"]
        power = 1 - self.alpha
        bound = ((power * weights).logsumexp(0) - math.log(particles)) / power
        return -bound.sum()


class _Weigh(Messenger):
    """Counts the log-probability of every latent site `weight` times."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.weight


def loss(
    objective: ELBO, rnp: RNP, images: Tensor, kl_weight: float = 1.0, images_per_class: int = 1
) -> Tensor:
    """Return an objective's loss for a batch, a tensor without dimensions, in nats.

    Args:
        objective: one of `OBJECTIVES`.
        rnp: the model and its guide; in training mode the loss holds the part term.
        images: (N, C, H, W) in [0, 1].
        kl_weight: how many times the KL terms count.
        images_per_class: how many images of a class follow each other, see
            `pyro_rnp.class_model`; by default images have no classes.
    """
    program = rnp if images_per_class == 1 else SameClass(rnp, images_per_class)
    model: Any = program.model
    guide: Any = program.guide
    if kl_weight != 1:
        model, guide = _Weigh(kl_weight)(model), _Weigh(kl_weight)(guide)
    together = getattr(objective, "together", None)
    with alone(rnp), nullcontext() if together is None else DensitiesOnly(together):
        return objective.differentiable_loss(  # type: ignore[attr-defined]
            model, guide, images
        )


def masked_loss(rnp: RNP, images: Tensor, seen: Tensor) -> Tensor:
    """Return the loss of the guide that has seen masks, a tensor without dimensions, in nats.

    It is -log q(z | seen pixels) of a program z drawn from the guide of whole images, summed over a
    batch: the KL from what whole images say to the proposal, up to a constant. So the proposal
    covers the programs of all images that look alike where pixels are seen; the model is not run,
    and the masked guide alone gets a gradient.

    Source: Bornschein and Bengio, "Reweighted wake-sleep", ICLR 2015, for the direction of the KL;
    Ivanov, Figurnov and Vetrov, "Variational autoencoder with arbitrary conditioning", ICLR 2019,
    for masks drawn at random.

    Args:
        rnp: a model with a `masked_guide`.
        images: (N, C, H, W) in [0, 1], NaN where a pixel is missing.
        seen: (N, 1, H, W) or as the images, True where the guide may look.
    """
    with torch.no_grad():
        z = drawn(rnp.guide.posterior(images))
    hidden = images.masked_fill(~seen, torch.nan)
    return -rnp.guide.masked.posterior(hidden).log_prob(z).sum()  # type: ignore[union-attr]


def prior_loss(rnp: RNP, images: Tensor) -> Tensor:
    """Return the loss of a prior that learns alone, a tensor without dimensions, in nats.

    It is -log p(z) of a program z drawn from the guide, summed over a batch. All other terms of the
    evidence lower bound have no parameter of the prior, so that its gradient is this one's; the
    model is not run, and the prior alone gets a gradient.

    Args:
        rnp: the model, whose prior has no latents of its own.
        images: (N, C, H, W) in [0, 1], NaN where a pixel is missing.
    """
    with torch.no_grad():
        z = drawn(rnp.guide.posterior(images))
    return -rnp.model.prior().log_prob(z).sum()


@torch.no_grad()
def check(objective: ELBO, rnp: RNP, images: Tensor, images_per_class: int = 1) -> None:
    """Raise unless an objective is valid for a model and its guide, as one run on images shows.

    Args:
        objective: one of `OBJECTIVES`.
        rnp: the model and its guide.
        images: (N, C, H, W) in [0, 1].
        images_per_class: how many images of a class follow each other.

    Raises:
        ValueError: if model and guide do not draw the same sites, if one of them cannot be
            reparametrised, if the guide is a point and the prior is learned, if the objective
            needs model and guide to draw in the same order (the condition of
            `TraceMeanField_ELBO`) and they do not, or if only one of prior and
            `images_per_class` is for classes.
    """
    program = rnp if images_per_class == 1 else SameClass(rnp, images_per_class)
    if images_per_class == 1 and isinstance(rnp.model.prior, Types):
        raise ValueError(
            "--prior types learns what classes share: give --images_per_class 2 or more."
        )
    if images_per_class > 1 and (
        type(objective) not in (Trace_ELBO, TraceELBO) or objective.num_particles > 1
    ):
        raise ValueError("--images_per_class needs --elbo Trace_ELBO, with one particle.")
    if isinstance(program, SameClass):
        _ = program.decoded  # Pyro would add the shapes of a trace to its message
    with alone(rnp), pyro.validation_enabled(False), torch.random.fork_rng():
        traces = trace_both(program.model, program.guide, images)
    own, wanted = latent_sites(traces.guide), latent_sites(traces.model)
    if own.keys() != wanted.keys():
        odd = ", ".join(sorted(own.keys() ^ wanted.keys()))
        raise ValueError(f"Model and guide do not draw the same sites; only one has {odd}.")
    for name, site in own.items():
        if not site["fn"].has_rsample and not isinstance(site["fn"], Delta):
            raise ValueError(f"The guide's {name} has no reparametrised samples to train with.")
    point = any(isinstance(site["fn"], Delta) for site in own.values())
    if point and any(p.requires_grad for p in rnp.model.prior.parameters()):
        raise ValueError(
            "A guide that is a point needs a prior that is not learned, which else becomes a point "
            "too; use --prior normal or studentt."
        )
    if isinstance(objective, TraceMeanField_ELBO) and list(own) != list(wanted):
        raise ValueError(
            f"A KL in closed form needs a guide that draws in the model's order "
            f"({', '.join(wanted)}), and this one draws {', '.join(own)}; use Trace_ELBO."
        )
