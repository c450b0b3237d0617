"""Parameters of ordinary torch modules in Pyro's parameter store."""

from __future__ import annotations

import itertools
import weakref

import pyro
from pyro.params import param_with_module_name
from torch import nn

_names: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
_count = itertools.count()


def register(module: nn.Module) -> None:
    """`pyro.module` under a name that no other module has, so that SVI finds the parameters.

    Those that take no gradient are left out, as there, but without a warning.

    Under a fixed name a second model in the same process would silently train the first one's
    parameters, which is what the store then holds under that name.
    """
    if module not in _names:
        _names[module] = f"{type(module).__name__}{next(_count)}"
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            pyro.param(param_with_module_name(_names[module], name), parameter)
