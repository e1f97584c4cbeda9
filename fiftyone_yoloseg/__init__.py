"""The instance-segmentation loop for FiftyOne. Importing this package imports neither torch nor fiftyone."""

from __future__ import annotations

import importlib
import os
from typing import Any

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
