"""The instance-segmentation loop for FiftyOne. Importing this package imports neither torch nor fiftyone."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers, which cannot follow `__getattr__`; a test holds both lists equal
    from .api import YOLO as YOLO
    from .bridge import review as review
    from .bridge.check import check as check
    from .bridge.coco_evaluation import register_evaluation as register_evaluation
    from .bridge.compare import compare as compare
    from .bridge.convert import convert as convert
    from .bridge.datasets import synthetic_dataset as synthetic_dataset
    from .bridge.dynamics import training_dynamics as training_dynamics
    from .bridge.embeddings import compute_object_embeddings as compute_object_embeddings
    from .bridge.error_types import error_types as error_types
    from .bridge.evaluate import evaluate as evaluate
    from .bridge.fiftyone_model import as_fiftyone as as_fiftyone
    from .bridge.import_labels import import_labels as import_labels
    from .bridge.label_errors import find_label_errors as find_label_errors
    from .bridge.out_of_fold import predict_out_of_fold as predict_out_of_fold
    from .bridge.predict import predict as predict
    from .bridge.run_registry import compare_runs as compare_runs
    from .bridge.run_registry import runs as runs
    from .bridge.select import select_to_label as select_to_label
    from .bridge.train import train as train
    from .bridge.validate import validate as validate

__version__ = "0.1.0"

# How long torch's CPU threads spin at a barrier before they sleep; read when torch is loaded. The default is so long that a training step took
# 13 to 20 times as long while other programs used the two cores of our machine, with this value 5 to 8 times; on the idle machine both were equal.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

_PUBLIC = {
    "YOLO": "api",
    "synthetic_dataset": "bridge.datasets",
    "convert": "bridge.convert",
    "import_labels": "bridge.import_labels",
    "train": "bridge.train",
    "validate": "bridge.validate",
    "predict": "bridge.predict",
    "evaluate": "bridge.evaluate",
    "register_evaluation": "bridge.coco_evaluation",
    "compare": "bridge.compare",
    "error_types": "bridge.error_types",
    "training_dynamics": "bridge.dynamics",
    "check": "bridge.check",
    "find_label_errors": "bridge.label_errors",
    "as_fiftyone": "bridge.fiftyone_model",
    "compute_object_embeddings": "bridge.embeddings",
    "predict_out_of_fold": "bridge.out_of_fold",
    "select_to_label": "bridge.select",
    "runs": "bridge.run_registry",
    "compare_runs": "bridge.run_registry",
}
_MODULES = {"review": "bridge.review"}
__all__ = ["__version__", *_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{_MODULES[name]}", __name__)
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
