"""Evaluation inside FiftyOne: COCO's numbers, true and false positives on every label, and the App's Model Evaluation panel."""

from __future__ import annotations

import difflib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fiftyone as fo

from ..errors import SettingsError, UserError
from ..types import ProgressFn
from .label_attributes import OWN
from .objects import Maskless
from .scored_objects import IouType
from .views import check_view

_SETTINGS = ("compute_mAP", "custom_metrics", "iou_threshs", "iscrowd", "max_preds", "use_boxes")
"""Of the backend's config, besides those that are named."""


def evaluate(
    view: Any,
    pred_field: str,
    gt_field: str = "ground_truth",
    eval_key: str | None = "eval",
    *,
    iou: float = 0.5,
    classwise: bool = True,
    use_masks: bool = True,
    maskless: Maskless = "box",
    iou_type: IouType = "mask",
    classes: list[str] | None = None,
    missing: str | None = None,
    dynamic: bool = True,
    progress: ProgressFn | None = None,
    **settings: Any,
) -> Any:
    """Compare predictions with ground truth; returns a YolosegCOCOResults: `.mAP()`, `.coco`, `.print_report()` and what FiftyOne's results have.

    The same as `view.evaluate_detections(method="yoloseg-coco", use_masks=True, ...)`, without FiftyOne's loop over samples. With an eval_key,
    every label gets `<eval_key>` (tp, fp, fn; "ignored" for crowds and what lies on them), `<eval_key>_id` and `<eval_key>_iou`, every sample the
    counts, and the evaluation is saved on the dataset. maskless, iou_type, settings: see `YolosegCOCOEvaluationConfig`.
    Raises DataError where a field cannot be evaluated, SettingsError or UserError for bad settings or an eval_key that is in use for something
    else; then nothing is written, and an earlier evaluation of that key is still there.
    """
    from .coco_evaluation import YolosegCOCOEvaluation, YolosegCOCOEvaluationConfig

    check_view(view)
    for name in settings.keys() - set(_SETTINGS):
        near = difflib.get_close_matches(name, [*_SETTINGS, "iou", "classwise", "use_masks", "maskless", "iou_type", "classes"], n=1)
        raise SettingsError(f"unknown setting {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))
    config = YolosegCOCOEvaluationConfig(
        pred_field, gt_field, iou=iou, classwise=classwise, use_masks=use_masks, maskless=maskless, iou_type=iou_type, **settings
    )
    backend = YolosegCOCOEvaluation(config)
    if eval_key is not None:
        check_eval_key(view, eval_key, backend)
    scored = backend.score(view, progress)
    backend.register_run(view, eval_key)
    matches = [match for sample in scored.samples for match in sample.matches]
    with ThreadPoolExecutor(1) as meanwhile:  # averages are computed while the database writes
        found = meanwhile.submit(backend.generate_results, view, matches, eval_key=eval_key, classes=classes, missing=missing)
        backend.register_samples(view, eval_key, dynamic=dynamic)
    results = found.result()
    backend.compute_custom_metrics(view, eval_key, results)
    if eval_key is not None:
        backend.save_run_results(view, eval_key, results)
        backend.add_fields_to_sidebar_group(view, eval_key, omit_fields=(pred_field, gt_field))
    return results


def check_eval_key(view: Any, eval_key: str, backend: Any) -> None:
    """Raises UserError if an evaluation cannot be kept under that name. backend: the evaluation, with its config."""
    if not eval_key.isidentifier():
        raise UserError(f"eval_key={eval_key!r}: use letters, digits and underscores, and begin with a letter")
    if eval_key in OWN:
        raise UserError(f"eval_key={eval_key!r}: is an attribute of every label, which would be lost; choose another name")
    try:
        backend.validate_run(view, eval_key)
    except ValueError as error:
        raise UserError(f"eval_key={eval_key!r}: {error}") from None


def check_settings(view: Any, pred_field: str, gt_field: str, eval_key: str, iou: float = 0.5) -> None:
    """As `evaluate` does before it compares. Raises UserError."""
    from .coco_evaluation import YolosegCOCOEvaluation, YolosegCOCOEvaluationConfig

    check_eval_key(view, eval_key, YolosegCOCOEvaluation(YolosegCOCOEvaluationConfig(pred_field, gt_field, iou=iou)))


def wrong_views(view: Any, pred_field: str, gt_field: str, eval_key: str) -> dict[str, Any]:
    """What to look at next: title -> serialized view, of wrong predictions and of objects that were missed, if there are any."""
    parts = {"wrong predictions": (pred_field, "fp"), "missed objects": (gt_field, "fn")}
    views = {title: view.filter_labels(field, fo.ViewField(eval_key) == verdict) for title, (field, verdict) in parts.items()}
    return {title: part._serialize() for title, part in views.items() if len(part)}
