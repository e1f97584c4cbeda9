"""The operator that imports a YOLO-seg folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fiftyone.operators.message import GeneratedMessage
from fiftyone.operators.types import RiskLevel

from ..bridge.import_source import Source, find_yaml, make_plan, open_source
from ..bridge.import_target import check_field, check_new_name, free_name, open_target
from ..bridge.jobs import Params, Result
from ..config import ImportSettings, parse
from ..errors import UserError
from .base import JobOperator
from .forms import Form, check_folder

FORMS = {"masks": "Detections with masks", "polylines": "Filled polylines: holes are shapes of their own, and the App may draw them filled"}
BAD_ROWS = {"skip": "Leave them out", "error": "Import nothing"}
_NAMES = 20  # class names that are shown


class ImportLabels(JobOperator):
    name = job = "import_labels"
    label = "YOLO-seg: import a folder"
    icon = "drive_folder_upload"
    description = "Read YOLO-seg labels, all splits at once, as exact masks or polylines into a new dataset or this one"
    risk = RiskLevel.MEDIUM
    changes_samples = True
    needs_dataset = False

    def fill(self, ctx: Any, form: Form) -> Params:
        form.known.update(("into", "name", *ImportSettings.model_fields))  # not all are shown at once
        about = "Full path of a dataset.yaml or its folder, or of a folder of label files (.txt) for the images of this dataset"
        source = form.text("source", "Folder", about, check=lambda value: check_source(value, ctx.dataset), required=True)
        if "source" in form.problems:
            return {}
        options: dict[str, Any] = {"source": source}
        if find_yaml(source) is None:
            about = "In the order of their numbers, with commas between them"
            options["classes"] = form.text("classes", "Class names", about, check=lambda value: check_classes(source, value), required=True)
            if "classes" in form.problems:
                return {}
            found = open_source(source, words(options["classes"]))
            target = options["dataset"] = ctx.dataset.name
        else:
            found = open_source(source)
            preview(form, found)
            if len(found.images) > 1:
                choices = {"all": "All", **{split: f"Only {split}" for split in found.images}}
                splits = form.choice("splits", "Splits", "New samples get theirs as tag", choices, "all")
                options["splits"] = None if splits == "all" else splits
            target = options["dataset"] = self._into(ctx, form, found)
        return {"options": options | self._labels(form, found, target)}

    def _into(self, ctx: Any, form: Form, found: Source) -> str:
        about = "In an existing dataset, images are matched by file path; those that it does not have are added"
        choices = {"new": "A new dataset"}
        if ctx.dataset is not None:
            choices["this"] = f"This dataset, '{ctx.dataset.name}'"
        if ctx.dataset is not None or form.get("into", "new") != "new":  # while none is open there is nothing to choose
            chosen = form.choice("into", "Import into", about, choices, "new", radio=True)
            if chosen == "this" and ctx.dataset is not None:
                return str(ctx.dataset.name)
        return str(form.text("name", "Name", "Of the new dataset", free_name(found.folder), check_new_name, required=True))

    def _labels(self, form: Form, found: Source, target: str) -> dict[str, Any]:
        """The fields that say which labels are written, and how."""
        options: dict[str, Any] = {
            "predictions": form.flag("predictions", "These are predictions", "Rows may end in a confidence", not found.images),
            "form": form.choice("form", "As", "What each object becomes", FORMS, "masks", radio=True),
            "bad_rows": form.choice(
                "bad_rows", "Rows that cannot be read", "They are listed with file and line", BAD_ROWS, "skip", radio=True
            ),
            "overwrite": bool(form.get("overwrite", False)),
        }
        dataset = None if "name" in form.problems else open_target(target)
        plan = make_plan(found, dataset)
        if not found.images:
            preview(form, found, f"{len(plan.items)} of {len(found.labels)} label files have the name of an image of '{target}'")

        def check(name: str) -> None:
            check_field(dataset, parse(ImportSettings, {**options, "label_field": name}), plan)

        default = "predictions" if options["predictions"] else "ground_truth"
        options["label_field"] = form.text("label_field", "Write to field", "Labels that samples have there are never lost unless you say so",
                                           default, check, required=True)  # fmt: skip
        if options["overwrite"] or "overwrite=True" in form.problems.get("label_field", ""):
            form.flag("overwrite", "Replace these labels", "Those of the samples that are matched will be lost")
        return options

    def after(self, ctx: Any, result: Result) -> Iterator[GeneratedMessage]:
        if ctx.dataset is not None and ctx.dataset.name == result["dataset"]:
            yield from super().after(ctx, result)
        else:
            yield ctx.ops.open_dataset(result["dataset"])


def preview(form: Form, found: Source, label: str | None = None) -> None:
    """Show what was found before it is imported."""
    splits = ", ".join(f"{len(images)} {split}" for split, images in found.images.items())
    names = list(found.names.values())
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    form.note("preview", label or f"Images: {splits}", f"{len(names)} classes: {', '.join(names[:_NAMES])}{more}")


def check_source(value: str, dataset: Any | None) -> None:
    check_folder(value)
    if find_yaml(value) is not None:
        open_source(value)
    elif dataset is None:
        raise UserError(f"'{value}' has no dataset.yaml: to import label files alone, open the dataset that has their images")
    else:
        check_classes(value, "any")


def check_classes(source: str, value: str) -> None:
    open_source(source, words(value))


def words(value: str) -> tuple[str, ...] | None:
    return parse(ImportSettings, {"classes": value}).classes
