"""Reparametrisations of the model's sites: pixels under a mask, and non-centred random sites."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
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

from pyro_rnp.missing import of_seen


class MaskedLikelihood(Reparam):
    """Observes the pixels under a mask alone; see `pyro_rnp.missing.of_seen`.

    Args:
        mask: (N, C, H, W), True where a pixel is seen.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def apply(self, msg: Any) -> Any:
        """Replace the likelihood by one that leaves out the hidden pixels.

        Raises:
            ValueError: if the likelihood's pixels are not independent.
        """
        return {**msg, "fn": of_seen(msg["fn"], self.mask)}


class NonCentered(Reparam):
    """Sets a random site to the value at u, in coordinates in which its prior is standard.

    Where the prior is a normal, or a normal after transforms, u is a standard normal whatever the
    sites above are (the non-centred form); else u is the value in unbounded coordinates. Pyro's
    `LocScaleReparam` and `TransformReparam` do the same for a site that is drawn; here u comes from
    outside, as a slice of one vector for all sites of an image.

    Source: Papaspiliopoulos, Roberts and Sköld, "A general framework for the parametrization of
    hierarchical models", 2007.

    Args:
        u: (N, d).
    """

    def __init__(self, u: Tensor) -> None:
        self.u = u

    def apply(self, msg: Any) -> Any:
        """Replace the site by its value at u, with the density of u."""
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
    """Return the normal that a distribution is made of, and the transforms from it.

    Returns:
        A `Normal` and the transforms that make `fn` of it; or None and one transform from unbounded
        numbers to the support of `fn`.
    """
    found: Any = fn
    transforms: list[Transform] = []
    while not isinstance(found, Normal):
        if isinstance(found, TransformedDistribution):
            transforms = [*found.transforms, *transforms]
        elif isinstance(found, MixtureSameFamily):  # its constraint has no transform in torch
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
    """Return the u at which `NonCentered` gives a value, and log |d value / d u|.

    Args:
        fn: the prior of the site.
        value: (N, d), in the support of `fn`.

    Returns:
        u, (N, d), and the logarithm of the Jacobian's determinant, (N,).
    """
    normal, transforms = base_normal(fn)
    u = value
    for transform in reversed(transforms):
        u = transform.inv(u)
    if normal is None:
        return u, transforms[0].log_abs_det_jacobian(u, value)
    u = (u - normal.loc) / normal.scale
    return u, dist.Normal(0.0, 1.0).log_prob(u).sum(-1) - fn.log_prob(value)
