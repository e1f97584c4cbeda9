"""Predict on a FiftyOne view and write the masks back as labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone as fo

from ..config import PredictSettings, parse
from ..data.images import read_image
from ..errors import DataError, Stopped, UserError
from ..geometry.letterbox import Image
from ..types import Instances, ProgressFn
from . import runs
from .labels import to_detections
from .models import open_backend
from .objects import Problem
from .views import check_view

if TYPE_CHECKING:
    from ..engine.predictor import Predictor

_BATCH = 8


@dataclass(slots=True)
class PredictReport:
    """images: samples that now carry predictions; objects: labels written; empty: predicted objects that were left out
    because their mask had no pixel; failed: samples that could not be read or predicted, whose field is now empty."""

    field: str
    images: int = 0
    objects: int = 0
    empty: int = 0
    failed: list[Problem] = dataclasses.field(default_factory=list)


def predict(
    view: Any,
    model: Any,
    label_field: str = "predictions",
    *,
    overwrite: bool = False,
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> PredictReport:
    """Predict on every sample of a view; write Detections with masks, batch by batch, to `label_field`.

    model: path of a checkpoint or exported artifact, a YOLO or a Checkpoint. settings: see `PredictSettings`.
    An image that cannot be read loses only its own predictions and is listed in the report. A field that holds labels
    of other origin is never touched unless overwrite=True, ground truth never at all. Which model and settings wrote
    the field is remembered on the dataset (`runs.recall(dataset, "predict")`).
    Raises UserError (bad field, model or setting; no image could be predicted) or Stopped, with earlier batches written.
    """
    from ..engine.predictor import Predictor

    check_view(view)
    runs.check_writable(view, label_field, overwrite)
    wanted = parse(PredictSettings, {"batch": _BATCH, **settings})
    backend, source = open_backend(model, wanted.device, wanted.half)
    predictor = Predictor(backend, wanted)
    dataset = view._dataset
    if dataset.get_field(label_field) is None:
        dataset.add_sample_field(label_field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    runs.remember(
        view,
        "predict",
        label_field,
        model=source.path,
        sha256=source.sha256,
        settings=wanted.model_dump(mode="json"),
        classes=list(backend.info.names.values()),
    )

    report = PredictReport(label_field)
    ids, files = view.values(["id", "filepath"])
    for start, images in _batches(files, wanted.batch):
        if should_stop and should_stop():
            raise Stopped(f"stopped after {start} of {len(ids)} images; their predictions are in '{label_field}'")
        if progress:
            progress(start / len(ids), f"{start} of {len(ids)} images, {report.objects} objects")
        chunk = ids[start : start + len(images)]
        results = _predict_each(predictor, images)
        labels: dict[str, fo.Detections | None] = {}
        for sample_id, file, result in zip(chunk, files[start:], results, strict=False):
            if isinstance(result, Instances):
                labels[sample_id] = detections = to_detections(result, backend.info.names)
                report.images += 1
                report.objects += len(detections.detections)
                report.empty += len(result) - len(detections.detections)
            else:
                labels[sample_id] = None  # what an earlier model saw there would now be misleading
                report.failed.append(Problem(sample_id, file, str(result)))
        view.set_values(label_field, labels, key_field="id")
    if not report.images:
        raise DataError(f"none of {len(ids)} images could be predicted, the first: {report.failed[0]}")
    if progress:
        progress(1.0, f"{report.images} images, {report.objects} objects")
    return report


def _batches(files: Sequence[str], size: int) -> Iterator[tuple[int, list[Image | UserError]]]:
    """(index of the first, images) batch by batch; the next batch is decoded while the caller works on this one."""
    with ThreadPoolExecutor(4) as pool:
        starts = range(0, len(files), size)
        ahead = [pool.submit(_read, f) for f in files[:size]]
        for start in starts:
            batch, ahead = ahead, [pool.submit(_read, f) for f in files[start + size : start + 2 * size]]
            yield start, [f.result() for f in batch]


def _read(file: str) -> Image | UserError:
    try:
        return read_image(Path(file))
    except UserError as error:
        return error


def _predict_each(predictor: Predictor, images: Sequence[Image | UserError]) -> list[Instances | UserError]:
    readable = [i for i in images if not isinstance(i, UserError)]
    predicted = iter(predictor.instances(readable) if readable else [])
    return [i if isinstance(i, UserError) else next(predicted) for i in images]
