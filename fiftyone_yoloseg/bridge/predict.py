"""Predict on a FiftyOne view and write the masks back as labels."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..config import PredictSettings, parse
from ..data.images import read_image
from ..engine.mask_scores import SCORES, Score
from ..errors import DataError, SettingsError, Stopped, UserError
from ..types import Instances, Names, ProgressFn
from . import paces, runs
from .atomic import Document, change, labels_in
from .models import Source, open_backend
from .objects import Label, Problem
from .pipeline import ahead
from .provenance import MODEL, Author, author_of, declare, origin_of, predicted_labels
from .resuming import MARK, Run, plan_run
from .views import check_view
from .worker import memory_used

if TYPE_CHECKING:
    from ..engine.predictor import Output, Predictor, Prepared

    _Inferred = tuple[list[tuple[str, str]], list[Prepared | UserError], list[Output]]

T = TypeVar("T")
Samples = list[tuple[str, str]]
"""(sample id, file)"""
_BATCH = 8
_READERS = 2
"""Threads that decode images."""


@dataclass(slots=True)
class PredictReport:
    """images: samples that now carry predictions of this call; objects: labels written; empty: predicted objects that were left out
    because their mask had no pixel; kept: labels that a person drew or changed in this field, which stay; skipped: samples whose predictions of the same
    checkpoint and settings were there already; failed: samples that could not be read, predicted or written; earlier predictions of unreadable ones are gone."""

    field: str
    images: int = 0
    objects: int = 0
    empty: int = 0
    kept: int = 0
    skipped: int = 0
    failed: list[Problem] = dataclasses.field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    """What is to be written: sample id -> labels, None where the image could not be predicted."""

    labels: dict[str, list[Label] | None] = dataclasses.field(default_factory=dict)
    empty: int = 0
    kept: int = 0
    failed: list[Problem] = dataclasses.field(default_factory=list)


def predict(
    view: Any,
    model: Any,
    label_field: str = "predictions",
    *,
    overwrite: bool = False,
    resume: bool | None = None,
    scores: str | Collection[str] = (),
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> PredictReport:
    """Predict on every sample of a view; write Detections with masks, batch by batch, to `label_field`.

    model: path of a checkpoint or exported artifact, a YOLO or a Checkpoint. settings: see `PredictSettings`.
    Reading, network, masks and writing overlap; memory does not grow with the view. An image that cannot be read loses only its own
    predictions and is listed in the report. A field that holds labels
    of other origin is never touched unless overwrite=True, ground truth never at all. In a field of ours, objects that a person drew
    or changed stay unless overwrite=True. Each object says which checkpoint and run made it, and when (see `provenance`); which model
    and settings wrote the field is remembered on the dataset (`runs.recall(dataset, "predict")`).

    resume: None goes on where a call with the same checkpoint and settings was stopped or killed, and predicts everything anew after one that ended.
    True predicts only samples that this checkpoint, with these settings, has not predicted yet. False always predicts everything.
    scores: attributes to add to each object, any of `engine.mask_scores.SCORES`, or "all".
    Raises UserError (bad field, model or setting; no image could be predicted) or Stopped, with earlier batches written.
    """
    check_view(view)
    runs.check_writable(view, label_field, overwrite)
    wanted = parse(PredictSettings, {"batch": _BATCH, **settings})
    predictor, source = open_predictor(model, wanted, _scores(scores))
    run = plan_run(view, label_field, source, wanted, predictor.scores, overwrite=overwrite, resume=resume)
    _begin(view, label_field, predictor, source, run)
    report, author = PredictReport(label_field, skipped=run.done), author_of(source)
    stopped, begun = False, time.monotonic()

    def todo() -> Iterator[Samples]:
        nonlocal stopped
        for samples in in_batches(run.samples, wanted.batch):
            if should_stop and should_stop():
                stopped = True
                return
            yield samples

    def encode(samples: Samples, results: list[Instances | UserError]) -> _Batch:
        return _encode(samples, results, predictor.backend.info.names, author)

    def write(batch: _Batch) -> _Batch:
        return _write(view._dataset, label_field, batch, run.mark, overwrite)

    for batch in ahead(stream(predictor, todo(), encode), write):
        found = [labels for labels in batch.labels.values() if labels is not None]
        report.images += len(found)
        report.objects += sum(map(len, found))
        report.empty += batch.empty
        report.kept += batch.kept
        report.failed += batch.failed
        if progress:
            done = report.images + len(report.failed)
            progress(done / len(run.samples), f"{done} of {len(run.samples)} images, {report.objects} objects")
    if stopped:
        done = report.images + len(report.failed)
        raise Stopped(
            f"stopped after {done} of {len(run.samples)} images; their predictions are in '{label_field}', and the same call goes on from there"
        )
    if report.failed and not report.images and not report.skipped:
        raise DataError(f"none of {len(run.samples)} images could be predicted, the first: {report.failed[0]}")
    _remember(view, label_field, predictor, source, run, complete=True)
    _note_pace(report, predictor, source, time.monotonic() - begun)
    if progress:
        progress(1.0, f"{report.images} images, {report.objects} objects")
    return report


def start(view: Any, model: Any, field: str, wanted: PredictSettings) -> tuple[Predictor, Author]:
    """Open the model, make the field, and remember on the dataset who writes it."""
    predictor, source = open_predictor(model, wanted)
    _begin(view, field, predictor, source, None)
    return predictor, author_of(source)


def stream(predictor: Predictor, batches: Iterator[Samples], finish: Callable[[Samples, list[Instances | UserError]], T]) -> Iterator[T]:
    """Batches of (sample id, file) -> finish(batch, what was found in each image). Images are read in threads, the network runs in the caller's thread, masks
    and `finish` in another one."""

    def infer() -> Iterator[_Inferred]:
        for batch, images in prepared(predictor, batches):
            yield batch, images, predictor.infer([i for i in images if not isinstance(i, UserError)])

    def assemble(item: _Inferred) -> T:
        batch, images, outputs = item
        found = iter(predictor.objects(outputs))
        return finish(batch, [i if isinstance(i, UserError) else next(found) for i in images])

    return ahead(infer(), assemble)


def in_batches(samples: Samples, size: int) -> Iterator[Samples]:
    return (samples[at : at + size] for at in range(0, len(samples), size))


def embed(view: Any, model: Any, **settings: Any) -> npt.NDArray[np.float32]:
    """One vector for each sample of a view, in its order, (len(view), D): see `TorchBackend.embed`. settings: imgsz, batch, device, half, rect.

    Raises UserError (no checkpoint, bad setting, an image that cannot be read).
    """
    check_view(view)
    wanted = parse(PredictSettings, {"batch": _BATCH, **settings})
    predictor, _ = open_predictor(model, wanted)
    samples = list(zip(*view.values(["id", "filepath"]), strict=True))
    rows = []
    for batch, images in prepared(predictor, in_batches(samples, wanted.batch)):
        for (sample_id, _), image in zip(batch, images, strict=True):
            if isinstance(image, UserError):
                raise DataError(f"sample {sample_id}: {image}; leave it out of the view")
        rows.append(predictor.embed([i for i in images if not isinstance(i, UserError)]))
    return np.concatenate(rows)


def prepared(predictor: Predictor, batches: Iterator[Samples]) -> Iterator[tuple[Samples, list[Prepared | UserError]]]:
    """Batches of (sample id, file) -> their images as the network's input, or why they cannot be read; read ahead in threads."""

    def read(sample: tuple[str, str]) -> Prepared | UserError:
        try:
            return predictor.prepare(read_image(Path(sample[1])))
        except UserError as error:
            return error

    reading: list[Samples] = []  # batches that are being read: their pictures come out one by one, in order

    def noted() -> Iterator[Samples]:
        for batch in batches:
            reading.append(batch)
            yield batch

    images = ahead(chain.from_iterable(noted()), read, depth=2 * predictor.settings.batch, threads=_READERS)
    for first in images:
        batch = reading.pop(0)
        yield batch, [first, *(next(images) for _ in batch[1:])]


def open_predictor(model: Any, wanted: PredictSettings, scores: Collection[Score] = ()) -> tuple[Predictor, Source]:
    from ..engine.predictor import Predictor

    backend, source = open_backend(model, wanted)
    return Predictor(backend, wanted, scores), source


def _begin(view: Any, field: str, predictor: Predictor, source: Source, run: Run | None) -> None:
    declare(view._dataset, field, scores=predictor.scores)
    _remember(view, field, predictor, source, run, complete=run is None)


def _remember(view: Any, field: str, predictor: Predictor, source: Source, run: Run | None, *, complete: bool) -> None:
    runs.remember(
        view,
        "predict",
        field,
        model=source.path,
        sha256=source.sha256,
        settings=predictor.settings.model_dump(mode="json"),
        scores=list(predictor.scores),
        classes=list(predictor.backend.info.names.values()),
        mark=run and run.mark,
        overwrite=bool(run and run.overwrite),
        complete=complete,
    )


def _note_pace(report: PredictReport, predictor: Predictor, source: Source, seconds: float) -> None:
    """For the estimates of forms."""
    backend, wanted = predictor.backend, predictor.settings
    net = getattr(backend, "net", None)  # an exported model tells no size: it is known by its path
    model = net.size if net is not None else str(source.path)
    imgsz, device = max(wanted.imgsz or backend.info.imgsz), paces.device_kind(wanted.device)
    paces.note("predict", report.images, seconds, model=model, imgsz=imgsz, device=device, memory=memory_used())


def _scores(given: str | Collection[str]) -> tuple[Score, ...]:
    names = SCORES if given == "all" else (given,) if isinstance(given, str) else tuple(given)
    if unknown := [name for name in names if name not in SCORES]:
        raise SettingsError(f"scores: {unknown[0]!r} is none of {', '.join(SCORES)}; 'all' takes all of them")
    return tuple(name for name in SCORES if name in names)


def _encode(samples: Sequence[tuple[str, str]], results: Sequence[Instances | UserError], names: Names, author: Author) -> _Batch:
    batch = _Batch()
    for (sample_id, file), result in zip(samples, results, strict=True):
        if isinstance(result, Instances):
            batch.labels[sample_id] = found = predicted_labels(result, names, author)
            batch.empty += len(result) - len(found)
        else:
            batch.labels[sample_id] = None  # what an earlier model saw there would now be misleading
            batch.failed.append(Problem(sample_id, file, str(result)))
    return batch


def _write(dataset: Any, field: str, batch: _Batch, mark: str, overwrite: bool) -> _Batch:
    """Replace what models wrote in a field. Counts in the batch how many labels stayed because they are a person's work; a sample
    that could not be written goes from its labels to the failed ones."""
    stay: dict[str, int] = {}
    files: dict[str, str] = {}

    def plan(document: Document) -> dict[str, Document | None]:
        sample_id = str(document["_id"])
        files[sample_id] = document["filepath"]
        new, there = batch.labels[sample_id], labels_in(document, field)
        if {label["_id"] for label in new or ()} & {label["_id"] for label in there}:
            return {}  # written already; what happened to it since is somebody else's doing
        mine = [] if overwrite else [label for label in there if origin_of(label) != MODEL]
        stay[sample_id] = len(mine)
        if new is None:
            return {field: {"detections": mine, MARK: None} if mine else None}
        return {field: {"detections": [*mine, *new], MARK: mark}}

    def lose(sample_id: str, reason: str) -> None:
        del batch.labels[sample_id]
        batch.failed = [*(p for p in batch.failed if p.sample_id != sample_id), Problem(sample_id, files.get(sample_id, ""), reason)]

    try:
        contested = change(dataset, list(batch.labels), (field,), plan)
    except DataError:  # one sample that MongoDB refuses must not cost the others
        contested = []
        for sample_id in list(batch.labels):
            try:
                contested += change(dataset, [sample_id], (field,), plan)
            except DataError as error:
                lose(sample_id, str(error))
    for sample_id in contested:
        lose(sample_id, f"field '{field}' is being changed by another program: end that, and predict again")
    batch.kept = sum(n for sample_id, n in stay.items() if sample_id in batch.labels)
    return batch
