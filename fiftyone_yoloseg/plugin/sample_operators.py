"""Operators on the sample that is open in the App's modal: buttons beside the picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fiftyone.operators.message import GeneratedMessage
from fiftyone.operators.types import Places, RiskLevel

from ..bridge.jobs import Params, Result, view_params
from ..bridge.review.fields import FIELD, TRUTH, fields_of
from .base import JobOperator
from .forms import Form
from .model_operators import Predict
from .targets import open_sample

_TOLD = 3  # conflicts that are said


class PredictSample(Predict):
    name = "predict_sample"
    label = "YOLO-seg: predict this sample"
    description = "Predict masks on the sample that is open, and write them back as labels that the App can show, score and edit"
    place = Places.SAMPLES_VIEWER_ACTIONS
    target = staticmethod(open_sample)


class _DecideSample(JobOperator):
    """At once, without a form: what is selected of the pending objects of the open sample, else all of them."""

    job = "review"
    risk = RiskLevel.MEDIUM
    place = Places.SAMPLES_VIEWER_ACTIONS
    own_process = asks = False
    changes_samples = True
    action: str

    def fill(self, ctx: Any, form: Form) -> Params:
        view = open_sample(ctx, form)
        selected = [s for s in ctx.selected_labels or () if s.get("field") != TRUTH]
        field = form.get("field") or next((s["field"] for s in selected), FIELD)
        truth = form.get("gt_field") or TRUTH
        fields_of(ctx.dataset, field, truth, must_exist=True)
        if chosen := [s["label_id"] for s in selected if s["field"] == field]:
            view = view._root_dataset.select_labels(ids=chosen, fields=field)
        return view_params(view, action=self.action, field=field, gt_field=truth)

    def shown(self, ctx: Any, result: Result) -> Iterator[GeneratedMessage]:
        if "error" in result:
            yield ctx.ops.notify(result["error"], variant="error")
            return
        moved, conflicts = len(result["moved"]), result["conflicts"]
        lines = [f"{moved} object{'s' * (moved != 1)} {self.action}ed" if moved or conflicts else "No object waits here"]
        lines += [f"left: object {c['reason']}" for c in conflicts[:_TOLD]]
        lines += [f"and {len(conflicts) - _TOLD} more left"] if len(conflicts) > _TOLD else []
        yield ctx.ops.notify("; ".join(lines), variant="warning" if conflicts else "success" if moved else "info")


class AcceptSample(_DecideSample):
    name, action = "accept_sample", "accept"
    label = "YOLO-seg: accept these objects"
    icon = "check"
    description = "Move the pending objects of the sample that is open into the ground truth: the selected ones, or all of them"


class RejectSample(_DecideSample):
    name, action = "reject_sample", "reject"
    label = "YOLO-seg: reject these objects"
    icon = "close"
    description = "Put the pending objects of the sample that is open aside: the selected ones, or all of them"
