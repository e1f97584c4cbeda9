"""How good matched objects are, beyond average precision: panoptic quality, the best confidence threshold, calibration.

All functions take the matches of an evaluation, one entry a pair: true, predicted: (N,) class names, `missing` where there is no label or no
prediction; ious: (N,) of pairs; confidences: (N,) of predictions. Two classes that do not agree are a wrong prediction and a missed object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Strings = npt.NDArray[np.str_]
Floats = npt.NDArray[np.float64]


def panoptic(true: Strings, predicted: Strings, ious: Floats, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Class -> PQ, SQ, RQ (Kirillov et al., Panoptic Segmentation, arXiv 1801.00868), and their means over the classes that occur as "mean".

    SQ: mean IoU of the right ones (0 if none).  RQ: TP / (TP + FP / 2 + FN / 2).  PQ = SQ x RQ. The paper matches above IoU 0.5 and forbids
    overlapping masks; here the IoU is the evaluation's, and masks may overlap.
    """
    result = {}
    for name in classes:
        right = (true == name) & (predicted == name)
        tp, total = int(right.sum()), int((true == name).sum() + (predicted == name).sum())  # 2 TP + FP + FN
        if total:
            sq, rq = float(ious[right].astype(np.float64).mean()) if tp else 0.0, 2 * tp / total
            result[name] = {"PQ": sq * rq, "SQ": sq, "RQ": rq}
    keys = ("PQ", "SQ", "RQ")
    return {**result, "mean": {k: float(np.mean([r[k] for r in result.values()])) if result else 0.0 for k in keys}}


def best_thresholds(true: Strings, predicted: Strings, confidences: Floats, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Class -> `best_threshold` of its predictions. Classes without an object or a prediction are left out."""
    result = {}
    for name in classes:
        objects, rows = int((true == name).sum()), predicted == name
        if objects and rows.any():
            result[name] = best_threshold(true[rows] == name, confidences[rows].astype(np.float64), objects)
    return result


def best_threshold(right: npt.NDArray[np.bool_], confidences: Floats, objects: int) -> dict[str, float]:
    """The confidence whose predictions and better ones have the highest F1, with precision and recall there; of equal ones the highest.

    right, confidences: (N,) of one or more predictions. objects: to find, one or more. A match that was made at a lower confidence is not made anew.
    """
    order = np.argsort(-confidences, kind="stable")
    scores, hits = confidences[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True])  # all of one confidence or none
    tp, count = hits[ends], ends + 1
    f1 = 2 * tp / (count + objects)
    best = int(f1.argmax())
    return {
        "confidence": float(scores[ends[best]]),
        "precision": float(tp[best] / count[best]),
        "recall": float(tp[best] / objects),
        "f1": float(f1[best]),
    }


def calibration(right: npt.NDArray[np.bool_], confidences: Floats, bins: int = 10) -> dict[str, Any]:
    """Expected calibration error (Guo et al., arXiv 1706.04599): mean over predictions of |share that is right - mean confidence| of their bin.

    right, confidences: (N,) predictions that count. Bins are of equal width, each with its upper end: ((i - 1) / bins, i / bins].
    """
    at = np.clip(np.ceil(np.round(confidences * bins, 9)).astype(np.int64) - 1, 0, bins - 1)
    result, error = [], 0.0
    for i in range(bins):
        inside = at == i
        n = int(inside.sum())
        precision, confidence = (float(right[inside].mean()), float(confidences[inside].mean())) if n else (0.0, 0.0)
        error += n * abs(precision - confidence)
        result.append({"predictions": n, "precision": precision, "confidence": confidence})
    return {"ECE": error / len(right) if len(right) else 0.0, "bins": result}
