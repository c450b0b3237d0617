"""How well a model explains images: scores, bounds, completion, parts and samples, in numbers.

The names below are imported from their modules when they are first used: some modules need
scikit-learn, which takes a second to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.evaluation.bounds import importance_weighted_bound
    from inference.evaluation.calibration import agreement_metrics, calibration_metrics
    from inference.evaluation.completion import (
        HiddenLikelihood,
        completion_metrics,
        hidden_log_likelihood,
    )
    from inference.evaluation.latent_space import collect_programs, latent_space_metrics
    from inference.evaluation.metrics import baselines, evaluate
    from inference.evaluation.one_shot import (
        class_log_likelihood,
        exemplars,
        read_episodes,
        within_class_covariance,
    )
    from inference.evaluation.part_dictionary import PartLocation, build_dictionary, collect_parts
    from inference.evaluation.reconstruction import reconstruction_metrics
    from inference.evaluation.sample_quality import sample_quality_metrics
    from inference.evaluation.score import score_run
    from inference.evaluation.segmentation import segmentation_metrics
    from inference.evaluation.statistics import standard_error

_NAMES = {
    "bounds": ("importance_weighted_bound",),
    "calibration": ("agreement_metrics", "calibration_metrics"),
    "completion": ("HiddenLikelihood", "completion_metrics", "hidden_log_likelihood"),
    "latent_space": ("collect_programs", "latent_space_metrics"),
    "metrics": ("baselines", "evaluate"),
    "one_shot": (
        "class_log_likelihood",
        "exemplars",
        "read_episodes",
        "within_class_covariance",
    ),
    "part_dictionary": ("PartLocation", "build_dictionary", "collect_parts"),
    "reconstruction": ("reconstruction_metrics",),
    "sample_quality": ("sample_quality_metrics",),
    "score": ("score_run",),
    "segmentation": ("segmentation_metrics",),
    "statistics": ("standard_error",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "HiddenLikelihood",
    "PartLocation",
    "agreement_metrics",
    "baselines",
    "build_dictionary",
    "calibration_metrics",
    "class_log_likelihood",
    "collect_parts",
    "collect_programs",
    "completion_metrics",
    "evaluate",
    "exemplars",
    "hidden_log_likelihood",
    "importance_weighted_bound",
    "latent_space_metrics",
    "read_episodes",
    "reconstruction_metrics",
    "sample_quality_metrics",
    "score_run",
    "segmentation_metrics",
    "standard_error",
    "within_class_covariance",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
