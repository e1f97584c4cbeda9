"""COCO-exact metrics of a model on the labels of a view; writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..config import ValSettings, parse
from ..errors import DataError, SettingsError
from ..types import ProgressFn
from .models import open_backend
from .objects import Maskless
from .read import ViewRecords, view_records
from .views import check_view, label_path

if TYPE_CHECKING:
    from ..engine.metrics import Metrics


def validate(
    view: Any,
    model: Any,
    label_field: str = "ground_truth",
    *,
    maskless: Maskless = "error",
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> Metrics:
    """Score a model on every sample of a view. settings: see `ValSettings`.

    Raises DataError if the view has classes that the model does not know, or no usable object; UserError for a bad model.
    """
    return validate_records(view, model, label_field, maskless=maskless, progress=progress, should_stop=should_stop, **settings)[0]


def validate_records(
    view: Any,
    model: Any,
    label_field: str = "ground_truth",
    *,
    maskless: Maskless = "error",
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> tuple[Metrics, ViewRecords]:
    """As `validate`, and what was read, with its `.skipped` samples."""
    from ..engine import validator
    from ..errors import Stopped

    wanted = parse(ValSettings, settings)
    if "data" in settings or "split" in settings:
        raise SettingsError("data and split: validation on a view takes its images from the view; leave them out")
    check_view(view)
    path = label_path(view, label_field)
    backend, _ = open_backend(model, wanted)
    names = backend.info.names
    unknown = sorted({x for x in view.distinct(f"{path}.label") if x is not None} - set(names.values()))
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise DataError(
            f"field '{label_field}' has {len(unknown)} classes that the model does not know ({shown}): "
            "filter the view to the model's classes, or train on this data first"
        )

    def step(share: float, label: str) -> None:
        if should_stop and should_stop():
            raise Stopped("validation was stopped")
        if progress:
            progress(share, label)

    read = view_records(view, label_field, list(names.values()), maskless=maskless, progress=lambda s, label: step(0.1 * s, label))
    metrics = validator.validate(backend, read.records, names, wanted, progress=lambda s, label: step(0.1 + 0.9 * s, label))
    return metrics, read
