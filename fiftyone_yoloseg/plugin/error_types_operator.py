"""The operator that says what kind of error each wrong prediction is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fiftyone.operators import types
from fiftyone.operators.types import RiskLevel

from ..bridge import defaults
from ..bridge.jobs import Params, Result, view_params
from ..bridge.label_attributes import check_key
from ..engine.error_types import KINDS
from ..errors import UserError
from .base import JobOperator
from .evaluate_operator import prediction_field, truth_field
from .forms import Form, check_folder, view_buttons


class ErrorTypes(JobOperator):
    name = job = "error_types"
    label = "YOLO-seg: kinds of errors"
    icon = "bug_report"
    description = "What kind of error each wrong prediction and each missed object is, and what it costs in AP"
    risk = RiskLevel.MEDIUM
    changes_samples = True

    def fill(self, ctx: Any, form: Form) -> Params:
        view, fields, gt_field = truth_field(ctx, form)
        pred_field = prediction_field(view, form, fields, gt_field)

        def check_name(key: str) -> None:
            if gt_field and pred_field and not form.problems:
                check_key(view, key, (gt_field, pred_field), KINDS, ("_cost",))

        about = "Of the attribute of the labels, and of the saved views"
        key = form.text("key", "Name", about, "error", check_name, required=True)
        report = None
        if form.flag("page", "Write a report", "One HTML file with tables, and pictures of the most expensive errors", True):
            path = defaults.work_dir(ctx.dataset) / "reports" / f"{key}.html"
            report = form.text("report", "Report", "Full path of the file", str(path), check_page, required=True)
        else:
            form.get("report")
        return view_params(view, pred_field=pred_field, gt_field=gt_field, key=key, report=report)

    def _output(self, result: Result) -> types.Property:
        shown = super()._output(result)
        if "error" not in result:
            view_buttons(shown.type, result.get("views", {}), "")
        return shown


def check_page(value: str) -> None:
    check_folder(value)
    if Path(value).suffix.lower() not in (".html", ".htm"):
        raise UserError(f"'{value}': give the name of an .html file")
