"""Data, training, queries, evaluation and figures of recursive neural programs.

The names below are imported from their packages when they are first used, so that
`import inference` takes no time.

- `load_data` loads a data set by name
- `fit` trains a model on images and gives its `Run`
- `train` trains a model by a configuration, as the command does
- `Run` reads a run folder
- `intervene` runs a program again with some of its parts changed
- `query` gives the posterior of programs, parts and pixels under evidence
- `evaluate` scores a model on images
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.data import load_data
    from inference.evaluation.metrics import evaluate
    from inference.posterior import intervene, query
    from inference.run import Run
    from inference.training import train
    from inference.training.fit import fit

_MODULES = {
    "Run": "inference.run",
    "evaluate": "inference.evaluation.metrics",
    "fit": "inference.training.fit",
    "intervene": "inference.posterior",
    "load_data": "inference.data",
    "query": "inference.posterior",
    "train": "inference.training",
}

__all__ = ["Run", "evaluate", "fit", "intervene", "load_data", "query", "train"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
