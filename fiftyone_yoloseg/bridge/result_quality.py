"""`engine.quality` of FiftyOne's results of a detection evaluation: ours, or those of another method that have confidences and IoUs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import quality
from ..errors import DataError


def panoptic(results: Any) -> dict[str, dict[str, float]]:
    """PQ, SQ and RQ of each class and their "mean", at the IoU of the evaluation."""
    return quality.panoptic(results.ytrue, results.ypred, results.ious, _classes(results))


def best_thresholds(results: Any) -> dict[str, dict[str, float]]:
    """Of each class the confidence with the highest F1, and precision and recall there."""
    return quality.best_thresholds(results.ytrue, results.ypred, _confidences(results), _classes(results))


def best_threshold(results: Any, class_name: str | None = None) -> dict[str, float]:
    """The same of all classes together, or of one. Raises DataError if there is no such prediction or object."""
    confidences = _confidences(results)
    predicted = results.ypred != results.missing if class_name is None else results.ypred == class_name
    objects = int((results.ytrue != results.missing if class_name is None else results.ytrue == class_name).sum())
    if not objects or not predicted.any():
        raise DataError(f"there are no objects or no predictions{'' if class_name is None else f' of class {class_name!r}'}")
    right = (results.ytrue == results.ypred)[predicted]
    return quality.best_threshold(right, confidences[predicted].astype(np.float64), objects)


def calibration(results: Any, bins: int = 10) -> dict[str, Any]:
    """The expected calibration error, "ECE", and the "bins" behind it."""
    predicted = results.ypred != results.missing
    return quality.calibration((results.ytrue == results.ypred)[predicted], _confidences(results)[predicted].astype(float), bins)


def _confidences(results: Any) -> Any:
    """Raises DataError where predictions have none."""
    predicted = results.ypred != results.missing
    if results.confs is None or any(c is None for c in results.confs[predicted]):
        raise DataError("predictions of this evaluation have no confidence")
    return results.confs


def _classes(results: Any) -> list[str]:
    return [str(c) for c in results.classes]
