"""Priors p(z^K) on the top-level program, one variant a module."""

from pyro_rnp.priors.base import Prior, StandardNormal
from pyro_rnp.priors.flow import Flow
from pyro_rnp.priors.mixture import GaussianMixture, Mixture
from pyro_rnp.priors.student_t import StudentT
from pyro_rnp.priors.types import Types
from pyro_rnp.priors.vamp import VampPrior

__all__ = [
    "Flow",
    "GaussianMixture",
    "Mixture",
    "Prior",
    "StandardNormal",
    "StudentT",
    "Types",
    "VampPrior",
]
