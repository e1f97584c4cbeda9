"""Operators on data: the check before a training, and conversion to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fiftyone.operators import types
from fiftyone.operators.types import RiskLevel

from ..bridge import defaults, estimates
from ..bridge.check import PREFIX
from ..bridge.conversion.preview import preview
from ..bridge.jobs import Params, Result, view_params
from ..bridge.views import check_view, label_path
from ..config import CheckSettings, ConvertSettings, parse
from .base import JobOperator
from .forms import Form, cached_fields, check_folder, field_choices, view_buttons
from .splits import split_fields
from .targets import target

_ASKED = ("label_field", "split", "val_fraction", "test_fraction", "stratify", "group_by", "seed", "maskless")
"""Settings of a conversion that have fields of their own."""


class Check(JobOperator):
    name = job = "check"
    label = "YOLO-seg: check the data"
    icon = "fact_check"
    description = "Find what is wrong with images and masks before a training, and save views that show it"
    risk = RiskLevel.LOW
    changes_samples = True  # not the samples, but the list of saved views: the App has to read it anew

    def fill(self, ctx: Any, form: Form) -> Params:
        view = target(ctx, form)
        check_view(view)
        fields = cached_fields(view)
        if not fields:
            form.refuse("no field of this dataset holds instance masks: labels must be Detections with masks, or filled Polylines")
        first = next((f.name for f in [*defaults.truth_first(view, fields), *fields]), None)
        field = form.choice("label_field", "Labels", "Detections or polylines", field_choices(fields),
                            first, lambda name: check_field(view, name))  # fmt: skip
        split = split_fields(form, view)
        imgsz = form.number("imgsz", "Training size", "Image size in pixels; objects that are too small at it are listed",
                            defaults.suggest_imgsz(view), lambda n: check_settings(imgsz=n), whole=True)  # fmt: skip
        remap = form.text("remap", "Merge classes", "To see what a merge would do, as in car:vehicle, bus:vehicle; nothing is changed",
                          check=lambda text: check_settings(remap=text))  # fmt: skip
        save = form.flag(
            "save_views", "Save views", f"One of the cases of each finding, named '{PREFIX}...'; earlier ones are replaced", True
        )
        merge = parse(CheckSettings, {"remap": remap if remap and "remap" not in form.problems else {}}).remap
        options = {"label_field": field, "imgsz": imgsz, "save_views": save, **split}
        return view_params(view, **options, remap=merge)

    def _output(self, result: Result) -> types.Property:
        shown = super()._output(result)
        if "error" in result:
            return shown
        view_buttons(shown.type, result.get("views", {}), PREFIX)
        shown.type.str("class_table", view=types.MarkdownView())
        return shown


class Convert(JobOperator):
    name = job = "convert"
    label = "YOLO-seg: convert to a folder"
    icon = "drive_file_move"
    description = "Write images, YOLO-seg labels and dataset.yaml without losing a shape, and a report that proves it"
    risk = RiskLevel.MEDIUM

    def fill(self, ctx: Any, form: Form) -> Params:
        view = target(ctx, form)
        check_view(view)
        field, maskless = form.label_field(view)
        split = split_fields(form, view, more=True)
        out_dir = form.text("out_dir", "Folder", "New, empty, or one that an earlier conversion wrote (it is replaced)",
                            str(defaults.work_dir(ctx.dataset) / "converted"), check_out_dir, required=True)  # fmt: skip
        settings = form.settings(ConvertSettings, ("media", "remap"), hidden=(*_ASKED, "group_slice"))
        options = {"label_field": field, "maskless": maskless, **split, **settings}
        if not form.problems:
            form.markdown("preview", preview(view, **options))
        form.estimate(lambda: estimates.conversion(view, parse(ConvertSettings, options), Path(out_dir)))
        return view_params(view, out_dir=out_dir, **options)


def check_out_dir(value: str) -> None:
    from ..bridge.convert import check_target

    check_folder(value)
    check_target(Path(value).expanduser())


def check_field(view: Any, name: str) -> None:
    label_path(view, name)


def check_settings(**settings: Any) -> None:
    parse(CheckSettings, settings)
