"""Which labels of a view are likely wrong, by the predictions of a model that has not been trained on them. The formulas are in `engine.label_errors`."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import LabelErrorSettings, parse
from ..config.values import LabelErrorKind
from ..engine.label_errors import KINDS, LabelErrors, Suspect
from ..errors import DataError, Stopped, UserError
from ..types import ImageRecord, ProgressFn
from . import runs
from .label_attributes import clear_attributes, write_attributes
from .label_error_report import LabelErrorCase, LabelErrorReport
from .objects import Problem, RawSample, Reader, ReadObject, Size
from .plan import check_masks
from .raw import RawPair, object_attributes
from .read import as_instances, sized_pairs
from .views import check_view, label_path

PREFIX = "yoloseg label errors: "
"""Saved views whose name begins so belong to the search, which replaces them."""
KIND, SCORE = "label_error", "label_error_score"
"""Attributes that are written to labels."""
_CHUNK = 64


def find_label_errors(
    view: Any,
    pred_field: str = "predictions",
    gt_field: str = "ground_truth",
    *,
    progress: ProgressFn | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> LabelErrorReport:
    """Rank labels that are missing, spurious, of the wrong class, merged, split or sloppily drawn, each with a score from 0 to 1.

    pred_field: predictions with masks and confidences of a model that was NOT trained on these samples (`predict_out_of_fold` makes them): a model
    repeats what it was taught, errors included. Let it keep objects of low confidence, as fy.predict(..., conf=0.05).
    settings: see `LabelErrorSettings`: kinds, min_score, limit, conf, maskless, save_views, write. Nothing is changed unless `save_views` or `write` say so;
    then views named "yoloseg label errors: ..." and the attributes label_error and label_error_score of an earlier search are replaced.
    Raises DataError if a field cannot be used: missing, of another type, labels without masks (maskless="error"), predictions without confidence, or no
    sample that can be read; Stopped if stopped, before anything is written.
    """
    wanted = parse(LabelErrorSettings, settings)
    check_view(view)
    paths = [label_path(view, name) for name in (gt_field, pred_field)]
    if gt_field == pred_field:
        raise DataError(f"pred_field and gt_field are both '{gt_field}': labels cannot be judged by themselves")
    if wanted.maskless == "error":
        check_masks(view, gt_field)
    labels = {x for path in paths for x in view.distinct(f"{path}.label") if x is not None}
    names = sorted(labels)
    search = _Search(names, wanted, gt_field, pred_field)
    total = len(view)
    for done, (pair, size) in enumerate(sized_pairs(view, *(object_attributes(path) for path in paths))):
        if should_stop and should_stop():
            raise Stopped(f"the search for label errors was stopped after {done} of {total} samples; nothing was written")
        if progress and done % _CHUNK == 0:
            progress(0.95 * done / total, f"{done} of {total} samples, {search.errors.labels} labels")
        search.add(pair, size)
    if not search.ids:
        raise DataError(f"no sample of this view can be read, the first: {search.skipped[0]}")
    report = search.report(view)
    report.notes += _trained_here(view, pred_field)
    if wanted.write:
        _write(view, report, paths)
    if wanted.save_views:
        report.views = _save_views(view, report)
    if progress:
        progress(1.0, report.summary())
    return report


@dataclass(frozen=True, slots=True)
class _Ids:
    """Which labels and predictions the numbers of one image mean: 12 bytes an id, 4 a class."""

    sample: str
    labels: bytes
    label_classes: array[int]
    predictions: bytes
    prediction_classes: array[int]


class _Search:
    """What is kept of a view while its samples pass by."""

    def __init__(self, names: Sequence[str], wanted: LabelErrorSettings, gt_field: str, pred_field: str) -> None:
        self.names, self.wanted, self.gt_field, self.pred_field = names, wanted, gt_field, pred_field
        index = {name: i for i, name in enumerate(names)}
        self.truth, self.predicted = Reader(index, "skip" if wanted.maskless == "error" else wanted.maskless), Reader(index, "skip")
        self.errors = LabelErrors(wanted.conf, wanted.min_score)
        self.ids: list[_Ids] = []
        self.skipped: list[Problem] = []
        self.dropped: list[Problem] = []

    def add(self, pair: RawPair, size: Size | UserError) -> None:
        truth, predicted = (RawSample(str(pair.id), pair.path, labels) for labels in (pair.truth, pair.found))
        if isinstance(size, UserError):
            self.skipped.append(Problem(truth.id, truth.path, str(size)))
            return
        objects, dropped = self.truth.read(truth, size)
        found, more = self.predicted.read(predicted, size)
        if (unsure := next((x for x in found if x.confidence is None), None)) is not None:
            raise DataError(
                f"field '{self.pred_field}', sample {predicted.id} ({Path(predicted.path).name}): the prediction {unsure.id} has no confidence. "
                "Label errors are judged by confident predictions: write them with fy.predict, or with their confidences"
            )
        self.dropped += [*dropped, *more]
        found.sort(key=lambda x: -(x.confidence or 0.0))
        self.errors.add(ImageRecord(Path(truth.path), *size, tuple(x.record() for x in objects), truth.id), as_instances(found, size))
        self.ids.append(_Ids(truth.id, *_packed(objects), *_packed(found)))

    def report(self, view: Any) -> LabelErrorReport:
        wanted = self.wanted
        kinds = [kind for kind in KINDS if wanted.kinds is None or kind in wanted.kinds]
        suspects = [s for s in self.errors.suspects() if s.kind in kinds]
        counts = Counter(s.kind for s in suspects)
        kept: list[Suspect] = []
        shown = Counter[LabelErrorKind]()
        for suspect in suspects:
            shown[suspect.kind] += 1
            if shown[suspect.kind] <= wanted.limit:
                kept.append(suspect)
        samples = list(dict.fromkeys(self.ids[s.image].sample for s in kept))
        paths = dict(zip(*view._dataset.select(samples).values(["id", "filepath"]), strict=True)) if samples else {}
        return LabelErrorReport(
            self.pred_field, self.gt_field, len(self.ids), self.errors.labels, self.errors.predictions,
            [self._case(s, paths) for s in kept], {kind: counts[kind] for kind in kinds}, self.skipped, self.dropped,
        )  # fmt: skip

    def _case(self, suspect: Suspect, paths: dict[str, str]) -> LabelErrorCase:
        ids = self.ids[suspect.image]
        names = (
            tuple(self.names[ids.label_classes[i]] for i in suspect.labels),
            tuple(self.names[ids.prediction_classes[i]] for i in suspect.predictions),
        )
        label_ids = tuple(_unpacked(ids.labels, i) for i in suspect.labels)
        prediction_ids = tuple(_unpacked(ids.predictions, i) for i in suspect.predictions)
        return LabelErrorCase(
            suspect.kind, suspect.score, ids.sample, paths.get(ids.sample, ""), label_ids, prediction_ids, *names, suspect.iou
        )


def _packed(objects: Sequence[ReadObject]) -> tuple[bytes, array[int]]:
    return b"".join(bytes.fromhex(x.id) for x in objects), array("i", (x.cls for x in objects))


def _unpacked(ids: bytes, i: int) -> str:
    return ids[12 * i : 12 * i + 12].hex()


def _trained_here(view: Any, pred_field: str) -> list[str]:
    """A warning if the model that wrote the predictions was trained on this dataset."""
    written = next((f for f in runs.recall(view, "predict") if f["about"] == pred_field), None)
    model = written and written.get("model")
    if model is None:
        return []
    for training in runs.recall(view, "train"):
        if model in (training.get("best"), training.get("last")):
            return [
                f"'{pred_field}' comes from the training '{training['about']}' on this dataset: on samples that it was trained on it repeats wrong labels. "
                "Search its validation samples only, or predict with fy.predict_out_of_fold"
            ]
    return []


def _write(view: Any, report: LabelErrorReport, paths: Sequence[str]) -> None:
    """Replace the attributes of an earlier search. A label with several cases gets the highest score."""
    clear_attributes(view, paths, (KIND, SCORE))
    found: list[dict[str, tuple[str, str, dict[str, Any]]]] = [{}, {}]
    for case in reversed(report.cases):
        missing = case.kind == "missing"
        for label in case.prediction_ids[:1] if missing else case.label_ids:
            found[missing][label] = case.sample_id, label, {KIND: case.kind, SCORE: case.score}
    report.written = sum(write_attributes(view, path, values.values()) for path, values in zip(paths, found, strict=True))
    view._dataset.reload()


def _save_views(view: Any, report: LabelErrorReport) -> dict[str, str]:
    """Replace the saved views of an earlier search. Returns kind -> name. The most suspicious samples come first, with the labels meant only."""
    dataset = view._dataset
    for name in dataset.list_saved_views():
        if name.startswith(PREFIX):
            dataset.delete_saved_view(name)
    saved: dict[str, str] = {}
    for kind in report.counts:
        cases = report.of(kind)
        if not cases:
            continue
        samples = list(dict.fromkeys(c.sample_id for c in cases))
        ids = [x for c in cases for x in (*c.label_ids, *c.prediction_ids)]
        part = view.select(samples, ordered=True).select_labels(ids=ids, fields=[report.gt_field, report.pred_field])
        saved[kind] = PREFIX + kind.replace("_", " ")
        more = f" (the first {len(cases)})" if report.counts[kind] > len(cases) else ""
        dataset.save_view(saved[kind], part, description=f"{report.counts[kind]} cases{more}, the most suspicious samples first")
    return saved
