"""Recursive neural programs (Fisher and Rao, arXiv 2206.08462) as probabilistic programs."""

from pyro_rnp.affine import coverage
from pyro_rnp.checkpoint import load, save
from pyro_rnp.config import PRESETS, RNPConfig
from pyro_rnp.laws import check
from pyro_rnp.model import RNP
from pyro_rnp.parse_tree import ParseTree

__all__ = ["PRESETS", "RNP", "ParseTree", "RNPConfig", "check", "coverage", "load", "save"]
__version__ = "0.1.0"
