"""Operators on data: conversion to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fiftyone.operators.types import RiskLevel

from ..bridge import defaults
from ..bridge.convert import check_target
from ..bridge.jobs import Params, view_params
from ..bridge.views import check_view
from .base import JobOperator
from .forms import Form, check_folder
from .splits import split_fields


class Convert(JobOperator):
    name = job = "convert"
    label = "YOLO-seg: convert to a folder"
    icon = "drive_file_move"
    description = "Write images, YOLO-seg labels and dataset.yaml without losing a shape, and a report that proves it"
    risk = RiskLevel.MEDIUM
    own_process = False

    def fill(self, ctx: Any, form: Form) -> Params:
        view = ctx.target_view(require_flat=True)
        check_view(view)
        field, maskless = form.label_field(view)
        split = split_fields(form, view)
        out_dir = form.text("out_dir", "Folder", "New, empty, or one that an earlier conversion wrote (it is replaced)",
                            str(defaults.work_dir(ctx.dataset) / "converted"), check_out_dir, required=True)  # fmt: skip
        media = form.choice(
            "media", "Images", "What goes into the folder", {"copy": "Copies", "symlink": "Links to the files"}, "copy", radio=True
        )
        return view_params(view, label_field=field, maskless=maskless, out_dir=out_dir, media=media, **split)


def check_out_dir(value: str) -> None:
    check_folder(value)
    check_target(Path(value).expanduser())
