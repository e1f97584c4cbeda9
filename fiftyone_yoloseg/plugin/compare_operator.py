"""The operator that compares the predictions of two models."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types
from fiftyone.operators.types import RiskLevel

from ..bridge import defaults
from ..bridge.jobs import Params, Result, view_params
from ..bridge.label_attributes import check_key
from ..errors import UserError
from .base import JobOperator
from .evaluate_operator import check_field, check_iou, truth_field
from .forms import Form, field_choices, view_buttons


class Compare(JobOperator):
    name = job = "compare"
    label = "YOLO-seg: compare two models"
    icon = "compare_arrows"
    description = "Which objects the second model finds that the first does not, which it loses, and whether its mAP is surely better"
    risk = RiskLevel.MEDIUM
    changes_samples = True

    def fill(self, ctx: Any, form: Form) -> Params:
        view, fields, gt_field = truth_field(ctx, form)
        choices = field_choices(fields)
        predicted = [f.name for f in defaults.predictions_first(view, fields, gt_field) if f.name != gt_field]
        if len(predicted) < 2 and not form.problems:
            form.refuse("there are no two fields of predictions beside the ground truth: predict with both models first")

        def other_than(taken: str | None) -> Any:
            def check(name: str) -> None:
                check_field(view, name)
                if name in (gt_field, taken):
                    raise UserError("choose three different fields: ground truth, and the predictions of two models")

            return check

        first, second = (*predicted, None, None)[:2]
        first = form.choice("first", "First model", "Predictions of the model that there was", choices, first, other_than(None))
        second = form.choice("second", "Second model", "Predictions of the model that may be better", choices, second, other_than(first))
        taken = (gt_field, first, second)
        about = "Further fields, with commas; each is compared with the first"
        typed = form.text("more", "More models", about, check=lambda names: check_more(view, names, taken))
        more = split_names(typed or "")
        iou = form.number("iou", "IoU", "Overlap of masks at which an object is found, above 0 and at most 1", 0.5, check_iou)
        key = form.text(
            "key",
            "Name",
            "Of the attribute of the labels, and of the saved views",
            "compare",
            lambda k: check_name(view, k, gt_field),
            required=True,
        )
        return view_params(view, first=first, second=second, more=more, gt_field=gt_field, iou=iou, key=key)

    def _output(self, result: Result) -> types.Property:
        shown = super()._output(result)
        if "error" not in result:
            view_buttons(shown.type, result.get("views", {}), "")
            for other in result.get("more", ()):
                view_buttons(shown.type, other["views"], "")
        return shown


def split_names(typed: str) -> list[str]:
    return [name.strip() for name in typed.split(",") if name.strip()]


def check_more(view: Any, typed: str, taken: tuple[str | None, ...]) -> None:
    for name in split_names(typed):
        check_field(view, name)
        if name in taken:
            raise UserError(f"'{name}' is chosen above")


def check_name(view: Any, key: str, gt_field: str | None) -> None:
    if gt_field is not None:
        from ..bridge.compare import VERDICTS

        check_key(view, key, [gt_field], VERDICTS)
