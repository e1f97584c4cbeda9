"""Operators that say what a person should look at."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types
from fiftyone.operators.types import RiskLevel

from ..bridge import runs
from ..bridge.jobs import Params, Result, view_params
from ..bridge.label_errors import PREFIX
from ..bridge.views import check_view, label_path
from ..config import LabelErrorSettings
from ..errors import UserError
from .base import JobOperator
from .forms import Form, cached_fields, field_choices, view_buttons
from .targets import target


class FindLabelErrors(JobOperator):
    name = job = "find_label_errors"
    label = "YOLO-seg: find label errors"
    icon = "troubleshoot"
    description = (
        "Rank labels that are likely wrong, by predictions of a model that was not trained on these samples, and save views of them"
    )
    risk = RiskLevel.MEDIUM
    changes_samples = True

    def fill(self, ctx: Any, form: Form) -> Params:
        view = target(ctx, form)
        check_view(view)
        gt_field, maskless = form.label_field(view)
        fields = [f for f in cached_fields(view) if f.masks and f.name != gt_field]
        predicted = {facts["about"] for facts in runs.recall(view, "predict")}
        fields.sort(key=lambda f: (f.name not in predicted, f.name != "predictions", f.name))
        if not fields and not form.problems:
            form.refuse("there is no second field with masks: predict first, with a model that was not trained on these samples")

        def check(name: str) -> None:
            label_path(view, name)
            if name == gt_field:
                raise UserError(f"'{name}' holds the labels to judge: choose the field of the predictions")

        about = "Of a model that was not trained on these samples: a model repeats the errors it was taught"
        pred_field = form.choice("pred_field", "Predictions", about, field_choices(fields),
                                 fields[0].name if fields else None, check)  # fmt: skip
        settings = form.settings(
            LabelErrorSettings, ("min_score", "kinds", "save_views", "write"), hidden=("maskless",), suggested={"save_views": True}
        )
        return view_params(view, gt_field=gt_field, pred_field=pred_field, maskless=maskless, **settings)

    def _output(self, result: Result) -> types.Property:
        shown = super()._output(result)
        if "error" not in result:
            view_buttons(shown.type, result.get("views", {}), PREFIX)
        return shown
