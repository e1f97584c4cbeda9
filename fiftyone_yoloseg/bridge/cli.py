"""What the commands of `yoloseg` that work on FiftyOne datasets do: the command line's way into FiftyOne datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo

from ..config import (
    CheckCommand,
    CompareCommand,
    ConvertCommand,
    ErrorTypesCommand,
    FindLabelErrorsCommand,
    ImportCommand,
    LoopCommand,
    ReviewCommand,
    RunsCommand,
    TrainSettings,
)
from ..console import progress_bar
from ..data.audit_report import CheckReport
from ..errors import DataError, SettingsError
from . import review_jobs
from .check import check as check_view
from .compare import compare as compare_fields
from .convert import convert as convert_view
from .database import ensure_database
from .error_types import error_types as find_error_types
from .import_labels import import_report
from .label_errors import find_label_errors as search
from .review.fields import FIELD

_ONLY_FOR = {
    **dict.fromkeys(("model", "only", "uncertain_below", "conf"), ("prelabel",)), "overlap": ("accept",), "force": ("accept",),
    "edited": ("reject",), "min_confidence": ("accept", "reject"),
}  # fmt: skip
"""Settings of a review that some actions have."""


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


def compare(settings: CompareCommand) -> str:
    """Compare and return what to print."""
    options = settings.model_dump(exclude={"dataset", "view", "first", "second", "more"})
    with progress_bar("comparing") as progress:
        view = open_view(settings.dataset, settings.view)
        report = compare_fields(view, settings.first, settings.second, *settings.more, **options, progress=progress)
    return "\n".join([report.text(), *_saved(report.views), *(line for other in report.more for line in _saved(other.views))])


def error_types(settings: ErrorTypesCommand) -> str:
    """Search and return what to print."""
    options = settings.model_dump(exclude={"dataset", "view"})
    with progress_bar("searching") as progress:
        report = find_error_types(open_view(settings.dataset, settings.view), **options, progress=progress)
    left_out = [f"{len(report.left_out)} samples or labels left out, the first: {report.left_out[0]}"] if report.left_out else []
    return "\n".join([report.summary(), *left_out, *_saved(report.views), *([str(report.page)] if report.page else [])])


def review(settings: ReviewCommand) -> str:
    """Do one step of a review and return what to print."""
    options = settings.model_dump(exclude={"dataset", "view", "min_confidence"}, exclude_none=True)
    if settings.action == "prelabel" and settings.model is None:
        raise SettingsError("model: prelabel needs a checkpoint or an exported artifact")
    for name in settings.model_fields_set & _ONLY_FOR.keys():
        if settings.action not in _ONLY_FOR[name]:
            raise SettingsError(f"{name}: is for action={' or '.join(_ONLY_FOR[name])}, not for {settings.action}")
    view = open_view(settings.dataset, settings.view)
    if settings.min_confidence is not None:
        confident = (fo.ViewField("confidence") == None) | (fo.ViewField("confidence") >= settings.min_confidence)
        view = view.filter_labels(settings.field or FIELD, confident, only_matches=False)
    with progress_bar("reviewing") as progress:
        return str(review_jobs.run(view, options, progress, lambda: False)["summary"]).replace("**", "")


def _saved(views: Mapping[str, str]) -> list[str]:
    return [f"saved view: {name}" for name in views.values()]


def loop(settings: LoopCommand) -> str:
    """Train, predict, evaluate and export, and return what to print. Raises UserError."""
    from .jobs import run, view_params
    from .run_jobs import loop_options

    own = {*LoopCommand.model_fields} - {*TrainSettings.model_fields} | {"name", "project"}
    train = {k: getattr(settings, k) for k in settings.model_fields_set - own} | {"model": settings.model}
    options = loop_options(
        settings.name, str(settings.project), train=train, label_field=settings.label_field, predictions=settings.predictions,
        eval_key=settings.eval_key, format=settings.format,
    )  # fmt: skip
    with progress_bar("loop") as progress:
        return str(run("loop", view_params(open_view(settings.dataset, settings.view), **options), progress)["summary"])


def list_runs(settings: RunsCommand) -> str:
    """The trainings of a dataset, a line each: name, state, epochs, mask mAP, folder."""
    from .run_registry import KEY, runs

    lines = []
    for run in runs(open_view(settings.dataset)):
        score = run.metrics.get(KEY)
        epochs = f"{run.facts.get('epochs_done') or len(run.history().get('epoch', []))} of {run.facts.get('epochs', '?')} epochs"
        lines.append(f"{run.name}: {run.state}, {epochs}, mask mAP {'-' if score is None else f'{score:.3f}'}, {run.dir}")
    return "\n".join(lines) or f"'{settings.dataset}' has no training yet"
