"""The operator that compares predictions with ground truth."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types
from fiftyone.operators.types import Places, RiskLevel

from ..bridge import defaults
from ..bridge.evaluate import check_settings
from ..bridge.jobs import Params, Result, view_params
from ..bridge.views import LabelField, check_view, label_path
from ..errors import UserError
from .base import JobOperator
from .forms import Form, cached_fields, field_choices
from .metrics import METRICS, PLUGIN
from .targets import target

_PANEL = "model_evaluation_panel_builtin"


class Evaluate(JobOperator):
    name = job = "evaluate"
    label = "YOLO-seg: evaluate"
    icon = "rule"
    description = "Compare predicted masks with ground truth: COCO's numbers, and right, wrong or missed on every object"
    risk = RiskLevel.MEDIUM
    place = Places.SAMPLES_GRID_SECONDARY_ACTIONS
    changes_samples = True

    def fill(self, ctx: Any, form: Form) -> Params:
        view, fields, gt_field = truth_field(ctx, form)
        pred_field = prediction_field(view, form, fields, gt_field)
        iou = form.number("iou", "IoU", "Overlap of masks at which a prediction is right, above 0 and at most 1", 0.5, check_iou)
        safe_iou = 0.5 if "iou" in form.problems else iou

        def check_key(key: str) -> None:
            if pred_field and gt_field:
                check_settings(view, pred_field, gt_field, key, safe_iou)

        eval_key = form.text(
            "eval_key", "Name", "Of this evaluation; one of the same fields under that name is replaced", "eval", check_key, required=True
        )
        maskless = "box"
        if any(f.some_bare for f in fields if f.name in (gt_field, pred_field)):
            choices = {"box": "Take their box as mask", "skip": "Leave these labels out"}
            maskless = form.choice("maskless", "Labels without a mask", "Where labels of these fields have none", choices, "box")
        else:
            form.get("maskless")
        kinds = {"mask": "Of whole masks", "boundary": "Of masks, and of the bands along their outlines"}
        iou_type = form.choice("iou_type", "Overlap", "The latter does not forgive bad outlines of large objects", kinds, "mask")
        options: dict[str, Any] = {
            "pred_field": pred_field,
            "gt_field": gt_field,
            "eval_key": eval_key,
            "iou": iou,
            "maskless": maskless,
            "iou_type": iou_type,
        }
        if form.flag("quality", "More metrics", "PQ, SQ, RQ, calibration error and best confidence, shown in the Model Evaluation panel"):
            options["custom_metrics"] = [f"{PLUGIN}/{metric.name}" for metric in METRICS]
        return view_params(view, **options)

    def _output(self, result: Result) -> types.Property:
        shown = super()._output(result)
        if "error" in result:
            return shown
        row = shown.type.h_stack("look", gap=1)
        row.btn("panel", "Open Model Evaluation", icon="insights", on_click="open_panel", params={"name": _PANEL, "isActive": True})
        for title, stages in result.get("views", {}).items():
            name = title.replace(" ", "_")
            row.btn(name, f"Show {title}", icon="visibility", on_click="set_view", params={"view": stages})
        return shown


def truth_field(ctx: Any, form: Form) -> tuple[Any, list[LabelField], str | None]:
    """The view to work on, its label fields, and the one that the user takes for the truth."""
    view = target(ctx, form)
    check_view(view)
    fields = cached_fields(view)
    truth = next((f.name for f in defaults.truth_first(view, fields)), None)
    if truth is None:
        form.refuse("no field of this dataset holds instance masks: labels must be Detections with masks, or filled Polylines")
    about = "Labels that are right"
    return view, fields, form.choice("gt_field", "Ground truth", about, field_choices(fields), truth, lambda name: check_field(view, name))


def prediction_field(view: Any, form: Form, fields: list[LabelField], gt_field: str | None) -> str | None:
    """The field of predictions to judge."""
    first = next((f.name for f in defaults.predictions_first(view, fields, gt_field)), None)

    def differs(name: str) -> None:
        check_field(view, name)
        if name == gt_field:
            raise UserError("these are the ground truth: choose the field with predictions, or predict first")

    chosen: str | None = form.choice(
        "pred_field", "Predictions", "Labels to judge; each needs a confidence", field_choices(fields), first, differs
    )
    return chosen


def check_field(view: Any, name: str) -> None:
    label_path(view, name)


def check_iou(value: float) -> None:
    if not 0 < value <= 1:
        raise UserError(f"iou={value}: give a number above 0 and at most 1")
