"""Models to compare the recursion with: a flat VAE, and a literal port of the paper's algorithm."""

from pyro_rnp.baselines.flat import FlatDecoder
from pyro_rnp.baselines.literal import LiteralRecursion

__all__ = ["FlatDecoder", "LiteralRecursion"]
