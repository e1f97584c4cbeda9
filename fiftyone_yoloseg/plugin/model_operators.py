"""Operators on models: training, validation, prediction, export."""

from __future__ import annotations

from typing import Any

from fiftyone.operators.types import Places, RiskLevel

from ..bridge import background, defaults, estimates, runs
from ..bridge.jobs import Params, view_params
from ..bridge.views import check_view
from ..config import ExportSettings, PredictSettings, TrainSettings, ValSettings, parse
from ..errors import UserError
from .base import JobOperator, Steps, watch_limit
from .forms import Form, cached_fields, check_folder, field_choices
from .splits import split_fields
from .targets import target

NO_LABELS = "none"


class Train(JobOperator):
    name = job = "train"
    label = "YOLO-seg: train"
    icon = "model_training"
    description = "Train a YOLOv8-seg on the masks of this dataset, in a process of its own that outlives the App"
    risk = RiskLevel.MEDIUM
    place = Places.SAMPLES_GRID_SECONDARY_ACTIONS

    def fill(self, ctx: Any, form: Form) -> Params:
        running = self.running(ctx.dataset)
        action = "new"
        if running:
            choices = {"new": "Start another training"}
            for job, status in running.items():
                choices |= {
                    f"watch:{job}": f"Watch {job}: {status}",
                    f"stop:{job}": f"Stop {job} after its current step and keep its best epoch",
                }
            action = form.choice("action", "A training is running", "", choices, f"watch:{next(iter(running))}", radio=True)
        else:
            form.get("action")
        if action != "new":
            form.known.update(ctx.params)
            return {"job": action}
        view = target(ctx, form)
        check_view(view)
        field, maskless = form.label_field(view)
        model = form.model(ctx.dataset, new=True)
        split = split_fields(form, view)
        settings = form.settings(
            TrainSettings,
            ("epochs", "imgsz", "batch", "device", "name"),
            hidden=("data", "project", "resume", "exist_ok", "val", "seed"),
            suggested={"imgsz": defaults.suggest_imgsz(view), "name": "train"},
        )
        form.flag("follow", "Show the progress here", "If not, the training runs unseen; this form shows it when it is opened again", True)
        val = split["split"] if split["split"] != "random" else split["val_fraction"]
        project = defaults.work_dir(ctx.dataset) / "runs"
        form.estimate(lambda: estimates.training(view, model, parse(TrainSettings, settings), project))
        options = {**settings, "seed": split["seed"], "project": str(project)}
        return view_params(view, label_field=field, maskless=maskless, model=model, val=val, **options)

    def running(self, dataset: Any) -> dict[str, str]:
        """Trainings of this dataset that are under way: name -> where they stand."""
        return {job.name: status.label for job, status in background.active_jobs(dataset, self.job).items()}

    def steps(self, ctx: Any, params: Params) -> Steps:
        if "job" in params:
            action, _, name = params["job"].partition(":")
            job = background.BackgroundJob(self.jobs_dir(ctx.dataset) / name)
            if action == "stop":
                job.stop()
        else:
            job = background.start(self.job, params, self.jobs_dir(ctx.dataset))
            if ctx.params.get("follow") is False:
                return background.report_start(job)
        return background.follow(job, watch_limit())

    def inline(self, ctx: Any, params: Params) -> dict[str, Any]:
        if "job" in params:
            raise UserError("watching and stopping a training is for the App")
        return super().inline(ctx, params)


class Validate(JobOperator):
    name = job = "validate"
    label = "YOLO-seg: validate"
    icon = "fact_check"
    description = "COCO-exact box and mask mAP of a model on the labels of this dataset; changes nothing"
    risk = RiskLevel.LOW

    def fill(self, ctx: Any, form: Form) -> Params:
        view = target(ctx, form)
        check_view(view)
        model = form.model(ctx.dataset, exported=True)
        field, maskless = form.label_field(view)
        settings = form.settings(
            ValSettings, ("imgsz", "batch", "device"), hidden=("data", "split", "plots", "project", "name", "exist_ok")
        )
        return view_params(view, model=model, label_field=field, maskless=maskless, **settings)


_SCORES = {
    "none": "none",
    "mask": "certainty of the mask, and its gap to the box",
    "all": "these, and agreement with the mirrored image: takes twice as long",
}
_SCORE_NAMES = {"none": [], "mask": ["mask_certainty", "box_mask_gap"]}


class Predict(JobOperator):
    name = job = "predict"
    label = "YOLO-seg: predict"
    icon = "auto_awesome"
    description = "Predict masks on samples and write them back as labels that the App can show, score and edit"
    risk = RiskLevel.MEDIUM
    place = Places.SAMPLES_GRID_SECONDARY_ACTIONS
    changes_samples = True
    target = staticmethod(target)

    def fill(self, ctx: Any, form: Form) -> Params:
        view = self.target(ctx, form)
        check_view(view)
        model = form.model(ctx.dataset, exported=True)
        overwrite = bool(form.get("overwrite", False))
        field = form.text("label_field", "Write to field", "A new field, or one with earlier predictions of this tool",
                          defaults.free_field(ctx.dataset), lambda name: runs.check_writable(view, name, overwrite), required=True)  # fmt: skip
        if overwrite or "overwrite=True" in form.problems.get("label_field", ""):
            form.flag("overwrite", "Replace these labels", "They were not written by this tool and will be lost")
        scores = form.choice("scores", "Scores of each object", "Attributes that tell how sure the model is of a mask", _SCORES, "none")
        missing = form.flag(
            "resume", "Only what is missing", "Leave out samples that this model, with these settings, has predicted before"
        )
        if overwrite and missing:
            form.refuse("replace these labels, or predict only what is missing: choose one", "both")
        settings = form.settings(
            PredictSettings, ("conf", "imgsz", "batch", "device"), hidden=("vid_stride", "engine", "ray_workers"), suggested={"batch": 8}
        )
        masks = [f.name for f in defaults.truth_first(view, cached_fields(view))]
        form.estimate(lambda: estimates.prediction(view, model, parse(PredictSettings, settings), masks))
        scores = _SCORE_NAMES.get(scores, scores)
        return view_params(view, model=model, label_field=field, overwrite=overwrite, resume=missing or None, scores=scores, **settings)


class Export(JobOperator):
    name = job = "export"
    label = "YOLO-seg: export a model"
    icon = "ios_share"
    description = "Export a checkpoint for use elsewhere, compared with the torch model on images of this dataset"
    risk = RiskLevel.MEDIUM

    def fill(self, ctx: Any, form: Form) -> Params:
        view = target(ctx, form)
        check_view(view)
        model = form.model(ctx.dataset, best=True)
        format_ = form.text(
            "format", "Formats", f"One or several, with commas: {', '.join(defaults.export_formats())}; or all", "onnx", _check_formats
        )
        fields = defaults.truth_first(view, cached_fields(view))
        choices = {NO_LABELS: "No labels: compare outputs only", **field_choices(fields)}
        labelled = next((f.name for f in fields if f.masks), NO_LABELS)
        field = form.choice("label_field", "Labels", "To compare the mAP of artifact and network on", choices, labelled)
        settings = form.settings(ExportSettings, ("imgsz", "dynamic", "half", "int8"), hidden=("output", "format", "data"))
        output = form.text("output", "Write to", "Full path; beside the checkpoint if empty", None, check_folder)
        if output:
            settings["output"] = output
        if field != NO_LABELS:
            settings |= {"label_field": field, "maskless": "skip"}
        return view_params(view, model=model, format=format_, **settings)


def _check_formats(value: str) -> None:
    wrong = [name for name in parse(ExportSettings, {"format": value}).formats if name not in (*defaults.export_formats(), "all")]
    if wrong:
        raise UserError(f"format={wrong[0]!r}: choose one of {', '.join(defaults.export_formats())}, several of them, or all")
