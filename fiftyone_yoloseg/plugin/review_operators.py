"""Operators of the labeling loop: what to label next, and the review of what the model proposes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fiftyone.operators import types
from fiftyone.operators.message import GeneratedMessage
from fiftyone.operators.types import Places, RiskLevel

from ..bridge import background, runs
from ..bridge.jobs import Params, Result, view_params
from ..bridge.review.fields import FIELD, TRUTH, check_reviewable, fields_of
from ..bridge.select import TAG
from ..bridge.views import check_view, label_path
from ..config import PredictSettings
from ..errors import UserError
from .base import JobOperator, Steps
from .forms import Form
from .targets import target

_ACTIONS = {
    "prelabel": "Let the model propose objects",
    "accept": "Accept into the ground truth",
    "reject": "Reject",
    "edit": "Edit: open what waits in the App's mask editor",
    "mark": "Mark who made each object",
    "status": "Show where the review stands",
}
_ONLY = {
    "empty,uncertain": "Empty or uncertain samples",
    "empty": "Samples without ground truth",
    "uncertain": "Samples with an uncertain proposal",
}


class Review(JobOperator):
    name = job = "review"
    label = "YOLO-seg: review"
    icon = "rate_review"
    description = "Let the model propose objects, then accept or reject them in bulk; a person's work is never overwritten"
    risk = RiskLevel.MEDIUM
    place = Places.SAMPLES_GRID_SECONDARY_ACTIONS
    changes_samples = True

    def fill(self, ctx: Any, form: Form) -> Params:
        view = target(ctx, form)
        check_reviewable(view)
        dataset = ctx.dataset
        started = dataset.get_field(FIELD) is not None
        action = form.choice("action", "What to do", "", _ACTIONS, "accept" if started else "prelabel")
        truth = form.text("gt_field", "Ground truth", "Field that accepted objects go to", TRUTH, runs.check_name, required=True)
        field = form.text("field", "Pending objects", "Field in which proposals wait", FIELD,
                          lambda name: self.check_field(dataset, name, truth, action), required=True)  # fmt: skip
        options: dict[str, Any] = {"action": action, "field": field, "gt_field": truth}
        if action == "prelabel":
            check_view(view)
            options["model"] = form.model(dataset, exported=True)
            only = form.choice("only", "Which samples", "Others are left as they are", _ONLY, next(iter(_ONLY)))
            options["only"] = str(only).split(",")
            options["uncertain_below"] = form.number(
                "uncertain_below", "Uncertain below", "Confidence of a proposal, from 0 to 1", 0.5, check_share
            )
            options |= form.settings(
                PredictSettings,
                ("conf", "imgsz", "batch", "device"),
                hidden=("vid_stride", "engine", "ray_workers"),
                suggested={"batch": 8},
            )
        elif action in ("accept", "reject"):
            view = self.objects(ctx, form, view, field)
            if action == "accept":
                options["overlap"] = form.number("overlap", "Taken from", "Mask IoU with a ground truth object from which on a proposal waits", 0.5,
                                                 check_overlap)  # fmt: skip
                options["force"] = form.flag("force", "Accept where ground truth has changed since", "Where the overlap allows it")
            else:
                options["edited"] = form.flag("edited", "Also what a person drew or edited", "It is put aside, not deleted")
        return view_params(view, **options)

    def objects(self, ctx: Any, form: Form, view: Any, field: str) -> Any:
        """The view with only the objects to decide on."""
        chosen = [s["label_id"] for s in ctx.selected_labels or () if s.get("field") in (None, field)]
        if chosen and form.flag("selected", "Only the selected objects", f"{len(chosen)} are selected", True):
            return view._root_dataset.select_labels(ids=chosen, fields=field)
        form.get("selected")
        least = form.number("min_confidence", "From confidence", "Objects of the model below it wait; 0: all", 0.0, check_share)
        if least and "min_confidence" not in form.problems and "field" not in form.problems:
            import fiftyone as fo

            confident = (fo.ViewField("confidence") == None) | (fo.ViewField("confidence") >= least)  # noqa: E711
            return view.match(confident) if view._is_patches else view.filter_labels(field, confident)
        return view

    def check_field(self, dataset: Any, name: str, truth: str, action: str) -> None:
        runs.check_name(truth)
        fields_of(dataset, name, truth, must_exist=action in ("accept", "reject", "edit"))
        if action == "prelabel":
            runs.check_writable(dataset, name, overwrite=False)

    def steps(self, ctx: Any, params: Params) -> Steps:
        if params["options"]["action"] == "prelabel":
            return super().steps(ctx, params)
        return background.run_in_thread(self.job, params)

    def after(self, ctx: Any, result: Result) -> Iterator[GeneratedMessage]:
        yield from super().after(ctx, result)
        if "view_name" in result:
            yield ctx.ops.set_view(name=result["view_name"])


class SelectToLabel(JobOperator):
    name = job = "select_to_label"
    label = "YOLO-seg: select what to label"
    icon = "ads_click"
    description = "Choose and tag the samples or objects that a person should label next: uncertain, diverse, of rare classes"
    risk = RiskLevel.MEDIUM
    changes_samples = True
    own_process = False

    def fill(self, ctx: Any, form: Form) -> Params:
        view = target(ctx, form)
        check_view(view)
        unit = form.choice("unit", "Choose", "", {"images": "Images", "objects": "Predicted objects"}, "images", radio=True)
        budget = form.number("budget", "How many", "Images or objects to choose", 50, check_budget, whole=True)
        predicted = [facts["about"] for facts in runs.recall(view, "predict")]
        field = form.choice("label_field", "Predictions", "Of a model, with confidences", {name: name for name in predicted},
                            predicted[0] if predicted else "predictions", lambda name: self.check_field(view, name))  # fmt: skip
        truth = form.text("gt_field", "Ground truth", "Samples that have some are labelled already", TRUTH, runs.check_name, required=True)
        embeddings = form.text("embeddings", "Embeddings", "Field with a vector for each sample, for diversity; may be empty",
                               check=lambda name: self.check_embeddings(view, name))  # fmt: skip
        weights = {
            name: form.number(f"weight_{name}", f"Weight of {name}", "0: does not count", default, check_weight)
            for name, default in (("uncertainty", 1.0), ("diversity", 1.0), ("balance", 0.5))
        }
        tag = form.text("tag", "Tag", "Put on what is chosen, taken off the rest", TAG, required=True)
        seed = int(form.number("seed", "Seed", "The same seed gives the same choice", 0, whole=True))
        options = {"budget": budget, "unit": unit, "label_field": field, "gt_field": truth, "embeddings": embeddings, "weights": weights}
        return view_params(view, **options, tag=tag, seed=seed)

    def check_field(self, view: Any, name: str) -> None:
        label_path(view, name)

    def check_embeddings(self, view: Any, name: str) -> None:
        if view._dataset.get_field(name) is None:
            raise UserError(f"'{view._dataset.name}' has no field '{name}'")

    def _output(self, result: Result) -> types.Property:
        shown = super()._output(result)
        if "view" in result:
            shown.type.btn("show", "Show what was chosen", icon="visibility", on_click="set_view", params={"view": result["view"]})
        return shown


def check_share(value: float) -> None:
    if not 0 <= float(value) <= 1:
        raise UserError(f"{value!r}: a confidence from 0 to 1")


def check_overlap(value: float) -> None:
    if not 0 < float(value) <= 1:
        raise UserError(f"{value!r}: a mask IoU above 0, up to 1")


def check_budget(value: int) -> None:
    if value < 1:
        raise UserError(f"{value!r}: choose 1 or more")


def check_weight(value: float) -> None:
    if float(value) < 0:
        raise UserError(f"{value!r}: 0 or more")
