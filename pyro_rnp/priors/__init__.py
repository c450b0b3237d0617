"""Priors on the top-level program."""

from pyro_rnp.priors.priors import *  # noqa: F403
