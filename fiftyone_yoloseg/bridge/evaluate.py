"""Evaluation inside FiftyOne: scores, true and false positives on every label, and the App's Model Evaluation panel."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F

from ..errors import DataError, UserError
from .views import check_view, label_path


def evaluate(view: Any, pred_field: str, gt_field: str = "ground_truth", eval_key: str | None = "eval", **settings: Any) -> Any:
    """FiftyOne's COCO-style evaluation of masks; returns its DetectionResults (`.mAP()`, `.print_report()`, ...).

    settings: those of `evaluate_detections`; masks and mAP are on. Unlike COCO, FiftyOne's mask evaluation does not
    treat predictions inside crowds as ignored.
    Raises DataError where a field cannot be evaluated: missing, of another type, or with labels that have no mask.
    """
    check_view(view)
    for name in (pred_field, gt_field):
        path = label_path(view, name)
        if path.endswith(".polylines"):
            raise DataError(f"field '{name}' holds Polylines: evaluation needs Detections with masks")
        _check_masks(view, name)
    if eval_key is not None and not eval_key.isidentifier():
        raise UserError(f"eval_key={eval_key!r}: use letters, digits and underscores, and begin with a letter")
    return view.evaluate_detections(
        pred_field,
        gt_field=gt_field,
        eval_key=eval_key,
        **{"method": "coco", "use_masks": True, "compute_mAP": True, "progress": False, **settings},
    )


def _check_masks(view: Any, name: str) -> None:
    """One label without a mask would end FiftyOne's evaluation in the middle."""
    bare = view.filter_labels(name, (F("mask") == None) & (F("mask_path") == None))
    found, samples = bare.aggregate([fo.Count(f"{name}.detections"), fo.Values("id")])
    if found:
        shown = ", ".join(samples[:5]) + (", ..." if len(samples) > 5 else "")
        raise DataError(f"field '{name}': {found} labels in {len(samples)} samples have no mask and cannot be evaluated (samples {shown})")
