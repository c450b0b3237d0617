"""Posteriors of a trained model given pixels and parts, and interventions on its parses."""

from inference.posterior.engine import ENGINES, Engine, Method, Samples, Settings
from inference.posterior.evidence import (
    TOLERANCE,
    Evidence,
    Side,
    half_mask,
    read_evidence,
    read_sites,
)
from inference.posterior.guide import GuideEngine, ImportanceEngine
from inference.posterior.hmc import HMCEngine
from inference.posterior.interventions import graft, intervene, move, remove, rotate, scale
from inference.posterior.log_density import LogDensity
from inference.posterior.nuts import NUTSEngine
from inference.posterior.posterior import POSE, Posterior, SiteSamples, Summary
from inference.posterior.queries import answer, query
from inference.posterior.smc import SMCEngine
from inference.posterior.tempering import systematic
from inference.posterior.variational import VariationalEngine

__all__ = [
    "ENGINES",
    "POSE",
    "TOLERANCE",
    "Engine",
    "Evidence",
    "GuideEngine",
    "HMCEngine",
    "ImportanceEngine",
    "LogDensity",
    "Method",
    "NUTSEngine",
    "Posterior",
    "SMCEngine",
    "Samples",
    "Settings",
    "Side",
    "SiteSamples",
    "Summary",
    "VariationalEngine",
    "answer",
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
    "systematic",
]
