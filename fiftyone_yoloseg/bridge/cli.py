"""What `yoloseg convert` and `yoloseg import` do: the command line's way into FiftyOne datasets."""

from __future__ import annotations

from typing import Any

import fiftyone as fo

from ..config import ConvertCommand, ImportCommand
from ..console import progress_bar
from ..errors import DataError
from .convert import convert as convert_view
from .database import ensure_database
from .import_labels import import_report


def open_view(dataset: str, view: str | None = None) -> Any:
    """A dataset, or one of its saved views, by name. Raises DataError that lists what there is."""
    ensure_database()
    if not fo.dataset_exists(dataset):
        raise DataError(f"dataset={dataset!r}: no such FiftyOne dataset; there are {', '.join(fo.list_datasets()) or 'none'}")
    loaded = fo.load_dataset(dataset)
    if view is None:
        return loaded
    if not loaded.has_saved_view(view):
        raise DataError(f"view={view!r}: {dataset!r} has no such saved view; there are {', '.join(loaded.list_saved_views()) or 'none'}")
    return loaded.load_saved_view(view)


def convert(settings: ConvertCommand) -> str:
    """Convert and return what to print."""
    options = settings.model_dump(exclude={"dataset", "view", "out"})
    with progress_bar("converting") as progress:
        report = convert_view(open_view(settings.dataset, settings.view), settings.out, **options, progress=progress)
    images = ", ".join(f"{count} {split}" for split, count in report.images.items())
    lines = [
        f"{report.objects} objects in {images} images -> {report.rows} rows; {report.with_holes} with holes, {report.with_parts} in several parts",
        f"mask IoU after reading the rows back: mean {report.mean_iou:.4f}, minimum {report.min_iou:.4f}",
        *(f"left out: sample {sample}: {reason}" for sample, reason in report.dropped[:20]),
        *([f"... and {len(report.dropped) - 20} more"] if len(report.dropped) > 20 else []),
        f"{report.dataset_yaml}",
    ]
    return "\n".join(lines)


def import_labels(settings: ImportCommand) -> str:
    """Import and return what to print."""
    with progress_bar("importing") as progress:
        report = import_report(settings.data, settings.dataset, **settings.model_dump(exclude={"data", "dataset"}), progress=progress)
    return "\n".join([report.summary(), *report.details()])
