"""Guides q(z^K | x) and guides of random sites below the top, one variant a module."""

from pyro_rnp.guides.base import Guide, TopGuide
from pyro_rnp.guides.bottom_up import BottomUp
from pyro_rnp.guides.diagonal_normal import DiagonalNormal
from pyro_rnp.guides.flow import FlowGuide
from pyro_rnp.guides.full_normal import FullNormal
from pyro_rnp.guides.low_rank_normal import LowRankNormal
from pyro_rnp.guides.lower import Corrections, LowerGuide
from pyro_rnp.guides.map import MAP
from pyro_rnp.guides.masked import MaskedGuide
from pyro_rnp.guides.refined import Refined
from pyro_rnp.guides.top_down import TopDown

__all__ = [
    "MAP",
    "BottomUp",
    "Corrections",
    "DiagonalNormal",
    "FlowGuide",
    "FullNormal",
    "Guide",
    "LowRankNormal",
    "LowerGuide",
    "MaskedGuide",
    "Refined",
    "TopDown",
    "TopGuide",
]
