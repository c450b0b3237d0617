"""Traces of a guide and its model on images, with the KL and the log-weights of what they draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_rnp.kl import site_kl

Site = dict[str, Any]
"""A node of a Pyro trace: `fn`, `value`, `is_observed`, ..."""


class Traces(NamedTuple):
    """A guide's trace and the trace of the model that was replayed with the guide's values.

    Under particles the batch shape of a site is (particles, N), else (N,).
    """

    guide: Any
    model: Any

    def kl(self) -> dict[str, Tensor]:
        """Return `site_kl` of each site that the guide draws, by name, in nats.

        Its shape is the batch shape of the site: (N,) of a site that is drawn for each image, () of
        one that is drawn once for all images.
        """
        return {
            name: site_kl(q["fn"], self.model.nodes[name]["fn"], q["value"])
            for name, q in latent_sites(self.guide).items()
        }

    def log_weights(self) -> Tensor:
        """Return log p(x, z) - log q(z | x) of each image, (N,) or (particles, N), in nats.

        z is all that the guide draws and x the image; the part term is left out, since it is no
        part of the generative model.

        Raises:
            ValueError: if the guide draws a site once for all images.
        """
        x = self.model.nodes["x"]
        weights = x["fn"].log_prob(x["value"])
        for name, q in per_image(latent_sites(self.guide)).items():
            p = self.model.nodes[name]["fn"].log_prob(q["value"])
            weights = weights + p - q["fn"].log_prob(q["value"])
        return weights


def trace_both(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    particles: int | None = None,
    **kwargs: Any,
) -> Traces:
    """Run the guide, then the model with the values that the guide drew.

    Args:
        model, guide: Pyro programs.
        args, kwargs: arguments of both programs.
        particles: runs of both side by side, under a plate of that size at dim -2; by default one
            run without such a plate. The programs' own plate of images must stand at dim -1.
    """

    def run(program: Callable[..., Any]) -> Any:
        if particles is None:
            return program(*args, **kwargs)
        with pyro.plate("particles", particles, dim=-2):
            return program(*args, **kwargs)

    guided = poutine.trace(run).get_trace(guide)
    return Traces(guided, poutine.trace(poutine.replay(run, trace=guided)).get_trace(model))


def sample_sites(trace: poutine.Trace) -> dict[str, Site]:
    """Return the sites of a trace that have a density, drawn or observed, by name.

    Args:
        trace: the trace of a Pyro program.

    Returns:
        The sites in the order in which the program ran them.
    """
    nodes: Any = trace.nodes
    return {
        name: site
        for name, site in nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }


def latent_sites(trace: poutine.Trace) -> dict[str, Site]:
    """Return the sites of a trace that are drawn, by name.

    Args:
        trace: the trace of a Pyro program.

    Returns:
        The sites in the order in which the program ran them.
    """
    return {name: site for name, site in sample_sites(trace).items() if not site["is_observed"]}


def per_image(sites: dict[str, Site]) -> dict[str, Site]:
    """Return the sites as they are, if each of them is drawn for every image by itself.

    Args:
        sites: sites by name, as of `latent_sites`.

    Raises:
        ValueError: if a site stands outside of the plate of images, as a latent of a prior's own.
    """
    for name, site in sites.items():
        if not any(plate.name == "images" for plate in site["cond_indep_stack"]):
            raise ValueError(
                f"The site {name!r} is drawn once for all images, and this is about each image by "
                "itself; give the prior a fixed value for it."
            )
    return sites


def log_joint(trace: poutine.Trace, n: int) -> Tensor:
    """Return the log-density of all sites of a trace together, (n,), in nats.

    Args:
        trace: the trace of a Pyro program over n images.
        n: images; the log-density of a site that is drawn once counts for each of them.
    """
    trace.compute_log_prob(lambda _, site: not site_is_subsample(site))
    rows = [site["log_prob"] for site in trace.nodes.values() if "log_prob" in site]
    return sum((row.expand(n) for row in rows), torch.zeros(n, device=rows[0].device))
