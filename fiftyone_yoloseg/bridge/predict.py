"""Predict on a FiftyOne view and write the masks back as labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..config import PredictSettings, parse
from ..data.images import read_image
from ..errors import DataError, Stopped, UserError
from ..geometry.letterbox import Image
from ..types import Instances, ProgressFn
from . import runs
from .atomic import Document, change, labels_in
from .models import open_backend
from .objects import Label, Problem
from .provenance import MODEL, Author, author_of, declare, origin_of, predicted_labels
from .views import check_view

if TYPE_CHECKING:
    from ..engine.predictor import Predictor

_BATCH = 8


@dataclass(slots=True)
class PredictReport:
    """images: samples that now carry predictions; objects: labels written; empty: predicted objects that were left out
    because their mask had no pixel; kept: labels that a person drew or changed in this field, which stay; failed: samples that could
    not be read or predicted, whose earlier predictions are gone."""

    field: str
    images: int = 0
    objects: int = 0
    empty: int = 0
    kept: int = 0
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
    of other origin is never touched unless overwrite=True, ground truth never at all. In a field of ours, objects that a person drew
    or changed stay unless overwrite=True. Each object says which checkpoint and run made it, and when (see `provenance`); which model
    and settings wrote the field is remembered on the dataset (`runs.recall(dataset, "predict")`).
    Raises UserError (bad field, model or setting; no image could be predicted) or Stopped, with earlier batches written.
    """
    check_view(view)
    runs.check_writable(view, label_field, overwrite)
    wanted = parse(PredictSettings, {"batch": _BATCH, **settings})
    predictor, author = start(view, model, label_field, wanted)
    report = PredictReport(label_field)
    ids, files = view.values(["id", "filepath"])
    for at, results in stream(predictor, files, wanted.batch):
        if should_stop and should_stop():
            raise Stopped(f"stopped after {at} of {len(ids)} images; their predictions are in '{label_field}'")
        if progress:
            progress(at / len(ids), f"{at} of {len(ids)} images, {report.objects} objects")
        labels: dict[str, list[Label] | None] = {}
        for sample_id, file, result in zip(ids[at:], files[at:], results, strict=False):
            if isinstance(result, Instances):
                labels[sample_id] = found = predicted_labels(result, predictor.backend.info.names, author)
                report.images += 1
                report.objects += len(found)
                report.empty += len(result) - len(found)
            else:
                labels[sample_id] = None  # what an earlier model saw there would now be misleading
                report.failed.append(Problem(sample_id, file, str(result)))
        report.kept += _write(view._dataset, label_field, labels, overwrite)
    if not report.images:
        raise DataError(f"none of {len(ids)} images could be predicted, the first: {report.failed[0]}")
    if progress:
        progress(1.0, f"{report.images} images, {report.objects} objects")
    return report


def start(view: Any, model: Any, field: str, wanted: PredictSettings) -> tuple[Predictor, Author]:
    """Open the model, make the field, and remember on the dataset who writes it."""
    from ..engine.predictor import Predictor

    backend, source = open_backend(model, wanted)
    predictor = Predictor(backend, wanted)
    declare(view._dataset, field)
    runs.remember(
        view,
        "predict",
        field,
        model=source.path,
        sha256=source.sha256,
        settings=wanted.model_dump(mode="json"),
        classes=list(backend.info.names.values()),
    )
    return predictor, author_of(source)


def stream(predictor: Predictor, files: Sequence[str], size: int) -> Iterator[tuple[int, list[Instances | UserError]]]:
    """(index of the first, what was found in each image or why it could not be read) batch by batch."""
    for at, images in _batches(files, size):
        yield at, _predict_each(predictor, images)


def embed(view: Any, model: Any, **settings: Any) -> npt.NDArray[np.float32]:
    """One vector for each sample of a view, in its order, (len(view), D): see `TorchBackend.embed`. settings: imgsz, batch, device, half, rect.

    Raises UserError (no checkpoint, bad setting, an image that cannot be read).
    """
    from ..engine.predictor import Predictor

    check_view(view)
    wanted = parse(PredictSettings, {"batch": _BATCH, **settings})
    predictor = Predictor(open_backend(model, wanted)[0], wanted)
    ids, files = view.values(["id", "filepath"])
    rows = []
    for at, images in _batches(files, wanted.batch):
        for sample_id, image in zip(ids[at:], images, strict=False):
            if isinstance(image, UserError):
                raise DataError(f"sample {sample_id}: {image}; leave it out of the view")
        rows.append(predictor.embeddings([i for i in images if not isinstance(i, UserError)]))
    return np.concatenate(rows)


def _write(dataset: Any, field: str, labels: dict[str, list[Label] | None], overwrite: bool) -> int:
    """Replace what models wrote in a field. Returns how many labels stayed because they are a person's work."""
    stay: dict[str, int] = {}

    def plan(document: Document) -> dict[str, Document | None]:
        sample_id = str(document["_id"])
        new, there = labels[sample_id], labels_in(document, field)
        if {label["_id"] for label in new or ()} & {label["_id"] for label in there}:
            return {}  # written already; what happened to it since is somebody else's doing
        mine = [] if overwrite else [label for label in there if origin_of(label) != MODEL]
        stay[sample_id] = len(mine)
        return {field: None if new is None and not mine else {"detections": [*mine, *(new or [])]}}

    contested = change(dataset, list(labels), (field,), plan)
    if contested:
        raise DataError(f"field '{field}' of sample {contested[0]} is being changed by another program: end that, and predict again")
    return sum(stay.values())


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
