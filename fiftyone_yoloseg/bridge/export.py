"""Export a checkpoint for use elsewhere, compared with the torch model on images of a view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import ExportSettings, parse
from ..errors import ExportError, SettingsError
from ..types import ImageRecord, ProgressFn
from . import run_registry, runs
from .models import as_checkpoint
from .objects import Maskless
from .read import view_records
from .views import check_view

if TYPE_CHECKING:
    from ..engine.checkpoint import Checkpoint
    from ..export import ExportReport, ExportTable, Samples

Stop = Callable[[], bool]
CALIBRATION_SHARE = 0.5
"""With int8, of the samples that have no split tag: so many are for calibration, the others for the comparison."""


def export(
    model: Any,
    view: Any = None,
    *,
    label_field: str | None = None,
    maskless: Maskless = "error",
    progress: ProgressFn | None = None,
    should_stop: Stop | None = None,
    **settings: Any,
) -> ExportReport:
    """Export a checkpoint, a YOLO or a path of one, to one format; remembered on the view's dataset.

    view: samples whose images the comparison uses, and int8 is calibrated on; noise if None. Samples tagged "val" or "test" are for the comparison,
    "train" for the calibration, where there are both.  label_field: with labels the mAP of artifact and network are compared.
    settings: see `ExportSettings`. Raises UserError.
    """
    from .. import export as exporting

    wanted = parse(ExportSettings, settings)
    exporting.check_one(wanted)
    checkpoint = _checkpoint(model)
    samples = _samples(view, checkpoint, wanted, label_field, maskless)
    report = exporting.export(checkpoint, wanted, samples, progress, should_stop)
    _remember(view, report)
    return report


def export_table(
    model: Any,
    view: Any = None,
    *,
    label_field: str | None = None,
    maskless: Maskless = "error",
    progress: ProgressFn | None = None,
    should_stop: Stop | None = None,
    **settings: Any,
) -> ExportTable:
    """As `export`, to several formats, each whether or not the others work."""
    from .. import export as exporting

    wanted, checkpoint = parse(ExportSettings, settings), _checkpoint(model)
    samples = _samples(view, checkpoint, wanted, label_field, maskless) if exporting.any_works(wanted) else None
    table = exporting.export_all(checkpoint, wanted, samples, progress, should_stop)
    for row in table.rows:
        if row.report:
            _remember(view, row.report)
    return table


def _checkpoint(model: Any) -> Checkpoint:
    checkpoint = as_checkpoint(model)
    if checkpoint is None:
        raise ExportError(f"model={model!r}: is exported already; give its checkpoint (.pt)")
    return checkpoint


def _samples(view: Any, checkpoint: Checkpoint, settings: ExportSettings, label_field: str | None, maskless: Maskless) -> Samples | None:
    """What the view gives; without a view, `data`."""
    from ..export import Samples, from_data

    if settings.data is not None:
        if view is not None:
            raise SettingsError(f"data={settings.data}: the images come from the view; leave data or the view out")
        return from_data(checkpoint, settings, settings.data)
    if view is None:
        return None
    check_view(view)
    proof, train = _parts(view, settings.int8)
    calibration = [Path(f) for f in _spread(train, settings.calibration).values("filepath")] if settings.int8 else []
    shown = _spread(proof, settings.samples)
    records: Sequence[ImageRecord] = ()
    if label_field is not None:
        read = view_records(shown, label_field, list(checkpoint.names.values()), maskless=maskless, need_objects=False)
        records = read.records
    return Samples([Path(f) for f in shown.values("filepath")], records, calibration)


def _parts(view: Any, both: bool) -> tuple[Any, Any]:
    """Samples to compare on, and to calibrate on."""
    held_out, train = view.match_tags(["val", "test"]), view.match_tags("train")
    if len(held_out) and (len(train) or not both):
        return held_out, train
    if not both or len(view) < 2:
        return view, view
    cut = max(round(CALIBRATION_SHARE * len(view)), 1)
    mixed = view.shuffle(seed=0)
    return mixed.skip(cut), mixed.limit(cut)


def _spread(view: Any, most: int) -> Any:
    return view.take(most, seed=0) if len(view) > most else view


def _remember(view: Any, report: ExportReport) -> None:
    """On the dataset, with the training that the checkpoint came from."""
    if view is None:
        return
    made_by = run_registry.maker(view, report.checkpoint.get("path"))
    training = made_by.name if made_by else None
    runs.remember(view, "export", f"{training or 'model'}_{report.path.name}", training=training, report=report.to_json())
