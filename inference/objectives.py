"""Objectives: what training maximises, by name, and the weight of its KL terms.

An objective is one of Pyro's ELBO classes with a `differentiable_loss`; its options are that
class's own. The loss is in nats, of a whole batch.
"""

from __future__ import annotations

import math
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from inference.isolation import alone
from pyro_rnp import RNP
from pyro_rnp.class_model import SameClass
from pyro_rnp.priors import Types
from pyro_rnp.registry import Registry, within

OBJECTIVES: Registry[ELBO] = Registry("objective")


def site_kl(q: Distribution, p: Distribution, value: Tensor) -> Tensor:
    """KL(q || p) where it is known in closed form, else log q - log p at a sample of q, in nats.

    A point (`Delta`) has no entropy; its KL is -log p.
    """
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return q.log_prob(value) - p.log_prob(value)


def latent(trace: poutine.Trace) -> dict[str, Any]:
    """The sites of a trace that are drawn, in order."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and not site_is_subsample(site)
    }


def of_each(sites: dict[str, Any]) -> dict[str, Any]:
    """The sites, none of which is one for all images.

    Raises:
        ValueError: if one is, as a latent of the prior's own.
    """
    for name, site in sites.items():
        if not any(plate.name == "images" for plate in site["cond_indep_stack"]):
            raise ValueError(
                f"The site {name!r} is drawn once for all images, and this is about each image by "
                "itself; give the prior a fixed value for it."
            )
    return sites


class _Surrogate:
    """A loss to differentiate and no more: Pyro's own is read at every step, for which a device's
    queue must run empty. For guides of reparametrised samples, as `check` has them.
    """

    num_particles: int

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """The loss of a batch, in nats."""
        traces = self._get_traces(model, guide, args, kwargs)  # type: ignore[attr-defined]
        return sum(self.particle(*pair) for pair in traces) / self.num_particles

    def particle(self, model_trace: poutine.Trace, guide_trace: poutine.Trace) -> Any:
        """The loss of one pair of traces."""
        return guide_trace.log_prob_sum() - model_trace.log_prob_sum()


@OBJECTIVES.add("Trace_ELBO")
class TraceELBO(_Surrogate, Trace_ELBO):
    """The evidence lower bound, its KL at a sample."""

    def __init__(self, *, num_particles: int = 1) -> None:
        super().__init__(**_particles(num_particles))


@OBJECTIVES.add("TraceMeanField_ELBO")
class TraceMeanFieldELBO(_Surrogate, TraceMeanField_ELBO):
    """The evidence lower bound with the KL in closed form where there is one."""

    def __init__(self, *, num_particles: int = 1) -> None:
        super().__init__(**_particles(num_particles))

    def particle(self, model_trace: Any, guide_trace: Any) -> Any:
        loss: Any = 0.0
        for name, site in model_trace.nodes.items():
            if site["type"] != "sample":
                continue
            if site["is_observed"]:
                loss = loss - site["log_prob_sum"]
            elif not site_is_subsample(site):
                found = guide_trace.nodes[name]
                loss = loss + site["scale"] * self.kl(found["fn"], site["fn"], found["value"])
        return loss

    def kl(self, q: Distribution, p: Distribution, value: Tensor) -> Tensor:
        """The KL of a site, in nats, of the whole batch."""
        return site_kl(q, p, value).sum()


def _particles(n: int) -> dict[str, Any]:
    within(1, num_particles=n)
    return {"num_particles": n, "vectorize_particles": n > 1, "max_plate_nesting": 1}


@OBJECTIVES.add("FreeBits_ELBO")
class FreeBitsELBO(TraceMeanFieldELBO):
    """The mean-field bound in which each site's KL counts as `nats` at least.

    The KL of a site is averaged over the batch before it is held against `nats` (Kingma et al.,
    2016), so that a site may say that much for nothing.
    """

    def __init__(self, *, nats: float = 1.0) -> None:
        super().__init__()
        within(0, nats=nats)
        self.nats = nats

    def kl(self, q: Distribution, p: Distribution, value: Tensor) -> Tensor:
        """The KL of a site, in nats, of the whole batch."""
        each = site_kl(q, p, value)
        return each.numel() * each.mean().clamp(min=self.nats)


@OBJECTIVES.add("RenyiELBO")
class RenyiELBO(Trace_ELBO):
    """The Rényi bound (Li and Turner, 2016) over `num_particles` samples of each image.

    alpha = 0 is the importance-weighted bound; alpha near 1 the evidence lower bound. Pyro's class
    of this name has no differentiable loss; this one has.

    Raises:
        ValueError: if alpha is 1, or there is one particle only.
    """

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
        ((model_trace, guide_trace),) = self._get_traces(model, guide, args, kwargs)
        weights: Any = 0.0  # (particles, N)
        for sign, trace in ((1, model_trace), (-1, guide_trace)):
            for site in trace.nodes.values():
                if site["type"] == "sample" and not site_is_subsample(site):
                    weights = weights + sign * site["log_prob"]
        power = 1 - self.alpha
        bound = ((power * weights).logsumexp(0) - math.log(self.num_particles)) / power
        return -bound.sum()


class _Weigh(Messenger):
    """Counts the log-probabilities of what is drawn `weight` times."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.weight


def loss(
    objective: ELBO, rnp: RNP, images: Tensor, kl_weight: float = 1.0, images_per_class: int = 1
) -> Tensor:
    """The objective's loss for a batch, in nats, with its KL terms counted `kl_weight` times.

    Args:
        images_per_class: how many images of a class follow each other, see `pyro_rnp.class_model`.
    """
    program = rnp if images_per_class == 1 else SameClass(rnp, images_per_class)
    model: Any = program.model
    guide: Any = program.guide
    if kl_weight != 1:
        model, guide = _Weigh(kl_weight)(model), _Weigh(kl_weight)(guide)
    with alone(rnp), rnp.model.one_run():
        return objective.differentiable_loss(  # type: ignore[attr-defined]
            model, guide, images
        )


@torch.no_grad()
def check(objective: ELBO, rnp: RNP, images: Tensor, images_per_class: int = 1) -> None:
    """Raise unless an objective fits a model and its guide, as one run on some images shows.

    Args:
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
    with alone(rnp), pyro.validation_enabled(False), torch.random.fork_rng():
        guide = poutine.trace(program.guide).get_trace(images)
        model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(images)
    drawn, wanted = latent(guide), latent(model)
    if drawn.keys() != wanted.keys():
        odd = ", ".join(sorted(drawn.keys() ^ wanted.keys()))
        raise ValueError(f"Model and guide do not draw the same sites; only one has {odd}.")
    for name, site in drawn.items():
        if not site["fn"].has_rsample and not isinstance(site["fn"], Delta):
            raise ValueError(f"The guide's {name} has no reparametrised samples to train with.")
    point = any(isinstance(site["fn"], Delta) for site in drawn.values())
    if point and any(p.requires_grad for p in rnp.model.prior.parameters()):
        raise ValueError(
            "A guide that is a point needs a prior that is not learned, which else becomes a point "
            "too; use --prior normal or studentt."
        )
    if isinstance(objective, TraceMeanField_ELBO) and list(drawn) != list(wanted):
        raise ValueError(
            f"A KL in closed form needs a guide that draws in the model's order "
            f"({', '.join(wanted)}), and this one draws {', '.join(drawn)}; use Trace_ELBO."
        )
