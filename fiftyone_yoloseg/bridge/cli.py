"""What `yoloseg convert`, `import` and `check` do: the command line's way into FiftyOne datasets."""

from __future__ import annotations

from typing import Any

import fiftyone as fo

from ..config import CheckCommand, ConvertCommand, FindLabelErrorsCommand, ImportCommand
from ..console import progress_bar
from ..data.audit_report import CheckReport
from ..errors import DataError
from .check import check as check_view
from .convert import convert as convert_view
from .database import ensure_database
from .import_labels import import_report
from .label_errors import find_label_errors as search


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
    left_out = [f"left out: {line}" for line in report.left_out()]
    return "\n".join([*report.facts(), *left_out, str(report.dataset_yaml), str(report.out_dir / "report.html")])


def check(settings: CheckCommand) -> CheckReport:
    """Check a dataset or saved view."""
    options = settings.model_dump(exclude={"data", "dataset", "view"})
    with progress_bar("checking") as progress:
        return check_view(open_view(settings.dataset or "", settings.view), **options, progress=progress)


def import_labels(settings: ImportCommand) -> str:
    """Import and return what to print."""
    with progress_bar("importing") as progress:
        report = import_report(settings.data, settings.dataset, **settings.model_dump(exclude={"data", "dataset"}), progress=progress)
    return "\n".join([report.summary(), *report.details()])


def find_label_errors(settings: FindLabelErrorsCommand) -> str:
    """Search and return what to print."""
    options = settings.model_dump(exclude={"dataset", "view"})
    with progress_bar("searching") as progress:
        return search(open_view(settings.dataset, settings.view), **options, progress=progress).text()
