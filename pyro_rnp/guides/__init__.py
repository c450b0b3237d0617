"""Guides: what an image says of its programs."""

from pyro_rnp.guides import lower  # noqa: F401 (its guides put their names down)
from pyro_rnp.guides.guides import *  # noqa: F403
