"""Posteriors of a trained model given pixels and parts, and interventions on its parses."""

from inference.posterior.evidence import (
    TOLERANCE,
    Evidence,
    Side,
    half_mask,
    read_evidence,
    read_sites,
)
from inference.posterior.interventions import graft, intervene, move, remove, rotate, scale
from inference.posterior.log_density import LogDensity
from inference.posterior.posterior import Method, Posterior
from inference.posterior.queries import query

__all__ = [
    "TOLERANCE",
    "Evidence",
    "LogDensity",
    "Method",
    "Posterior",
    "Side",
    "graft",
    "half_mask",
    "intervene",
    "move",
    "query",
    "read_evidence",
    "read_sites",
    "remove",
    "rotate",
    "scale",
]
