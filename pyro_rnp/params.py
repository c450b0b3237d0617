"""Parameters of torch modules in Pyro's parameter store, under stable names.

`pyro.module` would put them there as well. But after a store is loaded from a file, store and
module disagree: SVI steps the store's parameters, and the module computes with its own.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar

import pyro
from pyro.nn import PyroModule
from pyro.params import param_with_module_name
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from pyro_rnp.contract import DensitiesOnly

NAME = "rnp"
"""A model's default name in the parameter store."""

_owners: Any = WeakTensorKeyDictionary()
"""Tensors that a module knows to be in the store, with a weak reference to that module. All other
tensors were put there by somebody else, as `ParamStoreDict.load` does, and take effect."""


def plain(name: str) -> str:
    """A tensor's name without the part that `torch.compile` inserts.

    >>> plain("model._orig_mod.recursion.weight")
    'model.recursion.weight'

    Args:
        name: of a tensor in a `state_dict`.
    """
    return name.replace("_orig_mod.", "")


class Registered(nn.Module):
    """A module whose parameters Pyro's store holds as `name.part$$$path`.

    An example is `rnp.guide$$$top.encoder.0.conv1.weight`. Before the module runs, it takes over
    the values that others put into the store under these names, by loading a file or by setting
    them. A parameter that is new in the module, as after `load_state_dict(assign=True)`, replaces
    the module's former one in the store.

    Args:
        part: the second half of the name, "model" or "guide".
    """

    def __init__(self, part: str) -> None:
        super().__init__()
        self.name, self.part = NAME, part
        self.beside: tuple[Registered, ...] = ()
        """Modules that this one may run; they take over along with it."""

    passing: ClassVar[dict[str, Any]] = {}
    """Attributes that a copy does not take over, with what it has instead."""

    def __getstate__(self) -> dict[str, Any]:
        for parameter in self.parameters():  # a weak reference of Pyro's, which cannot be pickled
            parameter.__dict__.pop("unconstrained", None)
        return {**self.__dict__, **self.passing}

    def _entries(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        """Each parameter with its name in the store and its path in the module."""
        prefix = f"{self.name}.{self.part}"
        for path, parameter in self.named_parameters():
            if isinstance(parameter, nn.Parameter):  # not what `functional_call` puts there
                yield param_with_module_name(prefix, plain(path)), path, parameter

    def take_over(self) -> None:
        """Take over the values that others put into the store under this module's names.

        Raises:
            ValueError: if a parameter there has another shape.
        """
        held = dict(pyro.get_param_store().named_parameters())
        for module in (self, *self.beside) if held else ():
            for name, path, parameter in list(module._entries()):
                found = held.get(name, parameter)
                if found is not parameter and found not in _owners:
                    module._take(name, path, parameter, found)

    def _take(self, name: str, path: str, parameter: nn.Parameter, held: Tensor) -> None:
        if held.shape != parameter.shape:
            raise ValueError(
                f"The parameter store holds {name} of shape {tuple(held.shape)}, and this model "
                f"has {tuple(parameter.shape)}: call pyro.clear_param_store(), or give the model a "
                "name of its own, RNP(config, name=...)."
            )
        store, own = pyro.get_param_store(), nn.Parameter(held, parameter.requires_grad)
        like = held.dtype == parameter.dtype and held.device == parameter.device
        if not like:
            own = nn.Parameter(held.detach().to(parameter), parameter.requires_grad)
        elif isinstance(held, nn.Parameter) and parameter.requires_grad:
            own = held  # an optimiser may know it
        owner, _, leaf = path.rpartition(".")
        nn.Module.register_parameter(self.get_submodule(owner), leaf, own)
        _owners[held] = _owners[own] = weakref.ref(self)
        if own is not held and own.requires_grad:
            del store[name]
            store[name] = own

    def _check_pyro_modules(self, held: dict[str, Tensor]) -> None:
        """Raise where a `PyroModule` would take the parameter of another for its own.

        Such a module looks for its parameters in the store by names of its own.

        Raises:
            ValueError: in one sentence, if another model's or guide's has the same name.
        """
        for module in [m for m in self.modules() if isinstance(m, PyroModule)]:
            for leaf, _ in module.named_parameters(recurse=False):
                name = module._pyro_get_fullname(leaf.removesuffix("_unconstrained"))
                found = held.get(name)
                other = None if found is None else _owners.get(found)
                if other is not None and other() not in (None, self):
                    raise ValueError(
                        f"Two PyroModules have a parameter {name!r}, which Pyro takes for one; "
                        "give each module a name of its own by super().__init__('name')."
                    )

    def register(self) -> None:
        """Put the parameters that take a gradient into the store, so that SVI finds them.

        Parameters of another model with the same name make room, with a warning, since the store
        then keeps the parameters of one of the two models alone.

        Raises:
            ValueError: if a parameter in the store has another shape, or a handler or a name that
                two modules share gives a parameter another value than the module has.
        """
        self.take_over()
        if DensitiesOnly.open():
            return
        store = pyro.get_param_store()
        held = dict(store.named_parameters())
        self._check_pyro_modules(held)
        for name, _, parameter in list(self._entries()):
            if not parameter.requires_grad:
                continue
            if (found := held.get(name, parameter)) is not parameter:
                other = _owners[found]()
                if other is not None and other is not self:
                    warnings.warn(_two(self.name), stacklevel=3)
                del store[name]
            given = pyro.param(name, parameter)
            if name not in store or given is not store[name]:
                raise ValueError(
                    f"A handler, such as poutine.lift, gives another value for {name}, and the "
                    "model computes with its own; set that, or what the parameter store holds."
                )
            _owners.setdefault(parameter, weakref.ref(self))
        if len(store) > len(held):
            self.take_over()  # the store copies what does not lie in memory in its own order


def unowned() -> Any:
    """The parameter store's state without the parameters of models, for its `scope`."""
    state: Any = pyro.get_param_store().get_state()
    names = [name for name, tensor in state["params"].items() if tensor not in _owners]
    return {kind: {name: values[name] for name in names} for kind, values in state.items()}


def _two(name: str) -> str:
    return (
        f"Two models are named {name!r} in Pyro's parameter store, which keeps the parameters of "
        "the one that ran last; give one of them another name, RNP(config, name=...), or call "
        "pyro.clear_param_store() between them."
    )
